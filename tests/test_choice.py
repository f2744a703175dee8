"""Which pods are measured and what their Resources say, by the whole exporter: a process, an API, a receiver."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, failing, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import cpu_time, points
from tests.programs import started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

WEB, DB = (f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{digit}" for digit in "12")
OWNER = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "s", "controller": True}


@pytest.fixture
def tree(tmp_path: Path) -> CgroupTree:
    tree = CgroupTree(tmp_path / "cgroup")
    for uid in (WEB, DB):
        tree.write(uid, Figures(user_usec=1000))
    return tree


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver("http/protobuf") as server:
        yield server


def arguments(api: KubeApi, tree: CgroupTree, receiver: OtlpReceiver, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "50ms"),
        *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
        *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf", *more),
    ]


def after(receiver: OtlpReceiver, holds: Callable[[dict[str, dict[str, str]], dict[str, float]], bool]) -> None:
    """Waits for a message from now on of whose Resources, by pod, and own gauges, by name, that holds."""
    seen = len(receiver.messages)

    def is_true(messages: Sequence[ExportMetricsServiceRequest]) -> bool:
        nonlocal seen
        new, seen = messages[seen:], len(messages)
        for message in new:
            received = points([message])
            resources = {point.pod: point.resource for point in received if point.pod}
            own = {point.metric: float(point.value) for point in received if not point.pod}
            if holds(resources, own):
                return True
        return False

    receiver.wait_for(is_true)


def _has_tier(tier: str, resources: dict[str, dict[str, str]], _own: dict[str, float]) -> bool:
    return resources.get(WEB, {}).get("k8s.pod.label.tier") == tier


def test_a_change_of_labels_shows_at_once_and_counts_nothing_anew(tree: CgroupTree, receiver: OtlpReceiver) -> None:
    """The Resource has the new value; the pod's CPU time goes on from where it was."""
    with KubeApi() as api:
        web: dict[str, Any] = {"uid": WEB, "namespace": "shop", "ownerReferences": [OWNER]}
        api.add(pod("web", labels={"tier": "a"}, **web))
        with started(arguments(api, tree, receiver, "--pod-labels", "tier,x-*", "--cluster-name", "c1")) as program:
            after(receiver, partial(_has_tier, "a"))
            for number, tier in enumerate(("b", "c"), 1):
                tree.write(WEB, Figures(user_usec=1000 + 1000 * number))
                api.add(pod("web", labels={"tier": tier, "other": "x"}, **web))
                after(receiver, partial(_has_tier, tier))
            assert program.stop() == 0
        received = points(receiver.messages)
    assert cpu_time(received, WEB)["total"] == 2_000_000
    last = [point for point in received if point.pod == WEB][-1]
    assert last.resource == {
        "k8s.pod.uid": WEB,
        "k8s.pod.name": "web",
        "k8s.namespace.name": "shop",
        "k8s.node.name": "node-1",
        "k8s.pod.start_time": "2026-01-02T03:04:05Z",
        "cgroup.path": tree.path(WEB),
        "k8s.statefulset.name": "db",
        "k8s.statefulset.uid": "s",
        "k8s.pod.label.tier": "c",
        "k8s.cluster.name": "c1",
    }
    assert all(point.resource["k8s.cluster.name"] == "c1" for point in received)


