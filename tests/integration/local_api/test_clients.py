"""The clients that the product itself uses, against the embedded API: kopf and the Python client, as they come."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import pytest

from support.local_api import make_pod, make_widget
from swarm_deploy.local.api.client import LocalClient

from .conftest import Http

Object = dict[str, Any]
WIDGETS = "widgets.example.test"


async def test_kopf_watches_handles_patches_and_posts_events(http: Http) -> None:
    import kopf

    registry = kopf.OperatorRegistry()
    seen: list[tuple[str, str | None, str]] = []
    credentials = http.server.credentials

    @kopf.on.startup(registry=registry)  # type: ignore[misc]
    def configure(settings: kopf.OperatorSettings, **_: Any) -> None:
        settings.networking.connect_timeout = 5

    @kopf.on.login(registry=registry)  # type: ignore[misc]
    def login(**_: Any) -> kopf.ConnectionInfo:
        return kopf.ConnectionInfo(
            server=http.server.url,
            ca_data=base64.b64encode(credentials.authority.encode()),
            scheme="Bearer",
            token=credentials.token,
        )

    @kopf.on.event("example.test", "v1", "widgets", registry=registry)  # type: ignore[misc]
    def widget_event(event: Object, name: str, **_: Any) -> None:
        seen.append(("widget", event["type"], name))

    @kopf.on.create("example.test", "v1", "widgets", registry=registry)  # type: ignore[misc]
    def widget_created(body: Object, patch: Object, **_: Any) -> None:
        patch["status"] = {"ready": body["spec"]["size"]}
        kopf.info(body, reason="Made", message="it is there")

    @kopf.on.event("", "v1", "pods", labels={"a": "b"}, registry=registry)  # type: ignore[misc]
    def pod_event(event: Object, name: str, **_: Any) -> None:
        seen.append(("pod", event["type"], name))

    client = LocalClient(http.server.api, "test")

    async def handled(name: str) -> None:
        while "status" not in await client.get(WIDGETS, name, "default"):  # noqa: ASYNC110 - kopf does it when it likes
            await asyncio.sleep(0.02)

    await client.create(WIDGETS, make_widget("before"), namespace="default")
    ready, stop = asyncio.Event(), asyncio.Event()
    operator = asyncio.create_task(
        kopf.operator(registry=registry, standalone=True, namespaces=["default"], ready_flag=ready, stop_flag=stop)
    )
    try:
        async with asyncio.timeout(20):
            await ready.wait()
            await handled("before")
            await client.create(WIDGETS, make_widget("during"), namespace="default")
            pod = make_pod()
            pod["metadata"]["labels"] = {"a": "b"}
            await client.create("pods", pod, namespace="default")
            await handled("during")
            while len((await client.list("events", "default")).items) < 2:  # noqa: ASYNC110 - kopf posts when it likes
                await asyncio.sleep(0.02)
            await client.delete(WIDGETS, "during", "default")
            while ("widget", "DELETED", "during") not in seen:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.02)
    finally:
        stop.set()
        await asyncio.wait_for(operator, 10)
    assert ("widget", None, "before") in seen, "what was there before is listed"
    assert ("widget", "ADDED", "during") in seen
    assert ("pod", "ADDED", "p") in seen
    posted = (await client.list("events", "default")).items
    assert {(e["reason"], e["message"]) for e in posted} >= {("Made", "it is there")}


async def test_the_python_client_reads_writes_watches_and_is_refused(http: Http, tmp_path: Any) -> None:
    from kubernetes import aio
    from kubernetes.aio import client as k8s

    path = tmp_path / "kubeconfig"
    path.write_text(http.server.kubeconfig())
    configuration = k8s.Configuration()
    await aio.config.load_kube_config(config_file=str(path), client_configuration=configuration)
    async with k8s.ApiClient(configuration) as api:
        core, custom = k8s.CoreV1Api(api), k8s.CustomObjectsApi(api)
        assert {n.metadata.name for n in (await core.list_namespace()).items} >= {"default", "kube-system"}
        made = await core.create_namespaced_pod("default", make_pod())
        assert (made.status.phase, made.status.qos_class) == ("Pending", "BestEffort")
        await core.patch_namespaced_pod("p", "default", {"metadata": {"labels": {"a": "b"}}})
        assert (await core.read_namespaced_pod("p", "default")).metadata.labels == {"a": "b"}
        with pytest.raises(k8s.ApiException) as error:
            await core.create_namespaced_pod("default", make_pod())
        assert (error.value.status, error.value.reason) == (409, "Conflict")
        where = {"group": "example.test", "version": "v1", "namespace": "default", "plural": "widgets"}
        await custom.create_namespaced_custom_object(
            **where, body={"apiVersion": "example.test/v1", "kind": "Widget", **make_widget()}
        )
        held = await custom.get_namespaced_custom_object(**where, name="w")
        assert held["spec"] == {"size": 3, "spare": 1, "colour": "red"}
        with pytest.raises(k8s.ApiException) as error:
            await custom.get_namespaced_custom_object(**where, name="none")
        assert error.value.status == 404
        lease = {"metadata": {"name": "l"}, "spec": {"holderIdentity": "me", "renewTime": "2026-01-01T01:00:00+01:00"}}
        leases = k8s.CoordinationV1Api(api)
        held_lease = await leases.create_namespaced_lease("default", lease)
        raw = http.server.api.store.get("leases.coordination.k8s.io", "default", "l")
        assert raw is not None
        assert raw["spec"]["renewTime"] == "2026-01-01T00:00:00.000000Z"
        held_lease.spec.holder_identity = "you"
        await leases.replace_namespaced_lease("l", "default", held_lease)
        with pytest.raises(k8s.ApiException) as error:
            await leases.replace_namespaced_lease("l", "default", held_lease)
        assert error.value.status == 409
        async with aio.watch.Watch() as watch:
            names = [
                (e["type"], e["object"].metadata.name)
                async for e in watch.stream(core.list_namespaced_pod, "default", timeout_seconds=1)
            ]
        assert names == [("ADDED", "p")]
