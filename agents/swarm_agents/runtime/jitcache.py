"""Where compiled kernels are kept, so that an agent with a warm cache compiles nothing.

A cache is good for one CPU target (LLVM's name of the CPU and its features), one Numba and one Python, so each has a
directory of its own below the root, and an image that is built here may be run there: what does not fit is simply
another directory. An image brings a warm cache as a read-only seed; an agent takes what fits into its own, writable
home (numba#4032: a cache that can't be written is silently no cache).

What CPU an image will run on is not known when it is built, so it brings caches for the architecture's *levels* (x86-64
psABI: v2, v3 with AVX2 and FMA, v4 with AVX-512), and an agent whose own CPU has none compiles for the highest level
that its CPU can run and that the seed has: it gives up tuning for its CPU's model, and starts without compiling.

Invariants: `NUMBA_CACHE_DIR` is set before Numba is imported; files appear whole, so many agents may seed one directory
at once; a seed is never written to. Only llvmlite is imported to name the target, and Numba only to warm.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib
import os
import platform
import re
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

__all__ = [
    "CacheDescription",
    "cache_directory",
    "clear",
    "default_root",
    "describe",
    "fit",
    "levels",
    "seed",
    "settle",
    "target",
    "use",
    "warm",
]

_V2 = frozenset({"cx16", "popcnt", "sse3", "sse4.1", "sse4.2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
#: By machine: LLVM's names of its levels, from the highest on, and what a CPU must have for each (in LLVM's names).
_LEVELS = {
    "x86_64": (("x86-64-v4", _V4), ("x86-64-v3", _V3), ("x86-64-v2", _V2)),
    "aarch64": (("generic", frozenset()),),
}

#: What `target` makes.
_NAME = re.compile(r".+-[0-9a-f]{10}")
#: A compiled function of the board: its name, the Python, and the digest of the sources that it was made of.
_STAMPED = re.compile(r".+\.\w+\.([0-9a-f]{12})(\.[0-9]+\.nbc|\.nbi)")


@dataclass(frozen=True, slots=True)
class CacheDescription:
    """What lies in a cache. Sizes in bytes."""

    directory: Path
    target: str
    #: Compiled functions, each for one signature.
    entries: int
    size: int
    #: Directories of the same root that belong to other targets or versions.
    others: tuple[str, ...]


def default_root() -> Path:
    """The user's own cache, which seeds the agents of an embedded cluster."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "agentswarm" / "jit"


def target(level: str = "") -> str:
    """The CPU target's name, with a hash of what else compiled code depends on; fit for a file name.

    `level`: that one instead of what Numba would compile for in this process.
    """
    from llvmlite import binding

    features: str | None = "" if level else os.environ.get("NUMBA_CPU_FEATURES")
    if features is None:
        features = binding.get_host_cpu_features().flatten()
    name = level or os.environ.get("NUMBA_CPU_NAME") or binding.get_host_cpu_name()
    parts = (features, version("numba"), version("llvmlite"), sys.implementation.cache_tag, platform.machine())
    digest = hashlib.blake2b("\0".join(map(str, parts)).encode(), digest_size=5).hexdigest()
    return f"{name}-{digest}"


def cache_directory(root: Path) -> Path:
    """The directory below `root` for this machine's CPU and the installed Numba."""
    return root / target()


def levels() -> list[str]:
    """The levels that this machine's CPU can run, from the highest on."""
    from llvmlite import binding

    have = {name for name, there in binding.get_host_cpu_features().items() if there}
    return [name for name, needs in _LEVELS.get(platform.machine(), ()) if needs <= have]


def fit(source: Path | None) -> str:
    """Has Numba compile for a level, if a seed has that one and not this very CPU; returns its name, or "".

    To be called before `use`. What the environment says of the CPU already is left as it is.
    """
    if source is None or "NUMBA_CPU_NAME" in os.environ or (source / target()).is_dir():
        return ""
    for level in levels():
        if (source / target(level)).is_dir():
            os.environ |= {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}
            return level
    return ""


def use(root: Path) -> Path:
    """Makes Numba keep its cache below `root` from now on; returns the directory.

    To be called before Numba is imported.

    Raises:
        OSError: the directory can't be made or written.
    """
    directory = cache_directory(root)
    directory.mkdir(parents=True, exist_ok=True)
    if not os.access(directory, os.W_OK | os.X_OK):
        raise PermissionError(f"the JIT cache's home {directory} can't be written")
    os.environ["NUMBA_CACHE_DIR"] = str(directory)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(directory)
    return directory


def settle() -> None:
    """Gives a process that is no agent a cache, where the image brings a seed: to be called before Numba is imported.

    A container whose root can't be written has no place for one, and its user may have no home: then it is a temporary
    directory, which goes with the process.
    """
    source = os.environ.get("SWARM_CACHE_SEED")
    if source is None or "NUMBA_CACHE_DIR" in os.environ or "numba" in sys.modules:
        return
    fit(Path(source))
    try:
        root = default_root()
        use(root)
    except (OSError, RuntimeError):  # RuntimeError: nobody's home
        try:
            root = Path(tempfile.mkdtemp(prefix="swarm-jit-"))
        except OSError:  # then it compiles
            return
        atexit.register(shutil.rmtree, root, ignore_errors=True)
        use(root)
    seed(root, Path(source))


