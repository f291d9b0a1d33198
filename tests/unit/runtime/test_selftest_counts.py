"""What `swarm-agent selftest` counts as compiled here."""

from __future__ import annotations

from pathlib import Path

import pytest

from swarm_agents.runtime.selftest import _compiled


def test_what_a_seed_brought_is_not_counted_as_compiled_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache, seed = tmp_path / "cache" / "x86-64-v3-0123456789", tmp_path / "seed" / "x86-64-v3-0123456789"
    for directory, names in ((cache, ("f.nbi", "f.1.nbc", "g.1.nbc")), (seed, ("f.nbi", "f.1.nbc"))):
        directory.mkdir(parents=True)
        for name in names:
            (directory / name).touch()
    monkeypatch.setenv("SWARM_CACHE_SEED", str(seed.parent))
    assert _compiled(cache.parent) == (2, 1)
    monkeypatch.setenv("SWARM_CACHE_SEED", str(tmp_path / "nothing"))
    assert _compiled(cache.parent) == (2, 2)
    monkeypatch.delenv("SWARM_CACHE_SEED")
    assert _compiled(cache.parent) == (2, 2)