@pytest.mark.parametrize("source", ["api", "file"])
def test_a_pod_is_left_out_and_taken_in_again(
    tree: CgroupTree, receiver: OtlpReceiver, tmp_path: Path, source: str
) -> None:
    """By its labels, as the API server selects or the exporter itself: not sent meanwhile, counted as left out, and not
    a nanosecond is counted twice.
    """
    file = tmp_path / "pods.json"
    with KubeApi() as api:

        def list_with(label: str) -> None:
            pods = [pod("web", uid=WEB, labels={"app": "web"}), pod("db", uid=DB, labels={"app": label})]
            api.add(*pods)
            written = file.with_suffix(".new")
            written.write_text(json.dumps({"kind": "List", "items": pods}))
            written.rename(file)

        list_with("web")
        argv = arguments(api, tree, receiver, "--pod-selector", "app=web")
        argv += ["--pod-source", f'{{ file = "{file}" }}'] if source == "file" else []
        with started(argv) as program:
            after(receiver, lambda resources, _: resources.keys() == {WEB, DB})
            tree.write(DB, Figures(user_usec=2000))
            receiver.wait_for(lambda messages: cpu_time(points(messages), DB).get("total") == 1_000_000)
            list_with("old")
            after(
                receiver,
                lambda resources, own: resources.keys() == {WEB} and own.get("otel_k8s_cgroup.pods.excluded") == 1,
            )
            tree.write(DB, Figures(user_usec=5000))
            list_with("web")
            after(receiver, lambda resources, _: DB in resources)
            tree.write(DB, Figures(user_usec=6000))
            assert program.stop() == 0
        received = points(receiver.messages)
    assert cpu_time(received, DB)["total"] == 5_000_000
    assert "not measured" not in program.output


def test_a_pod_that_is_excluded_over_a_restart_is_sent_no_more(
    tree: CgroupTree, receiver: OtlpReceiver, tmp_path: Path
) -> None:
    """The state file knows it, and the API does not answer yet: what is measured goes on without a gap after that."""
    state = ("--state-file", str(tmp_path / "state.json"))
    with KubeApi() as api:
        api.add(pod("web", uid=WEB, namespace="shop"), pod("db", uid=DB, namespace="kube-system"))
        with started(arguments(api, tree, receiver, *state)) as program:
            after(receiver, lambda resources, _: resources.keys() == {WEB, DB})
            assert program.stop() == 0
        before = len(receiver.messages)
        for uid in (WEB, DB):
            tree.write(uid, Figures(user_usec=3000))
        api.on("list", *[failing(503)] * 2)
        with started(arguments(api, tree, receiver, *state, "--exclude-namespaces", "kube-*")) as program:
            after(receiver, lambda resources, _: WEB in resources)
            assert program.stop() == 0
    assert {point.pod for point in points(receiver.messages[before:])} == {"", WEB}
    assert cpu_time(points(receiver.messages), WEB)["total"] == 2_000_000


def test_an_excluded_namespace_is_neither_read_nor_sent(tree: CgroupTree, receiver: OtlpReceiver) -> None:
    """It shows in an own metric. After its cgroup was found its files may hold anything."""

    def is_left_out(resources: dict[str, dict[str, str]], own: dict[str, float]) -> bool:
        counts = own.get("otel_k8s_cgroup.pods.excluded"), own.get("otel_k8s_cgroup.cgroups.unnamed")
        return resources.keys() == {WEB} and counts == (1, 0)

    with KubeApi() as api:
        api.add(pod("web", uid=WEB, namespace="shop"), pod("db", uid=DB, namespace="kube-system"))
        with started(arguments(api, tree, receiver, "--exclude-namespaces", "kube-*")) as program:
            after(receiver, is_left_out)
            (tree.root / tree.path(DB)[1:] / "memory.current").write_text("not read")
            for _ in range(2):
                after(receiver, lambda resources, _own: resources.keys() == {WEB})
            assert program.stop() == 0
    assert {point.pod for point in points(receiver.messages)} == {"", WEB}
    assert "memory.current" not in program.output


