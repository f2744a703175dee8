"""The Collector configurations below examples/, in one Collector that two clusters and an Alumet send to."""

from __future__ import annotations

import json
import re
import uuid
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.request import urlopen

import grpc
import pytest
import yaml
from google.protobuf import json_format
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests import otlp
from tests.collectors.programs import free_ports, otelcol, otelcol_defects, why_not
from tests.fakes import kube_api
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import PATIENCE_SECONDS, exporter
from tests.settings.test_examples import EXAMPLES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(why_not("otelcol") is not None, reason=str(why_not("otelcol")))

CONFIGURATIONS = (
    "otelcol-prometheus.yaml",
    "otelcol-file.yaml",
    "otelcol-beside-alumet.yaml",
    "otelcol-cumulative.yaml",
)
CLUSTERS = ("prod", "test")
# Of each pod, the first reading is a baseline and what it uses then is counted.
BEFORE = {"prod": Figures(1_000_000, 500_000, 1 << 20, 2 << 20), "test": Figures(7_000_000, 0, 3 << 20, 4 << 20)}
AFTER = {"prod": Figures(1_250_000, 600_000, 1 << 20, 2 << 20), "test": Figures(7_000_000, 1, 3 << 20, 4 << 20)}
USED_NS = {
    cluster: {kind: after - BEFORE[cluster].cpu_time_ns[kind] for kind, after in AFTER[cluster].cpu_time_ns.items()}
    for cluster in CLUSTERS
}
SCOPES = ("alumet", "otel_k8s_cgroup")
START = "2026-01-02T03:04:05Z"


@dataclass(frozen=True, slots=True)
class CameOut:
    """What each configuration made of the same points."""

    uids: dict[str, str]
    """cluster → the uid of its pod ``default/cart``."""
    paths: dict[str, str]
    scraped: dict[tuple[str, frozenset[tuple[str, str]]], float]
    """A metric's name and labels → its value."""
    file: list[otlp.Point]
    backend: list[otlp.Point]
    cumulative: list[otlp.Point]


