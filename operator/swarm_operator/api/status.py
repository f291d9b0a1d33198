"""The status of a Swarm: what the operator reports, and never reads to decide what to do."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from swarm_operator.api.fields import Model, plain

__all__ = ["Condition", "RoleStatus", "SwarmStatus"]

_Text = Annotated[str, Field(max_length=1024)]


class Condition(Model):
    """As everywhere in Kubernetes."""

    type: Annotated[str, Field(max_length=316)] = plain(..., "What it is about.")
    status: Literal["True", "False", "Unknown"] = plain(..., "Whether it holds.")
    reason: Annotated[str, Field(max_length=1024)] = plain(..., "Why, in one CamelCase word.")
    message: Annotated[str, Field(max_length=32768)] = plain("", "Why, for people, and what to do.")
    last_transition_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = plain(
        ..., "When status changed last."
    )
    #: Without a default: `kubectl wait` would take a condition of another writer, who leaves it out, for an old one.
    observed_generation: int | None = plain(None, "The generation of the spec that it speaks of.", ge=0)


class RoleStatus(Model):
    """The agents of one role."""

    desired: int = plain(0, "Wanted.", ge=0)
    current: int = plain(0, "Present, and not on their way out.", ge=0)
    ready: int = plain(0, "Ready.", ge=0)
    updated: int = plain(0, "Of the newest revision.", ge=0)
    draining: int = plain(0, "Finishing their tasks before they leave.", ge=0)


class AutoscalingStatus(Model):
    """What the autoscaler decided last, and by what. Up-to-date numbers are the operator's metrics."""

    desired: int = plain(0, "Compute agents that it wants.", ge=0)
    min: int = plain(0, "The lower bound now, a schedule's included.", ge=0)
    max: int = plain(0, "The upper bound.", ge=0)
    queue_time: Annotated[str, Field(max_length=32)] = plain("", "What 19 of 20 tasks waited no longer than, of late.")
    service_time: Annotated[str, Field(max_length=32)] = plain("", "What a task took on average.")
    arrivals_per_second: Annotated[str, Field(max_length=32)] = plain("", "Tasks that came, per second.")
    completions_per_second: Annotated[str, Field(max_length=32)] = plain("", "Tasks that were done, per second.")
    waiting: int = plain(0, "Tasks that waited.", ge=0)
    busy: int = plain(0, "Compute agents that had a task in hand.", ge=0)
    reason: Annotated[str, Field(max_length=63)] = plain("", "Why, in one CamelCase word.")
    message: _Text = plain("", "Why, for people.")
    last_scale_time: Annotated[str, Field(json_schema_extra={"format": "date-time"})] | None = plain(
        None, "When it changed compute.replicas last."
    )


class AgentCores(Model):
    """The cores of one agent."""

    agent: Annotated[str, Field(max_length=253)] = plain(..., "The agent's pod.")
    node: Annotated[str, Field(max_length=253)] = plain("", "Its node.")
    cpus: Annotated[str, Field(max_length=64)] = plain("", "The CPUs that it may use, such as 2-3,6.")
    exclusive: Literal["True", "False", "Unknown"] = plain("Unknown", "Whether they are its alone.")
    numa: Annotated[str, Field(max_length=64)] = plain("", "The NUMA nodes on which they lie.")
    reason: _Text = plain("", "Why, as the agent sees it.")


class AuditAnchor(Model):
    """The end of the audit trail."""

    entries: int = plain(0, "Entries ever written.", ge=0)
    head: Annotated[str, Field(max_length=64)] = plain("", "Hash of the last one.")


class KeysStatus(Model):
    """The swarm's CURVE keys, by fingerprint."""

    fingerprint: Annotated[str, Field(max_length=16)] = plain("", "Of the keys that hold.")
    made_at: Annotated[str, Field(json_schema_extra={"format": "date-time"})] = plain(..., "Since when they hold.")
    renewals: int = plain(0, "How often they were renewed.", ge=0)
    stage: Literal["Steady", "Offered", "Overlapping", "Ending", "Returning"] = plain(
        "Steady", "How far their renewal is; see the condition KeysRenewing."
    )
    next_fingerprint: Annotated[str, Field(max_length=16)] = plain("", "Of the keys that follow them.")


class SwarmStatus(Model):
    """What the operator has observed."""

    observed_generation: int = plain(0, "The generation of the spec that this speaks of.", ge=0)
    replicas: int = plain(0, "Compute agents present; read by the scale subresource.", ge=0)
    selector: _Text = plain("", "Label selector of the compute agents; read by the scale subresource.")
    compute: RoleStatus | None = plain(None, "The compute agents.")
    standby: RoleStatus | None = plain(None, "The standby agents.")
    resource: RoleStatus | None = plain(
        None, "The resource agents; none with shared memory of medium Memory, where each compute agent's pod has a hub."
    )
    revision: Annotated[str, Field(max_length=63)] = plain("", "Revision of the rolling fields.")
    settings: Annotated[str, Field(max_length=63)] = plain("", "Revision of the settings that agents should run by.")
    observed_settings: Annotated[str, Field(max_length=63)] = plain(
        "", "Revision of the settings that every agent has acknowledged."
    )
    autoscaling: AutoscalingStatus | None = plain(None, "The autoscaler's last decision, and its reasons.")
    cores: list[AgentCores] = plain(
        [],
        "The agents' cores, those first that are not their agents' own; not more than 32.",
        max_length=32,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["agent"]},
    )
    keys: KeysStatus | None = plain(None, "The keys by which hubs and clients know each other.")
    audit: AuditAnchor | None = plain(None, "Where the audit trail ends: by this its truncation is found.")
    conditions: list[Condition] = plain(
        [],
        "Accepted, Ready, Progressing, Degraded, Suspended, RolledBack, FailurePredicted, Autoscaling, "
        "PodSecurity, KeysRenewing, Placed, Pinned, NumaAligned, TopologyRejected.",
        max_length=16,
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )
