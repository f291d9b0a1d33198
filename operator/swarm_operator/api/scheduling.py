"""Parts of the Swarm's spec that say how many compute agents there are, and where: scheduling and autoscaling.

A part of `v1alpha1`, which is what others import; the invariants stated there hold here too.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swarm_operator.api.fields import (
    Change,
    Duration,
    LabelKey,
    LabelMap,
    LabelValue,
    Model,
    Name,
    duration,
    live,
    plain,
    rolling,
)

__all__ = ["Autoscaling", "AutoscalingSchedule", "Scheduling", "Toleration", "Topology"]


class Toleration(Model):
    """As in a pod's spec."""

    key: Annotated[str, Field(max_length=317)] = plain("", "The taint's key; every key when empty and Exists.")
    operator: Literal["Exists", "Equal"] = plain("Equal", "How the value is compared.")
    value: LabelValue = plain("", "The taint's value.")
    effect: Literal["", "NoSchedule", "PreferNoSchedule", "NoExecute"] = plain("", "Which effect; all when empty.")
    toleration_seconds: int | None = plain(None, "How long a NoExecute taint is tolerated.", ge=0, le=86400)


class Topology(Model):
    """How compute agents are laid over the nodes."""

    placement: Literal["Spread", "Pack", "Any"] = rolling(
        "Spread", "Spread them evenly, pack them on few nodes, or leave it to the scheduler."
    )
    key: LabelKey = rolling("kubernetes.io/hostname", "Node label that tells one domain from another.")
    max_skew: int = rolling(1, "Difference between domains that Spread allows.", ge=1, le=1000)
    required: bool = rolling(False, "Leave an agent pending rather than break the placement.")
    numa: Literal["Any", "Preferred", "Required"] = rolling(
        "Any",
        "Cores of one NUMA node, as the node's Topology Manager aligns them; whole compute.cpus are needed. Preferred: "
        "the condition NumaAligned tells; Required: an agent whose cores are not is not ready.",
    )


class Scheduling(Model):
    """Where the pods may run."""

    node_selector: LabelMap = rolling({}, "Labels that a node must have, for every agent.", max_length=16)
    tolerations: list[Toleration] = rolling([], "Taints that every agent tolerates.", max_length=32)
    priority_class_name: Name | None = rolling(None, "PriorityClass of the pods.")
    scheduler_name: Name | None = rolling(
        None,
        "Scheduler of the compute agents; the cluster's own when left out, and volcano with gang Volcano. For gang "
        "Coscheduling it must be the one that has the plugin.",
    )
    topology: Topology = plain(Topology(), "How the compute agents are laid over the nodes.")
    cpu_pinning: Literal["None", "Preferred", "Required"] = rolling(
        "Preferred",
        "Whether agents pin themselves to their cores. Required: an agent whose cores are not its alone is not ready "
        "and takes no task; whole compute.cpus and a node with the static CPU Manager are needed.",
    )
    gang: Literal["None", "Operator", "Kueue", "Volcano", "Coscheduling"] = rolling(
        "None",
        "Start all compute agents or none, and who sees to it: the operator, or a gang scheduler that is installed. "
        "What is added to or replaced in a swarm that runs comes singly.",
    )
    queue_name: Name | None = rolling(
        None, "Queue of the gang scheduler: a LocalQueue of Kueue, which needs one, or a Queue of Volcano."
    )


class AutoscalingSchedule(Model):
    """A time at which the lower bound is raised."""

    cron: Annotated[str, Field(min_length=9, max_length=128)] = plain(..., "When it begins, in five cron fields.")
    time_zone: Annotated[str, Field(max_length=64)] = plain("Etc/UTC", "IANA time zone of cron.")
    duration: Duration = duration(Change.LIVE, "1h", "How long it lasts.", "1m", "168h")
    min: int = plain(..., "The lower bound meanwhile.", ge=0, le=5000)


class Autoscaling(Model):
    """How many compute agents, between compute.min and compute.max."""

    target_queue_time: Duration = duration(
        Change.LIVE, "50ms", "How long a task may wait before agents are added.", "100us", "1h"
    )
    scale_in_window: Duration = duration(
        Change.LIVE, "2m", "How long fewer agents must have been enough before some leave.", "1s", "24h"
    )
    max_step: int = live(1000, "Agents added at once at most.", ge=1, le=5000)
    forecast: bool = live(True, "Scale ahead of the load that is forecast.")
    schedule: list[AutoscalingSchedule] = live([], "Times at which compute.min is raised.", max_length=16)
