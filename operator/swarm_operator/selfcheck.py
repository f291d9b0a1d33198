"""`swarm-operator check --offline`: whether this installation can do an operator's work, without a cluster.

It is what an image is tested by, so each part is really done and not looked up: all modules are loaded, the CRD is
made, a Swarm is planned down to its pods, keys are made, and `/metrics` is served and read. What only a cluster can say
(reachable, rights, the CRD applied) is what `check` without `--offline` asks.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["selfcheck"]


async def selfcheck() -> int:
    """Prints a line for each part; returns how many failed."""
    checks: tuple[tuple[str, str, Callable[[], Awaitable[str]]], ...] = (
        ("modules", "The installation is incomplete: install agentswarm[operator] again.", _modules),
        ("the CRD", "The installation is damaged: install agentswarm[operator] again.", _crd),
        ("a Swarm planned", "This is a bug, or two releases are mixed: install agentswarm again.", _planned),
        ("keys", "The libzmq in use has no CURVE: install pyzmq's wheel.", _keys),
        ("time zones", "Install tzdata: schedules name time zones.", _time_zones),
        ("HTTP", "Loopback must be usable: probes and metrics are served by HTTP.", _http),
    )
    wrong = 0
    for what, hint, check in checks:
        try:
            found = await check()
        except Exception as error:  # whatever it is: the other parts are looked at all the same
            wrong += 1
            print(f"FAIL  {what}: {type(error).__name__}: {error}. {hint}")
        else:
            print(f"ok    {what}: {found}")
    return wrong


async def _modules() -> str:
    import swarm_operator

    found = [each.name for each in pkgutil.walk_packages(swarm_operator.__path__, "swarm_operator.")]
    for name in found:
        if not name.endswith("__main__"):
            importlib.import_module(name)
    return f"{len(found)} loaded"


async def _crd() -> str:
    from swarm_operator.api.crd import crd
    from swarm_operator.api.v1alpha1 import GROUP, PLURAL, VERSION

    made = crd()
    if made["metadata"]["name"] != f"{PLURAL}.{GROUP}" or VERSION not in {v["name"] for v in made["spec"]["versions"]}:
        raise ValueError(f"it is called {made['metadata']['name']}")
    return f"{PLURAL}.{GROUP}, {VERSION}"


async def _planned() -> str:
    from swarm_agents.config import Role
    from swarm_operator.accept import refusals
    from swarm_operator.api.read import read_spec
    from swarm_operator.names import parse_pod_name
    from swarm_operator.plan import plan
    from swarm_operator.snapshot import Snapshot
    from swarm_operator.views import NodeView, SwarmView

    wish: dict[str, Any] = {"compute": {"replicas": 2}}
    spec, invalid = read_spec(wish)
    if spec is None or refusals(spec):
        raise ValueError(f"a Swarm of two agents would be refused: {invalid or refusals(spec)}")  # type: ignore[arg-type]
    uid = "00000000-0000-0000-0000-000000000000"
    view = SwarmView("none", "selfcheck", uid, "", 1, False, wish, {})
    node = NodeView(name="here", resource_version="", labels={"kubernetes.io/hostname": "here"})
    actions = plan(Snapshot(swarm=view, spec=spec, nodes=(node,)), 0.0).actions
    manifests = [action.manifest for action in actions if hasattr(action, "manifest")]
    names = [parse_pod_name(each["metadata"]["name"], "selfcheck") for each in manifests if each["kind"] == "Pod"]
    agents = sum(name is not None and name.role == Role.COMPUTE for name in names)
    if agents != 2:
        raise ValueError(f"two compute agents were asked for, and the plan makes {agents}")
    return f"{len(manifests)} objects, {len(names)} of them pods"


async def _keys() -> str:
    from swarm_operator.keys import examine, make_pair, make_token

    made = {"token": make_token()}
    for pair in ("hub", "client"):
        made[f"{pair}.public"], made[f"{pair}.secret"] = make_pair()
    if missing := examine(made).missing:
        raise ValueError(f"those just made are not valid: {', '.join(missing)}")
    return "made, and valid"


async def _time_zones() -> str:
    from zoneinfo import ZoneInfo

    return str(ZoneInfo("Europe/Zurich"))


async def _http() -> str:
    import aiohttp

    from swarm_operator.httpd import serve
    from swarm_operator.metrics import Metrics

    runner, port = await serve("127.0.0.1:0", Metrics(), lambda: "", lambda: "")
    try:
        timeout = aiohttp.ClientTimeout(total=10)
        async with (
            aiohttp.ClientSession(timeout=timeout, trust_env=False) as session,
            session.get(f"http://127.0.0.1:{port}/metrics") as answer,
        ):
            answer.raise_for_status()
            lines = (await answer.text()).splitlines()
    finally:
        await asyncio.wait_for(runner.cleanup(), 10)
    families = sum(line.startswith("# TYPE swarm_") for line in lines)
    if not families:
        raise ValueError("/metrics holds none of the operator's")
    return f"/metrics serves {families} families"
