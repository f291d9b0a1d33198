"""Quantities, selectors, ages, paths, forms of answers: the small parts of the API, each by what it promises."""

from __future__ import annotations

import base64
import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from swarm_deploy.local.api.durations import human_duration
from swarm_deploy.local.api.errors import ApiError
from swarm_deploy.local.api.jsonpath import find
from swarm_deploy.local.api.meta import generate_name, meta_causes, name_causes, parse_time, timestamp
from swarm_deploy.local.api.negotiation import accepted, decode_body, duplicate_fields, patch_type
from swarm_deploy.local.api.protobuf import decode_protobuf
from swarm_deploy.local.api.quantity import canonical_quantity, parse_quantity
from swarm_deploy.local.api.resources import BUILT_IN, Catalog
from swarm_deploy.local.api.selectors import field_matcher, label_matcher, matches_labels
from swarm_deploy.local.api.tables import pod_status

Object = dict[str, Any]


# -- quantities


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", "1"),
        ("100m", "0.1"),
        ("20Mi", "20971520"),
        ("1.5Gi", "1610612736"),
        ("1e3", "1000"),
        ("5u", "0.000005"),
        (2, "2"),
    ],
)
def test_a_quantity_is_read_exactly(text: str, amount: str) -> None:
    assert parse_quantity(text) == Decimal(amount)


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1gi", "--1", "1e", "0x10", "Mi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match"):
        parse_quantity(text)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("0.5", "500m"),
        (1, "1"),
        ("1000m", "1"),
        ("1024Mi", "1Gi"),
        ("1.5Gi", "1536Mi"),
        ("1000", "1k"),
        ("1e3", "1e3"),
        ("0.0000000001", "1n"),
        ("0Gi", "0"),
        ("1500M", "1500M"),
        ("512Ki", "512Ki"),
    ],
)
def test_a_quantity_is_written_as_a_server_writes_it(text: str, written: str) -> None:
    assert canonical_quantity(text) == written


@given(st.integers(0, 10**12), st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "u"]))
def test_writing_a_quantity_plainly_keeps_its_amount_and_is_final(number: int, suffix: str) -> None:
    text = f"{number}{suffix}"
    written = canonical_quantity(text)
    assert parse_quantity(written) == parse_quantity(text)
    assert canonical_quantity(written) == written


# -- selectors


def labelled(**labels: str) -> Object:
    return {"metadata": {"labels": {k.replace("_", "-"): v for k, v in labels.items()}}}


@pytest.mark.parametrize(
    ("selector", "fits", "misses"),
    [
        ("a=1", {"a": "1"}, {"a": "2"}),
        ("a==1,b", {"a": "1", "b": ""}, {"a": "1"}),
        ("a!=1", {"b": "1"}, {"a": "1"}),
        ("!a", {"b": "1"}, {"a": "1"}),
        ("a in (1, 2)", {"a": "2"}, {"a": "3"}),
        ("a notin (1,2),b in (x)", {"b": "x"}, {"a": "1", "b": "x"}),
        ("a>5", {"a": "6"}, {"a": "x"}),
        ("app.kubernetes.io/name=x", {"app.kubernetes.io/name": "x"}, {}),
        ("a=", {"a": ""}, {"a": "1"}),
    ],
)
def test_a_label_selector_fits_what_it_says(selector: str, fits: dict[str, str], misses: dict[str, str]) -> None:
    matcher = label_matcher(selector)
    assert matcher is not None
    assert matcher({"metadata": {"labels": fits}})
    assert not matcher({"metadata": {"labels": misses}})


def test_an_empty_selector_is_none_and_a_broken_one_is_refused() -> None:
    assert label_matcher("") is None
    with pytest.raises(ApiError) as error:
        label_matcher("a in (b")
    assert error.value.code == 400


def test_a_selector_of_an_object_fits_by_labels_and_expressions() -> None:
    selector = {"matchLabels": {"a": "1"}, "matchExpressions": [{"key": "b", "operator": "NotIn", "values": ["x"]}]}
    assert matches_labels(selector, {"a": "1"})
    assert not matches_labels(selector, {"a": "1", "b": "x"})
    assert matches_labels({}, {"any": "thing"})
    assert not matches_labels(None, {"any": "thing"})


