"""`make bench-resource`: what watching a node costs, how well it is foreseen, and what acting on it gives.

The rows are the parts' own, in modules beside this one: `rows_sampling`, `rows_foresight`, `rows_action`. A row without
a peer has a goal that bounds the figure itself, and the ratio that is shown is the figure. Rows of recorded or replayed
data are measured once, for they come out the same each time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import rows_action  # noqa: E402
import rows_foresight  # noqa: E402
import rows_sampling  # noqa: E402
from command import main  # noqa: E402
from harness import Row  # noqa: E402

__all__ = ["OUTPUT", "ROWS", "rows"]

OUTPUT = HERE.parents[2] / "build" / "bench" / "resource.json"


def rows(minutes: float) -> tuple[Row, ...]:
    """All rows; the live run that looks for false alarms lasts `minutes`."""
    return (*rows_sampling.ROWS, *rows_foresight.rows(minutes), *rows_action.ROWS)


ROWS: tuple[Row, ...] = rows(10.0)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--minutes", type=float, default=10.0)
    given, words = parser.parse_known_args()
    sys.exit(main(rows(given.minutes), OUTPUT, distributions=("numpy", "psutil"), words=words))
