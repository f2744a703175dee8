"""Pods out of JSON: what is taken of them, and that no JSON does harm."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.kube.objects import (
    ListedPod,
    parse_event,
    parse_page,
    parse_pod,
    parse_status,
    parse_uid,
    parse_version,
)
from otel_k8s_cgroup.kube.pages import split_pods
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.model import Pod
from tests.fakes.kube_api import event, mirror, pod

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from otel_k8s_cgroup.kube.objects import Page

T = TypeVar("T")
HASH = "3e61c214bc3ed9ff81e21474dd6cba17"
MIRROR = mirror(HASH)
ANNOTATIONS = MIRROR["annotations"]


def _with(path: str, value: object) -> dict[str, Any]:
    """A good pod, but for the field at ``path``."""
    obj = pod("web-0", uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665", annotations={})
    *way, last = path.split(".")
    place: dict[str, Any] = obj
    for step in way:
        place = place[step]
    place[last] = value
    return obj


def _json(obj: object) -> bytes:
    return json.dumps(obj).encode()


def _parsed(obj: object) -> Pod | None:
    listed = parse_pod(_json(obj), "node-1")
    return listed and listed.pod


def test_a_pod() -> None:
    """Every field is the API's, as it wrote it."""
    assert _parsed(pod("web-0", uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665")) == Pod(
        uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665",
        name="web-0",
        namespace="default",
        node="node-1",
        start_time="2026-01-02T03:04:05Z",
        cgroup_uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665",
    )


@pytest.mark.parametrize(("phase", "finished"), [("Running", False), ("Succeeded", True), ("Failed", True), (7, False)])
def test_a_pod_that_has_finished(phase: object, finished: bool) -> None:
    """It has no cgroup, and the API lists it all the same."""
    parsed = _parsed(_with("status.phase", phase))
    assert parsed is not None
    assert parsed.finished is finished


@pytest.mark.parametrize("node", ["node-2", None, ""])
def test_a_pod_of_another_node_or_of_none_yet_is_none_of_ours(node: object) -> None:
    """Not an error either."""
    assert _parsed(_with("spec.nodeName", node)) is None


NODE = MIRROR["ownerReferences"][0]


@pytest.mark.parametrize(
    ("metadata", "uid"),
    [
        (MIRROR, HASH),
        (mirror("d75d892c-9bb2-4b9c-8ce2-7868eb91e665"), "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"),
        (MIRROR | {"ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x"}, NODE]}, HASH),
        ({"annotations": ANNOTATIONS}, "own"),
        (MIRROR | {"ownerReferences": None}, "own"),
        (MIRROR | {"ownerReferences": []}, "own"),
        (MIRROR | {"ownerReferences": [NODE | {"name": "node-2"}]}, "own"),
        (MIRROR | {"ownerReferences": [NODE | {"kind": "ReplicaSet"}]}, "own"),
        (MIRROR | {"ownerReferences": [NODE | {"apiVersion": "example.com/v1"}]}, "own"),
        (MIRROR | {"ownerReferences": [NODE | {"uid": "x" * 65_536}]}, "own"),
        (MIRROR | {"ownerReferences": 7}, "own"),
        (MIRROR | {"name": "etcd"}, "own"),
        (MIRROR | {"name": "etcd-node-2"}, "own"),
        (MIRROR | {"annotations": ANNOTATIONS | {"kubernetes.io/config.mirror": "other"}}, "own"),
        (MIRROR | {"annotations": ANNOTATIONS | {"kubernetes.io/config.mirror": ""}}, "own"),
        (MIRROR | {"annotations": ANNOTATIONS | {"kubernetes.io/config.mirror": None}}, "own"),
        *((mirror(bad) | {"name": "etcd-node-1"}, "own") for bad in ("../../etc", "", "a" * 65_536, "a b")),
        ({"annotations": {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": HASH}}, "own"),
        ({"annotations": {"kubernetes.io/config.source": "http", "kubernetes.io/config.hash": HASH}}, "own"),
        ({"annotations": {"kubernetes.io/config.hash": HASH}}, "own"),
        ({"annotations": {"kubernetes.io/config.mirror": HASH}}, "own"),
        ({"annotations": {"big": "x" * 65_536}}, "own"),
        ({"annotations": None}, "own"),
    ],
)
def test_the_uid_in_the_cgroups_path(metadata: dict[str, Any], uid: str) -> None:
    """A static pod's is its manifest's hash, where its mirror is what a kubelet writes; any other's is its own uid."""
    parsed = _parsed(pod(**{"name": "etcd-node-1", "uid": "own"} | metadata))
    assert parsed is not None
    assert (parsed.uid, parsed.cgroup_uid, parsed.config_hash) == ("own", uid, uid if uid != "own" else None)


@pytest.mark.parametrize(
    ("source", "uid", "config_hash"),
    [("file", HASH, HASH), ("http", HASH, HASH), ("api", HASH, None), (None, HASH, None), ("file", "own", None)],
)
def test_a_kubelet_lists_static_pods_by_their_hash(source: str | None, uid: str, config_hash: str | None) -> None:
    """Its list has no mirrors. Nobody gets a cgroup but that of its own uid, which no pod's author can choose."""
    annotations = {"kubernetes.io/config.source": source, "kubernetes.io/config.hash": HASH}
    parsed = _parsed(pod("etcd-node-1", uid=uid, annotations=annotations))
    assert parsed is not None
    assert (parsed.cgroup_uid, parsed.config_hash) == (uid, config_hash)


def test_what_looks_like_a_mirror_and_is_none_is_told() -> None:
    """With the hash that it claims, for the log."""
    claim = parse_pod(_json(pod("etcd-node-1", uid="own", annotations=ANNOTATIONS)), "node-1")
    assert claim == ListedPod(Pod("own", "etcd-node-1", "default", "node-1", "2026-01-02T03:04:05Z", "own"), "", HASH)


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("2026-01-02T03:04:05Z", True),
        ("2026-01-02T03:04:05.123456789+02:00", True),
        ("2026-01-02", False),
        ("2026-01-02T03:04:05Z\n", False),
        ("٢026-01-02T03:04:05Z", False),
        ("", False),
        (None, False),
    ],
)
def test_a_start_time_is_one_or_absent(written: object, taken: bool) -> None:
    """RFC 3339, or None: the pod itself stays."""
    parsed = _parsed(_with("status.startTime", written))
    assert parsed is not None
    assert parsed.start_time == (written if taken else None)


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
@pytest.mark.parametrize(
    "value", [None, "", 7, True, [], {}, "a\nb", "a\x00b", "a\x1b[0m", "a\u2028b", "\ud800", "a" * 254]
)
def test_a_pod_without_a_proper_identity_is_malformed(field: str, value: object) -> None:
    """Control characters could break a line of the log, a lone surrogate a whole export; the message has neither."""
    with pytest.raises(MalformedObject) as caught:
        _parsed(_with(f"metadata.{field}", value))
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("uid", ["../../x", "a/b", "a b", ".", "é", "a" * 129])
def test_a_uid_is_a_word(uid: str) -> None:
    """It becomes a part of a path."""
    with pytest.raises(MalformedObject, match="is no uid"):
        _parsed(_with("metadata.uid", uid))


