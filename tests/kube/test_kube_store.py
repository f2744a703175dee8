"""The pods that are known: what changes them, and who has which cgroup."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.kube.store import PodStore
from tests.fakes.kube_api import mirror, pod

if TYPE_CHECKING:
    from collections.abc import Iterator

HASH = "3e61c214bc3ed9ff81e21474dd6cba17"
UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"


def written(*pods: dict[str, Any]) -> list[bytes]:
    return [json.dumps(each).encode() for each in pods]


def one(obj: object) -> bytes:
    return json.dumps(obj).encode()


def names(store: PodStore) -> dict[str, str]:
    """cgroup uid → name."""
    return {each.cgroup_uid: each.name for each in store.pods}


def static(name: str, uid: str, claimed: str = HASH, *, created: str = "2026-01-01T00:00:00Z", **more: Any) -> Any:
    """A mirror as a kubelet of node-1 writes it, or as somebody forges it."""
    return pod(f"{name}-node-1", uid=uid, creationTimestamp=created, **mirror(claimed), **more)


def unreported(obj: Any) -> Any:
    """No kubelet reports of it."""
    return obj | {"status": {"phase": "Pending"}}


def test_the_tuple_is_the_same_until_something_changes() -> None:
    """Readers compare by identity; an update that changes nothing we read (an annotation) is no change."""
    store = PodStore("node-1")
    store.replace(written(pod("a"), pod("b")))
    before = store.pods
    store.replace(written(pod("a"), pod("b")))
    store.put(one(pod("a", labels={"x": "y"})))
    store.remove(one(pod("unknown")))
    assert store.pods is before
    store.remove(one(pod("a")))
    assert [each.name for each in store.pods] == ["b"]
    assert [each.name for each in before] == ["a", "b"]


def test_a_list_that_breaks_off_changes_nothing() -> None:
    """The second page fails: the pods known before stay, all of them."""

    def pages() -> Iterator[bytes]:
        yield one(pod("c"))
        raise MalformedObject("page 2")

    store = PodStore("node-1")
    store.replace(written(pod("a"), pod("b")))
    before = store.pods
    with pytest.raises(MalformedObject):
        store.replace(pages())
    assert store.pods is before


def test_a_cause_of_skipping_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    """A malformed object that comes with every list is counted each time and logged once."""
    store = PodStore("node-1")
    for _ in range(5):
        store.replace(written(pod("a\nb"), pod("good")))
    assert store.skipped_objects == 5
    assert [record.getMessage().isprintable() for record in caplog.records] == [True]


def test_many_causes_of_skipping_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """A hostile list of a thousand different malformed objects: twenty lines."""
    store = PodStore("node-1")
    store.replace(written(*(pod(f"{number}\n") for number in range(1000))))
    assert store.skipped_objects == 1000
    assert len(caplog.records) == 20


def test_a_server_that_lists_pods_without_end(caplog: pytest.LogCaptureFixture) -> None:
    """50,000 pods are more than a node has; what comes after them is counted, and said once."""
    store = PodStore("node-1")
    template = one(pod("p-@", uid="u-@"))
    store.replace(template.replace(b"@", b"%d" % number) for number in range(50_010))
    assert len(store.pods) == 50_000
    store.put(one(pod("more")))
    store.put(one(pod("p-1", uid="u-1")))
    assert len(store.pods) == 50_000
    assert store.skipped_objects == 11
    assert len(caplog.records) == 1


# --- who has which cgroup ---


@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_cannot_take_anothers_figures(order: int) -> None:
    """Though it says all that a kubelet says of a mirror, and whoever comes first; its own use stays its own."""
    store = PodStore("node-1")
    store.replace(written(pod("victim", uid=UID), static("thief", "t", UID))[::order])
    assert names(store) == {UID: "victim", "t": "thief-node-1"}
    assert store.refused_claims == 1


@pytest.mark.parametrize(
    "annotations",
    [
        {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "f" * 32},
        {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": HASH},
        {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": HASH},
        mirror(HASH)["annotations"],
    ],
)
@pytest.mark.parametrize("order", [1, -1])
def test_annotations_alone_hide_and_steal_nothing(annotations: dict[str, str], order: int) -> None:
    """A pod that names no cgroup, or a static pod's, is measured as itself; the static pod keeps its figures."""
    thief = pod("thief-node-1", uid="t", annotations=annotations)
    store = PodStore("node-1")
    store.replace(written(static("etcd", "m"), thief)[::order])
    assert names(store) == {HASH: "etcd-node-1", "t": "thief-node-1"}


