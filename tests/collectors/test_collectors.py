"""`run`, as a process, through real collectors: what comes out at the far end is what the API and the cgroups say."""

from __future__ import annotations

import random
import uuid
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import pytest

from tests import otlp
from tests.collectors.programs import collector, why_not
from tests.fakes import kube_api
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import exporter

if TYPE_CHECKING:
    from pathlib import Path

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from tests.otlp import Point

NODE = "node-1"
MIB = 1 << 20
CPU = {"total", "system", "user"}
MEMORY = {
    "memory_usage": "memory_current",
    "cgroup_memory_anonymous": "anon",
    "cgroup_memory_file": "file",
    "cgroup_memory_kernel_stack": "kernel_stack",
    "cgroup_memory_pagetables": "pagetables",
}
KINDS = {
    "cpu_time_delta": ("delta monotonic sum int", "ns"),
    "cpu_percent": ("gauge double", "%"),
    **dict.fromkeys(MEMORY, ("gauge int", "By")),
}


@dataclass
class Node:
    """Pods of a node, in the API and in a tree, and what their CPU time has grown by since the exporter saw them."""

    api: kube_api.KubeApi
    tree: CgroupTree
    figures: dict[str, Figures] = field(default_factory=dict)
    resources: dict[str, dict[str, str]] = field(default_factory=dict)
    grown: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(lambda: dict.fromkeys(CPU, 0)))

    def add(self, name: str, figures: Figures, *, counted_from_zero: bool) -> str:
        uid = str(uuid.uuid4())
        self.figures[uid] = figures
        self.resources[uid] = {
            "k8s.pod.uid": uid,
            "k8s.pod.name": name,
            "k8s.namespace.name": "default",
            "k8s.node.name": NODE,
            "k8s.pod.start_time": "2026-01-02T03:04:05Z",
            "cgroup.path": self.tree.path(uid),
        }
        self.api.add(kube_api.pod(name, node=NODE, uid=uid))
        if counted_from_zero:
            self.grown[uid] = figures.cpu_time_ns
        self.tree.write(uid, figures)
        return uid

    def use(self, uid: str, *, user_usec: int, system_usec: int) -> None:
        figures = self.figures[uid]
        before = figures.cpu_time_ns
        figures.user_usec += user_usec
        figures.system_usec += system_usec
        for kind, value in figures.cpu_time_ns.items():
            self.grown[uid][kind] += value - before[kind]
        self.tree.write(uid, figures)

    def all_is_delivered(self, messages: list[ExportMetricsServiceRequest]) -> bool:
        points = otlp.points(messages)
        return all(otlp.cpu_time(points, uid) == self.grown[uid] for uid in self.figures)


def through(
    name: Literal["nothing", "rotel", "otelcol"], protocol: Literal["grpc", "http/protobuf"], directory: Path
) -> tuple[Node, list[Point]]:
    """A run with pods from before, pods born meanwhile and CPU time used in many steps; what the receiver got of it."""
    amounts = random.Random(f"{name} {protocol}")
    with ExitStack() as stack:
        receiver = stack.enter_context(OtlpReceiver(protocol if name == "nothing" else "grpc"))
        endpoint = receiver.endpoint
        if name != "nothing":
            listening = stack.enter_context(collector(name, directory, receiver.endpoint))
            endpoint = listening.grpc if protocol == "grpc" else listening.http
        node = Node(stack.enter_context(kube_api.KubeApi()), CgroupTree(directory / "cgroup"))

        def figures() -> Figures:
            a, b, *memory = (amounts.randrange(1, 10**9) for _ in range(6))
            return Figures(a, b, *memory)

        for number in range(3):
            node.add(f"old-{number}", figures(), counted_from_zero=False)
        flags = {
            "--k8s-node": NODE,
            "--k8s-api-url": node.api.url,
            "--token-retrieval": "none",
            "--cgroup-root": str(node.tree.root),
            "--poll-interval": "50ms",
            "--otlp-endpoint": endpoint,
            "--otlp-protocol": protocol,
        }
        program = stack.enter_context(exporter(*(word for flag in flags.items() for word in flag)))
        receiver.wait_for(lambda messages: {point.pod for point in otlp.points(messages)} >= set(node.figures))
        for number in range(3):
            node.add(f"new-{number}", figures(), counted_from_zero=True)
        for _ in range(10):
            for uid in node.figures:
                node.use(uid, user_usec=amounts.randrange(10**6), system_usec=amounts.randrange(10**6))
            received = len(receiver.messages)
            receiver.wait_for(lambda messages, received=received: len(messages) > received)  # type: ignore[misc]  # a lambda's default has no type
        receiver.wait_for(node.all_is_delivered)
        assert program.stop() == 0
    return node, otlp.points(receiver.messages)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
@pytest.mark.parametrize("name", ["nothing", "rotel", "otelcol"])
def test_all_arrives_as_it_was_measured(
    name: Literal["nothing", "rotel", "otelcol"], protocol: Literal["grpc", "http/protobuf"], tmp_path: Path
) -> None:
    """Through each collector (and through none): every resource, attribute, unit and type, every figure, and to the
    nanosecond the CPU time that was used.
    """
    if name != "nothing" and (reason := why_not(name)):
        pytest.skip(reason)
    node, points = through(name, protocol, tmp_path)
    of_pods = [point for point in points if point.pod]

    assert {point.pod: point.resource for point in of_pods} == node.resources
    assert {point.scope for point in of_pods} == {"otel_k8s_cgroup"}
    assert {point.metric: (point.kind, point.unit) for point in of_pods} == KINDS
    for point in of_pods:
        assert point.attributes == expected_attributes(point)
    for metric, figure in MEMORY.items():
        said = {point.pod: point.value for point in of_pods if point.metric == metric}
        assert said == {uid: getattr(figures, figure) for uid, figures in node.figures.items()}
    for uid in node.figures:
        assert otlp.cpu_time(of_pods, uid) == node.grown[uid]
    assert "\n".join(otlp.defects(points)) == ""


def expected_attributes(point: Point) -> dict[str, Any]:
    """The contract's, by what the point's resource says."""
    identity = {
        "uid": point.resource["k8s.pod.uid"],
        "name": point.resource["k8s.pod.name"],
        "namespace": point.resource["k8s.namespace.name"],
        "node": point.resource["k8s.node.name"],
        # Alumet's resource and consumer, as its own OTLP output writes them.
        "resource_kind": "local_machine",
        "resource_id": "empty",
        "resource_consumer_kind": "cgroup",
        "resource_consumer_id": point.resource["cgroup.path"],
    }
    if point.metric not in {"cpu_time_delta", "cpu_percent"}:
        return identity
    assert point.attributes["kind"] in CPU
    return identity | {"kind": point.attributes["kind"]}
