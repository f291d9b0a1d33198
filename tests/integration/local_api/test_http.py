"""The embedded API over TLS: who gets in, in which forms it speaks, and streams that go on."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
import stat
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from support.local_api import make_pod, make_widget
from swarm_deploy.local.api import core
from swarm_deploy.local.api.access import load_credentials
from swarm_deploy.local.api.app import Server, serve
from swarm_deploy.local.api.client import LocalClient
from swarm_deploy.local.store import Store

from .conftest import Http

Object = dict[str, Any]

WIDGETS = "/apis/example.test/v1/namespaces/default/widgets"
PODS = "/api/v1/namespaces/default/pods"
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


# -- the way in


async def test_nobody_gets_in_without_the_token(http: Http) -> None:
    for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "Basic x"}):
        async with aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=http.server.credentials.client_context())
        ) as stranger:
            async with stranger.get(http.server.url + PODS, headers=header) as answer:
                assert answer.status == 401
                assert (await answer.json())["reason"] == "Unauthorized"
            for path in ("/healthz", "/readyz", "/livez", "/version"):
                async with stranger.get(http.server.url + path, headers=header) as answer:
                    assert answer.status == 200, path


async def test_a_service_accounts_token_gets_in(http: Http) -> None:
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    status, _, body = await http.ask("POST", path, {"spec": {}})
    assert status == 201
    token = f"Bearer {body['status']['token']}"
    status, _, body = await http.ask(
        "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", {}, Authorization=token
    )
    assert body["status"]["userInfo"]["username"] == "system:serviceaccount:default:default"


async def test_the_certificate_is_the_clusters_own_and_is_checked(server: Server) -> None:
    async with aiohttp.ClientSession() as stranger:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await stranger.get(server.url + "/healthz")
    strict = server.credentials.client_context()
    strict.verify_flags |= ssl.VERIFY_X509_STRICT
    connector = aiohttp.TCPConnector(ssl=strict)
    async with aiohttp.ClientSession(connector=connector) as session, session.get(server.url + "/healthz") as answer:
        assert await answer.text() == "ok"


def test_credentials_are_kept_and_nobody_else_may_read_them(tmp_path: Path) -> None:
    first = load_credentials(tmp_path / "pki")
    assert load_credentials(tmp_path / "pki") == first
    for path in (tmp_path / "pki").iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert stat.S_IMODE((tmp_path / "pki").stat().st_mode) == 0o700
    (tmp_path / "pki" / "server.crt").write_text("damaged")
    assert load_credentials(tmp_path / "pki").authority != first.authority, "damaged ones are made anew"


async def test_it_listens_on_the_loopback_address_and_says_when_a_port_is_taken(tmp_path: Path, server: Server) -> None:
    assert server.url.startswith("https://127.0.0.1:")
    port = int(server.url.rpartition(":")[2])
    store = Store(None)
    with pytest.raises(OSError, match="Address already in use"):
        async with serve(store, state=tmp_path / "other", port=port):
            pass
    store.close()


async def test_objects_and_credentials_outlive_the_server(tmp_path: Path) -> None:
    kubeconfigs = []
    for _ in range(2):
        store = Store(tmp_path / "cluster.db")
        async with serve(store, state=tmp_path / "pki") as server:
            client = LocalClient(server.api, "test")
            if not kubeconfigs:
                await client.create(
                    "configmaps", {"metadata": {"name": "kept"}, "data": {"a": "1"}}, namespace="default"
                )
            assert (await client.get("configmaps", "kept", "default"))["data"] == {"a": "1"}
            kubeconfigs.append(server.kubeconfig().replace(server.url, ""))
        store.close()
    assert kubeconfigs[0] == kubeconfigs[1]


# -- forms


async def test_what_does_not_exist_is_not_found(http: Http) -> None:
    for path in (
        "/nothing",
        "/api/v2",
        "/apis/nothing",
        "/apis/nothing/v1/things",
        "/apis/example.test/v1/namespaces/default/gadgets",
        f"{WIDGETS}/w/nothing",
        "/api/v1/namespaces/default/nodes/n",
        "/api/v1/pods/p",
    ):
        status, _, body = await http.ask("GET", path)
        assert (status, body["reason"]) == (404, "NotFound"), path
        assert body["message"] == "the server could not find the requested resource"


async def test_a_method_that_a_resource_does_not_have_is_refused(http: Http) -> None:
    for method, path in (
        ("DELETE", "/api/v1/namespaces"),
        ("POST", f"{PODS}/p/status"),
        ("PUT", WIDGETS),
        ("GET", "/api/v1/namespaces/default/bindings"),
        ("POST", "/version"),
    ):
        status, _, body = await http.ask(method, path, {})
        assert (status, body["reason"]) == (405, "MethodNotAllowed"), (method, path)


async def test_bodies_are_read_as_json_and_yaml_and_nothing_else(http: Http) -> None:
    made = await http.ask("POST", WIDGETS, "metadata: {name: y}\nspec: {size: 2}\n", Content_Type="application/yaml")
    assert made[0] == 201
    status, _, body = await http.ask("POST", WIDGETS, "<xml/>", Content_Type="text/xml")
    assert (status, body["reason"]) == (415, "UnsupportedMediaType")
    status, _, body = await http.ask("POST", WIDGETS, "{", Content_Type="application/json")
    assert (status, body["reason"]) == (400, "BadRequest")
    status, _, _ = await http.ask("POST", WIDGETS, "", Content_Type="application/json")
    assert status == 400
    large = io.BytesIO(json.dumps({"metadata": {"name": "x", "annotations": {"a": "x" * 4_000_000}}}).encode())
    status, _, body = await http.ask("POST", WIDGETS, large, Content_Type="application/json")
    assert (status, body["reason"]) == (413, "RequestEntityTooLarge")


async def test_answers_come_as_json_yaml_table_or_metadata(http: Http) -> None:
    await http.ask("POST", WIDGETS, make_widget())
    _, headers, body = await http.ask("GET", f"{WIDGETS}/w", Accept="application/yaml")
    assert headers["Content-Type"].startswith("application/yaml")
    assert b"kind: Widget" in body
    _, _, body = await http.ask("GET", WIDGETS, Accept=TABLE)
    assert [c["name"] for c in body["columnDefinitions"]] == ["Name", "Size", "Age"]
    assert body["rows"][0]["cells"] == ["w", 3, "0s"]
    assert body["rows"][0]["object"]["kind"] == "PartialObjectMetadata"
    _, _, body = await http.ask("GET", f"{WIDGETS}?includeObject=Object", Accept=TABLE)
    assert body["rows"][0]["object"]["spec"]["size"] == 3
    partial = "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"
    _, _, body = await http.ask("GET", f"{WIDGETS}/w", Accept=partial)
    assert (body["kind"], "spec" in body) == ("PartialObjectMetadata", False)
    _, _, body = await http.ask("GET", WIDGETS, Accept=partial.replace("Metadata;", "MetadataList;"))
    assert body["kind"] == "PartialObjectMetadataList"
    status, _, _ = await http.ask("GET", f"{WIDGETS}/w", Accept="text/html")
    assert status == 406


async def test_unknown_fields_are_refused_warned_of_or_ignored_as_asked(http: Http) -> None:
    body = {**make_widget(), "spec": {"size": 1, "nonsense": 1}}
    status, _, answer = await http.ask("POST", f"{WIDGETS}?fieldValidation=Strict", body)
    assert status == 400
    assert answer["message"].endswith('strict decoding error: unknown field "spec.nonsense"')
    status, headers, _ = await http.ask("POST", f"{WIDGETS}?dryRun=All", body)
    assert (status, headers["Warning"]) == (201, '299 - "unknown field \\"spec.nonsense\\""')
    status, headers, _ = await http.ask("POST", f"{WIDGETS}?fieldValidation=Ignore&dryRun=All", body)
    assert (status, "Warning" in headers) == (201, False)
    status, _, answer = await http.ask("POST", f"{WIDGETS}?fieldValidation=Perhaps", body)
    assert status == 422
    twice = '{"metadata": {"name": "t"}, "spec": {"size": 1, "size": 2}}'
    status, _, answer = await http.ask(
        "POST", f"{WIDGETS}?fieldValidation=Strict", twice, Content_Type="application/json"
    )
    assert 'duplicate field "spec.size"' in answer["message"]
    await http.ask("POST", WIDGETS, make_widget())
    merge = "application/merge-patch+json"
    patch = {"spec": {"nonsense": 1}}
    status, _, answer = await http.ask("PATCH", f"{WIDGETS}/w?fieldValidation=Strict", patch, Content_Type=merge)
    assert (status, answer["details"]["causes"][0]["field"]) == (422, "patch")


async def test_options_that_mean_nothing_are_refused(http: Http) -> None:
    for path, text in (
        (f"{WIDGETS}?limit=many", "invalid syntax"),
        (f"{WIDGETS}?labelSelector=a%20in%20(", "unable to parse requirement"),
        (f"{WIDGETS}?fieldSelector=spec.size%3D3", "field label not supported: spec.size"),
        (f"{WIDGETS}?resourceVersion=x", "invalid syntax"),
        (f"{WIDGETS}?sendInitialEvents=true", "sendInitialEvents is forbidden for list"),
        (f"{WIDGETS}?watch=true&sendInitialEvents=true", "requires setting resourceVersionMatch"),
        (f"{WIDGETS}?continue=nonsense", "continue key is not valid"),
    ):
        status, _, body = await http.ask("GET", path)
        assert status in (400, 422), path
        assert text in body["message"], path
    status, _, body = await http.ask("POST", f"{WIDGETS}?dryRun=Some", make_widget())
    assert (status, 'Unsupported value: "Some"' in body["message"]) == (422, True)
    status, _, body = await http.ask(
        "PATCH", f"{WIDGETS}/w?force=true", {}, Content_Type="application/merge-patch+json"
    )
    assert "may not be specified for non-apply patch" in body["message"]


async def test_a_list_comes_in_pages(http: Http) -> None:
    for number in range(3):
        await http.ask("POST", WIDGETS, make_widget(f"w{number}"))
    _, _, first = await http.ask("GET", f"{WIDGETS}?limit=2")
    assert (len(first["items"]), first["metadata"]["remainingItemCount"]) == (2, 1)
    token = first["metadata"]["continue"]
    _, _, second = await http.ask("GET", f"{WIDGETS}?limit=2&continue={token}")
    assert [o["metadata"]["name"] for o in second["items"]] == ["w2"]
    assert second["metadata"]["continue"] == ""


async def test_a_collection_is_deleted_by_selector(http: Http) -> None:
    for name in ("a", "b"):
        widget = make_widget(name)
        widget["metadata"]["labels"] = {"name": name}
        await http.ask("POST", WIDGETS, widget)
    status, _, body = await http.ask("DELETE", f"{WIDGETS}?labelSelector=name%3Da")
    assert (status, body["kind"], len(body["items"])) == (200, "WidgetList", 1)
    _, _, left = await http.ask("GET", WIDGETS)
    assert [o["metadata"]["name"] for o in left["items"]] == ["b"]


# -- documents


async def test_discovery_and_schemas_are_not_sent_twice(http: Http) -> None:
    for path, accept in (
        ("/apis", "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"),
        ("/openapi/v3/apis/example.test/v1", "application/json"),
        ("/openapi/v2", "application/json"),
    ):
        status, headers, _ = await http.ask("GET", path, Accept=accept)
        assert status == 200
        again = await http.ask("GET", path, Accept=accept, If_None_Match=headers["Etag"])
        assert again[0] == 304, path


async def test_schemas_follow_the_definitions(http: Http) -> None:
    _, _, index = await http.ask("GET", "/openapi/v3")
    where = json.loads(index)["paths"]["apis/example.test/v1"]["serverRelativeURL"]
    status, headers, document = await http.ask("GET", where)
    assert (status, headers["Cache-Control"]) == (200, "public, immutable")
    schema = document["components"]["schemas"]["test.example.v1.Widget"]
    assert schema["properties"]["spec"]["properties"]["size"]["maximum"] == 100
    patch = document["paths"]["/apis/example.test/v1/namespaces/{namespace}/widgets/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    client = LocalClient(http.server.api, "test")
    definition = await client.get(core.DEFINITIONS, "widgets.example.test")
    schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["properties"]["size"]["maximum"] = 50
    await client.update(core.DEFINITIONS, definition)
    async with http.session.get(http.server.url + where, allow_redirects=False) as answer:
        assert answer.status == 301, "the hash has changed, and clients are told where to look"
    _, _, document = await http.ask("GET", where)
    assert (
        document["components"]["schemas"]["test.example.v1.Widget"]["properties"]["spec"]["properties"]["size"][
            "maximum"
        ]
        == 50
    )
    await client.delete(core.DEFINITIONS, "widgets.example.test")
    async with asyncio.timeout(5):
        while (await http.ask("GET", "/apis/example.test/v1"))[0] != 404:  # noqa: ASYNC110 - as a client would
            await asyncio.sleep(0.01)
    _, _, index = await http.ask("GET", "/openapi/v3")
    assert "apis/example.test/v1" not in json.loads(index)["paths"]


async def test_every_reference_in_every_schema_leads_somewhere(http: Http) -> None:
    _, _, index = await http.ask("GET", "/openapi/v3")
    for path in json.loads(index)["paths"]:
        _, _, document = await http.ask("GET", f"/openapi/v3/{path}")
        text = json.dumps(document)
        known = document.get("components", {}).get("schemas", {})
        missing = {r.split('"')[0] for r in text.split("#/components/schemas/")[1:]} - known.keys()
        assert not missing, path
        assert "#/definitions/" not in text, path
    _, _, document = await http.ask("GET", "/openapi/v2")
    text = json.dumps(document)
    assert not {r.split('"')[0] for r in text.split("#/definitions/")[1:]} - document["definitions"].keys()


# -- streams


async def lines(answer: aiohttp.ClientResponse, count: int) -> list[Object]:
    out = []
    async with asyncio.timeout(5):
        async for line in answer.content:
            out.append(json.loads(line))
            if len(out) == count:
                break
    return out


async def test_a_watch_shows_events_as_they_happen_and_ends_in_time(http: Http) -> None:
    async with http.session.get(f"{http.server.url}{WIDGETS}?watch=true&timeoutSeconds=1") as answer:
        assert answer.status == 200
        await http.ask("POST", WIDGETS, make_widget())
        (event,) = await lines(answer, 1)
        assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "w")
        async with asyncio.timeout(5):
            assert await answer.content.read() == b"", "the server ended it"


async def test_a_watch_as_a_table_defines_its_columns_once(http: Http) -> None:
    async with http.session.get(f"{http.server.url}{WIDGETS}?watch=true", headers={"Accept": TABLE}) as answer:
        await http.ask("POST", WIDGETS, make_widget("a"))
        await http.ask("POST", WIDGETS, make_widget("b"))
        first, second = await lines(answer, 2)
        assert first["object"]["columnDefinitions"] is not None
        assert second["object"]["columnDefinitions"] is None
        assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_a_quiet_watch_gets_bookmarks_that_move_on(http: Http, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(core, "_BOOKMARK_SECONDS", 0.05)
    async with http.session.get(f"{http.server.url}{WIDGETS}?watch=true&allowWatchBookmarks=true") as answer:
        (first,) = await lines(answer, 1)
        await http.ask("POST", "/api/v1/namespaces/default/configmaps", {"metadata": {"name": "other"}})
        wanted = http.server.api.store.revision
        async with asyncio.timeout(5):
            while int((await lines(answer, 1))[0]["object"]["metadata"]["resourceVersion"]) < wanted:
                pass
    assert first["type"] == "BOOKMARK"
    assert first["object"]["kind"] == "Widget"


async def test_a_watch_from_a_forgotten_version_says_gone_in_the_stream(http: Http) -> None:
    http.server.api.store.compact(http.server.api.store.revision)
    async with http.session.get(f"{http.server.url}{WIDGETS}?watch=true&resourceVersion=1") as answer:
        assert answer.status == 200
        (event,) = await lines(answer, 1)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_a_watch_that_can_not_begin_is_refused(http: Http) -> None:
    status, _, body = await http.ask("GET", f"{WIDGETS}?watch=true&resourceVersion=999999")
    assert (status, body["reason"]) == (504, "Timeout")
    status, _, body = await http.ask("GET", f"{WIDGETS}?watch=true&fieldSelector=spec.size%3D1")
    assert (status, body["reason"]) == (400, "BadRequest")


async def test_a_watch_ends_when_its_client_goes(http: Http) -> None:
    before = len(asyncio.all_tasks())
    answers = [await http.session.get(f"{http.server.url}{WIDGETS}?watch=true") for _ in range(5)]
    assert len(asyncio.all_tasks()) > before
    for answer in answers:
        answer.close()
    async with asyncio.timeout(5):
        while len(asyncio.all_tasks()) > before:  # noqa: ASYNC110 - nobody says when a task has gone
            await asyncio.sleep(0.01)


async def test_many_watchers_see_the_same_events_in_the_same_order(http: Http) -> None:
    answers = [await http.session.get(f"{http.server.url}{WIDGETS}?watch=true") for _ in range(10)]
    client = LocalClient(http.server.api, "test")
    for number in range(20):
        await client.create("widgets.example.test", make_widget(f"w{number}"), namespace="default")
    seen = await asyncio.gather(*(lines(a, 20) for a in answers))
    for answer in answers:
        answer.close()
    names = [[e["object"]["metadata"]["name"] for e in events] for events in seen]
    assert names == [[f"w{n}" for n in range(20)]] * 10


async def test_a_log_is_asked_of_whoever_runs_the_pod(http: Http) -> None:
    client = LocalClient(http.server.api, "test")
    await client.create("pods", make_pod(), namespace="default")
    both = make_pod("q", containers=[{"name": "a", "image": "x"}, {"name": "b", "image": "x"}])
    await client.create("pods", both, namespace="default")
    status, headers, body = await http.ask("GET", f"{PODS}/p/log?tailLines=3&timestamps=true")
    assert (status, headers["Content-Type"]) == (200, "text/plain")
    assert body.startswith(b"default/p/c {'tailLines': 3")
    status, _, body = await http.ask("GET", f"{PODS}/q/log")
    assert body["message"] == "a container name must be specified for pod q, choose one of: [a b]"
    status, _, body = await http.ask("GET", f"{PODS}/q/log?container=z")
    assert body["message"] == "container z is not valid for pod q"
    status, _, body = await http.ask("GET", f"{PODS}/none/log")
    assert status == 404
    async with http.session.get(f"{http.server.url}{PODS}/p/log?follow=true") as answer:
        async with asyncio.timeout(5):
            assert b"default/p/c" in await answer.content.readline()
    http.server.api.log_reader = None
    status, _, body = await http.ask("GET", f"{PODS}/p/log")
    assert (status, body["reason"]) == (503, "ServiceUnavailable")


async def test_what_pods_here_can_not_do_is_refused_in_words(http: Http) -> None:
    await LocalClient(http.server.api, "test").create("pods", make_pod(), namespace="default")
    status, _, body = await http.ask(
        "POST", f"{PODS}/p/exec?command=ls", None, Connection="Upgrade", Upgrade="SPDY/3.1"
    )
    assert (status, "does not provide exec" in body["message"]) == (501, True)
    status, _, body = await http.ask("GET", f"{PODS}/p/proxy")
    assert status == 501
    status, _, body = await http.ask("PATCH", f"{PODS}/p/resize", {}, Content_Type="application/merge-patch+json")
    assert (status, "does not provide pods/resize" in body["message"]) == (405, True)


async def test_a_defect_is_answered_with_500_and_leaves_the_server_running(
    http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("defect")

    with monkeypatch.context() as patch:
        patch.setattr(http.server.api, "read", broken)
        status, _, body = await http.ask("GET", f"{PODS}/p")
    assert (status, body["reason"]) == (500, "InternalError")
    assert "defect" not in body["message"]
    assert (await http.ask("GET", PODS))[0] == 200


async def test_a_thousand_objects_are_listed_read_and_watched(http: Http) -> None:
    client = LocalClient(http.server.api, "test")
    for number in range(1000):
        await client.create("pods", make_pod(f"p{number:04}"), namespace="default")
    _, _, body = await http.ask("GET", PODS)
    assert len(body["items"]) == 1000
    names: list[str] = []
    token = ""
    while True:
        _, _, page = await http.ask("GET", f"{PODS}?limit=300&continue={token}")
        names += [o["metadata"]["name"] for o in page["items"]]
        token = page["metadata"].get("continue", "")
        if not token:
            break
    assert names == sorted(names)
    assert len(names) == 1000


async def test_it_does_not_listen_where_others_could_reach_it(tmp_path: Path) -> None:
    store = Store(None)
    with pytest.raises(ValueError, match="on a loopback address only"):
        async with serve(store, state=tmp_path, host="0.0.0.0"):
            pass
    store.close()
