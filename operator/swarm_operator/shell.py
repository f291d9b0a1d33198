"""kopf as the watch shell: its handlers put a key on the queue, and do nothing else.

No other kind of handler is used. Create, update and field handlers, timers and daemons store the spec in annotations,
write progress annotations and force a finalizer on the object, with which a deletion hangs while the operator is down.
An `on.event` handler leaves no trace in the object. Events, peering and the watching of CRDs and namespaces are off,
so that kopf needs no rights beyond reading Swarms.

kopf ends when a watch is answered by 410 or, for longer than its back-off, by any other error. It is begun again then:
the reflectors tell of every change as well, and nothing that kopf meets may stop the operator.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

import kopf
import structlog

from swarm_operator.api.v1alpha1 import GROUP, PLURAL, VERSION
from swarm_operator.kube import Api
from swarm_operator.names import Key

__all__ = ["registry_of", "run_shell"]

#: How long kopf is left alone after it ended, at first and at most (seconds).
PAUSE: Final = 0.5
PAUSE_MAX: Final = 30.0

log = structlog.get_logger("shell")


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
    pause = PAUSE
    while not stop.is_set():
        begun = asyncio.get_running_loop().time()
        try:
            await _run_once(api, namespaces, enqueue, stop, restore_signals)
        except Exception as error:
            if asyncio.get_running_loop().time() - begun > 10 * PAUSE_MAX:
                pause = PAUSE
            log.warning("kopf ended, it is begun again", error=repr(error), retry_in=pause)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await stop.wait()
            pause = min(pause * 2, PAUSE_MAX)
        else:
            return


async def _run_once(
    api: Api,
    namespaces: Sequence[str],
    enqueue: Callable[[Key], None],
    stop: asyncio.Event,
    restore_signals: Callable[[], None],
) -> None:
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
