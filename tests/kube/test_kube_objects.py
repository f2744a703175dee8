"""Pods out of JSON: what is taken of them, and that no JSON does harm."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.kube.objects import (
    decode,
    parse_event,
    parse_page,
    parse_pod,
    parse_status,
    parse_uid,
    parse_version,
)
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.model import Pod
from tests.fakes.kube_api import event, pod

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
HASH = "3e61c214bc3ed9ff81e21474dd6cba17"
MIRROR = {"kubernetes.io/config.mirror": HASH, "kubernetes.io/config.hash": HASH, "kubernetes.io/config.source": "file"}


def _with(path: str, value: object) -> dict[str, Any]:
    """A good pod, but for the field at ``path``."""
    obj = pod("web-0", uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665", annotations={})
    *way, last = path.split(".")
    place: dict[str, Any] = obj
    for step in way:
        place = place[step]
    place[last] = value
    return obj


def test_a_pod() -> None:
    """Every field is the API's, as it wrote it."""
    assert parse_pod(pod("web-0", uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665"), "node-1") == Pod(
        uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665",
        name="web-0",
        namespace="default",
        node="node-1",
        start_time="2026-01-02T03:04:05Z",
        cgroup_uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665",
    )


@pytest.mark.parametrize("node", ["node-2", None, 7, ""])
def test_a_pod_of_another_node_or_of_none_yet_is_none_of_ours(node: object) -> None:
    """Not an error either."""
    assert parse_pod(_with("spec.nodeName", node), "node-1") is None


@pytest.mark.parametrize(
    ("annotations", "uid"),
    [
        (MIRROR, HASH),
        ({"kubernetes.io/config.mirror": "", "kubernetes.io/config.hash": "a-b-c"}, "a-b-c"),
        ({"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": HASH}, HASH),
        ({"kubernetes.io/config.source": "http", "kubernetes.io/config.hash": HASH}, HASH),
        ({"kubernetes.io/config.source": "api", "kubernetes.io/config.hash": HASH}, "own"),
        ({"kubernetes.io/config.hash": HASH}, "own"),
        ({"kubernetes.io/config.mirror": HASH}, "own"),
        (MIRROR | {"kubernetes.io/config.hash": 7}, "own"),
        (MIRROR | {"kubernetes.io/config.hash": "../../etc"}, "own"),
        (MIRROR | {"kubernetes.io/config.hash": ""}, "own"),
        (MIRROR | {"kubernetes.io/config.hash": "a" * 65_536}, "own"),
        ({"big": "x" * 65_536}, "own"),
        ("none", "own"),
        ([1, 2], "own"),
        (None, "own"),
    ],
)
def test_the_uid_in_the_cgroups_path(annotations: object, uid: str) -> None:
    """A static pod's is its manifest's hash, be it the API's mirror or the kubelet's own; any other's is its uid."""
    parsed = parse_pod(pod("etcd", uid="own", annotations=annotations), "node-1")
    assert parsed is not None
    assert (parsed.uid, parsed.cgroup_uid) == ("own", uid)


@pytest.mark.parametrize(
    ("written", "taken"),
    [
        ("2026-01-02T03:04:05Z", True),
        ("2026-01-02T03:04:05.123456789+02:00", True),
        ("2026-01-02", False),
        ("2026-01-02T03:04:05Z\n", False),
        ("٢026-01-02T03:04:05Z", False),
        (1767323045, False),
        (None, False),
        ({}, False),
    ],
)
def test_a_start_time_is_one_or_absent(written: object, taken: bool) -> None:
    """RFC 3339, or None: the pod itself stays."""
    parsed = parse_pod(_with("status.startTime", written), "node-1")
    assert parsed is not None
    assert parsed.start_time == (written if taken else None)


@pytest.mark.parametrize("field", ["uid", "name", "namespace"])
@pytest.mark.parametrize(
    "value", [None, "", 7, True, [], {}, "a\nb", "a\x00b", "a\x1b[0m", "a\u2028b", "\ud800", "a" * 254]
)
def test_a_pod_without_a_proper_identity_is_malformed(field: str, value: object) -> None:
    """Control characters could break a line of the log, a lone surrogate a whole export; the message has neither."""
    with pytest.raises(MalformedObject) as caught:
        parse_pod(_with(f"metadata.{field}", value), "node-1")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("uid", ["../../x", "a/b", "a b", ".", "é", "a" * 129])
def test_a_uid_is_a_word(uid: str) -> None:
    """It becomes a part of a path."""
    with pytest.raises(MalformedObject, match="is no uid"):
        parse_pod(_with("metadata.uid", uid), "node-1")


def test_a_name_of_any_script_is_a_name() -> None:
    """The API allows none, but a manifest's file may have it; it does no harm."""
    parsed = parse_pod(_with("metadata.name", "páge-ページ-😀"), "node-1")
    assert parsed is not None
    assert parsed.name == "páge-ページ-😀"


def test_a_page() -> None:
    """Items, version and the token to go on with; ``items: null`` is how Go writes an empty list."""
    page = parse_page({"metadata": {"resourceVersion": "7", "continue": "next"}, "items": [1]}, "here")
    assert page == ([1], "7", "next")
    assert parse_page({"metadata": {}, "items": None}, "here") == ([], None, None)
    assert parse_page({"metadata": {"continue": ""}, "items": []}, "here").continue_token is None


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"items": {}}, {"items": "x"}, {"kind": "Status"}])
def test_what_is_no_page(answer: object) -> None:
    """Named with where it is from."""
    with pytest.raises(MalformedObject, match="here: not a PodList"):
        parse_page(answer, "here")


