"""`swarm-operator`: the operator's process. Starts the parts, stops them in order.

Order of start: HTTP port (so that a probe has an answer), reflectors, election, and, once everything has been listed,
the workers and kopf. Order of stop, on SIGTERM: no more keys are taken, those in hand are finished, Events are flushed,
the Lease is given back so that the other replica leads at once, connections are closed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import structlog

from swarm_operator import __version__

if TYPE_CHECKING:
    from swarm_operator.policy import Policy

__all__ = ["main"]

HTTP_PORT: Final = 9403
_STOP_SECONDS: Final = 8.0

log = structlog.get_logger("operator")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="swarm-operator", description="Turns Swarms into pods, and keeps them so.")
    parser.add_argument(
        "command", nargs="?", choices=("run", "check"), default="run", help="run (default), or check the cluster"
    )
    parser.add_argument("--offline", action="store_true", help="check this installation instead, without a cluster")
    parser.add_argument(
        "-n", "--namespace", action="append", default=[], help="serve this namespace only; may be given repeatedly"
    )
    parser.add_argument("--kubeconfig", help="else KUBECONFIG, else the pod's own account, else ~/.kube/config")
    parser.add_argument("--context", help="of the kubeconfig; else its current one")
    parser.add_argument(
        "--http-bind",
        default=f"{os.environ.get('POD_IP', '127.0.0.1')}:{HTTP_PORT}",
        help="HOST:PORT of /metrics, /targets, /healthz and /readyz (default: %(default)s); port 0 takes a free one",
    )
    parser.add_argument("--no-leader-election", action="store_true", help="this is the only replica")
    parser.add_argument("--lease-namespace", help="of the Lease; else the pod's or the context's own")
    parser.add_argument(
        "--policy",
        type=Path,
        metavar="FILE",
        help="YAML: what owners of Swarms may ask for",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), default="info")
    parser.add_argument("--version", action="version", version=f"swarm-operator {__version__}")
    return parser


async def _run(options: argparse.Namespace, policy: Policy) -> int:
    from swarm_operator import heap
    from swarm_operator.agents import Agents
    from swarm_operator.auditor import Auditor
    from swarm_operator.autoscaler import Autoscaler
    from swarm_operator.cache import Cache
    from swarm_operator.controller import Controller
    from swarm_operator.events import Recorder
    from swarm_operator.execute import Executor
    from swarm_operator.gather import Gatherer
    from swarm_operator.httpd import STALE_AFTER, serve
    from swarm_operator.keys import KeyMemory
    from swarm_operator.kube import connect, pod_namespace
    from swarm_operator.leader import Leader
    from swarm_operator.metrics import Metrics
    from swarm_operator.shell import run_shell
    from swarm_operator.targets import targets

    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def catch_signals() -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)

    catch_signals()
    metrics, memory, agents = Metrics(), KeyMemory(), Agents(time.time)
    api = await connect(options.kubeconfig, options.context)
    api.observer = metrics.observe_request
    identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}-{uuid.uuid4().hex[:8]}"
    leader = None
    if not options.no_leader_election:
        leader = Leader(api, options.lease_namespace or api.namespace, identity, time.monotonic)
        api.may_write = leader.leads
    cache = Cache(api, options.namespace, agents, memory, time.monotonic, home=pod_namespace(), policy=policy)
    executor = Executor(api, cache, agents, memory, leads=leader.leads if leader else lambda: True)
    auditor = Auditor(api, executor.leads, time.time, lambda key: cache.on_key(key))
    cache.on_swarm, cache.anchor = auditor.changed, auditor.anchor
    recorder = Recorder(api, identity, time.monotonic)
    controller = Controller(api, cache, executor, recorder, metrics, leader)
    autoscaler = Autoscaler(api, cache, agents, recorder, metrics, executor.leads, time.monotonic, time.time)
    cache.autoscaling = autoscaler.decision
    synced = asyncio.Event()

    def alive() -> str:
        age = cache.age()
        return f"a watch was not heard of for {age:.0f} s" if age > STALE_AFTER else ""

    def ready() -> str:
        if synced.is_set():
            return ""
        errors = sorted({f"{r.kind}: {r.error}" for r in cache.reflectors if r.error})
        return "; ".join(errors) or "the first lists are not complete yet"

    metrics.read("queue_depth", lambda: len(controller.queue))
    metrics.read("swarms", lambda: sum(1 for _ in cache.swarms()))
    metrics.read("pods", lambda: sum(len(store) for store in cache.stores("Pod")))
    metrics.read("watch_age_seconds", cache.age)
    metrics.read("audit_entries", lambda: auditor.entries)
    metrics.read("autoscale_unread_nodes", lambda: autoscaler.unread)
    metrics.read("leading", lambda: float(leader is None or leader.leads()))
    metrics.read("events_dropped", lambda: recorder.dropped)
    metrics.read_swarms(cache.swarm_views)
    runner, port = await serve(options.http_bind, metrics, alive, ready, lambda: targets(cache.agent_pods()))
    log.info(
        "started",
        version=__version__,
        identity=identity,
        http_port=port,
        namespaces=options.namespace or "all",
        policy=str(options.policy or ""),
    )

    tasks = [asyncio.create_task(r.run(), name=f"reflector {r.kind}") for r in cache.reflectors]
    election = asyncio.create_task(leader.run(), name="leader") if leader else None
    tasks += [election] if election else []
    tasks.append(asyncio.create_task(recorder.run(), name="events"))
    stopped = asyncio.create_task(stop.wait(), name="stop")
    code = 0
    try:
        first = asyncio.create_task(cache.synced(), name="sync")
        await asyncio.wait({first, stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        if first.done() and not stop.is_set():
            synced.set()
            heap.freeze()
            tasks.append(asyncio.create_task(heap.keep(), name="heap"))
            log.info("synced", swarms=sum(1 for _ in cache.swarms()))
            work = asyncio.create_task(controller.run(), name="workers")
            tasks.append(work)
            gatherer = Gatherer(
                cache, agents, recorder, leader.leads if leader else lambda: True, time.monotonic, time.time
            )
            tasks.append(asyncio.create_task(gatherer.run(), name="gather"))
            tasks.append(asyncio.create_task(auditor.run(), name="audit"))
            tasks.append(asyncio.create_task(autoscaler.run(), name="autoscale"))
            shell = run_shell(api, options.namespace, controller.queue.add, stop, catch_signals)
            tasks.append(asyncio.create_task(shell, name="kopf"))
        await asyncio.wait({stopped, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        for task in tasks:
            if task.done() and not stop.is_set():
                code = 1
                log.error("a part ended by itself", part=task.get_name(), error=repr(_error_of(task)))
        first.cancel()
    finally:
        stop.set()
        log.info("stopping")
        await controller.drain(_STOP_SECONDS)
        for task in tasks:
            if task is not election and task.get_name() != "kopf":
                task.cancel()
        await recorder.flush()
        if executor.leads():
            await auditor.flush()
        if election and leader:
            election.cancel()
            await asyncio.gather(election, return_exceptions=True)
            await leader.release()
        await asyncio.wait([asyncio.ensure_future(_gathered(tasks))], timeout=3.0)
        stopped.cancel()
        await executor.close()
        await runner.cleanup()
        await agents.close()
        await api.close()
    return code


async def _gathered(tasks: Sequence[asyncio.Task[None]]) -> None:
    await asyncio.gather(*tasks, return_exceptions=True)


def _error_of(task: asyncio.Task[None]) -> BaseException | None:
    return None if task.cancelled() else task.exception()


async def _check(options: argparse.Namespace) -> int:
    """Asks the API server whether it has all that the operator will need, and says what is missing."""
    from swarm_operator.check import check
    from swarm_operator.kube import connect

    api = await connect(options.kubeconfig, options.context)
    lease = "" if options.no_leader_election else options.lease_namespace or api.namespace
    try:
        return 1 if await check(api, options.namespace, lease) else 0
    finally:
        await api.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The entry point of `swarm-operator`. Exit code 0 after a signal, 1 when a part failed, 2 for bad options."""
    parser = _parser()
    options = parser.parse_args(arguments)
    from swarm_operator.httpd import split_address
    from swarm_operator.kube import ApiError
    from swarm_operator.logs import configure
    from swarm_operator.policy import OPEN
    from swarm_operator.policy_file import BadPolicy, load

    try:
        split_address(options.http_bind)
    except ValueError as error:
        parser.error(str(error))
    if options.offline and options.command != "check":
        parser.error("--offline belongs to check")
    try:
        policy = load(options.policy) if options.policy else OPEN
    except BadPolicy as error:
        parser.error(str(error))
    configure(options.log_level)
    if options.offline:
        from swarm_operator.selfcheck import selfcheck

        return 1 if asyncio.run(selfcheck()) else 0
    try:
        return asyncio.run(_check(options) if options.command == "check" else _run(options, policy))
    except ApiError as error:
        print(f"swarm-operator: {error}", file=sys.stderr)
    except OSError as error:
        hint = "another program has the port: choose another one" if error.errno == 98 else "see --http-bind"
        print(f"swarm-operator: can't listen on {options.http_bind}: {error.strerror}; {hint}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