def seed(root: Path, source: Path | None) -> int:
    """Takes what fits this machine from the cache root `source`, which is only read; returns how many files are new.

    A seed that is missing, unreadable or for another CPU is no error: the kernels are compiled instead. The board's
    functions of other sources, or of another installation that shares the root, are of no use here and are left.
    """
    if source is None:
        return 0
    name = target()
    origin, home = source / name, root / name
    try:
        found = [path.relative_to(origin) for path in sorted(origin.rglob("*")) if path.suffix in (".nbc", ".nbi")]
    except OSError:
        return 0
    ours = _board()
    names = [path for path in found if (digest := _digest_in(path)) is None or (path.parts[0], digest) == ours]
    # An index names its data files: they have to be there first.
    names.sort(key=lambda path: path.suffix)
    new = 0
    for relative in names:
        try:
            new += _copy(origin / relative, home / relative)
        except OSError:
            continue
    return new


def _board() -> tuple[str, str]:
    """The directory that Numba gives the board's functions below a cache, and the digest of their sources."""
    from swarm_agents.shm import digest

    home = os.path.dirname(os.path.abspath(digest.__file__))
    where = hashlib.sha1(home.encode(), usedforsecurity=False).hexdigest()
    return f"{os.path.basename(home)}_{where}", digest.PROTOCOL_DIGEST


def _digest_in(path: Path) -> str | None:
    """The digest in the name of a compiled function; None where the name has none."""
    match = _STAMPED.fullmatch(path.name)
    return match[1] if match else None


def _prune(directory: Path) -> None:
    """Removes what this installation compiled of sources that it no longer has: nothing would ever load it again."""
    where, digest = _board()
    for path in (directory / where).glob("*.nb[ci]"):
        if _digest_in(path) not in (None, digest):
            path.unlink(missing_ok=True)


def _copy(origin: Path, home: Path) -> bool:
    if home.exists():
        return False
    home.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(prefix=".seed-", dir=home.parent)
    try:
        with os.fdopen(handle, "wb") as to, origin.open("rb") as source:
            shutil.copyfileobj(source, to)
        # A link rather than a rename: an index that somebody has written meanwhile knows more than the seed's.
        with contextlib.suppress(FileExistsError):
            os.link(temporary, home)
            return True
        return False
    finally:
        os.unlink(temporary)


def warm(root: Path, modules: Sequence[str] = ()) -> CacheDescription:
    """Compiles every registered kernel and the board into the cache below `root`; what is there is only loaded.

    `modules` are imported first: they register their owner's kernels. What the board's former sources left is removed,
    so that a cache does not grow with every upgrade.
    """
    _prune(use(root))
    from swarm_agents.compute import registry
    from swarm_agents.runtime.warmup import use_a_board_once

    registry.load(modules)
    registry.warm()
    use_a_board_once()
    importlib.import_module("swarm_agents.resource.sensing.scan")  # compiled as it is imported
    return describe(root)


def describe(root: Path) -> CacheDescription:
    """What the cache below `root` holds for this machine."""
    name = target()
    directory = root / name
    files = list(directory.rglob("*.nbc")) if directory.is_dir() else []
    size = sum(path.stat().st_size for path in directory.rglob("*") if path.is_file()) if directory.is_dir() else 0
    others = sorted(p.name for p in root.iterdir() if p.is_dir() and p.name != name) if root.is_dir() else []
    return CacheDescription(directory, name, len(files), size, tuple(others))


def clear(root: Path, *, everything: bool = False) -> int:
    """Removes this machine's cache below `root`, or those of all targets; returns how many bytes that freed.

    What does not look like a cache that this module made is left alone.
    """
    freed = 0
    for directory in list(root.iterdir()) if everything and root.is_dir() else [cache_directory(root)]:
        if _NAME.fullmatch(directory.name) and directory.is_dir() and not directory.is_symlink():
            freed += sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())
            shutil.rmtree(directory)
    return freed


def main(root: str) -> None:
    """Warms a cache for each level that this machine can run, all at once: what an image is given as its seed."""
    import subprocess

    code = f"from pathlib import Path; from swarm_agents.runtime.jitcache import warm; print(warm(Path({root!r})))"
    compilers = [
        subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"NUMBA_CPU_NAME": level, "NUMBA_CPU_FEATURES": ""}
        )
        for level in levels()
    ]
    if failed := [compiler.args for compiler in compilers if compiler.wait()]:
        raise SystemExit(f"{len(failed)} of {len(compilers)} levels could not be compiled for")


if __name__ == "__main__":
    main(*sys.argv[1:])