def test_events() -> None:
    """A line of a watch."""
    assert parse_event(event("ADDED", {"a": 1}), "here") == ("ADDED", {"a": 1})
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
    assert parse_status(obj) == status


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
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=6), max_leaves=30
)


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


def _tried(parse: Callable[[], T]) -> tuple[T | None, str]:
    """What it gives, or what it complains of; any exception but MalformedObject goes on."""
    try:
        return parse(), ""
    except MalformedObject as error:
        return None, str(error)


@given(JSON | _podlike(LEAVES) | _podlike(TEXT))
def test_any_json_is_a_pod_none_or_malformed(obj: object) -> None:
    """Never another exception, and a pod that comes out is fit to be sent and to be logged."""
    parsed, complaint = _tried(lambda: parse_pod(obj, "node-1"))
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
        lambda: parse_page(obj, "here"),
        lambda: parse_event(json.dumps(obj).encode(), "here"),
        lambda: parse_uid(obj),
        lambda: parse_version(obj),
        lambda: parse_status(obj),
    )
    for parse in parsers:
        assert _tried(parse)[1].isprintable()


@given(st.binary() | st.text().map(str.encode))
def test_any_bytes_are_json_or_malformed(content: bytes) -> None:
    """Never another exception."""
    assert _tried(lambda: decode(content, "here"))[1].isprintable()
    assert _tried(lambda: parse_event(content, "here"))[1].isprintable()


@given(st.lists(st.from_regex(r"[a-z0-9]{1,12}", fullmatch=True), unique=True, max_size=20), st.lists(JSON, max_size=5))
def test_malformed_objects_cost_no_other_pod(names: list[str], rubbish: list[object]) -> None:
    """All the good pods of a list are there, whatever stands between them."""
    good: list[object] = [pod(name) for name in names]
    for position, each in enumerate(rubbish):
        good.insert(position * 2, each)
    store = PodStore("node-1")
    store.replace(good)
    assert {each.name for each in store.pods} >= set(names)
    assert store.skipped_objects <= len(rubbish)


# --- the store ---


def test_the_tuple_is_the_same_until_something_changes() -> None:
    """Readers compare by identity; an update that changes nothing we read (an annotation) is no change."""
    store = PodStore("node-1")
    store.replace([pod("a"), pod("b")])
    before = store.pods
    store.replace([pod("a"), pod("b")])
    store.put(pod("a", labels={"x": "y"}))
    store.remove(pod("unknown"))
    assert store.pods is before
    store.remove(pod("a"))
    assert [each.name for each in store.pods] == ["b"]
    assert [each.name for each in before] == ["a", "b"]


def test_a_list_that_breaks_off_changes_nothing() -> None:
    """The second page fails: the pods known before stay, all of them."""

    def pages() -> Any:
        yield pod("c")
        raise MalformedObject("page 2")

    store = PodStore("node-1")
    store.replace([pod("a"), pod("b")])
    before = store.pods
    with pytest.raises(MalformedObject):
        store.replace(pages())
    assert store.pods is before


@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_cannot_take_anothers_figures(order: int) -> None:
    """Annotations that name the uid of another pod do not put a second pod on its cgroup, whoever comes first."""
    victim = pod("victim", uid="d75d892c-9bb2-4b9c-8ce2-7868eb91e665")
    thief = pod("thief", annotations=MIRROR | {"kubernetes.io/config.hash": victim["metadata"]["uid"]})
    store = PodStore("node-1")
    store.replace([victim, thief][::order])
    assert [each.name for each in store.pods] == ["victim"]


def test_of_two_mirrors_of_a_manifest_the_later_one_counts() -> None:
    """The kubelet made the mirror anew, and the old one's end was not heard of yet: one cgroup, one pod."""
    store = PodStore("node-1")
    store.replace([pod("etcd", uid="old", annotations=MIRROR), pod("etcd", uid="new", annotations=MIRROR)])
    assert [each.uid for each in store.pods] == ["new"]
    store.remove(pod("etcd", uid="new"))
    assert [each.uid for each in store.pods] == ["old"]


def test_a_cause_of_skipping_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A malformed object that comes with every list is counted each time and logged once."""
    store = PodStore("node-1")
    for _ in range(5):
        store.replace([pod("a\nb"), pod("good")])
    assert store.skipped_objects == 5
    assert [record.getMessage().isprintable() for record in caplog.records] == [True]


def test_many_causes_of_skipping_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile list of a thousand different malformed objects: twenty lines."""
    store = PodStore("node-1")
    store.replace([pod(f"{number}\n") for number in range(1000)])
    assert store.skipped_objects == 1000
    assert len(caplog.records) == 20
