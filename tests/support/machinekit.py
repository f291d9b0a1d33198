"""Recorded machines: the trees of /proc and /sys of several kinds of machine, unpacked for sensors to read."""

from __future__ import annotations

from pathlib import Path

__all__ = ["MACHINES", "machine"]

MACHINES = Path(__file__).parent / "machines"


def machine(root: Path, kind: str) -> Path:
    """Unpacks a recorded machine: `server` (cgroup v2), `vm` (v1) or `arm` (hybrid)."""
    for section in ("\n" + (MACHINES / f"{kind}.txt").read_text()).split("\n== ")[1:]:
        name, _, text = section.partition("\n")
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.rstrip("\n") + "\n")
    return root
