"""What lies where on a board, and what each word says: the one place that knows.

A board is one memory-mapped file. Its first page holds the geometry; everything else is found by the offsets in it.

    header | members | ports | lanes | slot states | slot ids | slots | histograms | tallies | tags of cells | of pages
           | leases | cells | pages

Truth and hints
- The truth about a task is its slot's *state word*; the truth about a block is its *tag*; who refers to a shared
  array, the *leases* say, each by its tag. They change only by CAS.
- The truth about a member is its member word, and the kernel's lock on its byte of the file (see `files`).
- Bitmaps, queues of slot numbers and counters of pages are hints. They may say too much at any time; they may say too
  little only until the next sweep, and only after somebody was killed. A hint is always checked against the truth.

State word of a slot (64 bits, signed)
    bits  0-2   state    FREE, WRITING, READY, CLAIMED, DONE
    bits  3-9   attempts how often the task has been begun
    bits 10-21  owner    member that writes (WRITING) or computes (CLAIMED)      } in DONE: the result's block,
    bits 22-41  epoch    of that member                                          } or NO_BLOCK + reason
    bits 42-63  gen      raised every time the slot becomes FREE

Tag of a block (a cell of 512 bytes, or a run of pages whose first page carries the tag)
    bits  0-2   kind     BLOCK_FREE, HELD, PUBLISHED, TAIL, SHARED
    HELD        bits 3-14 member, bits 15-34 its epoch
    PUBLISHED   bits 3-22 slot, bits 23-43 the slot's gen (low 21 bits): garbage as soon as that gen is over
    TAIL        bits 3-23 the run's first page, bits 24-43 the gen of that page's tag
    SHARED      bits 3-22 about how many leases name it (a hint), bits 23-43 raised with every new lease
    bits 44-63  gen      of this very cell or page, raised every time it becomes free

Lease: a reference to a shared array (see `leases`). Two words: a tag like a block's (FREE, HELD or PUBLISHED; its gen
is the lease's own), and what it names
    bits  0-23  block    the array's
    bits 24-43  gen      of that block's tag
    bits 44-63  next     0, or the number + 1 of the next lease of the same task or result (a hint)

Member word
    bits  0-2   state    EMPTY, ALIVE, FENCING (declared dead, its claims are being taken), FENCED (they are taken, its
                         process may still run), GONE
    bits  3-5   role
    bits  6-25  epoch    raised when it is FENCED, and when the place is taken again

Rejected: one file per part (a member could see half of them), results written into the slot (an agent that wakes up
after it was fenced would tear its successor's), 128-bit CAS (not everywhere), links between slots (not repairable by
reading the truth again, as bitmaps are).
"""

from __future__ import annotations

import msgspec

from swarm_agents.shm.jit import jit

LANES = 4
MAGIC = 0x4D52_4157_5354_4741  # "AGTSWARM"
VERSION = 5
WORD = 8
LINE = 64
PAGE = 4096

# --- header: words by index ---------------------------------------------------------------------------------------
H_MAGIC, H_VERSION, H_SIZE, H_UID_HASH = 0, 1, 2, 3
H_TASK_SLOTS, H_ARENA_BYTES, H_MAX_MEMBERS = 4, 5, 6
H_PORTS, H_LANE_SLOTS, H_READY_CAP, H_DONE_CAP = 7, 8, 9, 10
H_CELLS, H_PAGES, H_PAGE_BYTES = 11, 12, 13
H_MEMBERS_AT, H_PORTS_AT, H_PORT_STRIDE, H_LANES_AT, H_LANE_STRIDE = 14, 15, 16, 17, 18
H_STATES_AT, H_IDS_AT, H_SLOTS_AT, H_HIST_AT = 19, 20, 21, 22
H_CELL_TAGS_AT, H_PAGE_TAGS_AT, H_CELLS_AT, H_PAGES_AT = 23, 24, 25, 26
H_CREATED = 27
H_PORT_WORDS = 28  # words of a bitmap of ports
H_LANE_WORDS = 29  # words of a bitmap of a lane's slots
H_MEMBER_WORDS = 30  # words of a bitmap of members
H_LEASES, H_LEASES_AT = 31, 32
H_NONCE = 33  # which board this is: a descriptor of an array says it
H_TALLIES_AT = 34
# words that change, each on a line of its own
H_WORK = 64  # futex: raised when work was published and somebody is parked
H_MAX_ATTEMPTS = 72
H_RECLAIMED = 80  # how many arrays, leases and blocks sweeps have freed: three words
H_PAGES_USED = 88
H_FAILOVERS = 96  # how many failover records were begun
H_PARKED = 104  # bitmap of parked members: up to 64 words
H_OVERLOAD = 168  # which lanes are refused, and until when: see `shedding`
H_PACE = 176  # how much of their time agents work, and until when: see `pace`
H_WEIGHT = 184  # how much of their cores' time they get, and until when: see `pace`
H_UID_AT = 2048  # bytes: length word, then text
UID_MAX = 240
H_FAILOVER_AT = 2304  # bytes
FAILOVER_RECORDS = 16
FAILOVER_STRIDE = 96
# a failover record's words
F_INDEX, F_EPOCH, F_LAST_BEAT, F_DETECTED, F_FENCED, F_REQUEUED, F_RESUMED, F_TASKS, F_WALL, F_DONE = range(10)

