"""The geometry of a ring: what may be asked for, and how many bytes it takes. What lies where says `ring_layout`."""

from __future__ import annotations

from dataclasses import dataclass

from swarm_agents.shm.ring_layout import (
    COUNT_MASK,
    COUNTER_STRIDE,
    G_CELLS,
    G_DATA_AT,
    G_DATA_STRIDE,
    G_LIFE,
    G_MAGIC,
    G_MANY,
    G_MOST,
    G_SENDERS,
    G_SHIFT,
    G_SIZE,
    G_SLOT_BYTES,
    G_SPIN_NS,
    G_STALL_NS,
    G_VARIABLE,
    G_VERSION,
    G_WORDS_AT,
    RING_MAGIC,
    RING_VERSION,
    STATES_AT,
    WORD_STRIDE,
)

__all__ = ["RingShape", "counters_at", "plan_ring"]

MOST_SENDERS = 200
_LINE = 64


@dataclass(frozen=True, slots=True)
class RingShape:
    """The geometry of a ring.

    `cells` slots (a power of two), each for a message of up to `slot_bytes`; with `variable`, cells of `slot_bytes` (a
    power of two, 64 at least), of which a message takes as many as it needs.
    """

    cells: int
    slot_bytes: int
    many: bool = False
    variable: bool = False
    senders: int = 8
    spin_ns: int = 20_000
    stall_ns: int = 1_000_000_000

    def __post_init__(self) -> None:
        if self.cells < 4 or self.cells & (self.cells - 1) or self.cells > 1 << 24:
            raise ValueError(f"a ring has a power of two of slots, 4 to {1 << 24}; not {self.cells}")
        if not 1 <= self.slot_bytes <= 1 << 30:
            raise ValueError(f"a slot has 1 to {1 << 30} bytes, not {self.slot_bytes}")
        if self.variable and (self.slot_bytes < _LINE or self.slot_bytes & (self.slot_bytes - 1)):
            raise ValueError(f"cells of variable frames have a power of two of bytes from 64 up, not {self.slot_bytes}")
        if not 1 <= self.senders <= MOST_SENDERS:
            raise ValueError(f"a ring has 1 to {MOST_SENDERS} senders, not {self.senders}")
        if self.spin_ns < 0 or self.stall_ns < 0:
            raise ValueError("spin_ns and stall_ns are not negative")

    @property
    def most_bytes(self) -> int:
        """The longest message: a slot, or a quarter of the ring, so that one always fits in when it is empty."""
        if self.variable:
            return min(self.cells // 4, COUNT_MASK) * self.slot_bytes
        return self.slot_bytes


def _up(value: int, to: int) -> int:
    return -(-value // to) * to


def counters_at(senders: int) -> int:
    """Where the first sender's counters are, in bytes from the ring's beginning."""
    return _up(STATES_AT + 8 * senders, COUNTER_STRIDE)


def plan_ring(shape: RingShape) -> dict[int, int]:
    """The header's words of a ring of this shape, by index; `G_SIZE` is the bytes it takes."""
    at = counters_at(shape.senders) + COUNTER_STRIDE * shape.senders
    data_at = _up(at + WORD_STRIDE * shape.cells, 128)
    stride = _up(shape.slot_bytes, _LINE) if shape.slot_bytes > _LINE else 1 << (shape.slot_bytes - 1).bit_length()
    data_stride = max(stride, 8)
    size = _up(data_at + data_stride * shape.cells, 4096)
    return {
        G_MAGIC: RING_MAGIC, G_VERSION: RING_VERSION, G_SIZE: size, G_MANY: int(shape.many),
        G_VARIABLE: int(shape.variable), G_CELLS: shape.cells, G_SHIFT: shape.cells.bit_length() - 1,
        G_MOST: shape.most_bytes, G_SENDERS: shape.senders, G_WORDS_AT: at,
        G_DATA_AT: data_at, G_DATA_STRIDE: data_stride, G_SPIN_NS: shape.spin_ns, G_STALL_NS: shape.stall_ns,
        G_SLOT_BYTES: shape.slot_bytes, G_LIFE: 0,
    }  # fmt: skip