def test_a_field_selector_works_on_indexed_fields_only() -> None:
    pods = Catalog().by_name("pods")
    assert pods is not None
    matcher = field_matcher(pods, "spec.nodeName=n,status.phase!=Failed,metadata.name=p")
    assert matcher is not None
    assert matcher({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Running"}})
    assert not matcher({"metadata": {"name": "p"}, "spec": {"nodeName": "n"}, "status": {"phase": "Failed"}})
    assert not matcher({"metadata": {"name": "p"}})
    with pytest.raises(ApiError, match=r'field label "spec\.volumes" not supported for Pod'):
        field_matcher(pods, "spec.volumes=x")
    with pytest.raises(ApiError, match="invalid selector"):
        field_matcher(pods, "nonsense")


# -- ages, times, names


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0s"),
        (-1, "0s"),
        (-5, "<invalid>"),
        (119, "119s"),
        (120, "2m"),
        (200, "3m20s"),
        (600, "10m"),
        (3 * 3600 + 60, "3h1m"),
        (8 * 3600, "8h"),
        (49 * 3600, "2d1h"),
        (9 * 86400, "9d"),
        (3 * 365 * 86400, "3y"),
        (3 * 365 * 86400 + 86400, "3y1d"),
    ],
)
def test_an_age_is_shown_the_coarser_the_older(seconds: float, shown: str) -> None:
    assert human_duration(seconds) == shown


@given(st.integers(0, 4_000_000_000))
def test_a_time_written_and_read_is_the_same(seconds: int) -> None:
    assert parse_time(timestamp(seconds)) == seconds


@given(st.text("abc-", max_size=80))
def test_a_generated_name_begins_as_asked_and_fits_a_label(base: str) -> None:
    name = generate_name(base)
    assert name.startswith(base[:58])
    assert len(name) <= 63
    assert len(name) == min(len(base), 58) + 5


@pytest.mark.parametrize(
    ("kind", "name", "ok"),
    [
        ("pods", "a.b", True),
        ("pods", "A", False),
        ("pods", "a_b", False),
        ("services", "1a", False),
        ("namespaces", "a.b", False),
        ("pods", "x" * 254, False),
        ("roles.rbac.authorization.k8s.io", "system:a", True),
        ("roles.rbac.authorization.k8s.io", "a/b", False),
    ],
)
def test_which_names_a_kind_takes(kind: str, name: str, ok: bool) -> None:
    assert (not name_causes(kind, name)) == ok


def test_bad_metadata_is_named_field_by_field() -> None:
    causes = meta_causes(
        "pods",
        {
            "name": "x",
            "labels": {"a/b/c": "v", "k": "no spaces"},
            "annotations": {"-": "x"},
            "ownerReferences": [{"kind": "K", "controller": True}, {"controller": True}],
        },
    )
    fields = [c.field for c in causes]
    assert "metadata.labels" in fields
    assert "metadata.annotations" in fields
    assert "metadata.ownerReferences[0].uid" in fields
    assert "metadata.ownerReferences[1].kind" in fields
    assert any("Only one reference can have Controller set to true" in c.text for c in causes)


# -- paths of columns


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".a.b", [1]),
        (".list[0].n", ["x"]),
        (".list[*].n", ["x", "y"]),
        ('.list[?(@.n=="y")].v', [2]),
        (".list[?(@.v!=2)].n", ["x"]),
        (".a['b']", [1]),
        (r".a\.b", [3]),
        (".nothing.here", []),
        (".list[7]", []),
        ("nonsense[", []),
    ],
)
def test_a_columns_path_finds_its_values(path: str, found: list[Any]) -> None:
    obj = {"a": {"b": 1}, "list": [{"n": "x", "v": 1}, {"n": "y", "v": 2}], "a.b": 3}
    assert find(obj, path) == found


# -- what a pod's status comes to


def pod(phase: str, *containers: Object, **more: Any) -> Object:
    spec = {"containers": [{"name": str(i)} for i, _ in enumerate(containers or [1])]}
    return {
        "metadata": {"name": "p"},
        "spec": spec,
        "status": {"phase": phase, "containerStatuses": list(containers)},
        **more,
    }


@pytest.mark.parametrize(
    ("given", "word"),
    [
        (pod("Pending"), "Pending"),
        (pod("Running", {"ready": True, "state": {"running": {}}}), "Running"),
        (pod("Running", {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}), "CrashLoopBackOff"),
        (pod("Failed", {"state": {"terminated": {"exitCode": 3}}}), "ExitCode:3"),
        (pod("Failed", {"state": {"terminated": {"exitCode": 137, "signal": 9}}}), "Signal:9"),
        (pod("Succeeded", {"state": {"terminated": {"exitCode": 0, "reason": "Completed"}}}), "Completed"),
        (pod("Running", {"ready": True, "state": {"running": {}}}, metadata={"deletionTimestamp": "T"}), "Terminating"),
        (pod("Failed", metadata={"deletionTimestamp": "T"}), "Failed"),
    ],
)
def test_a_pods_word_is_the_one_kubectl_shows(given: Object, word: str) -> None:
    assert pod_status(given)[0] == word


# -- requests and answers