def test_a_name_of_any_script_is_a_name() -> None:
    """The API allows none, but a manifest's file may have it; it does no harm."""
    parsed = _parsed(_with("metadata.name", "páge-ページ-😀"))
    assert parsed is not None
    assert parsed.name == "páge-ページ-😀"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("spec.nodeName", 7),
        ("spec", []),
        ("status", "Running"),
        ("status.startTime", 1767323045),
        ("metadata", "x"),
        ("metadata.annotations", "none"),
        ("metadata.annotations", [1, 2]),
        ("metadata.annotations", {"kubernetes.io/config.hash": 7}),
        ("metadata.creationTimestamp", {}),
    ],
)
def test_a_field_of_another_type_costs_that_pod(path: str, value: object) -> None:
    """Named with its place; what is not read may be anything."""
    with pytest.raises(MalformedObject, match=rf"Expected .* at `\$\.{path.replace('.', '[.]')}"):
        _parsed(_with(path, value))


@pytest.mark.parametrize(
    "path", ["metadata.labels", "metadata.managedFields", "spec.containers", "status.phase", "kind"]
)
@pytest.mark.parametrize("value", [None, 7, 1e300, "\ud800", {"\ud800": ["\udfff\ud800", {}]}, [[[[[1]]]]], 10**400])
def test_a_field_that_is_not_read_may_be_anything(path: str, value: object) -> None:
    """Also half of a surrogate pair, beside a name with a whole one."""
    obj = _with(path, value)
    obj["metadata"]["name"] = "name-😀"
    parsed = _parsed(obj)
    assert parsed is not None
    assert parsed.name == "name-😀"


