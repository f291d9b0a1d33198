"""The simulator's command; `make sim` calls it.

python -m simulation --seeds 100000          many seeds on all cores
python -m simulation --seed 4711             one, with its trace
python -m simulation --mutants               how many seeds it takes to find each planted fault
"""

from __future__ import annotations

import argparse
import os
import sys

from simulation.mutants import MUTANTS
from simulation.runner import find, replay, run_many


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m simulation", description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=1000, help="how many (default 1000)")
    parser.add_argument("--first", type=int, default=0, help="the first one (default 0)")
    parser.add_argument("--seed", type=int, help="only this one, and show what happens in it")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", metavar="NAME", help="plant this fault")
    parser.add_argument("--mutants", action="store_true", help="plant each fault, and say when it is found")
    parser.add_argument("--only", default="", help="with --mutants: these, by commas")
    parser.add_argument("--processes", type=int, default=0, help="default: one a core")
    asked = parser.parse_args()
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"  # the order of sets of strings is part of a seed's run
        os.execv(sys.executable, [sys.executable, "-m", "simulation", *sys.argv[1:]])
    if asked.seed is not None:
        return _show(asked.seed, asked.mutant)
    if asked.mutants:
        return _mutants(asked.seeds, asked.processes, [name for name in asked.only.split(",") if name])
    return _many(asked.first, asked.seeds, asked.mutant, asked.processes)


def _show(seed: int, mutant: str) -> int:
    outcome = replay(seed, mutant=mutant)
    print("\n".join(outcome.trace))
    print(f"seed {seed}: {outcome.broken or 'all promises were kept'}")
    return int(outcome.broken is not None)


def _command(seed: int, mutant: str) -> str:
    return f"make sim SEED={seed}" + (f" MUTANT={mutant}" if mutant else "")


def _mutants(most: int, processes: int, only: list[str]) -> int:
    missed = 0
    for name in only or MUTANTS:
        mutant = MUTANTS[name]
        found = find(name, most, processes=processes)
        if found is None:
            missed += 1
            print(f"{name:24} NOT found in {most} seeds: {mutant.fault}")
        else:
            print(f"{name:24} found by seed {found.seed}: {found.broken}")
        sys.stdout.flush()
    return int(missed > 0)


def _many(first: int, count: int, mutant: str, processes: int) -> int:
    def tell(total: object) -> bool:
        done = total.seeds  # type: ignore[attr-defined]
        if done % 5000 == 0 and sys.stderr.isatty():
            print(f"\r{done} of {count}", end="", file=sys.stderr)
        return False

    total = run_many(first, count, mutant=mutant, processes=processes, until=tell)
    print(
        f"{total.seeds} seeds in {total.seconds:.0f} s: {total.steps} steps, {total.cuts} calls cut short, "
        f"{total.counts.get('accepted', 0)} tasks accepted"
    )
    print("  " + ", ".join(f"{name} {number}" for name, number in sorted(total.counts.items())))
    for kind, seconds in sorted(total.detected.items()):
        seconds.sort()
        print(
            f"  {kind}: {len(seconds)} deaths declared after {seconds[len(seconds) // 2]:.3f} s (median), "
            f"{seconds[int(len(seconds) * 0.99)]:.3f} s (99 %), {seconds[-1]:.3f} s (longest)"
        )
    for outcome in total.failed[:20]:
        print(f"seed {outcome.seed} FAILED: {outcome.broken}\n  again: {_command(outcome.seed, mutant)}")
    return int(bool(total.failed))


if __name__ == "__main__":
    sys.exit(main())