def test_the_uid_of_a_pod_that_was_is_given_to_nobody() -> None:
    """A pod that was deleted by force still runs, and its figures are nobody else's."""
    store = PodStore("node-1")
    store.replace(written(pod("victim", uid=UID), pod("b", uid="b")))
    store.remove(one(pod("victim", uid=UID)))
    store.put(one(static("thief", "t", UID)))
    assert names(store) == {"b": "b", "t": "thief-node-1"}
    store.replace(written(static("thief", "t", UID), static("thief", "t2", "b")))
    assert names(store) == {"t": "thief-node-1", "t2": "thief-node-1"}


def test_what_is_remembered_of_ended_pods_is_bounded() -> None:
    """A thousand uids: no more memory however many pods come and go."""
    store = PodStore("node-1")
    store.put(one(pod("first", uid=UID)))
    store.remove(one(pod("first", uid=UID)))
    for number in range(1024):
        store.put(one(pod("p", uid=f"u-{number}")))
        store.remove(one(pod("p", uid=f"u-{number}")))
    assert len(store._ended) == 1024  # there is no other way to see that nothing is kept


def test_who_holds_a_static_pods_cgroup_keeps_it() -> None:
    """Another claimant has to wait until the holder is gone, though it pretends to be older."""
    store = PodStore("node-1")
    store.put(one(static("etcd", "m")))
    assert names(store) == {HASH: "etcd-node-1"}
    store.put(one(static("thief", "t", created="2020-01-01T00:00:00Z")))
    for _ in range(2):
        assert names(store) == {HASH: "etcd-node-1", "t": "thief-node-1"}
        store.replace(written(static("thief", "t", created="2020-01-01T00:00:00Z"), static("etcd", "m")))
    assert store.refused_claims == 1


def test_of_two_claims_at_once_the_older_is_believed() -> None:
    """At the start, nobody holds it yet: the API server stamps when a pod was made, and a thief comes after it."""
    store = PodStore("node-1")
    store.replace(
        written(
            static("a-thief", "t", created="2026-02-02T00:00:00Z"), static("etcd", "m"), static("zz", "z", created="9")
        )
    )
    assert names(store) == {HASH: "etcd-node-1", "t": "a-thief-node-1", "z": "zz-node-1"}
    assert store.refused_claims == 2


def test_a_claim_that_comes_before_the_mirror_gives_way_to_it() -> None:
    """A kubelet reports only of its own mirrors, and deletes what claims to be one."""
    store = PodStore("node-1")
    store.put(one(unreported(static("thief", "t", created="2020-01-01T00:00:00Z"))))
    assert names(store) == {HASH: "thief-node-1"}
    store.put(one(static("etcd", "m")))
    assert names(store) == {HASH: "etcd-node-1", "t": "thief-node-1"}


def test_a_mirror_that_is_made_anew_goes_on() -> None:
    """Whether its old one's end was heard of or not: one cgroup, one pod, and nobody is refused."""
    store = PodStore("node-1")
    store.replace(written(static("etcd", "old"), static("etcd", "new", created="2026-02-02T00:00:00Z")))
    assert [(each.uid, each.cgroup_uid) for each in store.pods] == [("new", HASH)]
    store.remove(one({"metadata": {"uid": "old"}}))
    store.remove(one({"metadata": {"uid": "new"}}))
    assert names(store) == {}
    store.put(one(static("etcd", "third")))
    assert [(each.uid, each.cgroup_uid) for each in store.pods] == [("third", HASH)]
    assert store.refused_claims == 0


def test_a_claim_that_is_refused_is_counted_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """Which pod, and whose cgroup; of many claimants the first twenty are in the log."""
    store = PodStore("node-1")
    store.put(one(static("etcd", "m")))
    for _ in range(3):
        store.put(one(static("thief", "t", labels={"n": str(store.refused_claims)})))
        assert len(store.pods) == 2
    assert store.refused_claims == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"pod default/thief-node-1 claims the cgroup of {HASH}")
    assert len(line) < 250
    store.replace(written(static("etcd", "m"), *(static(f"t{n}", f"t{n}") for n in range(100))))
    assert len(store.pods) == 101
    assert store.refused_claims == 101
    assert len(caplog.records) == 20


def test_a_mirror_that_no_kubelet_writes_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """It may be a forgery, or a kubelet that writes none of what is expected: the log names the pod."""
    store = PodStore("node-1")
    store.put(one(pod("etcd-node-1", uid="m", annotations=mirror(HASH)["annotations"])))
    assert names(store) == {"m": "etcd-node-1"}
    assert store.refused_claims == 1
    assert f"pod default/etcd-node-1 claims the cgroup of {HASH}" in caplog.text
