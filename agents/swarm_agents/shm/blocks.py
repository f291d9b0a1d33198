"""The arena: blocks for payloads and results, whose owners may be killed at any instruction.

A block is a *cell* (512 bytes: a result that fits is never refused for want of pages) or a run of *pages*. Its tag is
the only truth about it (see `layout`): FREE, HELD by a member, PUBLISHED with a slot's generation, SHARED, or TAIL of
a run.

Why nothing leaks and nothing is freed under somebody's feet
- A block is taken by CAS on its tag, which names the taker. A taker that dies leaves a HELD block whose member is
  gone: garbage. A taker that was fenced but whose process still runs may still write: its blocks are left alone
  until the kernel says that the process is gone (quarantine).
- Before a block is referred to by a slot it is PUBLISHED with that slot's generation. It is garbage exactly when
  that generation is over, whoever made it; so the sweep needs no list of who refers to what.
- A block that holds a SHARED array says nothing of who refers to it: `leases` do, and decide when it is garbage.
- A run is freed head first. Its other pages name the head's generation, and are garbage as soon as the head's tag is
  not an allocated one of it; so a free that was cut short is completed by the sweep.
- Every page has a generation of its own, that only rises. Every free raises it and is
  a CAS on the exact tag seen: a stale descriptor fails, it never frees somebody else's block.

Numbers: cells are 0 to cells-1, pages follow. Rejected: buddy lists and free lists (a list cut in half cannot be
repaired without stopping everybody), a shared counter of references (a killed holder's count is lost).
"""

from __future__ import annotations

from swarm_agents.shm.atomics import add, cas, load, peek, poke, store
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    B_FREE,
    B_HELD,
    B_PUBLISHED,
    B_SHARED,
    B_TAIL,
    CELL_BYTES,
    EPOCH_MASK,
    FREE,
    GEN_MASK,
    H_CELL_TAGS_AT,
    H_CELLS,
    H_CELLS_AT,
    H_MEMBERS_AT,
    H_PAGE_BYTES,
    H_PAGE_TAGS_AT,
    H_PAGES,
    H_PAGES_AT,
    H_PAGES_USED,
    H_RECLAIMED,
    H_STATES_AT,
    M_ALIVE,
    M_FENCED,
    M_FENCING,
    MEMBER_STRIDE,
    OWNER_MASK,
    TAG_BODY_MASK,
    TAG_GEN_MASK,
    TAG_KIND_MASK,
    TAG_PAGE_MASK,
    TAG_SLOT_GEN_MASK,
    TAG_SLOT_MASK,
    X_ABROAD,
    X_CELL_ROTOR,
    X_HOME,
    X_HOME_END,
    X_PAGE_ROTOR,
)

__all__ = [
    "alloc",
    "block_address",
    "free_block",
    "free_published",
    "free_run",
    "held_tag",
    "hold_published",
    "is_garbage",
    "publish_block",
    "standing",
    "sweep_blocks",
    "tag_address",
]


@jit
def standing(base: int, member: int, epoch: int) -> int:
    """How a member's epoch stands: 2 it is alive, 1 it was fenced but its process may still run, 0 it is gone."""
    word = load(base + load(base + H_MEMBERS_AT * 8) + member * MEMBER_STRIDE)
    state, now = word & 7, (word >> 6) & EPOCH_MASK
    if state == M_ALIVE and now == epoch:
        return 2
    if state == M_FENCED and now == epoch + 1:
        return 1
    if state == M_FENCING and now == epoch:
        return 1
    return 0


@jit
def tag_address(base: int, block: int) -> int:
    cells = load(base + H_CELLS * 8)
    if block < cells:
        return base + load(base + H_CELL_TAGS_AT * 8) + block * 8
    return base + load(base + H_PAGE_TAGS_AT * 8) + (block - cells) * 8


@jit
def block_address(base: int, block: int) -> int:
    """The offset of a block's first byte from the board's first byte."""
    cells = load(base + H_CELLS * 8)
    if block < cells:
        return load(base + H_CELLS_AT * 8) + block * CELL_BYTES
    return load(base + H_PAGES_AT * 8) + (block - cells) * load(base + H_PAGE_BYTES * 8)


@jit
def _raised(tag: int) -> int:
    """The free tag that follows a tag: the next generation."""
    return (((tag >> 44) + 1) & TAG_GEN_MASK) << 44


@jit
def held_tag(tag: int, member: int, epoch: int) -> int:
    """The tag that follows a tag, in the same generation, when a member holds the block or lease."""
    return B_HELD | (member << 3) | (epoch << 15) | (((tag >> 44) & TAG_GEN_MASK) << 44)


