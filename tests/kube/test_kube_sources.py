"""The two other sources of pods: the kubelet's list, and a file."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.kube import kubelet_url
from otel_k8s_cgroup.model import PodSource
from tests.fakes.kube_api import KubeApi, pod

from .support import Waits, client, comes_to, names

if TYPE_CHECKING:
    from pathlib import Path

    from .conftest import Watch

KUBELET = PodSource("kubelet")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pods.json"


def _list(*names: str) -> str:
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": [pod(name) for name in names]})


# --- the kubelet ---


def test_the_kubelet_is_asked_every_ten_seconds(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """No watch there: its whole list again, static pods under the hash that their cgroup has."""
    static = {"kubernetes.io/config.source": "file", "kubernetes.io/config.hash": "h4sh"}
    api.add(pod("a"), pod("etcd", uid="h4sh", annotations=static))
    waits.hold()
    watcher = watch(KUBELET, times=None)
    waits.reached(1)
    assert {(each.name, each.cgroup_uid) for each in watcher.pods} == {("a", "uid-a"), ("etcd", "h4sh")}
    api.delete("a")
    waits.let_go(1)
    waits.reached(2)
    assert names(watcher) == {"etcd"}
    assert waits.seconds == [10.0, 10.0]
    assert {request.path for request in api.requests} == {"/pods"}
    assert watcher.stats.api_requests == {("get", "200"): 2}
    assert watcher.stats.watch_restarts == {}


def test_a_kubelet_that_has_no_pods_yet(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """It writes ``items: null``."""
    waits.hold()
    watcher = watch(KUBELET)
    assert watcher.synced.wait(20)
    assert watcher.pods == ()


@pytest.mark.parametrize(
    ("subresources", "grant"),
    [
        ("subresource(s)=[pods proxy]", "nodes/pods"),
        ("subresource(s)=[proxy]", "nodes/proxy"),
        ("subresource=proxy", "nodes/proxy"),
        ("", "nodes/pods"),
    ],
)
def test_a_kubelet_that_forbids_names_the_permission(
    api: KubeApi, watch: Watch, caplog: pytest.LogCaptureFixture, subresources: str, grant: str
) -> None:
    """``nodes/pods``, and ``nodes/proxy`` only where the kubelet's own words name nothing less; granted, it goes on."""
    api.add(pod("a"))
    said = f"Forbidden (user={'x' * 90}, verb=get, resource=nodes, {subresources})"
    api.on("kubelet", *[lambda exchange: exchange.answer(403, said.encode())] * 20)
    calm = Waits()
    watcher = watch(KUBELET, wait=calm, clock=calm.clock)
    comes_to(watcher, "a")
    calm.hold()
    assert f"'get' on {grant!r}" in caplog.text
    assert "can list the pods again" in caplog.text
    calm.let_go()


def test_where_the_kubelet_is() -> None:
    """Its secure port, on the node."""
    assert kubelet_url("node-1") == "https://node-1:10250"


# --- a file ---


def test_a_file_is_read_again_when_it_changed(file: Path, watch: Watch, waits: Waits) -> None:
    """What `kubectl get pods -o json` prints; only this node's; a new content is a new list."""
    file.write_text(_list("a", "b"))
    waits.hold()
    watcher = watch(PodSource("file", file=str(file)))
    waits.reached(1)
    assert names(watcher) == {"a", "b"}
    before = watcher.pods
    waits.let_go(1)
    waits.reached(2)
    assert watcher.pods is before
    file.write_text(_list("b", "c-longer"))
    waits.let_go(1)
    waits.reached(3)
    assert names(watcher) == {"b", "c-longer"}
    assert waits.seconds == [1.0, 1.0, 1.0]
    assert watcher.stats.api_requests == {}


@pytest.mark.parametrize(
    "content",
    [None, "", "{", "[]", '{"items": 1}', "\ud800"],
    ids=["missing", "empty", "cut", "list", "no-items", "bytes"],
)
def test_a_file_that_is_no_list(
    file: Path, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    """Named once, with what it must be, and not taken for an empty list; once it is good it is used."""
    if content is not None:
        file.write_bytes(content.encode("utf-8", "surrogatepass"))
    waits.hold()
    watcher = watch(PodSource("file", file=str(file)))
    for count in range(1, 4):
        waits.reached(count)
        waits.let_go(1)
    waits.reached(4)
    assert not watcher.synced.is_set()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"pod_source file {str(file)!r}" in caplog.text
    file.write_text(_list("a"))
    waits.let_go(1)
    comes_to(watcher, "a")
    assert "can list the pods again" in caplog.text


def test_known_pods_stay_while_the_file_is_bad(file: Path, watch: Watch, waits: Waits) -> None:
    """It was caught half-written: what was known stays until it is whole."""
    file.write_text(_list("a"))
    waits.hold()
    watcher = watch(PodSource("file", file=str(file)))
    waits.reached(1)
    file.write_text(_list("a", "b")[:-20])
    waits.let_go(1)
    waits.reached(2)
    assert names(watcher) == {"a"}
    file.write_text(_list("a", "b"))
    waits.let_go(1)
    comes_to(watcher, "a", "b")


def test_stop_of_a_file_source(file: Path, watch: Watch) -> None:
    """Ends its wait, too."""
    file.write_text(_list("a"))
    watcher = watch(PodSource("file", file=str(file)), wait=None)
    comes_to(watcher, "a")
    assert watcher.stop(10)


def test_a_file_source_does_not_need_the_api(api: KubeApi, file: Path, watch: Watch, waits: Waits) -> None:
    """No request is made to anyone."""
    file.write_text(_list("a"))
    waits.hold()
    comes_to(watch(PodSource("file", file=str(file)), client=client(api.url)), "a")
    assert api.requests == []
