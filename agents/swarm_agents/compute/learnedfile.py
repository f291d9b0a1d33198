"""What a node's agents have learned of their kernels' costs, in one small file that they share.

    bytes 0-7    magic, with the layout's version
    bytes 8-11   CRC-32 of what follows, little-endian
    then         MessagePack: the hardware's digest, and the figures

Whoever writes it writes a new file beside it and renames that over it, so a reader sees one whole record or another.
Two agents that write at once may lose one's latest figures, never the file: the loser's next `share` brings them again,
because merging is idempotent. What can't be a record (torn, older, from other hardware, too large, absurd numbers)
reads as nothing, and is overwritten by the next write.
"""

from __future__ import annotations

import contextlib
import math
import os
import tempfile
import zlib
from pathlib import Path
from typing import Final

import msgspec

from swarm_agents.compute.learner import MEMORY, Figure, Learned, merged

__all__ = ["LARGEST", "read", "share"]

_MAGIC: Final = b"SWLEARN\x01"
#: Bytes that a record may take: one that is larger is none.
LARGEST: Final = 4 << 20
#: Natural logarithms of seconds per unit of work beyond this are no measurement.
_MOST_COST: Final = 100.0
_FARTHEST_CLASS: Final = 1100


class _Row(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    kernel: str
    size: int
    arm: str
    cost: float
    spread: float
    count: int


class _Record(msgspec.Struct, array_like=True, forbid_unknown_fields=True):
    hardware: str
    rows: list[_Row]


def read(path: Path, hardware: str) -> Learned:
    """The figures in the file; none where there is no record of this hardware."""
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST + 1)
    except OSError:
        return {}
    body = data[12:]
    if len(data) > LARGEST or data[:8] != _MAGIC or int.from_bytes(data[8:12], "little") != zlib.crc32(body):
        return {}
    try:
        record = msgspec.msgpack.decode(body, type=_Record)
    except (
        msgspec.DecodeError,
        RecursionError,
        ValueError,
    ):  # ValidationError is a DecodeError; bad UTF-8 a ValueError
        return {}
    if record.hardware != hardware or not all(map(_sound, record.rows)):
        return {}
    return {(row.kernel, row.size, row.arm): Figure(row.cost, row.spread, row.count) for row in record.rows}


def share(path: Path, hardware: str, learned: Learned) -> Learned:
    """Merges the figures with the file's, writes both there, and returns them.

    Raises:
        OSError: the directory can't be written; the file is as it was.
    """
    both = merged(read(path, hardware), learned)
    rows = [_Row(*key, *figure) for key, figure in sorted(both.items())]
    body = msgspec.msgpack.encode(_Record(hardware, [row for row in rows if _sound(row)]))
    data = _MAGIC + zlib.crc32(body).to_bytes(4, "little") + body
    if len(data) > LARGEST:
        return both
    handle, beside = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(beside)
        raise
    return both


def _sound(row: _Row) -> bool:
    """NaN fails every comparison."""
    return (
        abs(row.cost) <= _MOST_COST
        and 0.0 <= row.spread <= _MOST_COST
        and 1 <= row.count <= MEMORY
        and abs(row.size) <= _FARTHEST_CLASS
        and math.isfinite(row.cost)
    )
