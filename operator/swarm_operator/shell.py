"""kopf as the watch shell: its handlers put a key on the queue, and do nothing else.

No other kind of handler is used. Create, update and field handlers, timers and daemons store the spec in annotations,
write progress annotations and force a finalizer on the object, with which a deletion hangs while the operator is down.
An `on.event` handler leaves no trace in the object. Events, peering and the watching of CRDs and namespaces are off,
so that kopf needs no rights beyond reading Swarms.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import kopf

from swarm_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from swarm_operator.kube import Api
from swarm_operator.names import Key

__all__ = ["registry_of", "run_shell"]


def registry_of(api: Api, enqueue: Callable[[Key], None]) -> kopf.OperatorRegistry:
    """kopf's handlers: one for Swarms, and one that hands it our connection."""
    registry = kopf.OperatorRegistry()

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def swarm_event(namespace: str | None, name: str | None, **_: Any) -> None:
        enqueue(Key(namespace or "", name or ""))

    @kopf.on.login(registry=registry)
    async def login(**_: Any) -> kopf.ConnectionInfo:
        configuration = api.configuration
        scheme, _space, token = (await api.authorization() or "").rpartition(" ")
        return kopf.ConnectionInfo(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            ca_data=None if configuration.ssl_ca_cert else getattr(configuration, "ca_cert_data", None),
            insecure=not configuration.verify_ssl,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
            scheme=scheme or None,
            token=token or None,
            proxy_url=configuration.proxy,
            trust_env=True,
        )

    return registry


async def run_shell(
    api: Api,
    namespaces: Sequence[str],
    enqueue: Callable[[Key], None],
    stop: asyncio.Event,
    restore_signals: Callable[[], None],
) -> None:
    """Runs kopf until `stop` is set. It takes the signal handlers for itself; `restore_signals` takes them back."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 330
    tasks = await kopf.spawn_tasks(
        registry=registry_of(api, enqueue),
        settings=settings,
        standalone=True,
        clusterwide=not namespaces,
        namespaces=list(namespaces),
        stop_flag=stop,
    )
    restore_signals()
    await kopf.run_tasks(tasks, ignored=[task for task in asyncio.all_tasks() if task not in tasks])