@jit
def _tail(head: int, tag: int) -> int:
    """What the tails of a run say, but for their own generation: their first page, and its tag's generation."""
    return B_TAIL | (head << 3) | (((tag >> 44) & TAG_GEN_MASK) << 24)


@jit
def _alloc_cell(base: int, member: int, epoch: int, scratch: int) -> int:
    cells = load(base + H_CELLS * 8)
    tags = base + load(base + H_CELL_TAGS_AT * 8)
    at = peek(scratch + X_CELL_ROTOR * 8)
    for _ in range(cells):
        at += 1
        if at >= cells:
            at = 0
        tag = load(tags + at * 8)
        if tag & TAG_KIND_MASK == B_FREE and cas(tags + at * 8, tag, held_tag(tag, member, epoch)):
            poke(scratch + X_CELL_ROTOR * 8, at)
            return at
    return -1


@jit
def free_run(base: int, block: int, tag: int) -> bool:
    """Frees a block whose tag is exactly `tag`; its tails follow. False when somebody else was first."""
    address = tag_address(base, block)
    if not cas(address, tag, _raised(tag)):
        return False
    cells = load(base + H_CELLS * 8)
    if block < cells:
        return True
    pages = load(base + H_PAGES * 8)
    page = block - cells
    mine = _tail(page, tag)
    count = 1
    while page + count < pages:
        tail = load(address + count * 8)
        if tail & TAG_BODY_MASK != mine:
            break
        cas(address + count * 8, tail, _raised(tail))
        count += 1
    add(base + H_PAGES_USED * 8, -count)
    return True


#: A member whose own segment was full looks there first again at every so manieth allocation.
_COME_HOME = 16


@jit
def _begin(scratch: int, end: int) -> int:
    """The page to look from on; with more than one NUMA node (`end` is not 0) one of this member's own."""
    at = peek(scratch + X_PAGE_ROTOR * 8)
    home = peek(scratch + X_HOME * 8)
    if end == 0 or home <= at < end:
        return at
    abroad = peek(scratch + X_ABROAD * 8) + 1
    poke(scratch + X_ABROAD * 8, abroad % _COME_HOME)
    return home if abroad >= _COME_HOME else at


@jit
def _alloc_pages(base: int, count: int, member: int, epoch: int, limit: int, scratch: int) -> int:
    cells, pages = load(base + H_CELLS * 8), load(base + H_PAGES * 8)
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    if count > pages:
        return -2
    used = load(base + H_PAGES_USED * 8)
    if used > 0 and used + count > limit:
        return -1
    end = peek(scratch + X_HOME_END * 8)
    at = _begin(scratch, end)
    if at + count > pages:
        at = 0
    seen = 0
    # Two rounds at most: a run may have to begin anywhere before the rotor, too.
    while seen < 2 * pages:
        if at + count > pages:
            seen += pages - at
            at = 0
            continue
        run = 0
        while run < count and load(tags + (at + run) * 8) & TAG_KIND_MASK == B_FREE:
            run += 1
        if run < count:
            at += run + 1
            seen += run + 1
            continue
        head = load(tags + at * 8)
        if head & TAG_KIND_MASK != B_FREE:
            continue
        mine = held_tag(head, member, epoch)
        if not cas(tags + at * 8, head, mine):
            continue
        tail = _tail(at, head)
        took = 1
        while took < count:
            before = load(tags + (at + took) * 8)
            mine_too = tail | (((before >> 44) & TAG_GEN_MASK) << 44)
            if before & TAG_KIND_MASK != B_FREE or not cas(tags + (at + took) * 8, before, mine_too):
                break
            took += 1
        add(base + H_PAGES_USED * 8, took)
        if took < count:
            free_run(base, cells + at, mine)
            at += took + 1
            seen += took + 1
            continue
        after = at + count
        if after == end:
            after = peek(scratch + X_HOME * 8)
        poke(scratch + X_PAGE_ROTOR * 8, after if after < pages else 0)
        return cells + at
    return -1