# --- members ------------------------------------------------------------------------------------------------------
MEMBER_STRIDE = 512
M_WORD, M_BEAT, M_PID, M_START, M_JOINED = 0, 8, 16, 24, 32
M_RUNNING, M_SLOT, M_CLAIMED_AT, M_DONE_BASE = 40, 48, 56, 64
M_CPU_MILLI, M_RSS, M_PID_NS = 72, 80, 88
M_ACCUSERS, M_VOUCHED = 96, 104  # who suspects it, and until when it is vouched for: see `witness`
M_COUNTERS = 128  # bytes
M_NAME_LEN, M_NAME = 264, 272
NAME_MAX = 232
M_EMPTY, M_ALIVE, M_FENCED, M_GONE, M_FENCING = 0, 1, 2, 3, 4
(C_SUBMITTED, C_CLAIMED, C_COMMITTED, C_FAILED, C_FENCED, C_HANDED_BACK, C_FULL, C_ANSWERED, C_CANCELLED, C_PARKS,
 C_WAKES, C_BYTES_IN, C_BYTES_OUT) = range(13)  # fmt: skip
COUNTER_NAMES = (
    "submitted", "claimed", "committed", "failed", "fenced", "handed_back", "full", "answered", "cancelled", "parks",
    "wakes", "bytes_in", "bytes_out",
)  # fmt: skip

# --- ports: where a member submits from, and is answered ------------------------------------------------------------
P_OWNER = 0  # 0, or member + 1 | epoch << 16: who has it
P_FUTEX, P_PARKED, P_RESCAN = 64, 72, 80
P_DONE_HEAD, P_DONE_TAIL = 128, 192
P_QUEUES = 256  # per lane: head line, tail line
P_RINGS = P_QUEUES + LANES * 2 * LINE  # per lane a ring of ready hints, then the ring of done hints

# --- lanes ----------------------------------------------------------------------------------------------------------
L_CURSOR, L_RETRIES, L_MAPS = 0, 64, 128  # then bitmaps: ports, retry, free

# --- slots ----------------------------------------------------------------------------------------------------------
SLOT_STRIDE = 512
S_PORT = 0  # the port's number
S_PORT_OWNER = 8  # and its P_OWNER at the time: a port that has changed hands is another one
S_KERNEL, S_ID_HI, S_ID_LO = 16, 24, 32
S_DEADLINE = 40  # CLOCK_MONOTONIC ns, 0: none
S_SUBMITTED = 48  # CLOCK_MONOTONIC ns
S_LENGTH = 56  # bytes of the frame
S_BLOCK = 64  # where it lies, NO_BLOCK: inline
S_CANCEL = 72  # the slot's generation and 1: its submitter does not want it any more
S_WALL_DEADLINE = 80  # f64 bits, unix s: what the submitter said
S_LEASES = 88  # 0, or the number + 1 of the first lease on the shared arrays among its arguments
S_PATH = 96  # by which of PATHS it came
S_INLINE = 128
INLINE_MAX = SLOT_STRIDE - S_INLINE

FREE, WRITING, READY, CLAIMED, DONE = 0, 1, 2, 3, 4
STATE_NAMES = ("free", "writing", "ready", "claimed", "done")
ATTEMPTS_MASK = 127
OWNER_MASK, EPOCH_MASK, GEN_MASK = (1 << 12) - 1, (1 << 20) - 1, (1 << 22) - 1
ATTEMPTS_AT, OWNER_AT, EPOCH_AT, GEN_AT = 3, 10, 22, 42
BLOCK_MASK = (1 << 32) - 1
#: In the place of a READY slot's owner: it was handed back, so no queue holds it, though it may count as never begun.
UNQUEUED = 1
MAX_ATTEMPTS = 100
MOST_MEMBERS = 4096

