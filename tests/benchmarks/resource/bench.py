"""`make bench-resource`: what watching a node costs, how well it is foreseen, and what acting on it gives.

The rows are the parts' own, in modules beside this one: `rows_sampling`, `rows_foresight`, `rows_action`. A row without
a peer has a goal that bounds the figure itself, and the ratio that is shown is the figure.
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE)]

import rows_action  # noqa: E402
import rows_foresight  # noqa: E402
import rows_sampling  # noqa: E402
from command import main  # noqa: E402
from harness import Row  # noqa: E402

__all__ = ["OUTPUT", "ROWS"]

OUTPUT = HERE.parents[2] / "build" / "bench" / "resource.json"
ROWS: tuple[Row, ...] = (*rows_sampling.ROWS, *rows_foresight.ROWS, *rows_action.ROWS)

if __name__ == "__main__":
    sys.exit(main(ROWS, OUTPUT, distributions=("numpy", "psutil")))