@jit
def alloc(base: int, size: int, member: int, epoch: int, share: int, cell: int, scratch: int) -> int:
    """Takes a block of at least `size` bytes for a member.

    `share` is how many 256ths of the arena may be in use with it (the lanes' reserve); `cell` allows a cell.
    Returns the block, -1 when there is no room now, -2 when it is larger than the arena.
    """
    if cell != 0 and size <= CELL_BYTES:
        block = _alloc_cell(base, member, epoch, scratch)
        if block >= 0:
            return block
    page_bytes = load(base + H_PAGE_BYTES * 8)
    count = max(1, (size + page_bytes - 1) // page_bytes)
    limit = (load(base + H_PAGES * 8) * share) >> 8
    return _alloc_pages(base, count, member, epoch, limit, scratch)


@jit
def publish_block(base: int, block: int, member: int, epoch: int, slot: int, slot_gen: int) -> bool:
    """Binds a block that this member holds to a slot's generation; False when it is not this member's."""
    address = tag_address(base, block)
    tag = load(address)
    if tag != held_tag(tag, member, epoch):
        return False
    gen = (tag >> 44) & TAG_GEN_MASK
    bound = B_PUBLISHED | (slot << 3) | ((slot_gen & TAG_SLOT_GEN_MASK) << 23) | (gen << 44)
    return cas(address, tag, bound)


@jit
def _published_tag(base: int, block: int, slot: int, slot_gen: int) -> int:
    """The block's tag if it is published with that generation of that slot, else -1 (no tag has all bits set)."""
    tag = load(tag_address(base, block))
    gen = (tag >> 44) & TAG_GEN_MASK
    if tag == B_PUBLISHED | (slot << 3) | ((slot_gen & TAG_SLOT_GEN_MASK) << 23) | (gen << 44):
        return tag
    return -1


@jit
def free_published(base: int, block: int, slot: int, slot_gen: int) -> bool:
    """Frees a block that was published with a slot's generation, now over."""
    tag = _published_tag(base, block, slot, slot_gen)
    return tag != -1 and free_run(base, block, tag)


@jit
def hold_published(base: int, block: int, slot: int, slot_gen: int, member: int, epoch: int) -> bool:
    """Takes over a published block, so that it outlives the slot's generation."""
    tag = _published_tag(base, block, slot, slot_gen)
    return tag != -1 and cas(tag_address(base, block), tag, held_tag(tag, member, epoch))


@jit
def free_block(base: int, block: int, member: int, epoch: int) -> bool:
    """Frees a block that this member holds; False when it does not hold it (any more)."""
    tag = load(tag_address(base, block))
    if tag != held_tag(tag, member, epoch):
        return False
    return free_run(base, block, tag)


@jit
def is_garbage(base: int, tag: int) -> bool:
    """Whether nobody can refer to a block or lease of this tag any more; of a SHARED one only its leases know."""
    kind = tag & TAG_KIND_MASK
    if kind == B_HELD:
        return standing(base, (tag >> 3) & OWNER_MASK, (tag >> 15) & EPOCH_MASK) == 0
    if kind == B_PUBLISHED:
        slot = (tag >> 3) & TAG_SLOT_MASK
        word = load(base + load(base + H_STATES_AT * 8) + slot * 8)
        over = ((word >> 42) & GEN_MASK & TAG_SLOT_GEN_MASK) != (tag >> 23) & TAG_SLOT_GEN_MASK
        return over or word & 7 == FREE
    return False


@jit
def sweep_blocks(base: int) -> int:
    """Frees every block that nobody can refer to any more. Any process may run it, at any time; returns how many."""
    freed = 0
    cells, pages = load(base + H_CELLS * 8), load(base + H_PAGES * 8)
    tags = base + load(base + H_CELL_TAGS_AT * 8)
    for block in range(cells):
        tag = load(tags + block * 8)
        if tag & TAG_KIND_MASK != B_FREE and is_garbage(base, tag) and cas(tags + block * 8, tag, _raised(tag)):
            freed += 1
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    used = 0
    for page in range(pages):
        tag = load(tags + page * 8)
        kind = tag & TAG_KIND_MASK
        if kind == B_FREE:
            continue
        used += 1
        if kind == B_TAIL:
            head = load(tags + ((tag >> 3) & TAG_PAGE_MASK) * 8)
            whole = head & TAG_KIND_MASK
            same = (head >> 44) & TAG_GEN_MASK == (tag >> 24) & TAG_GEN_MASK
            if same and whole in (B_HELD, B_PUBLISHED, B_SHARED):
                continue
            if cas(tags + page * 8, tag, _raised(tag)):
                freed += 1
                used -= 1
        elif is_garbage(base, tag) and free_run(base, cells + page, tag):
            freed += 1
            used -= 1
    # Only a hint for the lanes' reserve; whoever was killed between a tag and this count made it drift.
    store(base + H_PAGES_USED * 8, used)
    if freed > 0:
        add(base + (H_RECLAIMED + 2) * 8, freed)
    return freed