@pytest.mark.parametrize("content", [b"[" * 100_000, b'{"metadata":' + b'{"x":' * 100_000, b"\xff", b"", b"nul"])
def test_an_object_that_is_no_json_is_malformed(content: bytes) -> None:
    """However deep it goes."""
    with pytest.raises(MalformedObject):
        parse_pod(content, "node-1")


def test_the_last_of_two_fields_of_one_name_counts() -> None:
    """As for the API server itself."""
    twice = b'{"metadata":{"uid":"a","name":"n","namespace":"s","uid":"b"},"spec":{"nodeName":"node-1"}}'
    listed = parse_pod(twice, "node-1")
    assert listed is not None
    assert listed.pod.uid == "b"


def test_a_page() -> None:
    """Version, the token to go on with, and how many items are no objects; ``items: null`` is Go's empty list."""
    envelope = _json({"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [{}, 1, {}, None]})
    assert parse_page(envelope, "here") == ("7", "next", 2)
    assert parse_page(_json({"metadata": {}, "items": None}), "here") == (None, None, 0)
    assert parse_page(_json({"metadata": {"continue": ""}, "items": []}), "here").continue_token is None


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"items": {}}, {"items": "x"}, {"kind": "Status"}])
def test_what_is_no_page(answer: object) -> None:
    """Named with where it is from."""
    with pytest.raises(MalformedObject, match="here: not a PodList"):
        parse_page(_json(answer), "here")


def test_events() -> None:
    """A line of a watch: a pod is decoded with it; what is none, or a malformed one, is for later."""
    kind, obj = parse_event(event("ADDED", pod("a", uid="u", resourceVersion="7")), "here")
    assert (kind, parse_uid(obj), parse_version(obj)) == ("ADDED", "u", "7")
    assert parse_event(event("ADDED", {"metadata": 7}), "here") == ("ADDED", b'{"metadata": 7}')
    assert parse_event(event("ERROR", {"code": 410}), "here") == ("ERROR", b'{"code": 410}')
    assert parse_event(event("LATER", {"a": 1}), "here") == ("LATER", b'{"a": 1}')
    for line in (b"", b"x", b"[]", b"{}", b'{"type":7}', b'{"type":"ADDED"', b"\xff", b"[" * 100_000):
        with pytest.raises(MalformedObject, match="here"):
            parse_event(line, "here")


@pytest.mark.parametrize(
    ("obj", "status"),
    [
        ({"code": 410, "message": "gone"}, (410, "gone")),
        ({"code": "410"}, (500, "")),
        ({"code": True, "message": 7}, (500, "")),
        ({"code": 10**9}, (500, "")),
        (None, (500, "")),
    ],
)
def test_the_status_of_an_error_event(obj: object, status: tuple[int, str]) -> None:
    """A code that is none is a 500."""
    assert parse_status(_json(obj)) == status


