"""Who refers to a shared array: leases, which survive the death of those who hold them.

A shared array lies in a block whose tag is SHARED. Each reference to it is a *lease* in one table: HELD by a member
(an array that a process shows to its program), or PUBLISHED with a slot's generation (an array among the arguments of
a task, or in its result). **A shared block is garbage exactly when no living lease names it**, and a lease lives as
long as a block of the same tag would: while its member's process may run, or its slot's generation lasts. So whatever
is killed, the truth can be read again from the table, and nothing is lost with a counter.

| change | who | by |
|---|---|---|
| lease FREE -> HELD | any member | CAS; then it writes what the lease names, then `_count_up` |
| lease HELD -> PUBLISHED | the same | CAS, before the slot's READY or DONE refers to it |
| lease HELD -> FREE | the same; a sweep when its process is gone | CAS on the exact tag |
| lease PUBLISHED -> FREE | the port that ended the generation; a sweep | CAS on the exact tag |
| block HELD -> SHARED | its member, who has placed a lease on it before | CAS |
| block SHARED, count and change | who takes or drops a lease | CAS |
| block SHARED -> FREE | who finds that no living lease names it | CAS on the tag as it was before it looked |

Why an array is never freed under a living lease. Who wants to free reads the block's tag, looks through all leases,
and frees by CAS on that very tag. A lease counts from its `_count_up` on, which comes after its two words are in place
and changes the tag (`change` rises with every lease). If that came before the tag was read, the look finds the lease;
if after, the CAS fails. So the lease by which a reference was had may go in the midst of the look, as long as its
successor was counted before. If the block was freed first, `_count_up` finds another generation: a stale reference, an
error and never somebody else's data.

Why the names can't be torn: between HELD and `_count_up` only the lease's member writes them, and nobody gives the
lease to another while that member's process may still run, fenced or not (as with blocks: quarantine). A result's
leases are therefore HELD first too: a computing agent that was fenced may still be writing.

The count in the tag is a hint, so that dropping one of many leases costs no look. It is too high only after somebody
was killed between a lease and its count, or beside a sweep that set it right: then the sweep frees the block. Where it
is too low a drop looks, finds a lease, and frees nothing. The chain from a slot or result to its leases is a hint, too.

Rejected: a counter alone (a killed holder's count is lost), a list of leases for each block (a list cut in half can't
be repaired without stopping everybody), a lease in the slot itself (a result's would be written by agents that may be
fenced), and scanning on the way of a task (a task takes and drops its leases in constant time; only the last one of an
array looks through the table, 9,000 leases in some 10 us).
"""

from __future__ import annotations

from swarm_agents.shm.atomics import add, cas, load, peek, poke, store
from swarm_agents.shm.blocks import alloc, free_block, free_run, held_tag, is_garbage, tag_address
from swarm_agents.shm.jit import jit
from swarm_agents.shm.layout import (
    B_FREE,
    B_PUBLISHED,
    B_SHARED,
    B_TAIL,
    H_CELLS,
    H_LEASES,
    H_LEASES_AT,
    H_PAGE_BYTES,
    H_PAGE_TAGS_AT,
    H_PAGES,
    H_RECLAIMED,
    LEASE_NAMES,
    LEASE_STRIDE,
    NAME_BLOCK_MASK,
    NAME_GEN_AT,
    NAME_MASK,
    NAME_NEXT_AT,
    NAME_NEXT_MASK,
    TAG_BODY_MASK,
    TAG_CHANGE_AT,
    TAG_CHANGE_MASK,
    TAG_COUNT_MASK,
    TAG_GEN_AT,
    TAG_GEN_MASK,
    TAG_KIND_MASK,
    TAG_PAGE_MASK,
    TAG_SLOT_GEN_AT,
    TAG_SLOT_GEN_MASK,
    X_LEASE_ROTOR,
    X_REFS,
    X_REFS_AT,
)

__all__ = [
    "NO_LEASE",
    "STALE",
    "SWEEP_WORDS",
    "count_arrays",
    "drop",
    "end_leases",
    "hold",
    "lend",
    "make_array",
    "name_at",
    "reach",
    "run_bytes",
    "sweep_leases",
]

#: No lease is free now; what is named is not there any more.
NO_LEASE, STALE = -1, -4
#: How many arrays a sweep looks at in one pass over the leases; it needs three private words for each.
_SWEEP_ARRAYS = 4096
SWEEP_WORDS = 3 * _SWEEP_ARRAYS


@jit
def lease_at(base: int, lease: int) -> int:
    return base + load(base + H_LEASES_AT * 8) + lease * LEASE_STRIDE


