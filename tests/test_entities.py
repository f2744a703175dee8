"""Containers and the levels of the node, by the whole exporter: each a Resource of its own, and nothing lost."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.sources import boot_unix_ns
from tests.fakes.cgroup_tree import BURSTABLE, CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import defects, points
from tests.programs import started

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from tests.otlp import Point

WEB = "d75d892c-9bb2-4b9c-8ce2-7868eb91e661"
FIRST, SECOND, SIDECAR, SANDBOX = (digit * 64 for digit in "abcd")


@pytest.fixture
def receiver() -> Iterator[OtlpReceiver]:
    with OtlpReceiver("http/protobuf") as server:
        yield server


class Node:
    """One pod with containers in a tree of cgroup v2, whose figures are the sum of theirs."""

    def __init__(self, root: Path) -> None:
        self.tree = CgroupTree(root)
        self.used: dict[str, int] = {}
        self.pod_usec = 0
        self.use(SANDBOX, 0)

    def use(self, container: str, usec: int) -> None:
        """It has used so much more; a new one is made in full before it is there."""
        self.used[container] = self.used.get(container, 0) + usec
        self.pod_usec += usec
        self.tree.write(WEB, Figures(user_usec=self.pod_usec, anon=4096))
        for directory, total in (
            (self.tree.root / self.tree.path(WEB)[1:] / f"cri-containerd-{container}.scope", self.used[container]),
            (self.tree.root / BURSTABLE, self.pod_usec),
            (self.tree.root / "kubepods.slice", self.pod_usec),
        ):
            target = directory if directory.exists() else self.tree.root / f"new-{container[:4]}"
            target.mkdir(exist_ok=True)
            for name, text in (
                ("cpu.stat", f"usage_usec {total}\nuser_usec {total}\nsystem_usec 0\n"),
                ("memory.current", "4096\n"),
                ("io.stat", f"8:0 rbytes={total} wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n"),
            ):
                with (target / name).open("r+" if (target / name).exists() else "w") as file:
                    file.truncate(0)
                    file.write(text)
            if target != directory:
                target.rename(directory)

    def end(self, container: str) -> None:
        directory = self.tree.root / self.tree.path(WEB)[1:] / f"cri-containerd-{container}.scope"
        for file in directory.iterdir():
            file.unlink()
        directory.rmdir()
        del self.used[container]


def web(container: str, restarts: int) -> dict[str, Any]:
    """The pod as the API has it, with its one container and a sidecar that the settings leave out."""
    found = pod("web", uid=WEB, namespace="shop")
    names = {"app": (container, restarts), "istio-proxy": (SIDECAR, 0)}
    found["spec"]["containers"] = [{"name": name, "image": f"registry:5000/{name}:v1"} for name in names]
    found["status"]["containerStatuses"] = [
        {
            "name": name,
            "containerID": f"containerd://{container_id}",
            "restartCount": count,
            "ready": True,
            "lastState": {"terminated": {"reason": "OOMKilled"}} if count else {},
            "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
        }
        for name, (container_id, count) in names.items()
    ]
    return found


def arguments(api: KubeApi, node: Node, receiver: OtlpReceiver, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "50ms"),
        *("--cgroup-root", str(node.tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
        *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf"),
        *("--containers", "true", "--node-totals", "true", "--exclude-containers", "istio-*", "--metrics", "cpu,io"),
        *more,
    ]


def of(received: Sequence[Point], name: str, **resource: object) -> list[Point]:
    """The points of a metric whose Resource has these attributes, dots written as underscores."""
    wanted = {key.replace("__", "."): value for key, value in resource.items()}
    return [point for point in received if point.metric == name and wanted.items() <= point.resource.items()]


def total(points_of: Sequence[Point]) -> float:
    return sum(point.value for point in points_of if point.attributes.get("kind", "total") == "total")


def test_a_container_that_restarts_is_a_new_series(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """Each is counted from zero, also over a restart of the exporter; pods, levels and devices go on being exact."""
    node = Node(tmp_path / "cgroup")
    node.use(FIRST, 1000)
    node.use(SIDECAR, 5)
    with KubeApi() as api:
        api.add(web(FIRST, 0))
        state = ("--state-file", str(tmp_path / "state"))
        with started(arguments(api, node, receiver, *state)) as program:
            receiver.wait_for(lambda messages: bool(of(points(messages), "cpu_percent", container__id=FIRST)))
            node.use(FIRST, 700)
            assert program.stop() == 0
        before = points(receiver.messages)
        assert total(of(before, "cpu_time_delta", container__id=FIRST)) == 700_000
        node.use(FIRST, 300)
        with started(arguments(api, node, receiver, *state)) as program:
            receiver.wait_for(
                lambda messages: total(of(points(messages), "cpu_time_delta", container__id=FIRST)) == 1_000_000
            )
            node.end(FIRST)
            node.use(SECOND, 40)
            api.add(web(SECOND, 1))
            receiver.wait_for(
                lambda messages: total(of(points(messages), "cpu_time_delta", container__id=SECOND)) == 40_000
            )
            node.use(SECOND, 2)
            assert program.stop() == 0
        received = points(receiver.messages)
    assert defects(point for point in received if "k8s.node.name" in point.resource and point.pod) == []
    assert total(of(received, "cpu_time_delta", container__id=SECOND)) == 42_000
    assert total(of(received, "cgroup_io_rbytes", container__id=SECOND)) == 42
    assert total(of(received, "cgroup_io_rbytes", container__id=FIRST)) == 1000
    of_pod = [
        point for point in of(received, "cpu_time_delta", k8s__pod__uid=WEB) if "container.id" not in point.resource
    ]
    assert total(of_pod) == 1_042_000
    for path in (f"/{BURSTABLE}", "/kubepods.slice"):
        assert total(of(received, "cpu_time_delta", cgroup__path=path)) == 1_042_000
    assert {point.resource.get("container.id") for point in received} == {None, FIRST, SECOND}
    (name,) = {point.resource["k8s.container.name"] for point in received if "container.id" in point.resource}
    assert name == "app"
    (second,) = {str(point.resource) for point in of(received, "cpu_percent", container__id=SECOND)}
    assert "'k8s.container.restart_count': 1" in second
    assert "'container.image.name': 'registry:5000/app'" in second
    assert "'k8s.container.status.last_terminated_reason': 'OOMKilled'" in second


def test_containers_that_are_asked_for_from_a_restart_on_begin_there(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """The process before did not look for them: what they had used is not sent as one delta."""
    node = Node(tmp_path / "cgroup")
    node.use(FIRST, 10**9)
    with KubeApi() as api:
        api.add(web(FIRST, 0))
        state = ("--state-file", str(tmp_path / "state"))
        without = ("--containers", "false", "--node-totals", "false")
        with started(arguments(api, node, receiver, *state, *without)) as program:
            receiver.wait_for(lambda messages: bool(of(points(messages), "cpu_percent", k8s__pod__uid=WEB)))
            assert program.stop() == 0
        with started(arguments(api, node, receiver, *state)) as program:
            receiver.wait_for(lambda messages: bool(of(points(messages), "cpu_percent", container__id=FIRST)))
            node.use(FIRST, 5)
            assert program.stop() == 0
    received = points(receiver.messages)
    assert total(of(received, "cpu_time_delta", container__id=FIRST)) == 5000
    assert total(of(received, "cpu_time_delta", cgroup__path="/kubepods.slice")) == 5000


def test_a_cumulative_counter_of_a_cgroup_that_is_made_anew_starts_anew(tmp_path: Path, receiver: OtlpReceiver) -> None:
    """A static pod's: the API's start of it stays, and the smaller value has a later one. A node's is the boot's."""
    tree = CgroupTree(tmp_path / "cgroup")
    tree.write(WEB, Figures(user_usec=5000))
    (tree.root / "kubepods.slice/cpu.stat").write_text("usage_usec 7\nuser_usec 7\nsystem_usec 0\n")
    with KubeApi() as api:
        api.add(pod("web", uid=WEB))
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "50ms"),
            *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
            *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf"),
            *("--schema", "semconv", "--node-totals"),
        ]
        with started(argv) as program:
            receiver.wait_for(lambda messages: bool(of(points(messages), "k8s.pod.cpu.usage")))
            tree.remove(WEB)
            seen = len(receiver.messages)
            receiver.wait_for(lambda messages: len(messages) > seen + 2)
            tree.write(WEB, Figures(user_usec=3000))
            receiver.wait_for(lambda messages: of(points(messages), "k8s.pod.cpu.time")[-1].value == 0.003)
            assert program.stop() == 0
    received = points(receiver.messages)
    times = of(received, "k8s.pod.cpu.time")
    starts = {point.value: point.start_ns for point in times}
    assert starts.keys() == {0.005, 0.003}
    assert starts[0.005] == 1_767_323_045 * 10**9  # 2026-01-02T03:04:05Z
    assert max(point.time_ns for point in times if point.value == 0.005) <= starts[0.003]
    assert {point.start_ns for point in of(received, "k8s.node.cpu.time")} == {boot_unix_ns()}
    (uptime, *_) = of(received, "k8s.node.uptime")
    assert uptime.value == pytest.approx((uptime.time_ns - boot_unix_ns()) / 1e9)


def test_snapshot_shows_what_is_asked_for(tmp_path: Path) -> None:
    """A pod's container below it, then the levels; JSON has the groups that are asked for, by what tells them apart."""
    node = Node(tmp_path / "cgroup")
    node.use(FIRST, 1000)
    node.use(SIDECAR, 5)
    with KubeApi() as api:
        api.add(web(FIRST, 3))
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "snapshot", "--k8s-node", "node-1", "--k8s-api-url", api.url),
            *("--cgroup-root", str(node.tree.root), "--token-retrieval", "none", "--containers", "--node-totals"),
            *("--exclude-containers", "istio-*"),
        ]
        table, as_json, plain = (
            subprocess.run([*argv, *more], capture_output=True, text=True, check=True).stdout
            for more in ((), ("--json", "--metrics", "io", "--schema", "alumet,semconv"), ("--metrics", "io"))
        )
    lines = [line.split() for line in table.splitlines()]
    assert [line[:2] for line in lines[1:]] == [
        ["shop", "web"],
        ["app", "0.0"],
        ["-", "/kubepods.slice"],
        ["-", f"/{BURSTABLE}"],
    ]
    assert plain == table
    found = {shot["cgroup_path"].rpartition("/")[2]: shot for shot in json.loads(as_json)}
    container = found[f"cri-containerd-{FIRST}.scope"]
    assert (container["kind"], container["container"], container["name"]) == ("container", "app", "web")
    assert container["cgroup_io_rbytes"] == {"8:0": 1000}
    assert container["container.disk.io"] == {"read 8:0": 1000, "write 8:0": 0}
    assert container["resource"]["k8s.container.restart_count"] == 3
    assert found["kubepods.slice"]["cpu_time"]["total"] == 1_005_000