# --- any JSON ---

KEYS = st.sampled_from(
    [
        "metadata",
        "spec",
        "status",
        "annotations",
        "uid",
        "name",
        "namespace",
        "nodeName",
        "startTime",
        "items",
        "type",
        "object",
        "code",
        "message",
        "resourceVersion",
        "continue",
        "kubernetes.io/config.mirror",
        "kubernetes.io/config.source",
        "kubernetes.io/config.hash",
    ]
)
# Of every code point: JSON may hold half of a surrogate pair.
TEXT = st.text(st.characters())
LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | st.just("node-1") | st.just("file")


def _nested(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(
        leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=30
    )


JSON = _nested(LEAVES)
# Infinity and NaN are no JSON: with them the whole list is none.
VALID_JSON = _nested(LEAVES.filter(lambda leaf: not isinstance(leaf, float) or math.isfinite(leaf)))


def _podlike(leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries(
        {
            "metadata": st.fixed_dictionaries(
                {"uid": leaves | st.from_regex(r"[a-f0-9-]{36}", fullmatch=True), "name": leaves, "namespace": leaves},
                optional={"annotations": JSON, "resourceVersion": LEAVES},
            ),
            "spec": st.just({"nodeName": "node-1"}),
        },
        optional={"status": JSON},
    )


def _split(*pieces: bytes) -> Generator[bytes, None, Page]:
    return split_pods(pieces, "here", lambda _error: None)


def _tried(parse: Callable[[], T]) -> tuple[T | None, str]:
    """What it gives, or what it complains of; any exception but MalformedObject goes on."""
    try:
        return parse(), ""
    except MalformedObject as error:
        return None, str(error)


@given(JSON | _podlike(LEAVES) | _podlike(TEXT))
def test_any_json_is_a_pod_none_or_malformed(obj: object) -> None:
    """Never another exception, and a pod that comes out is fit to be sent and to be logged."""
    parsed, complaint = _tried(lambda: _parsed(obj))
    assert complaint.isprintable()
    if parsed is not None:
        for text in (parsed.uid, parsed.name, parsed.namespace, parsed.cgroup_uid, parsed.start_time or "-"):
            assert text
            assert text.isprintable()
            text.encode()


@given(JSON)
def test_any_json_is_a_page_or_malformed_and_harmless_elsewhere(obj: object) -> None:
    """The other parsers, too, raise nothing else."""
    parsers: tuple[Callable[[], object], ...] = (
        lambda: parse_page(_json(obj), "here"),
        lambda: parse_event(_json(obj), "here"),
        lambda: parse_uid(_json(obj)),
        lambda: parse_version(_json(obj)),
        lambda: parse_status(_json(obj)),
        lambda: list(_split(_json(obj))),
    )
    for parse in parsers:
        assert _tried(parse)[1].isprintable()


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_json_or_malformed(content: bytes) -> None:
    """Never another exception."""
    parsers: tuple[Callable[[], object], ...] = (
        lambda: parse_page(content, "here"),
        lambda: parse_event(content, "here"),
        lambda: parse_pod(content, "node-1"),
        lambda: parse_uid(content),
        lambda: parse_version(content),
        lambda: parse_status(content),
        lambda: list(_split(content)),
    )
    for parse in parsers:
        assert _tried(parse)[1].isprintable()


@given(
    st.lists(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), unique=True, max_size=20),
    st.lists(VALID_JSON, max_size=5),
)
def test_malformed_objects_cost_no_other_pod(names: list[str], rubbish: list[object]) -> None:
    """All the good pods of a list are there, whatever stands between them."""
    good: list[object] = [pod(name) for name in names]
    for position, each in enumerate(rubbish):
        good.insert(position * 2, each)
    store = PodStore("node-1")
    store.replace(split_pods([_json({"items": good})], "here", store.skip))
    assert {each.name for each in store.pods} >= set(names)
    assert store.skipped_objects <= len(rubbish)