@jit
def _raised_lease(tag: int) -> int:
    """The free tag that follows a lease's tag: the next generation."""
    return (((tag >> TAG_GEN_AT) + 1) & TAG_GEN_MASK) << TAG_GEN_AT


@jit
def _published_lease(tag: int, slot: int, slot_gen: int) -> int:
    bound = B_PUBLISHED | (slot << 3) | ((slot_gen & TAG_SLOT_GEN_MASK) << TAG_SLOT_GEN_AT)
    return bound | (((tag >> TAG_GEN_AT) & TAG_GEN_MASK) << TAG_GEN_AT)


@jit
def _is_shared(tag: int, name: int) -> bool:
    """Whether a block's tag is that of the shared array that was named."""
    same = (tag >> TAG_GEN_AT) & TAG_GEN_MASK == (name >> NAME_GEN_AT) & TAG_GEN_MASK
    return tag & TAG_KIND_MASK == B_SHARED and same


@jit
def _in_arena(base: int, name: int) -> bool:
    """Whether a name's block is a page at all: names may come from outside."""
    page = (name & NAME_BLOCK_MASK) - load(base + H_CELLS * 8)
    return 0 <= page < load(base + H_PAGES * 8)


@jit
def _place(base: int, names: int, member: int, epoch: int, scratch: int) -> int:
    """Takes a free lease for a member and writes what it names; not counted yet. NO_LEASE when all are taken."""
    leases = load(base + H_LEASES * 8)
    # From the one that was taken last: it is in this core's cache, and often free again.
    at = peek(scratch + X_LEASE_ROTOR * 8)
    for _ in range(leases):
        address = lease_at(base, at)
        tag = load(address)
        if tag & TAG_KIND_MASK == B_FREE and cas(address, tag, held_tag(tag, member, epoch)):
            store(address + LEASE_NAMES, names)
            poke(scratch + X_LEASE_ROTOR * 8, at)
            return at
        at += 1
        if at >= leases:
            at = 0
    return NO_LEASE


@jit
def _count_up(base: int, name: int) -> bool:
    """Counts a lease that is in place: from here on the array lasts as long as it. False: the array is gone."""
    address = tag_address(base, name & NAME_BLOCK_MASK)
    while True:
        tag = load(address)
        if not _is_shared(tag, name):
            return False
        count = min(((tag >> 3) & TAG_COUNT_MASK) + 1, TAG_COUNT_MASK)
        change = ((tag >> TAG_CHANGE_AT) + 1) & TAG_CHANGE_MASK
        gen = (tag >> TAG_GEN_AT) & TAG_GEN_MASK
        if cas(address, tag, B_SHARED | (count << 3) | (change << TAG_CHANGE_AT) | (gen << TAG_GEN_AT)):
            return True


@jit
def _is_named(base: int, name: int) -> bool:
    """Whether a living lease names an array. The caller has read the block's tag before."""
    table, leases = lease_at(base, 0), load(base + H_LEASES * 8)
    for address in range(table, table + leases * LEASE_STRIDE, LEASE_STRIDE):
        tag = load(address)
        if tag & TAG_KIND_MASK == B_FREE or load(address + LEASE_NAMES) & NAME_MASK != name:
            continue
        if not is_garbage(base, tag):
            return True
    return False


@jit
def _count_down(base: int, name: int) -> bool:
    """Counts a lease that is gone. Whether the array is gone with it, because that was the last one."""
    address = tag_address(base, name & NAME_BLOCK_MASK)
    while True:
        tag = load(address)
        if not _is_shared(tag, name):
            return False
        count = (tag >> 3) & TAG_COUNT_MASK
        if count > 1:
            if cas(address, tag, tag - 8):
                return False
        elif _is_named(base, name):
            if count == 0 or cas(address, tag, tag - 8):
                return False
        elif free_run(base, name & NAME_BLOCK_MASK, tag):
            return True


@jit
def hold(base: int, name: int, next_lease: int, member: int, epoch: int, scratch: int) -> int:
    """Takes a lease on a shared array for a member: its number, NO_LEASE, or STALE when the array is gone.

    The caller need not be sure that the array is still there.
    """
    if not _in_arena(base, name):
        return STALE
    lease = _place(base, name | (next_lease << NAME_NEXT_AT), member, epoch, scratch)
    if lease < 0 or _count_up(base, name):
        return lease
    address = lease_at(base, lease)
    tag = load(address)
    cas(address, tag, _raised_lease(tag))
    return STALE