@pytest.mark.parametrize(
    ("chosen", "names"),
    [
        ((), {"web", "web/app", "web/istio-proxy", "db"}),
        (("--include-namespaces", "sh*"), {"web", "web/app", "web/istio-proxy"}),
        (("--exclude-namespaces", "sh*"), {"db"}),
        (("--pod-selector", "app=web"), {"web", "web/app", "web/istio-proxy"}),
        (("--qos-classes", "BestEffort"), {"db"}),
        (("--exclude-containers", "istio-*"), {"web", "web/app", "db"}),
        (("--include-containers", "istio-*"), {"web", "web/istio-proxy", "db"}),
    ],
)
def test_snapshot_shows_what_is_chosen(tree: CgroupTree, chosen: tuple[str, ...], names: set[str]) -> None:
    """So that a choice can be tried before it is installed."""
    ids = {name: f"{digit}" * 64 for name, digit in (("app", 1), ("istio-proxy", 2))}
    of_pod = tree.root / tree.path(WEB)[1:]
    for container_id in ids.values():
        shutil.copytree(of_pod, of_pod.parent / "new" / container_id)
    for made in (of_pod.parent / "new").iterdir():
        made.rename(of_pod / f"cri-containerd-{made.name}.scope")
    web = pod("web", uid=WEB, namespace="shop", labels={"app": "web"})
    web["spec"]["containers"] = [{"name": name} for name in ids]
    web["status"] |= {
        "qosClass": "Burstable",
        "containerStatuses": [{"name": name, "containerID": f"containerd://{of}"} for name, of in ids.items()],
    }
    db = pod("db", uid=DB)
    db["status"]["qosClass"] = "BestEffort"
    with KubeApi() as api:
        api.add(web, db)
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "snapshot", "--k8s-node", "node-1", "--k8s-api-url", api.url),
            *("--cgroup-root", str(tree.root), "--token-retrieval", "none", "--containers", "--json", *chosen),
        ]
        shots = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    assert {"/".join(filter(None, (shot["name"], shot.get("container")))) for shot in shots} == names


def test_hostile_labels_change_nobody_elses_data(tree: CgroupTree, receiver: OtlpReceiver) -> None:
    """Annotations of 64 kB, any Unicode, and names of other pods: an honest pod's Resource and CPU time are its own."""
    evil = {
        "a": "x" * 65_536,
        "b": "\x00\u2028\x1b[2J\ud800☃",
        "☃": "y",
        "kubernetes.io/config.hash": WEB,
        "resource.opentelemetry.io/k8s.pod.uid": WEB,
        "resource.opentelemetry.io/cgroup.path": tree.path(WEB),
        "resource.opentelemetry.io/service.name": "z" * 65_536,
        **{f"k-{number:04}": "w" * 1000 for number in range(300)},
    }
    owners = [{"apiVersion": "v1", "kind": "\x1b[2J", "name": "x" * 65_536, "uid": WEB, "controller": True}] * 2
    with KubeApi() as api:
        api.add(pod("evil", uid=DB, labels=evil, annotations=evil, ownerReferences=owners))
        api.add(pod("web", uid=WEB, labels={"app": "web"}))
        asked = ("--pod-labels", "*", "--pod-annotations", "*", "--service-attributes")
        with started(arguments(api, tree, receiver, *asked)) as program:
            after(receiver, lambda resources, _: resources.keys() == {WEB, DB})
            for uid, user_usec in ((WEB, 4000), (DB, 9000)):
                tree.write(uid, Figures(user_usec=user_usec))
            assert program.stop() == 0
        received = points(receiver.messages)
    assert {uid: cpu_time(received, uid)["total"] for uid in (WEB, DB)} == {WEB: 3_000_000, DB: 8_000_000}
    (honest,) = {tuple(sorted(point.resource.items())) for point in received if point.pod == WEB}
    assert dict(honest) == {
        "k8s.pod.uid": WEB,
        "k8s.pod.name": "web",
        "k8s.namespace.name": "default",
        "k8s.node.name": "node-1",
        "k8s.pod.start_time": "2026-01-02T03:04:05Z",
        "cgroup.path": tree.path(WEB),
        "k8s.pod.label.app": "web",
        "service.name": "web",
        "service.namespace": "default",
        "service.instance.id": "default.web",
    }
    hostile = next(point.resource for point in received if point.pod == DB)
    assert (hostile["k8s.pod.name"], hostile["cgroup.path"]) == ("evil", tree.path(DB))
    assert hostile["service.name"] == "z" * 1024
    assert sum(map(len, [*hostile, *hostile.values()])) < 40_000
    assert "\x1b" not in program.output
