"""Agents that say that they will fail soon are replaced before they do (`failover.prediction`). Pure.

What an agent reckons (`swarm_agents.runtime.prospects`) comes with its report. From the threshold on it is handled like
one of an old revision, within the same bounds: where maxSurge allows, its successor is made first and it leaves when
that takes tasks; else it leaves first, within maxUnavailable. It is drained, so nothing is lost by it.

A forecast may be wrong, and a wrong one must cost little:

- no more than maxUnavailable agents of a role (one at least) are being replaced for that at a time;
- an agent that was made instead of one that was predicted to fail is left alone for `COOL_DOWN` whatever it says, so
  that no place is emptied by noise more often than that;
- what was begun is finished: the successor names whom it is for, in an annotation, so that neither a forecast that
  recedes nor another operator makes it a surplus agent.

Nothing is done while the roll-out is paused or the swarm suspended, and nothing about agents on lost nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from swarm_operator.actions import Action, AskAgent
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.rollout import FORESEEN, NOTHING_FORESEEN, Agent, Foreseen, Target

__all__ = ["COOL_DOWN", "FAILURE_PREDICTED", "asks_again", "condition", "foresee"]

#: Seconds for which a successor is not replaced for what it says itself.
COOL_DOWN: Final = 600.0
#: The condition.
FAILURE_PREDICTED: Final = "FailurePredicted"
#: From this on an agent is asked again and again (seconds); the least threshold there is.
_LIKELY: Final = 0.5
_AGAIN: Final = 5.0
_NAMED: Final = 3


def _threshold(spec: SwarmSpec) -> float:
    """The probability from which an agent is replaced; infinite: none is."""
    prediction = spec.failover.prediction
    return float("inf") if prediction is None else prediction.threshold / 100


def _fears(agent: Agent, threshold: float) -> bool:
    return agent.report is not None and agent.report.failing >= threshold


def _spared(agent: Agent, now: float) -> bool:
    return bool(agent.pod.instead_of) and now - agent.pod.created < COOL_DOWN


def foresee(spec: SwarmSpec, agents: Sequence[Agent], target: Target, now: float) -> Foreseen:
    """Which agents of a role are to be replaced for what they foresee, and who still lacks a successor."""
    threshold = _threshold(spec)
    if spec.failover.prediction is None or spec.rollout.paused or spec.suspend:
        return NOTHING_FORESEEN
    followed = {agent.pod.instead_of for agent in agents if agent.alive and agent.pod.instead_of}
    begun = [agent for agent in agents if agent.alive and agent.pod.uid in followed]
    begun += [a for a in agents if a.alive and a.draining and _fears(a, threshold) and a.pod.uid not in followed]
    others = [
        agent
        for agent in agents
        if agent.alive
        and not agent.lost
        and not agent.draining
        and agent.pod.uid not in followed
        and _fears(agent, threshold)
        and not _spared(agent, now)
    ]
    others.sort(key=lambda agent: (-(agent.report.failing if agent.report else 0.0), agent.name))
    chosen = begun + others[: max(0, max(1, target.unavailable) - len(begun))]
    gone = [a for a in agents if not a.alive and _fears(a, threshold)]
    return Foreseen(
        failing={agent.pod.uid: f"{FORESEEN} ({_why(agent)})" for agent in chosen},
        bereft=tuple(agent.pod.uid for agent in (*gone, *chosen) if agent.pod.uid not in followed),
    )


def _why(agent: Agent) -> str:
    report = agent.report
    if report is None or not report.failing:
        return "as it said before"
    return f"{100 * report.failing:.0f} %: {report.failing_why or 'no reason given'}"


def asks_again(
    spec: SwarmSpec, agents: Iterable[Agent], going: set[str], now: float
) -> tuple[list[Action], float | None]:
    """Agents to be asked how it goes on with them, and in how many seconds the next one will have to be."""
    actions: list[Action] = []
    waits: list[float] = []
    if spec.failover.prediction is None:
        return [], None
    for agent in agents:
        pod, report = agent.pod, agent.report
        if report is None or report.failing < _LIKELY:
            continue
        if agent.lost or not agent.alive or not agent.running or pod.uid in going:
            continue
        wait = report.checked + _AGAIN * 2.0 ** min(report.failures, 4) - now
        if wait > 0:
            waits.append(wait)
        else:
            actions.append(AskAgent("Pod", pod.name, pod.uid, pod.ip, pod.restarts, pod.ports))
    return actions, min(waits, default=None)


def condition(spec: SwarmSpec | None, agents: Iterable[Agent], now: float) -> list[tuple[str, str, str, str]]:
    """The condition FailurePredicted, where prediction is asked for: type, status, reason and message."""
    if spec is None or spec.failover.prediction is None:
        return []
    threshold = _threshold(spec)
    found = sorted((a for a in agents if a.alive and _fears(a, threshold)), key=lambda a: a.name)
    if not found:
        return [(FAILURE_PREDICTED, "False", "NothingForeseen", "No agent is expected to fail soon.")]
    texts = [
        f"{a.pod.name}: {_why(a)}" + (" (it has replaced another of late, and is left alone)" * _spared(a, now))
        for a in found
    ]
    text = "; ".join(texts[:_NAMED]) + (f"; and {len(texts) - _NAMED} more" if len(texts) > _NAMED else "")
    held = all(_spared(agent, now) for agent in found)
    if spec.rollout.paused:
        reason, text = "RolloutPaused", f"No agent is replaced while rollout.paused is true. {text}"
    else:
        reason = "CoolingDown" if held else "Replacing"
    return [(FAILURE_PREDICTED, "True", reason, text[:1000])]