@pytest.mark.parametrize(
    ("header", "form", "media"),
    [
        ("", "object", "application/json"),
        ("*/*", "object", "application/json"),
        ("application/vnd.kubernetes.protobuf,application/json", "object", "application/json"),
        ("application/json;as=Table;v=v1;g=meta.k8s.io,application/json", "table", "application/json"),
        ("application/json;as=Table;v=v9;g=meta.k8s.io,application/json", "object", "application/json"),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", "partial", "application/json"),
        ("application/yaml", "object", "application/yaml"),
        ("application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "discovery", "application/json"),
    ],
)
def test_the_first_form_that_can_be_given_is_given(header: str, form: str, media: str) -> None:
    answer = accepted(header)
    assert (answer.form, answer.media) == (form, media)


def test_a_client_that_reads_nothing_of_this_is_told_so() -> None:
    with pytest.raises(ApiError) as error:
        accepted("text/html")
    assert error.value.code == 406


def test_a_body_is_read_by_its_content_type() -> None:
    assert decode_body(b'{"a": 1}', "application/json; charset=utf-8") == {"a": 1}
    assert decode_body(b"a: 1\nb: [x]", "application/yaml") == {"a": 1, "b": ["x"]}
    assert decode_body(b"", "") is None
    for body, kind, code in (
        (b"{", "application/json", 400),
        (b"a: [", "application/yaml", 400),
        (b"x", "text/plain", 415),
        (b"x", "application/vnd.kubernetes.protobuf", 400),
    ):
        with pytest.raises(ApiError) as error:
            decode_body(body, kind)
        assert error.value.code == code


def test_a_patch_is_told_by_its_content_type() -> None:
    assert patch_type("application/merge-patch+json", custom=True) == "merge"
    with pytest.raises(ApiError) as error:
        patch_type("application/json", custom=True)
    assert error.value.code == 415
    assert "strategic" not in error.value.message
    with pytest.raises(ApiError, match="strategic"):
        patch_type("application/json", custom=False)


def test_fields_given_twice_are_found_wherever_they_are() -> None:
    body = b'{"a": 1, "spec": {"x": [{"k": 1, "k": 2}], "y": 1, "y": 2}, "a": 2}'
    assert duplicate_fields(body) == [
        'duplicate field "spec.x[0].k"',
        'duplicate field "spec.y"',
        'duplicate field "a"',
    ]
    assert duplicate_fields(b'{"a": {"a": 1}}') == []
    assert duplicate_fields(b"not json") == []


def _field(number: int, value: bytes) -> bytes:
    return bytes([number << 3 | 2, len(value)]) + value


def test_a_namespace_in_protobuf_is_read() -> None:
    kind = _field(1, b"v1") + _field(2, b"Namespace")
    label = _field(11, _field(1, b"k") + _field(2, b"v"))
    meta = _field(1, _field(1, b"team") + _field(2, b"") + label)
    body = b"k8s\0" + _field(1, kind) + _field(2, meta + _field(2, b""))
    assert decode_protobuf(body) == {
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {"name": "team", "labels": {"k": "v"}},
    }


def test_a_secrets_bytes_come_out_as_base64() -> None:
    kind = _field(1, b"v1") + _field(2, b"Secret")
    data = _field(2, _field(1, b"k") + _field(2, b"\xff\0"))
    secret = decode_protobuf(b"k8s\0" + _field(1, kind) + _field(2, data))
    assert base64.b64decode(secret["data"]["k"]) == b"\xff\0"


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"k8s\0" + _field(1, _field(1, b"apps/v1") + _field(2, b"Deployment")), 415),
        (b"json", 400),
        (b"k8s\0\x0a\x7f", 400),
        (b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 400),
    ],
)
def test_protobuf_that_can_not_be_read_is_refused(body: bytes, code: int) -> None:
    with pytest.raises(ApiError) as error:
        decode_protobuf(body)
    assert error.value.code == code


@given(st.binary(max_size=60))
def test_no_bytes_break_the_protobuf_reader(body: bytes) -> None:
    try:
        json.dumps(decode_protobuf(b"k8s\0" + body))
    except ApiError:
        pass


def test_every_built_in_kind_has_a_schema() -> None:
    from swarm_deploy.local.api.types import definition_name

    missing = [r.qualified for r in BUILT_IN if definition_name(r.group, r.version, r.kind) is None]
    assert not missing


def test_the_committed_schemas_are_those_the_generator_makes() -> None:
    from importlib.resources import files

    from swarm_deploy.local.api import reduce_schemas

    source = json.loads((files("kubernetes_validate") / reduce_schemas._SOURCE).read_text(encoding="utf-8"))
    committed = json.loads(reduce_schemas.TARGET.read_text(encoding="utf-8"))
    assert reduce_schemas.reduce(source) == committed
