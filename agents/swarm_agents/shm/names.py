"""A kernel's number on the board: a hash of its name, so that a slot can be told apart without reading its payload."""

from __future__ import annotations

import functools
import hashlib

__all__ = ["kernel_id"]


@functools.lru_cache(maxsize=4096)
def kernel_id(name: str) -> int:
    """64 bits of BLAKE2b of the name, as a signed number."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little", signed=True)