#: Block numbers from here on name no block, but why there is none.
NO_BLOCK = 0xFFFF_FF00
R_CANCELLED, R_EXPIRED, R_LOST = NO_BLOCK + 1, NO_BLOCK + 2, NO_BLOCK + 3

# --- blocks ---------------------------------------------------------------------------------------------------------
B_FREE, B_HELD, B_PUBLISHED, B_TAIL, B_SHARED = 0, 1, 2, 3, 4
TAG_KIND_MASK, TAG_GEN_AT, TAG_GEN_MASK = 7, 44, (1 << 20) - 1
TAG_BODY_MASK, TAG_PAGE_MASK = (1 << 44) - 1, (1 << 21) - 1
TAG_SLOT_MASK, TAG_SLOT_GEN_AT, TAG_SLOT_GEN_MASK = (1 << 20) - 1, 23, (1 << 21) - 1
TAG_COUNT_MASK, TAG_CHANGE_AT, TAG_CHANGE_MASK = (1 << 20) - 1, 23, (1 << 21) - 1
CELL_BYTES = 512
# A result's block begins with these words, then comes its frame.
R_STATUS, R_AGENT, R_EPOCH, R_QUEUED, R_RUN, R_LENGTH, R_HOPS = 0, 8, 16, 24, 32, 40, 48
R_LEASES = 56  # 0, or R_SHARED and the number + 1 of the first lease on the shared arrays in it, if it has its own
R_SHARED, R_CHAIN_MASK = 1 << 32, (1 << 32) - 1
RESULT_HEADER = 64
STATUS_VALUE, STATUS_ERROR = 0, 1
#: R_HOPS from this bit on: how often another node began the task after the first time.
AGAIN_AT = 16

# --- leases ---------------------------------------------------------------------------------------------------------
LEASE_STRIDE = 16
LEASE_TAG, LEASE_NAMES = 0, 8
NAME_MASK, NAME_BLOCK_MASK, NAME_GEN_AT, NAME_NEXT_AT = (1 << 44) - 1, (1 << 24) - 1, 24, 44
NAME_NEXT_MASK = (1 << 20) - 1

# --- statistics -----------------------------------------------------------------------------------------------------
#: How a task comes to a board: from a program on this node, by TCP, from another node's hub, by REST.
PATHS = ("local", "tcp", "node", "rest")
PATH_MASK = 3
HIST_BUCKETS = 64
HIST_WORDS = HIST_BUCKETS + 1  # then the sum in ns
HIST_QUEUED, HIST_RUN, HIST_ROUND_TRIP = 0, 1, 2  # the last one for each path
HISTOGRAMS = HIST_ROUND_TRIP + len(PATHS)
HIST_SHIFT = 7  # the first bucket ends at 128 ns; two buckets an octave

# --- tallies: a word for each event, lane and path ------------------------------------------------------------------
E_RETRIED, E_LOST, E_EXPIRED, E_DROPPED, E_FULL, E_CANCELLED, E_SHED = range(7)
EVENT_NAMES = ("retried", "lost", "expired", "dropped", "full", "cancelled", "shed")

# --- a process's own scratch words, never shared ---------------------------------------------------------------------
X_ROTOR, X_HELD, X_PAGE_ROTOR, X_CELL_ROTOR, X_RETRIES = 0, 4, 8, 9, 10  # 4, 4, 1, 1, 4 words
X_REFS, X_LEASE_ROTOR = 14, 15
X_OUT = 16
X_REFS_AT = X_OUT + 3 * 512
#: How many shared arrays one task or result may name.
MOST_REFS = 256
X_PATH = X_REFS_AT + MOST_REFS
X_ACCEPTED = X_PATH + 1  # 1: what is submitted was accepted before, and is never refused for overload
#: The arena's pages near this process's cores: the first and the one after the last, which is 0 where all are alike.
X_HOME, X_HOME_END = X_PATH + 2, X_PATH + 3
#: How often since room was looked for there first; the port whose task was claimed last because it lies there, and by
#: lane how many such claims in a row.
X_ABROAD, X_NEAR_PORT, X_NEAR = X_PATH + 4, X_PATH + 5, X_PATH + 6
#: How many waits in a row were longer than spinning is.
X_VAIN = X_NEAR + LANES
SCRATCH_WORDS = X_VAIN + 1


