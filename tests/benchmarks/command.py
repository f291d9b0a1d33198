"""What every `make bench-…` does: measure the rows, tell how it goes on, print the table, write the JSON.

The exit status is 0 when everything that can be measured here was, also when a goal is missed: the table says so.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import harness
from report import amount, machine, table, versions

__all__ = ["main"]


def main(
    rows: Sequence[harness.Row],
    output: Path,
    *,
    distributions: Sequence[str] = (),
    words: Sequence[str] | None = None,
) -> int:
    """Runs a bench by its command line.

    Args:
        rows: all that there are.
        output: where the JSON goes; the table goes beside it.
        distributions: whose versions the table names.
        words: the command line; None: this process's.
    """
    parser = argparse.ArgumentParser(description="Measures side by side and prints a table.")
    parser.add_argument("--rows", default="", help="names of rows, separated by commas; all if there are none")
    parser.add_argument("--rounds", type=int, default=5, help="how often everything is measured (default: 5)")
    parser.add_argument("--output", type=Path, default=output, help=f"the JSON file (default: {output})")
    parser.add_argument("--wrap", default="", help="a command that starts each measurement, such as 'chrt -f 1'")
    given = parser.parse_args(words)
    if given.rounds < 1:
        parser.error("at least one round is needed")
    try:
        chosen = harness.choose(rows, given.rows)
    except ValueError as error:
        parser.error(str(error))
    began = time.monotonic()
    facts = machine()
    units = {side.taking: row for row in chosen for side in (row.ours, row.peer) if side}

    def told(number: int, measure: harness.Measure, outcome: harness.Outcome) -> None:
        row = units[measure.taking]
        if outcome.missing:
            said = f"not available: {outcome.missing}"
        elif outcome.error:
            said = f"failed: {outcome.error.splitlines()[-1]}"
        elif isinstance(outcome.value, dict):
            said = ", ".join(f"{name} {value:.4g}" for name, value in outcome.value.items())
        else:
            said = amount(outcome.value * row.scale, row.unit)
        past = time.monotonic() - began
        print(f"{past:6.1f} s  round {number}  {measure.file.stem}.{measure.function}: {said}", file=sys.stderr)

    results = harness.run(chosen, given.rounds, lambda measure: harness.launch(measure, given.wrap), told)
    facts |= {"peers": ", ".join(" ".join(pair) for pair in versions(distributions).items())}
    text = table(results, facts)
    print(text)
    harness.write_json(given.output, results, {"machine": ", ".join(f"{k} {v}" for k, v in facts.items())})
    given.output.with_suffix(".txt").write_text(text + "\n")
    return 1 if any(result.errors for result in results) else 0
