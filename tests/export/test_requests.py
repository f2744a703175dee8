"""What a request is made of: one ResourceMetrics a pod, split between pods."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.export.bound import REQUEST_BYTES
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.identity import Describe, shared_attributes
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import EntityKind, Origin, Pod, Reading
from otel_k8s_cgroup.schemas import ALUMET
from tests.otlp import points

SECOND = 10**9


@dataclass
class Kept:
    """A receiver that takes everything."""

    bodies: list[bytes] = field(default_factory=list)

    def send(self, body: bytes) -> Receipt:
        self.bodies.append(body)
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


def export(
    pods: int,
    *,
    point_attributes: bool = True,
    resource_attributes: tuple[tuple[str, str], ...] = (),
    name: str = "pod",
    ticks: int = 1,
) -> list[bytes]:
    """The requests of so many pods, each read so often after its baseline, all sent at once."""
    kept = Kept()
    instruments = Instruments(ALUMET)
    exporter = Exporter(kept, instruments, queue_bytes=1 << 30)
    known = [Pod(f"uid-{n}", name, "ns", "node", "2026-01-01T00:00:00Z", f"uid-{n}") for n in range(pods)]
    shared = shared_attributes(resource_attributes)
    entities = [Describe(shared=shared, with_points=point_attributes).pod(pod, f"/kubepods/{pod.uid}") for pod in known]
    origins = [Origin(True, SECOND, Stats(0, 0, 0)) for _ in known]
    for tick in range(2, ticks + 2):
        now_ns = tick * SECOND
        before, stats = (Stats(n * 30, n * 10, n * 20, 4, 5, 6, 7, 8) for n in (tick - 1, tick))
        readings = [
            Reading(entity.key, EntityKind.POD, f"/kubepods/{entity.key}", origin, now_ns, stats, now_ns - 1000, before)
            for entity, origin in zip(entities, origins, strict=True)
        ]
        exporter.put(entities, readings, instruments.collect(readings), 0)
    assert exporter.delivery.deliver() is None
    return kept.bodies


def test_each_pods_resource_has_the_users_attributes_too() -> None:
    """Those that hold for every pod; not those of the exporter's own pod, and none that says who a pod is."""
    users = {"k8s.cluster.name": "prod", "service.name": "pods", "k8s.node.uid": "n", "team": "ä", "empty": ""}
    own = {
        "k8s.pod.name": "exporter-x7",
        "k8s.pod.ip": "10.0.0.1",
        "k8s.namespace.name": "monitoring",
        "k8s.node.name": "other",
        "k8s.container.name": "exporter",
        "k8s.daemonset.name": "exporter",
        "container.id": "abc",
        "process.pid": "1",
        "cgroup.path": "/",
        "telemetry.sdk.name": "x",
    }
    (body,) = export(1, resource_attributes=tuple((users | own).items()))
    plain, with_users = (
        points([ExportMetricsServiceRequest.FromString(each)])[0].resource for each in (export(1)[0], body)
    )
    assert with_users == plain | {key: value for key, value in users.items() if value}


def test_a_static_pods_resource_has_its_manifests_hash() -> None:
    """Beside the uid, under the conventions' name of an annotation; its cgroup is named after it."""
    static = Pod("mirror", "etcd-node", "kube-system", "node", None, "h4sh", "h4sh")
    entity = Describe().pod(static, "/kubepods/podh4sh")
    assert entity.key == "h4sh"
    description = entity.describe()
    resource, point = dict(description.resource), dict(description.points["alumet"])
    assert resource["k8s.pod.uid"] == point["uid"] == "mirror"
    assert resource["k8s.pod.annotation.kubernetes.io/config.hash"] == "h4sh"


def test_each_pod_is_a_resource_of_its_own() -> None:
    """Its attributes are on the Resource; the seven metrics have the contract's types, units and attributes."""
    (body,) = export(3)
    message = ExportMetricsServiceRequest.FromString(body)
    assert len(message.resource_metrics) == 3
    of_one = [point for point in points([message]) if point.pod == "uid-1"]
    assert of_one[0].resource == {
        "k8s.pod.uid": "uid-1",
        "k8s.pod.name": "pod",
        "k8s.namespace.name": "ns",
        "k8s.node.name": "node",
        "k8s.pod.start_time": "2026-01-01T00:00:00Z",
        "cgroup.path": "/kubepods/uid-1",
    }
    common = {
        "uid": "uid-1",
        "name": "pod",
        "namespace": "ns",
        "node": "node",
        "resource_kind": "local_machine",
        "resource_id": "empty",
        "resource_consumer_kind": "cgroup",
        "resource_consumer_id": "/kubepods/uid-1",
    }
    for point in of_one:
        kind = {"kind": point.attributes["kind"]} if point.metric.startswith("cpu_") else {}
        assert point.attributes == common | kind
    delta = "delta monotonic sum int"
    assert [(point.metric, point.attributes.get("kind"), point.kind, point.unit, point.value) for point in of_one] == [
        ("cpu_time_delta", "total", delta, "ns", 60),
        ("cpu_time_delta", "system", delta, "ns", 20),
        ("cpu_time_delta", "user", delta, "ns", 40),
        ("cpu_percent", "total", "gauge double", "%", 3.0),
        ("cpu_percent", "system", "gauge double", "%", 1.0),
        ("cpu_percent", "user", "gauge double", "%", 2.0),
        ("memory_usage", None, "gauge int", "By", 4),
        ("cgroup_memory_anonymous", None, "gauge int", "By", 5),
        ("cgroup_memory_file", None, "gauge int", "By", 6),
        ("cgroup_memory_kernel_stack", None, "gauge int", "By", 7),
        ("cgroup_memory_pagetables", None, "gauge int", "By", 8),
    ]


def test_points_without_attributes_keep_their_kind() -> None:
    """``point_attributes = false`` leaves off what the Resource says, and nothing that tells points apart."""
    (body,) = export(1, point_attributes=False)
    told = [point.attributes for point in points([ExportMetricsServiceRequest.FromString(body)])]
    assert told == 2 * [{"kind": "total"}, {"kind": "system"}, {"kind": "user"}] + 5 * [{}]


@pytest.mark.parametrize(("pods", "ticks"), [(3000, 1), (2, 3000)])
def test_requests_stay_below_the_limit_and_hold_every_point_once(pods: int, ticks: int) -> None:
    """Many pods are split between pods; a pod with more readings than fit is split between readings."""
    bodies = export(pods, ticks=ticks)
    assert len(bodies) > 1
    assert max(map(len, bodies)) <= REQUEST_BYTES
    messages = [ExportMetricsServiceRequest.FromString(body) for body in bodies]
    sent = [(point.series, point.time_ns) for point in points(messages)]
    assert len(sent) == len(set(sent)) == pods * ticks * 11


def test_a_name_that_is_no_utf8_stops_nobody() -> None:
    """JSON may hold half of a surrogate pair; it is replaced."""
    (body,) = export(1, name="a\ud800b")
    assert points([ExportMetricsServiceRequest.FromString(body)])[0].resource["k8s.pod.name"] == "a?b"