@jit
def drop(base: int, lease: int, member: int, epoch: int) -> bool:
    """Gives up a lease that this member holds, and the array with it if it was the last one."""
    address = lease_at(base, lease)
    tag = load(address)
    if tag != held_tag(tag, member, epoch):
        return False
    name = load(address + LEASE_NAMES) & NAME_MASK
    if cas(address, tag, _raised_lease(tag)):
        _count_down(base, name)
    return True


@jit
def make_array(base: int, size: int, member: int, epoch: int, share: int, scratch: int, out: int) -> int:
    """Makes a shared array of `size` bytes with a first lease, held by its maker: the name, or what `alloc` says.

    The lease stands at `out`. It is in place before the block is SHARED, so that there is none without.
    """
    block = alloc(base, size, member, epoch, share, 0, scratch)
    if block < 0:
        return block
    address = tag_address(base, block)
    tag = load(address)
    gen = (tag >> TAG_GEN_AT) & TAG_GEN_MASK
    name = block | (gen << NAME_GEN_AT)
    lease = _place(base, name, member, epoch, scratch)
    if lease < 0:
        free_block(base, block, member, epoch)
        return lease
    poke(out, lease)
    cas(address, tag, B_SHARED | (1 << 3) | (gen << TAG_GEN_AT))
    return name


@jit
def _is_bound(base: int, chain: int, name: int, slot: int, slot_gen: int) -> bool:
    """Whether one of a chain's leases binds an array to a slot's generation."""
    while chain != 0:
        address = lease_at(base, chain - 1)
        tag, names = load(address), load(address + LEASE_NAMES)
        if tag != _published_lease(tag, slot, slot_gen):
            return False
        if names & NAME_MASK == name:
            return True
        chain = (names >> NAME_NEXT_AT) & NAME_NEXT_MASK
    return False


@jit
def lend(base: int, slot: int, slot_gen: int, bound: int, member: int, epoch: int, scratch: int) -> int:
    """Binds the arrays named in the scratch to a slot's generation, which this member writes or computes.

    What a chain `bound` (of the arguments, for a result) binds to it already needs no other lease. Returns the first
    lease's number + 1, from which the others follow, or 0 when none was needed; or NO_LEASE or STALE: none is bound.
    """
    chain = 0
    for index in range(peek(scratch + X_REFS * 8)):
        name = peek(scratch + (X_REFS_AT + index) * 8)
        if bound != 0 and _is_bound(base, bound, name, slot, slot_gen):
            continue
        lease = hold(base, name, chain, member, epoch, scratch)
        if lease < 0:
            end_leases(base, chain, slot, slot_gen)
            return lease
        address = lease_at(base, lease)
        tag = load(address)
        cas(address, tag, _published_lease(tag, slot, slot_gen))
        chain = lease + 1
    return chain


@jit
def end_leases(base: int, chain: int, slot: int, slot_gen: int) -> None:
    """Drops the leases of a chain that are bound to a slot's generation."""
    while chain != 0:
        address = lease_at(base, chain - 1)
        tag = load(address)
        if tag != _published_lease(tag, slot, slot_gen):
            return  # a sweep was faster
        names = load(address + LEASE_NAMES)
        if not cas(address, tag, _raised_lease(tag)):
            return
        _count_down(base, names & NAME_MASK)
        chain = (names >> NAME_NEXT_AT) & NAME_NEXT_MASK


@jit
def _run_of(base: int, page: int) -> int:
    """The name of the shared array that a page belongs to, or -1."""
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    tag = load(tags + page * 8)
    gen = (tag >> TAG_GEN_AT) & TAG_GEN_MASK
    if tag & TAG_KIND_MASK == B_TAIL:
        page, gen = (tag >> 3) & TAG_PAGE_MASK, (tag >> 24) & TAG_GEN_MASK
        tag = load(tags + page * 8)
    if tag & TAG_KIND_MASK != B_SHARED or (tag >> TAG_GEN_AT) & TAG_GEN_MASK != gen:
        return -1
    return (load(base + H_CELLS * 8) + page) | (gen << NAME_GEN_AT)


