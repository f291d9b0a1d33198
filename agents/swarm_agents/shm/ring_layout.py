"""What lies where in a ring, and what each word says: the one place that knows.

A ring is a run of shared memory: a file of its own, or a part of one. Its geometry never changes after it was made.

    header (geometry) | head | tail | rarely written words | senders' states | senders' counters | slots

Positions count cells from the beginning of time; the ring has a power of two of them, so position `p` lies in cell
`p % cells`, in lap `p // cells`. The first position is `cells`: lap 0 never was, and all words begin as DATA of lap 0.
A *unit* is what one position holds: a message, or cells to step over. In a ring of fixed slots every unit is one cell;
in a ring of variable frames it is as many as it needs, in one piece, and never wraps.

Word of a cell (64 bits; only the first cell of a unit has one that counts)
    bits  0-2   kind
    DATA        bits 3-62 lap. A committed message; the next word says its bytes (bits 0-39) and cells (bits 40-55).
    SKIP        bits 3-18 cells, bits 19-62 lap. Nothing: the end of the ring, or a reservation of one who died.
    QUARANTINE  the same. Nothing, and somebody who was fenced may still write here: not to be used while he lives.
    RESERVED    bits 3-18 cells, 19-26 sender, 27-38 his epoch, 39-62 lap (low bits). Being written; many senders only.
  A word whose lap is not the position's is left over from an earlier lap: the position is free.

Head word        bits 0-51 position, bits 52-62 epoch of the receiver. Only the receiver moves it, by CAS.
Tail word        position. A hint for many senders: never too large, helped forward by whoever finds it behind.
State of a sender  bits 0-2 FREE, ALIVE, FENCED (his process may run), SETTLED (fenced, and his cell is quarantined);
                 bits 3-14 epoch. That a process lives is said by the kernel's lock on its byte of the file.

Words (each with its length word) and payloads are apart. Variable frames need it: a word in the middle of a frame of an
earlier lap would be the payload's bytes, and a payload can look like a word. And it is quicker: the receiver keeps
looking at the next word's line, which would take it away from a sender who writes payload to it; and four words share
a line, so that a stream of messages moves a quarter of a line more than its payload.
"""

from __future__ import annotations

import platform

from swarm_agents.shm.jit import jit

RING_MAGIC = 0x474E_4952_5354_4741  # "AGTSRING"
RING_VERSION = 1

# --- header: words by index, written once ---------------------------------------------------------------------------
(G_MAGIC, G_VERSION, G_SIZE, G_MANY, G_VARIABLE, G_CELLS, G_SHIFT, G_MOST, G_SENDERS, G_WORDS_AT,
 G_DATA_AT, G_DATA_STRIDE, G_SPIN_NS, G_STALL_NS, G_SLOT_BYTES, G_LIFE) = range(16)  # fmt: skip

# --- bytes from the ring's beginning; what one side writes often is 128 apart: cores fetch lines in pairs ----------
HEAD_AT = 256
RECEIVED_AT, RX_PARKS_AT, SKIPPED_AT, RX_BYTES_AT = HEAD_AT + 8, HEAD_AT + 16, HEAD_AT + 24, HEAD_AT + 32
TAIL_AT = 384
RX_PARKED_AT = 512  # futex: 1 while the receiver sleeps
TX_WANT_AT = 520  # futex: 0, or the position of the head at which senders want to be woken
QUARANTINES_AT = 528  # not 0: there may be cells in quarantine, look at each word
STATES_AT = 640
COUNTER_STRIDE = 128
C_SENT, C_FULL, C_PARKS, C_BYTES = 0, 8, 16, 24  # of a sender

# --- words ----------------------------------------------------------------------------------------------------------
K_DATA, K_SKIP, K_QUARANTINE, K_RESERVED = 1, 2, 3, 4
COUNT_MASK = (1 << 16) - 1
LENGTH_MASK = (1 << 40) - 1
RESERVED_LAP_MASK = (1 << 24) - 1
EPOCH_BITS_MASK = (1 << 12) - 1
NUMBER_MASK = 255
POS_MASK = (1 << 52) - 1
HEAD_EPOCH_MASK = (1 << 11) - 1
S_FREE, S_ALIVE, S_FENCED, S_SETTLED = 0, 1, 2, 3
WORD_STRIDE = 16  # bytes from a cell's word to the next one's
LENGTH_AT = 8  # from a cell's word: its length word

# --- a handle's private words, whose address is all that a call passes ----------------------------------------------
(A_BASE, A_STOP, A_MANY, A_VARIABLE, A_CELLS, A_SHIFT, A_MOST, A_WORDS, A_DATA, A_DATA_STRIDE, A_POS,
 A_HEAD, A_MINE, A_STATE, A_OWNER, A_COUNTERS, A_SPIN, A_SHADOW, A_POLICY, A_BYTES, A_BYTEARRAY, A_OUT, A_ROOM, A_OPEN,
 A_UNIT, A_WORD, A_OLD, A_LENGTH, A_OUT_BYTES, A_NONE, A_TRUE, A_SLOW, A_SLOW_TRY, A_SLOW_INTO,
 A_SCRATCH) = (8 * index for index in range(35))  # fmt: skip
HAND_WORDS = 48

# --- what compiled functions answer below 0 -------------------------------------------------------------------------
EMPTY, FULL, FENCED, TOO_LONG, STUCK, ASK, OTHER, CLOSED, CORRUPT = -1, -2, -3, -4, -5, -6, -7, -8, -9
STEP_OVER, LIFT = 1, 2  # a handle's policy for the next cell in quarantine; 0 is to ask

#: Whether a CAS orders what comes after it, too, as it does on x86-64: then no fence is needed before a look at a flag.
CAS_IS_FENCE = platform.machine() == "x86_64"


@jit
def data_word(lap: int) -> int:
    return lap << 3 | K_DATA


@jit
def step_word(kind: int, cells: int, lap: int) -> int:
    """A word of SKIP or QUARANTINE."""
    return kind | cells << 3 | lap << 19


@jit
def reserved_word(cells: int, owner: int, lap: int) -> int:
    """A word of RESERVED; `owner` is sender | epoch << 8."""
    return K_RESERVED | cells << 3 | owner << 19 | (lap & RESERVED_LAP_MASK) << 39


@jit
def is_of_lap(word: int, lap: int) -> bool:
    """Whether a cell's word says what its position in this lap holds."""
    kind = word & 7
    if kind == K_DATA:
        return word >> 3 == lap
    if kind == K_RESERVED:
        return word >> 39 == lap & RESERVED_LAP_MASK
    return word >> 19 == lap