class Geometry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much a board has room for. Every member of a board must name the same."""

    #: Tasks over all lanes; each lane has a quarter, in whole words of 64.
    task_slots: int = 4096
    #: Bytes for payloads and results.
    arena_bytes: int = 256 << 20
    #: Agents and clients.
    max_members: int = 256

    def __post_init__(self) -> None:
        for name, low, high in (
            ("task_slots", 1, 1 << 20),
            ("arena_bytes", 64 << 10, 1 << 42),
            ("max_members", 2, MOST_MEMBERS),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ValueError(f"{name}={value}: expected {low} to {high}")


def _up(value: int, unit: int) -> int:
    return -(-value // unit) * unit


def _power(value: int) -> int:
    return 1 << max(0, (value - 1).bit_length())


def plan_header(geometry: Geometry) -> dict[int, int]:
    """The header's words for a geometry, by index: counts, offsets and the file's size."""
    lane_slots = _up(-(-geometry.task_slots // LANES), 64)
    slots = lane_slots * LANES
    ports = min(geometry.max_members, max(16, geometry.max_members // 4))
    ready_cap = min(_power(lane_slots), 8192)
    done_cap = min(_power(slots), 4 * ready_cap)
    port_words, lane_words = -(-ports // 64), lane_slots // 64
    member_words = -(-geometry.max_members // 64)
    page_bytes = min(max(_power(geometry.arena_bytes // (4 * slots)), PAGE), 64 << 10)
    page_bytes = max(page_bytes, _power(_up(geometry.arena_bytes, 1 << 21) >> 21))  # a page's number has 21 bits
    pages = max(1, geometry.arena_bytes // page_bytes)
    cells = _up(slots + geometry.max_members, 64)
    leases = _up(min(2 * slots, 1 << 17) + 4 * geometry.max_members, 64)
    words = {
        H_MAGIC: MAGIC,
        H_VERSION: VERSION,
        H_TASK_SLOTS: geometry.task_slots,
        H_ARENA_BYTES: geometry.arena_bytes,
        H_MAX_MEMBERS: geometry.max_members,
        H_PORTS: ports,
        H_LANE_SLOTS: lane_slots,
        H_READY_CAP: ready_cap,
        H_DONE_CAP: done_cap,
        H_CELLS: cells,
        H_PAGES: pages,
        H_PAGE_BYTES: page_bytes,
        H_PORT_WORDS: port_words,
        H_LANE_WORDS: lane_words,
        H_MEMBER_WORDS: member_words,
        H_PORT_STRIDE: _up(P_RINGS + WORD * (LANES * ready_cap + done_cap), LINE),
        H_LANE_STRIDE: _up(L_MAPS + WORD * (port_words + 2 * lane_words), LINE),
        H_MAX_ATTEMPTS: 4,
        H_LEASES: leases,
    }
    at = PAGE
    for index, size in (
        (H_MEMBERS_AT, geometry.max_members * MEMBER_STRIDE),
        (H_PORTS_AT, ports * words[H_PORT_STRIDE]),
        (H_LANES_AT, LANES * words[H_LANE_STRIDE]),
        (H_STATES_AT, slots * WORD),
        (H_IDS_AT, slots * WORD),
        (H_SLOTS_AT, slots * SLOT_STRIDE),
        (H_HIST_AT, geometry.max_members * LANES * HISTOGRAMS * HIST_WORDS * WORD),
        (H_TALLIES_AT, len(EVENT_NAMES) * LANES * len(PATHS) * WORD),
        (H_CELL_TAGS_AT, cells * WORD),
        (H_PAGE_TAGS_AT, pages * WORD),
        (H_LEASES_AT, leases * LEASE_STRIDE),
        (H_CELLS_AT, cells * CELL_BYTES),
        (H_PAGES_AT, pages * page_bytes),
    ):
        words[index] = at
        at = _up(at + size, PAGE)
    words[H_SIZE] = at
    return words


def board_bytes(geometry: Geometry) -> int:
    """Bytes of shared memory that a board of this geometry takes, arena and tables together."""
    return plan_header(geometry)[H_SIZE]


@jit
def slot_word(state: int, attempts: int, owner: int, epoch: int, gen: int) -> int:
    """A slot's state word from its parts."""
    return state | (attempts << 3) | (owner << 10) | (epoch << 22) | (gen << 42)


@jit
def done_word(attempts: int, block: int, gen: int) -> int:
    """A slot's state word when its result lies in a block, or says why there is none."""
    return 4 | (attempts << 3) | (block << 10) | (gen << 42)


@jit
def member_word(state: int, role: int, epoch: int) -> int:
    """A member's word from its parts."""
    return state | (role << 3) | (epoch << 6)