@jit
def name_at(base: int, low: int, high: int) -> int:
    """The name of the shared array that holds the bytes from one offset of the arena's pages to another, or -1."""
    page_bytes, pages = load(base + H_PAGE_BYTES * 8), load(base + H_PAGES * 8)
    if not 0 <= low < high <= pages * page_bytes:
        return -1
    name = _run_of(base, low // page_bytes)
    if name < 0 or (high - 1) // page_bytes == low // page_bytes:
        return name
    return name if _run_of(base, (high - 1) // page_bytes) == name else -1


@jit
def reach(base: int, name: int, low: int, high: int) -> int:
    """Whether the bytes `low` to `high` of a shared array are there: 1; 0 out of its bounds; STALE it is gone."""
    if not _in_arena(base, name) or not _is_shared(load(tag_address(base, name & NAME_BLOCK_MASK)), name):
        return STALE
    page_bytes = load(base + H_PAGE_BYTES * 8)
    start = ((name & NAME_BLOCK_MASK) - load(base + H_CELLS * 8)) * page_bytes
    return 1 if low >= 0 and name_at(base, start + low, start + high) == name else 0


@jit
def run_bytes(base: int, name: int) -> int:
    """Bytes of the block that a shared array lies in. The caller has a lease on it."""
    pages = load(base + H_PAGES * 8)
    page = (name & NAME_BLOCK_MASK) - load(base + H_CELLS * 8)
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    tail = B_TAIL | (page << 3) | ((name >> NAME_GEN_AT) << 24)
    count = 1
    while page + count < pages and load(tags + (page + count) * 8) & TAG_BODY_MASK == tail:
        count += 1
    return count * load(base + H_PAGE_BYTES * 8)


@jit
def _count_named(base: int, found: int, count: int) -> None:
    """Counts the living leases on each array of a list: block, tag as it was, count; sorted by block."""
    for lease in range(load(base + H_LEASES * 8)):
        address = lease_at(base, lease)
        tag = load(address)
        if tag & TAG_KIND_MASK == B_FREE or is_garbage(base, tag):
            continue
        name = load(address + LEASE_NAMES) & NAME_MASK
        block = name & NAME_BLOCK_MASK
        low, high = 0, count
        while low < high:
            middle = (low + high) >> 1
            if peek(found + middle * 24) < block:
                low = middle + 1
            else:
                high = middle
        at = found + low * 24
        if low < count and peek(at) == block and _is_shared(peek(at + 8), name):
            poke(at + 16, peek(at + 16) + 1)


@jit
def _sweep_array(base: int, block: int, tag: int, named: int) -> int:
    """Frees an array that no lease names, or sets its count right; 1 when it was freed."""
    if named == 0:
        return 1 if free_run(base, block, tag) else 0
    if named != (tag >> 3) & TAG_COUNT_MASK:
        cas(tag_address(base, block), tag, (tag & ~(TAG_COUNT_MASK << 3)) | (named << 3))
    return 0


@jit
def sweep_leases(base: int, scratch: int) -> int:
    """Frees all leases of the dead and of generations that are over, then every array that no living lease names.

    Any process may run it at any time. `scratch` has SWEEP_WORDS private words. Returns how many arrays were freed.
    """
    ended = 0
    for lease in range(load(base + H_LEASES * 8)):
        address = lease_at(base, lease)
        tag = load(address)
        if tag & TAG_KIND_MASK != B_FREE and is_garbage(base, tag) and cas(address, tag, _raised_lease(tag)):
            ended += 1
    freed, page = 0, 0
    cells, pages = load(base + H_CELLS * 8), load(base + H_PAGES * 8)
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    while page < pages:
        count = 0
        while page < pages and count < _SWEEP_ARRAYS:
            tag = load(tags + page * 8)
            if tag & TAG_KIND_MASK == B_SHARED:
                poke(scratch + count * 24, cells + page)
                poke(scratch + count * 24 + 8, tag)
                poke(scratch + count * 24 + 16, 0)
                count += 1
            page += 1
        if count != 0:
            _count_named(base, scratch, count)
        for index in range(count):
            at = scratch + index * 24
            freed += _sweep_array(base, peek(at), peek(at + 8), peek(at + 16))
    if freed > 0:
        add(base + H_RECLAIMED * 8, freed)
    if ended > 0:
        add(base + (H_RECLAIMED + 1) * 8, ended)
    return freed


@jit
def count_arrays(base: int, out: int) -> None:
    """Counts for people: the shared arrays, the pages they take, and the leases in use, to three words at `out`."""
    arrays, taken, used = 0, 0, 0
    tags = base + load(base + H_PAGE_TAGS_AT * 8)
    tail = -1
    for page in range(load(base + H_PAGES * 8)):
        tag = load(tags + page * 8)
        if tag & TAG_KIND_MASK == B_SHARED:
            arrays += 1
            taken += 1
            tail = B_TAIL | (page << 3) | (((tag >> TAG_GEN_AT) & TAG_GEN_MASK) << 24)
        elif tag & TAG_BODY_MASK == tail:
            taken += 1
    for lease in range(load(base + H_LEASES * 8)):
        if load(lease_at(base, lease)) & TAG_KIND_MASK != B_FREE:
            used += 1
    poke(out, arrays)
    poke(out + 8, taken)
    poke(out + 16, used)
