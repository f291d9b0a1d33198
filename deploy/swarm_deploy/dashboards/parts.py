"""What the boards' definitions are written in: the selectors of their variables, and panels in few words."""

from __future__ import annotations

from typing import Final

from swarm_deploy.dashboards.model import Panel, Query, Unit, Variable

__all__ = [
    "AGENT",
    "BY_AGENT",
    "BY_NAMESPACE",
    "BY_OPERATOR",
    "BY_SWARM",
    "OPERATORS",
    "RATE",
    "SWARMS",
    "agents",
    "quantiles",
    "series",
    "stat",
]

#: Series of the agents of the Swarms that are chosen, of the agent that is chosen, and of the operators.
SWARMS: Final = 'namespace=~"$namespace",swarm=~"$swarm"'
AGENT: Final = 'namespace=~"$namespace",swarm=~"$swarm",pod="$pod"'
OPERATORS: Final = 'namespace=~"$namespace"'
RATE: Final = "[$__rate_interval]"
BY_NAMESPACE: Final = Variable("namespace", "Namespace", "swarm_agent_up", "namespace")
BY_SWARM: Final = Variable("swarm", "Swarm", 'swarm_agent_up{namespace=~"$namespace"}', "swarm")
BY_AGENT: Final = Variable("pod", "Agent", f"swarm_agent_up{{{SWARMS}}}", "pod", many=False)
BY_OPERATOR: Final = Variable("namespace", "Namespace of the operator", "swarm_operator_leading", "namespace")


def series(title: str, text: str, unit: Unit, *queries: tuple[str, str], stacked: bool = False) -> Panel:
    """A graph; each query is PromQL and legend."""
    return Panel(title, text, tuple(Query(*query) for query in queries), unit, stacked=stacked)


def stat(title: str, text: str, unit: Unit, expression: str) -> Panel:
    """A last value."""
    return Panel(title, text, (Query(expression, title),), unit, kind="stat")


def quantiles(metric: str, labels: str, by: str, *at: float) -> tuple[tuple[str, str], ...]:
    """Queries for the quantiles of a histogram, by a label (or several)."""
    name = " ".join(f"{{{{{label.strip()}}}}}" for label in by.split(",")) if by else ""
    keep = f"{by}, le" if by else "le"
    return tuple(
        (
            f"histogram_quantile({q:g}, sum by ({keep}) (rate({metric}_bucket{{{labels}}}{RATE})))",
            f"p{q * 100:g} {name}".strip(),
        )
        for q in at
    )


def agents(state: str, by: str) -> str:
    """A query for how many agents there are in a state."""
    found = f'swarm_operator_agents{{{SWARMS},state="{state}"}}'
    return (
        f"sum by ({by}) (max by (namespace, swarm, role) ({found}))"
        if by
        else (f"sum(max by (namespace, swarm, role) ({found}))")
    )
