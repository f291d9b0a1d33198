"""The agents' settings from a spec: the ConfigMap's content at start, and the body of every push.

Pure, and independent of `metadata.generation`: scaling makes a new generation, and must not make every agent
acknowledge settings that have not changed. Hence `Settings.generation` is left at 0.
"""

from __future__ import annotations

from collections.abc import Iterable

from swarm_agents.config import Checkpoints, Failover, Hub, Runtime, Sensing, Settings, Transport
from swarm_operator.api.fields import seconds, size_bytes
from swarm_operator.api.v1alpha1 import SwarmSpec
from swarm_operator.keyrecord import KeyState
from swarm_operator.private_board import in_pod, kept_bytes
from swarm_operator.rotation import doors
from swarm_operator.views import PodView, SwarmView

__all__ = ["hubs_of", "settings_of"]


def hubs_of(pod: PodView, spec: SwarmSpec, keys: KeyState) -> tuple[Hub, ...]:
    """Where a resource agent listens, or the hub in a compute agent's pod: then the pod is the node's name.

    There are two addresses of it while the keys are renewed; see `rotation`.
    """
    host = f"[{pod.ip}]" if ":" in pod.ip else pod.ip
    zeromq = spec.transport.zeromq
    hub = Hub(node=pod.board, address=f"tcp://{host}:{zeromq.port}", rest=f"http://{host}:{zeromq.rest_port}")
    ports = Transport(hub_port=zeromq.port, rest_port=zeromq.rest_port)
    return doors(hub, ports, keys, zeromq.encryption == "Curve")


def settings_of(swarm: SwarmView, spec: SwarmSpec, revision: str, hubs: Iterable[Hub]) -> Settings:
    """Everything that all agents of the swarm share."""
    memory, zeromq = spec.transport.shared_memory, spec.transport.zeromq
    failover, runtime = spec.failover, spec.runtime
    return Settings(
        swarm=swarm.name,
        namespace=swarm.namespace,
        uid=swarm.uid,
        revision=revision,
        hubs=tuple(sorted(hubs, key=lambda hub: (hub.node, hub.address))),
        transport=Transport(
            arena_bytes=size_bytes(memory.size),
            task_slots=memory.task_slots,
            max_members=memory.max_members,
            hub_port=zeromq.port,
            rest_port=zeromq.rest_port,
            encryption=zeromq.encryption == "Curve",
            max_message_bytes=size_bytes(zeromq.max_message_size),
        ),
        failover=Failover(
            heartbeat_interval=seconds(failover.heartbeat_interval),
            suspect_after=seconds(failover.suspect_after),
            dead_after=seconds(failover.dead_after),
            max_attempts=failover.max_attempts,
            straggler_factor=float(failover.stragglers.factor),
            straggler_least=seconds(failover.stragglers.min_runtime),
            straggler_share=failover.stragglers.percent / 100,
        ),
        sensing=Sensing(
            interval=seconds(spec.resource.interval),
            disabled=tuple(spec.resource.sensors.disabled),
            balance=spec.resource.balance,
            power_cap=float(spec.resource.caps.power_watts),
            heat_cap=float(spec.resource.caps.temperature_celsius),
        ),
        runtime=Runtime(
            spin=seconds(runtime.spin),
            threads=runtime.threads,
            gpu_memory=(spec.compute.gpus.memory_percent if spec.compute.gpus else 80) / 100,
            drain_timeout=seconds(runtime.drain_timeout),
            log_level=runtime.log_level,
            kernel_modules=tuple(runtime.kernel_modules),
            kernels=tuple(spec.compute.kernels),
        ),
        checkpoints=_checkpoints(spec),
    )


def _checkpoints(spec: SwarmSpec) -> Checkpoints:
    """Without `spec.state` tasks and agents are kept in shared memory all the same, and on no volume."""
    state = spec.state
    node_bytes = kept_bytes(spec) if in_pod(spec) else Checkpoints().node_bytes
    if state is None:
        return Checkpoints(node_bytes=node_bytes)
    # A tenth is left to the directory and to files on their way: beyond an emptyDir's limit the kubelet evicts the pod.
    room = size_bytes(state.size_limit) * 9 // 10
    return Checkpoints(interval=seconds(state.checkpoint_interval), node_bytes=node_bytes, volume_bytes=room)
