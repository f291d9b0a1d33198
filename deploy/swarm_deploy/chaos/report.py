"""What a run was, in numbers: as one JSON document, and as lines to read."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from swarm_deploy.chaos.clients import Account
from swarm_deploy.chaos.ledger import Tally

__all__ = ["Done", "Outcome"]


@dataclass
class Done:
    """A fault as it was done: seconds from the start of the run."""

    at: float
    kind: str
    target: str
    #: When it was over; None: it still is on, or could not be done.
    until: float | None = None
    #: Why it could not be done, or undone.
    problem: str = ""


@dataclass
class Outcome:
    """Everything that a run has to say."""

    seed: int
    seconds: float
    #: Kinds that were to be done, and those that could not be had, with the reason.
    kinds: list[str]
    impossible: dict[str, str] = field(default_factory=dict)
    faults: list[Done] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)
    #: When the run's clock began (monotonic).
    began: float = 0.0
    tally: Tally | None = None
    #: Node -> what its board counted, of the boards that were there at the end.
    boards: dict[str, dict[str, int]] = field(default_factory=dict)
    #: Seconds until the swarm was whole after the last fault; None: it never was, and why.
    healed: float | None = None
    unhealed: str = ""
    left: list[str] = field(default_factory=list)
    #: What ended the run, or a client, early.
    problems: list[str] = field(default_factory=list)

    def total(self, what: str) -> int:
        """The sum over the clients."""
        return sum(getattr(account, what) for account in self.accounts)

    @property
    def failed(self) -> Counter[str]:
        """Tasks that were reported as failed, by the error's code."""
        return sum((account.failed for account in self.accounts), Counter())

    @property
    def wrong(self) -> list[str]:
        return [text for account in self.accounts for text in account.wrong]

    @property
    def lost(self) -> int:
        return self.total("lost")

    @property
    def doubled(self) -> int:
        """Second answers to a client, second commits of a submission, and commits of boards beyond one a task.

        A submission is counted by the board after it was made: of one who was killed in between, one may be missing.
        """
        commits = len(self.tally.doubled) if self.tally is not None else 0
        beyond = sum(max(0, board["committed"] - board["submitted"]) for board in self.boards.values())
        return self.total("doubled") + commits + max(0, beyond - len(self.faults))

    @property
    def complaints(self) -> list[str]:
        """Everything that is not as it should be; empty: the run is a success."""
        found = [*self.problems]
        if not self.total("answered"):
            found.append("no task was answered: nothing was shown")
        if self.lost:
            missing = [text for account in self.accounts for text in account.missing]
            found.append(f"{self.lost} tasks lost: {'; '.join(missing[:5])}")
        if self.doubled:
            found.append(f"{self.doubled} tasks doubled")
        if self.wrong:
            found.append(f"{len(self.wrong)} wrong answers, the first: {self.wrong[0]}")
        if self.unhealed:
            found.append(f"the swarm was not whole again: {self.unhealed}")
        found += [f"left behind: {each}" for each in self.left]
        found += [f"{done.kind} on {done.target}: {done.problem}" for done in self.faults if done.problem]
        return found

    def during(self, began: float, seconds: float) -> list[str]:
        """The faults that were on, or had been done within two seconds before, when a gap in service began or later."""
        start = began - self.began
        return [
            f"{done.kind} at {done.at:.1f} s"
            for done in self.faults
            if done.at <= start + seconds and (done.until or done.at) >= start - 2.0
        ]

    def document(self) -> dict[str, Any]:
        """As JSON keeps it. Times are seconds; faults and gaps count from the start of the run."""
        done = Counter(fault.kind for fault in self.faults if not fault.problem)
        tally = self.tally
        return {
            "seed": self.seed,
            "seconds": self.seconds,
            "passed": not self.complaints,
            "complaints": self.complaints,
            "sent": self.total("sent"),
            "answered": self.total("answered"),
            "retried": self.total("retried"),
            "resumed": self.total("resumed"),
            "failed": dict(self.failed),
            "lost": self.lost,
            "doubled": self.doubled,
            "wrong": self.wrong,
            "clients": [
                {
                    "name": account.name,
                    "sent": account.sent,
                    "answered": account.answered,
                    "retried": account.retried,
                    "resumed": account.resumed,
                    "failed": {
                        code: {"tasks": count, "first": account.reasons.get(code, "")}
                        for code, count in account.failed.items()
                    },
                    "lost": account.lost,
                    "missing": account.missing,
                    "doubled": account.doubled,
                    "refused": account.refused,
                    "longestGap": {
                        "seconds": round(account.gap.seconds, 4),
                        "at": round(account.gap.began - self.began, 3),
                        "during": self.during(account.gap.began, account.gap.seconds),
                    },
                }
                for account in self.accounts
            ],
            "ledger": None
            if tally is None
            else {
                "accepted": tally.accepted,
                "refused": tally.refused,
                "open": tally.open_,
                "computedAgain": tally.computed_again,
                "doubled": tally.doubled,
            },
            "boards": self.boards,
            "healedSeconds": self.healed,
            "left": self.left,
            "done": {kind: done[kind] for kind in self.kinds},
            "impossible": self.impossible,
            "faults": [
                {"at": round(f.at, 3), "kind": f.kind, "target": f.target, "until": f.until and round(f.until, 3)}
                | ({"problem": f.problem} if f.problem else {})
                for f in self.faults
            ],
        }

    def lines(self) -> list[str]:
        """For a reader."""
        done = Counter(fault.kind for fault in self.faults if not fault.problem)
        failed = self.failed
        lines = [
            "",
            f"  {sum(done.values())} faults in {self.seconds:.0f} s: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(done.items())),
            f"  tasks sent {self.total('sent'):,}, answered {self.total('answered'):,}, "
            f"retried {self.total('retried'):,}, failed with a reason {sum(failed.values()):,}"
            + (f" ({', '.join(f'{n} {code}' for code, n in failed.items())})" if failed else ""),
            f"  lost {self.lost}, doubled {self.doubled}, wrong {len(self.wrong)}",
        ]
        for account in self.accounts:
            gap = account.gap
            during = ", ".join(self.during(gap.began, gap.seconds)[-4:]) or "nothing"
            lines.append(
                f"  longest gap in service, {account.name}: {gap.seconds:.3f} s at {gap.began - self.began:.1f} s"
                f" (around: {during})"
            )
        if self.tally is not None:
            lines.append(
                f"  agents noted {self.tally.accepted:,} accepted commits, {self.tally.refused} refused as late, "
                f"{len(self.tally.doubled)} doubled; {self.tally.computed_again} tasks were computed again"
            )
        if self.healed is not None:
            lines.append(f"  whole again {self.healed:.1f} s after the last fault")
        lines += [f"  left out: {name}: {why}" for name, why in self.impossible.items()]
        lines += [f"  ✗ {text}" for text in self.complaints]
        return [*lines, ""]
