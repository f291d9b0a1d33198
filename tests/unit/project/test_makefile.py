"""What `make test` runs: each test in one of its two halves."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_two_halves_of_make_test_hold_every_test_once() -> None:
    text = (ROOT / "Makefile").read_text()
    halves = [re.findall(rf"^{name} := (.*)$", text, re.MULTILINE)[0].split() for name in ("HALF", "OTHER_HALF")]
    folders = [*halves[0], *halves[1]]
    for file in (ROOT / "tests").rglob("test_*.py"):
        name = str(file.relative_to(ROOT))
        homes = [folder for folder in folders if name.startswith(f"{folder}/")]
        assert len(homes) == 1, f"{name} is run {len(homes)} times by make test"
