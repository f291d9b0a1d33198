"""Where compiled kernels are kept."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from swarm_agents.runtime import jitcache
from swarm_agents.shm.digest import PROTOCOL_DIGEST


def make_cache(root: Path, *names: str) -> Path:
    directory = jitcache.cache_directory(root)
    for name in names:
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {name}")
    return directory


def test_a_cache_belongs_to_a_cpu_and_its_features(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    here = jitcache.cache_directory(tmp_path)
    assert here.parent == tmp_path
    assert here == jitcache.cache_directory(tmp_path)
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    other = jitcache.cache_directory(tmp_path)
    monkeypatch.setenv("NUMBA_CPU_FEATURES", "+sse2")
    assert len({here, other, jitcache.cache_directory(tmp_path)}) == 3


def test_naming_the_target_does_not_import_numba() -> None:
    program = (
        "import sys; from swarm_agents.runtime import jitcache; jitcache.target(); sys.exit('numba' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_a_seed_is_taken_over_and_what_is_newer_at_home_is_kept(tmp_path: Path) -> None:
    seed, home = tmp_path / "seed", tmp_path / "home"
    make_cache(seed, "pkg/f.nbi", "pkg/f.1.nbc", "pkg/notes.txt")
    here = make_cache(home, "pkg/f.nbi")
    (here / "pkg/f.nbi").write_text("mine")
    assert jitcache.seed(home, seed) == 1
    assert (here / "pkg/f.nbi").read_text() == "mine"
    assert (here / "pkg/f.1.nbc").read_text() == "content of pkg/f.1.nbc"
    assert sorted(path.name for path in here.rglob("*") if path.is_file()) == ["f.1.nbc", "f.nbi"]
    assert jitcache.seed(home, seed) == 0


def board_file(root: Path, digest: str, installation: str = "") -> Path:
    """A compiled function of the board, as Numba would name it."""
    from numba.core.caching import UserProvidedCacheLocator

    from swarm_agents.shm import jit

    where = UserProvidedCacheLocator.get_suitable_cache_subpath(installation or jit.__file__)
    name = f"{where}/hot.take-9.py311.{digest}.1.nbc"
    return make_cache(root, name) / name


def test_what_the_board_was_before_or_is_elsewhere_is_neither_taken_nor_kept(tmp_path: Path) -> None:
    seed, home = tmp_path / "seed", tmp_path / "home"
    now = board_file(seed, PROTOCOL_DIGEST)
    before = board_file(seed, "0123456789ab")
    elsewhere = board_file(seed, PROTOCOL_DIGEST, "/another/installation/swarm_agents/shm/jit.py")
    assert jitcache.seed(home, seed) == 1
    assert [path.name for path in home.rglob("*.nbc")] == [now.name]
    jitcache._prune(now.parents[1])
    assert (now.exists(), before.exists(), elsewhere.exists()) == (True, False, True)


@pytest.mark.parametrize("seed", [None, Path("/nonexistent/seed")])
def test_without_a_seed_the_kernels_are_simply_compiled(tmp_path: Path, seed: Path | None) -> None:
    assert jitcache.seed(tmp_path, seed) == 0


def test_a_seed_for_another_cpu_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_cache(tmp_path / "seed", "f.nbc")
    monkeypatch.setenv("NUMBA_CPU_NAME", "generic")
    assert jitcache.seed(tmp_path / "home", tmp_path / "seed") == 0


def test_many_agents_may_seed_one_directory_at_once(tmp_path: Path) -> None:
    seed, home = tmp_path / "seed", tmp_path / "home"
    names = [f"p{n % 5}/f{n}.nbc" for n in range(60)]
    make_cache(seed, *names)
    program = (
        "import sys, pathlib; from swarm_agents.runtime import jitcache as j;"
        "print(j.seed(*map(pathlib.Path, sys.argv[1:])))"
    )
    command = [sys.executable, "-c", program, str(home), str(seed)]
    agents = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    new = [int(agent.communicate()[0]) for agent in agents]
    assert sum(new) == len(names), "each file was put in place once"
    here = jitcache.cache_directory(home)
    assert {str(p.relative_to(here)): p.read_text() for p in here.rglob("*") if p.is_file()} == {
        name: f"content of {name}" for name in names
    }


def test_using_a_cache_tells_numba_and_makes_the_directory(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from swarm_agents.runtime import jitcache as j; d = j.use(pathlib.Path(sys.argv[1]));"
        "import numba; assert numba.config.CACHE_DIR == str(d) and d.is_dir()"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)


def test_a_home_that_can_not_be_made_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OSError, match="file"):
        jitcache.use(tmp_path / "file" / "cache")


def test_a_description_counts_functions_and_names_other_targets(tmp_path: Path) -> None:
    here = make_cache(tmp_path, "a.nbi", "a.1.nbc", "a.2.nbc")
    (tmp_path / "skylake-0123456789").mkdir()
    found = jitcache.describe(tmp_path)
    assert (found.directory, found.entries, found.others) == (here, 2, ("skylake-0123456789",))
    assert found.size == sum(path.stat().st_size for path in here.iterdir())


def test_clearing_frees_this_targets_cache_or_all_and_never_what_is_no_cache(tmp_path: Path) -> None:
    here = make_cache(tmp_path, "a.nbc")
    other = tmp_path / "skylake-0123456789"
    precious = tmp_path / "thesis"
    for directory in (other, precious):
        directory.mkdir()
        (directory / "f").write_text("12345")
    assert jitcache.clear(tmp_path) == len("content of a.nbc")
    assert not here.exists()
    assert other.exists()
    assert jitcache.clear(tmp_path, everything=True) == 5
    assert not other.exists()
    assert precious.exists()
    assert jitcache.clear(tmp_path / "nothing here") == 0


def test_a_seed_of_a_level_is_used_where_there_is_none_of_this_very_cpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES"):
        monkeypatch.delenv(name, raising=False)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("NUMBA_")}
    monkeypatch.setattr(os, "environ", environment)
    assert jitcache.fit(None) == ""
    assert jitcache.fit(tmp_path) == ""
    *_, lowest = jitcache.levels()
    (tmp_path / jitcache.target(lowest)).mkdir()
    highest = jitcache.levels()[0]
    assert jitcache.fit(tmp_path) == lowest
    assert (environment.pop("NUMBA_CPU_NAME"), environment.pop("NUMBA_CPU_FEATURES")) == (lowest, "")
    (tmp_path / jitcache.target(highest)).mkdir(exist_ok=True)
    assert jitcache.fit(tmp_path) == highest
    assert jitcache.target() == jitcache.target(highest), "that is what Numba is going to compile for"
    assert jitcache.fit(tmp_path) == "", "what the environment says stays"
    del environment["NUMBA_CPU_NAME"], environment["NUMBA_CPU_FEATURES"]
    (tmp_path / jitcache.target()).mkdir()
    assert jitcache.fit(tmp_path) == "", "one of this very CPU is better than any level"


def test_the_supervisor_imports_neither_numpy_nor_numba_before_it_has_set_what_they_read() -> None:
    program = (
        "import sys; from swarm_agents.runtime import http, jitcache, main; jitcache.target(); "
        "print(*sorted({'numba', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
