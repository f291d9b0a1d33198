"""The page that documents the board's protocol says what the code does: every number, every name."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from swarm_agents.shm import layout

PAGE = Path(layout.__file__).with_name("PROTOCOL.md")
#: Constants by which a reader finds his way on a board: all of them have to be on the page.
FAMILIES = ("H_", "F_", "M_", "P_", "L_", "S_", "B_", "E_", "R_", "HIST_", "LEASE_")
#: Masks, and what stands for itself in a table's text.
APART = {"R_SHARED", "R_CHAIN_MASK"}


def rows() -> dict[str, int]:
    """The constants in the page's tables with the value beside them."""
    found: dict[str, int] = {}
    for name, value in re.findall(r"^\| `([A-Z_0-9]+)` \| (0x[0-9A-F]+|\d+) \|", PAGE.read_text(), re.MULTILINE):
        assert name not in found, f"{name} stands in two tables"
        found[name] = int(value, 0)
    return found


def test_every_number_on_the_page_is_the_codes() -> None:
    stated = rows()
    assert len(stated) > 100
    assert {name: getattr(layout, name, None) for name in stated} == stated


def test_every_word_of_a_board_is_on_the_page() -> None:
    known = {name for name, value in vars(layout).items() if isinstance(value, int) and name.startswith(FAMILIES)}
    missing = sorted(known - rows().keys() - APART)
    assert not missing, f"say in {PAGE.name} what these are, and who writes them: {', '.join(missing)}"


def test_every_function_that_the_page_names_is_there() -> None:
    named = set(re.findall(r"`([a-z_]+)\.([A-Za-z_]+)`", PAGE.read_text()))
    assert ("tasks", "submit") in named
    for module, name in sorted(named - {("swarm_agents", "resource")}):
        assert hasattr(importlib.import_module(f"swarm_agents.shm.{module}"), name), f"{module}.{name}"


def test_every_module_that_the_page_names_is_there() -> None:
    for name in re.findall(r"`([a-z_]+)` (?:argues|has the table|says what)", PAGE.read_text()):
        assert importlib.import_module(f"swarm_agents.shm.{name}").__doc__


def test_every_heading_that_is_linked_is_there() -> None:
    text = PAGE.read_text()
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.+)$", text, re.MULTILINE)}
    linked = re.findall(r"\]\(#([a-z-]+)\)", text)
    assert set(linked) == headings


@pytest.mark.parametrize(
    ("state", "attempts", "owner", "epoch", "gen"),
    [(layout.CLAIMED, 127, 0, 0, 0), (layout.READY, 0, 4095, 0, 0), (0, 0, 0, (1 << 20) - 1, 0), (0, 0, 0, 0, 1)],
)
def test_the_parts_of_a_state_word_lie_where_the_page_says(
    state: int, attempts: int, owner: int, epoch: int, gen: int
) -> None:
    stated = rows()
    assert layout.slot_word(state, attempts, owner, epoch, gen) == (
        state
        | attempts << stated["ATTEMPTS_AT"]
        | owner << stated["OWNER_AT"]
        | epoch << stated["EPOCH_AT"]
        | gen << stated["GEN_AT"]
    )