@pytest.mark.parametrize("containers", [(), ("--containers",)])
def test_a_limit_that_is_not_the_one_of_the_spec_shows(tmp_path: Path, containers: tuple[str, ...]) -> None:
    """5 GB are specified, 255 MB enforced: both are there, of the pod also where no container is measured."""
    node = Node(tmp_path / "cgroup")
    node.use(FIRST, 1000)
    directory = node.tree.root / node.tree.path(WEB)[1:]
    for each in (directory, directory / f"cri-containerd-{FIRST}.scope"):
        (each / "memory.max").write_text("255000000\n")
    found = web(FIRST, 0)
    amounts = {"limits": {"memory": "5G"}, "requests": {"memory": "1G", "cpu": "500m"}}
    found["spec"]["containers"] = [{"name": "app", "resources": amounts}]
    status = found["status"]["containerStatuses"][0]
    status["resources"] = {"requests": {"memory": "200M"}}
    status["allocatedResources"] = {"memory": "300M", "cpu": "250m"}
    with KubeApi() as api:
        api.add(found)
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "snapshot", "--k8s-node", "node-1", "--k8s-api-url", api.url),
            *("--cgroup-root", str(node.tree.root), "--token-retrieval", "none", "--json", *containers),
            *("--metrics", "limits", "--schema", "alumet,semconv"),
        ]
        shots = json.loads(subprocess.run(argv, capture_output=True, text=True, check=True).stdout)
    by_kind = {shot["kind"]: shot for shot in shots}
    assert by_kind.keys() == ({"pod", "container"} if containers else {"pod"})
    for shot in shots:
        assert (shot["memory_limit_desired"], shot["memory_max"]) == (5 * 10**9, 255_000_000)
        assert (shot["memory_request_desired"], shot["cpu_request_desired"]) == (10**9, 0.5)
        assert shot.get("cpu_limit_desired") is None
        assert shot["memory_request_current"] == 200_000_000
    assert by_kind["pod"]["k8s.pod.cgroup.memory.limit_desired"] == 5 * 10**9
    assert by_kind["pod"].get("memory_request_allocated") is None
    if containers:
        container = by_kind["container"]
        assert (container["memory_request_allocated"], container["cpu_request_allocated"]) == (300_000_000, 0.25)
        assert container["container.cgroup.memory.request_allocated"] == 300_000_000
        assert container["k8s.container.memory.limit.desired"] == 5 * 10**9
        assert container["k8s.container.memory.limit.current"] == 255_000_000
        assert container["k8s.container.memory.request.current"] == 200_000_000
        assert container.get("k8s.container.cpu.request.current") is None