def alumets(uid: str, node: str, path: str) -> ExportMetricsServiceRequest:
    """What Alumet's output sends of a pod: one Resource, gauges of doubles without a start, the pod on points."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.add(key="service.name").value.string_value = "alumet-otlp-grpc"
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = "alumet"
    attributes = {
        "name": "cart",
        "namespace": "default",
        "node": node,
        "resource_consumer_id": f"/sys/fs/cgroup{path}",
        "resource_consumer_kind": "cgroup",
        "resource_id": "empty",
        "resource_kind": "local_machine",
        "uid": uid,
    }
    for name, more, value in (("memory_usage", {}, 4096.0), ("cpu_time_delta", {"kind": "total"}, 5000.0)):
        point = of_scope.metrics.add(name=name).gauge.data_points.add(time_unix_nano=1_800_000_000 * 10**9)
        point.as_double = value
        for key, text in sorted((attributes | more).items()):
            point.attributes.add(key=key).value.string_value = text
    return request


GAP_NS = ((1, 2, 5), (3, 4, 7))
"""Start, end and value of two deltas, between which a point is missing."""


def delta_after_a_gap(start_ns: int, end_ns: int, value: int) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.add(key="k8s.pod.uid").value.string_value = "gap"
    of_scope = of_resource.scope_metrics.add()
    of_scope.scope.name = "otel_k8s_cgroup"
    metric = of_scope.metrics.add(name="cpu_time_delta", unit="ns")
    metric.sum.is_monotonic = True
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    metric.sum.data_points.add(start_time_unix_nano=start_ns, time_unix_nano=end_ns, as_int=value)
    return request


SAMPLE = re.compile(r"^(?P<name>\w+)\{(?P<labels>.*)\} (?P<value>\S+)$", re.MULTILINE)
LABEL = re.compile(r'(\w+)="([^"]*)"')


def scrape(port: int) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=PATIENCE_SECONDS) as answer:
        text = answer.read().decode()
    samples = SAMPLE.finditer(text)
    return {(each["name"], frozenset(LABEL.findall(each["labels"]))): float(each["value"]) for each in samples}


@pytest.fixture(scope="module")
def came_out(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CameOut]:
    directory = tmp_path_factory.mktemp("collector")
    grpc_port, http_port, scrape_port = free_ports(3)
    with ExitStack() as stack:
        backend = stack.enter_context(OtlpReceiver("grpc"))
        without_deltas = stack.enter_context(OtlpReceiver("http/protobuf"))
        protocols = {"grpc": {"endpoint": f"127.0.0.1:{grpc_port}"}, "http": {"endpoint": f"127.0.0.1:{http_port}"}}
        program = stack.enter_context(
            otelcol(
                directory,
                *(EXAMPLES / name for name in CONFIGURATIONS),
                receivers={"otlp": {"protocols": protocols}},
                exporters={
                    "prometheus": {"endpoint": f"127.0.0.1:{scrape_port}"},
                    "file": {"path": str(directory / "metrics.jsonl")},
                    "otlp_grpc": {"endpoint": backend.endpoint},
                    "otlp_http": {"endpoint": without_deltas.endpoint},
                },
                service={"telemetry": {"metrics": {"level": "none"}}},
            )
        )
        uids = {cluster: str(uuid.uuid4()) for cluster in CLUSTERS}
        trees = {cluster: CgroupTree(directory / cluster) for cluster in CLUSTERS}
        exporters = []
        for cluster in CLUSTERS:
            trees[cluster].write(uids[cluster], BEFORE[cluster])
            api = stack.enter_context(kube_api.KubeApi())
            api.add(kube_api.pod("cart", uid=uids[cluster]))
            flags = {
                "--k8s-node": "node-1",
                "--k8s-api-url": api.url,
                "--token-retrieval": "none",
                "--cgroup-root": str(trees[cluster].root),
                "--poll-interval": "50ms",
                "--cluster-name": cluster,
                "--otlp-endpoint": f"http://127.0.0.1:{grpc_port}",
            }
            exporters.append(stack.enter_context(exporter(*(word for flag in flags.items() for word in flag))))
        of_pods = set(uids.values())
        backend.wait_for(lambda messages: {point.pod for point in otlp.points(messages)} >= of_pods)
        for cluster in CLUSTERS:
            trees[cluster].write(uids[cluster], AFTER[cluster])
        backend.wait_for(
            lambda messages: all(
                otlp.cpu_time(otlp.points(messages), uids[cluster]) == USED_NS[cluster] for cluster in CLUSTERS
            )
        )
        for each in exporters:
            assert each.stop() == 0
        with grpc.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
            send = MetricsServiceStub(channel).Export  # type: ignore[no-untyped-call]  # generated code
            send(alumets(uids["prod"], "node-1", trees["prod"].path(uids["prod"])), timeout=PATIENCE_SECONDS)
            for start_ns, end_ns, value in GAP_NS:
                send(delta_after_a_gap(start_ns, end_ns, value), timeout=PATIENCE_SECONDS)
        backend.wait_for(lambda messages: "alumet" in {point.scope for point in otlp.points(messages)})
        scraped = scrape(scrape_port)
        # What it still holds is written first.
        assert program.stop() == 0
        lines = (directory / "metrics.jsonl").read_text().splitlines()
        messages = [json_format.ParseDict(json.loads(line), ExportMetricsServiceRequest()) for line in lines]
        paths = {cluster: trees[cluster].path(uids[cluster]) for cluster in CLUSTERS}
        file, behind, cumulative = (otlp.points(each) for each in (messages, backend.messages, without_deltas.messages))
        yield CameOut(uids, paths, scraped, file, behind, cumulative)


def of_resource(out: CameOut, cluster: str) -> dict[str, str]:
    return {
        "k8s_cluster_name": cluster,
        "k8s_pod_uid": out.uids[cluster],
        "k8s_pod_name": "cart",
        "k8s_namespace_name": "default",
        "k8s_node_name": "node-1",
        "k8s_pod_start_time": START,
        "cgroup_path": out.paths[cluster],
        "otel_scope_name": "otel_k8s_cgroup",
    }


def test_each_configuration_is_among_them() -> None:
    """So that no file below examples/ is there that nothing runs."""
    assert sorted(CONFIGURATIONS) == sorted(path.name for path in EXAMPLES.glob("otelcol-*.yaml"))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_a_collector_takes_each_alone(name: str) -> None:
    """As it is, to the letter."""
    assert otelcol_defects(EXAMPLES / name) == ""


def test_a_collector_takes_that_of_the_manifest(tmp_path: Path) -> None:
    """The ConfigMap of collector.yaml, which the README applies to a cluster."""
    (config,) = (
        each["data"]["config.yaml"]
        for each in yaml.safe_load_all((EXAMPLES / "collector.yaml").read_text())
        if each["kind"] == "ConfigMap"
    )
    (tmp_path / "config.yaml").write_text(config)
    assert otelcol_defects(tmp_path / "config.yaml") == ""


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_scrape_has_the_pods_names_and_labels(came_out: CameOut, cluster: str) -> None:
    """CPU time as a total, to the nanosecond what was used; pods of one name in two clusters are two series."""
    of_pod = of_resource(came_out, cluster).items()
    found = {}
    for (name, labels), value in came_out.scraped.items():
        if of_pod <= labels:
            found[(name, dict(labels).get("kind"))] = value
    used_ns = {kind: found.pop(("cpu_time_delta_nanoseconds_total", kind)) for kind in USED_NS[cluster]}
    assert used_ns == USED_NS[cluster]
    figures = AFTER[cluster]
    assert {key: value for key, value in found.items() if key[1] is None} == {
        ("memory_usage_bytes", None): figures.memory_current,
        ("cgroup_memory_anonymous_bytes", None): figures.anon,
        ("cgroup_memory_file_bytes", None): figures.file,
        ("cgroup_memory_kernel_stack_bytes", None): 0,
        ("cgroup_memory_pagetables_bytes", None): 0,
    }
    assert {name for name, kind in found if kind is not None} == {"cpu_percent"}


def test_a_scrape_goes_on_after_a_gap(came_out: CameOut) -> None:
    """Where points are missing, the total does not begin anew."""
    (value,) = (value for (_, labels), value in came_out.scraped.items() if ("k8s_pod_uid", "gap") in labels)
    assert value == sum(value for _, _, value in GAP_NS)


def test_a_backend_without_deltas_gets_totals(came_out: CameOut) -> None:
    """Each is what was used so far, the last all of it; no delta is left, and a gauge is as before."""
    of_pods = [point for point in came_out.cumulative if point.pod in came_out.uids.values()]
    assert not [point for point in of_pods if point.kind.startswith("delta")]
    for cluster, uid in came_out.uids.items():
        totals: dict[str, list[float]] = {kind: [] for kind in USED_NS[cluster]}
        for point in of_pods:
            if (point.pod, point.metric) == (uid, "cpu_time_delta"):
                assert (point.kind, point.unit) == ("cumulative monotonic sum int", "ns")
                totals[point.attributes["kind"]].append(point.value)
        assert {kind: max(values) for kind, values in totals.items()} == USED_NS[cluster]
    assert {point.kind for point in of_pods if point.metric == "memory_usage"} == {"gauge int"}


def test_alumets_series_are_others_in_a_scrape(came_out: CameOut) -> None:
    """By their labels where the name is the same."""
    of_one_pod = [
        (dict(labels), value)
        for (name, labels), value in came_out.scraped.items()
        if name == "memory_usage" or (name == "memory_usage_bytes" and ("uid", came_out.uids["prod"]) in labels)
    ]
    scopes = {labels["otel_scope_name"]: value for labels, value in of_one_pod}
    assert scopes == {"alumet": 4096, "otel_k8s_cgroup": AFTER["prod"].memory_current}


def test_the_file_has_each_point_as_it_was_sent(came_out: CameOut) -> None:
    """Deltas stay deltas, integers stay whole, each pod has its Resource, and both clusters are told apart."""
    of_pods = [point for point in came_out.file if point.pod in came_out.uids.values()]
    assert otlp.defects(of_pods) == []
    for cluster, uid in came_out.uids.items():
        assert otlp.cpu_time(of_pods, uid) == USED_NS[cluster]
        assert {point.resource["k8s.cluster.name"] for point in of_pods if point.pod == uid} == {cluster}
    kinds = {point.metric: point.kind for point in of_pods}
    assert (kinds["cpu_time_delta"], kinds["memory_usage"]) == ("delta monotonic sum int", "gauge int")
    # The exporter's own metrics say the cluster, too.
    own = [point for point in came_out.file if point.resource.get("service.name") == "otel-k8s-cgroup"]
    assert {point.resource["k8s.cluster.name"] for point in own} == set(CLUSTERS)


def test_beside_alumet_both_have_one_shape(came_out: CameOut) -> None:
    """The pod stands on the Resources of both, with the same attributes; the scope says who measured."""
    keys = ("uid", "name", "namespace", "node")
    expected = dict(zip(keys, (came_out.uids["prod"], "cart", "default", "node-1"), strict=True))
    of_pod = [point for point in came_out.backend if point.resource.get("uid") == came_out.uids["prod"]]
    assert {point.scope for point in of_pod} == {"alumet", "otel_k8s_cgroup"}
    for point in of_pod:
        assert {key: point.resource[key] for key in keys} == expected
        assert not point.attributes.keys() & expected.keys()
        assert ("service.name", "alumet-otlp-grpc") in point.resource.items() or point.scope == "otel_k8s_cgroup"
    names = {scope: {point.metric for point in of_pod if point.scope == scope} for scope in SCOPES}
    assert names["alumet"] < names["otel_k8s_cgroup"]
    attributes = {
        (point.scope, point.metric): point.attributes.keys() for point in of_pod if point.metric == "memory_usage"
    }
    assert len({frozenset(each) for each in attributes.values()}) == 1
    assert otlp.defects(point for point in of_pod if point.pod) == []
