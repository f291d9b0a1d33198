"""Planted faults, to show that the checker can fail: each is a bug that somebody could have written.

Those of the board are edits of the protocol's sources, made while the simulator loads them (the product has no switch):
`mutant(n)` is false but in a run that asks for fault n, so all of them share one compilation. A text that is not found
exactly once is an error: then the protocol has changed, and its fault has to be planted anew. Those of Python code are
functions that replace another; see `patches`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["BOARD_MUTANTS", "MUTANTS", "Mutant", "edits"]


@dataclass(frozen=True)
class Mutant:
    """A fault: its number, its name, what is wrong, and the edits (module, text, replacement) that plant it."""

    number: int
    name: str
    fault: str
    edits: tuple[tuple[str, str, str], ...] = ()
    #: Which kinds of seeds can show it: `board`, `hubs`.
    world: str = "board"


BOARD_MUTANTS = (
    Mutant(
        1,
        "commit-without-compare",
        "an answer is stored without looking whether the claim still stands",
        (
            (
                "tasks",
                "    if not cas(state_at(base, slot), mine, done_word((mine >> 3) & ATTEMPTS_MASK, block, gen)):\n"
                "        free_published",
                "    if mutant(1):\n"
                "        store(state_at(base, slot), done_word((mine >> 3) & ATTEMPTS_MASK, block, gen))\n"
                "    elif not cas(state_at(base, slot), mine, done_word((mine >> 3) & ATTEMPTS_MASK, block, gen)):\n"
                "        free_published",
            ),
            (
                "tasks",
                "    if is_fenced(base, member, epoch):\n        return 0\n",
                "    if is_fenced(base, member, epoch) and not mutant(1):\n        return 0\n",
            ),
        ),
    ),
    Mutant(
        2,
        "missing-fence",
        "an agent that was declared dead may go on claiming",
        (
            (
                "places",
                "    return word & 7 != M_ALIVE or (word >> 6) & EPOCH_MASK != epoch\n",
                "    return not mutant(2) and (word & 7 != M_ALIVE or (word >> 6) & EPOCH_MASK != epoch)\n",
            ),
        ),
    ),
    Mutant(
        3,
        "lost-retry",
        "a task that was taken from the dead is ready again, and no hint says so",
        (
            (
                "tasks",
                "    mark_retry(base, slot)\n    return 1\n",
                "    if not mutant(3):\n        mark_retry(base, slot)\n    return 1\n",
            ),
        ),
    ),
    Mutant(
        4,
        "wrong-lane-order",
        "the least urgent lane is looked at first",
        (
            (
                "claims",
                "    for lane in range(first, last + 1):\n        at = lane_at(base, lane)\n",
                "    for turn in range(first, last + 1):\n        lane = first + last - turn if mutant(4) else turn\n"
                "        at = lane_at(base, lane)\n",
            ),
        ),
    ),
    Mutant(
        5,
        "forgotten-rescan",
        "neither after a death nor in a sweep does anybody look for answers that were committed without a hint",
        (
            (
                "sweep",
                "        if owner != 0 and standing(base, (owner & 0xFFFF) - 1, owner >> 16) == 2:\n",
                "        if owner != 0 and not mutant(5) and standing(base, (owner & 0xFFFF) - 1, owner >> 16) == 2:\n",
            ),
            (
                "sweep",
                " and load(at + P_RESCAN) == 0:\n",
                " and load(at + P_RESCAN) == 0 and not mutant(5):\n",
            ),
        ),
    ),
    Mutant(
        6,
        "leak-on-take",
        "the block of an answer that was taken is not freed",
        (
            (
                "tasks",
                "    if result < NO_BLOCK:\n        free_published",
                "    if result < NO_BLOCK and not mutant(6):\n        free_published",
            ),
        ),
    ),
    Mutant(
        7,
        "leak-on-refusal",
        "the block of an answer that came too late is not freed",
        (
            (
                "tasks",
                "        free_published(base, block, slot, gen)\n        return 0\n",
                "        if not mutant(7):\n            free_published(base, block, slot, gen)\n        return 0\n",
            ),
            (
                "hot",
                "        free_block(base, block, member, epoch)\n        end_leases",
                "        if not mutant(7):\n            free_block(base, block, member, epoch)\n        end_leases",
            ),
        ),
    ),
    Mutant(
        8,
        "stale-hint-trusted",
        "a hint in a queue is believed without looking whether its task still waits",
        (
            (
                "claims",
                "        if word & 7 == READY and (word >> 42) & GEN_MASK == (hint >> 24) & GEN_MASK:\n            got",
                "        if mutant(8) or word & 7 == READY and (word >> 42) & GEN_MASK == (hint >> 24) & GEN_MASK:\n"
                "            got",
            ),
        ),
    ),
    Mutant(
        9,
        "poison-for-ever",
        "a task that kills its agents is tried without end",
        (
            (
                "tasks",
                "    if attempts >= load(base + H_MAX_ATTEMPTS * 8):\n",
                "    if attempts >= load(base + H_MAX_ATTEMPTS * 8) and not mutant(9):\n",
            ),
        ),
    ),
    Mutant(
        10,
        "deadline-ignored",
        "a task is begun after its deadline",
        (
            (
                "claims",
                "    if deadline != 0 and now > deadline:\n",
                "    if deadline != 0 and now > deadline and not mutant(10):\n",
            ),
        ),
    ),
    Mutant(
        11,
        "cancelled-and-run",
        "a task is said to be cancelled, and runs all the same",
        (
            (
                "tasks",
                "        if _end_ready(base, slot, word, R_CANCELLED):\n",
                "        if mutant(11) or _end_ready(base, slot, word, R_CANCELLED):\n",
            ),
        ),
    ),
    Mutant(
        12,
        "worker-not-woken",
        "a task is published and a parked agent sleeps on",
        (
            (
                "tasks",
                "    count(base, member, C_SUBMITTED, 1)\n    wake_worker(base)\n",
                "    count(base, member, C_SUBMITTED, 1)\n    if not mutant(12):\n        wake_worker(base)\n",
            ),
        ),
    ),
    Mutant(
        13,
        "client-not-woken",
        "an answer is there and its parked submitter sleeps on",
        (("hints", "    if load(at + P_PARKED) != 0:\n", "    if load(at + P_PARKED) != 0 and not mutant(13):\n"),),
    ),
    Mutant(
        14,
        "hand-back-forgotten",
        "a task that was handed back is ready, and no hint says so",
        (
            (
                "tasks",
                "    mark_retry(base, slot)\n    fence()\n",
                "    if not mutant(14):\n        mark_retry(base, slot)\n    fence()\n",
            ),
        ),
    ),
    Mutant(
        15,
        "no-quarantine",
        "what a fenced agent holds is given to others while its process may still write to it",
        (
            (
                "blocks",
                "    if state == M_FENCED and now == epoch + 1:\n        return 1\n",
                "    if state == M_FENCED and now == epoch + 1 and not mutant(15):\n        return 1\n",
            ),
        ),
    ),
    Mutant(
        17,
        "claim-without-compare",
        "a task is claimed without looking whether another agent was faster",
        (
            (
                "claims",
                "    if not cas(state_at(base, slot), word, mine):\n        return 0\n    if is_fenced",
                "    if mutant(17):\n        store(state_at(base, slot), mine)\n"
                "    elif not cas(state_at(base, slot), word, mine):\n        return 0\n    if is_fenced",
            ),
        ),
    ),
    Mutant(
        18,
        "leases-kept",
        "the leases on a task's shared arrays outlive it",
        (
            (
                "tasks",
                "    if leases != 0:\n        end_leases",
                "    if leases != 0 and not mutant(18):\n        end_leases",
            ),
        ),
    ),
    Mutant(
        19,
        "orphans-kept",
        "the tasks of a submitter who is gone are never dropped",
        (
            (
                "tasks",
                "    return standing(base, (owner & 0xFFFF) - 1, owner >> 16) != 2\n",
                "    return not mutant(19) and standing(base, (owner & 0xFFFF) - 1, owner >> 16) != 2\n",
            ),
            (
                "tasks",
                "    if load(port_at(base, load(s + S_PORT)) + P_OWNER) != owner:\n        return True\n",
                "    if load(port_at(base, load(s + S_PORT)) + P_OWNER) != owner:\n        return not mutant(19)\n",
            ),
        ),
    ),
    Mutant(20, "hang-not-seen", "an agent that lives and does nothing is never declared dead"),
    Mutant(21, "death-too-soon", "an agent is declared dead that was silent for less than suspectAfter"),
    Mutant(22, "death-not-seen", "the locks of the killed are not asked for, and their heartbeats not missed"),
)

#: Bugs of hubs and of clients off the node; all of them in `patches`.
HUB_MUTANTS = (
    Mutant(40, "asked-twice", "a task that is asked for again is put on the board again", world="hubs"),
    Mutant(41, "acknowledged-in-vain", "answers are kept for ever, though acknowledged", world="hubs"),
    Mutant(42, "loss-forgotten", "what a lost or refusing node had in hand is not handed back", world="hubs"),
    Mutant(43, "path-forgotten", "what went by a path that broke is not sent again by the other", world="hubs"),
    Mutant(44, "not-asked-again", "a client that finds another hub does not submit again what is open", world="hubs"),
    Mutant(45, "credit-kept", "an answered task still counts against the credit", world="hubs"),
    Mutant(46, "answer-counted-again", "an answer that comes twice is committed twice", world="hubs"),
    Mutant(47, "circle", "a task is sent on to the node that waits for it", world="hubs"),
    Mutant(49, "sessions-kept", "a client that is gone is never forgotten", world="hubs"),
    Mutant(50, "lane-lost", "a forwarded task loses its priority", world="hubs"),
    Mutant(51, "silence-trusted", "a node that says nothing any more is waited for", world="hubs"),
    Mutant(52, "silent-hub-kept", "a client waits for a hub that says nothing any more", world="hubs"),
    Mutant(54, "hops-unbounded", "tasks wander from node to node", world="hubs"),
    Mutant(55, "deadline-too-soon", "a task from off the node has less time than its client gave", world="hubs"),
)

#: All of them, by name.
MUTANTS: dict[str, Mutant] = {mutant.name: mutant for mutant in (*BOARD_MUTANTS, *HUB_MUTANTS)}


def edits() -> dict[str, list[tuple[str, str]]]:
    """By module of `swarm_agents.shm`: what to replace by what."""
    found: dict[str, list[tuple[str, str]]] = {}
    for mutant in BOARD_MUTANTS:
        for module, text, replacement in mutant.edits:
            found.setdefault(module, []).append((text, replacement))
    return found
