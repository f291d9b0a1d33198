"""The kernels of cryptography."""

from __future__ import annotations

from support.refusals import Entry, entry

__all__ = ["TABLE"]

_IN_PROPORTION = "what it allocates is in proportion to its arguments"

TABLE: dict[str, Entry] = {
    "crypto.chacha20": entry(empty="data", beyond=_IN_PROPORTION),
}
