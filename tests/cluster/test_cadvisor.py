"""Schema ``cadvisor`` beside the /metrics/cadvisor of the node's own kubelet."""

from __future__ import annotations

import urllib.request
from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

from otel_k8s_cgroup.schemas import cadvisor
from tests import otlp
from tests.cluster.api import eventually
from tests.cluster.conftest import api_flags, words
from tests.cluster.layout import NODE
from tests.cluster.pods import container, pod, resources
from tests.fakes.faulty_otlp import free_port
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import clean_environ, exporter
from tests.settings.test_examples import EXAMPLES
from tests.test_cadvisor import DOCUMENTED, translated

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

Labels = dict[str, str]
Series = dict[tuple[str, frozenset[tuple[str, str]]], tuple[Labels, float]]
"""By name, and those labels that are not by whom a cgroup is: who, and the value."""

NAMES = {metric.name: translated(metric) for metric in cadvisor.METRICS}
WHO = {"container", "image", "name", "namespace", "node", "pod"}
LEVELS = ("/kubepods", "/kubepods/burstable", "/kubepods/besteffort")


def add(found: Series, name: str, labels: Labels, value: float) -> None:
    who = {label: labels.pop(label) for label in WHO & labels.keys()}
    found[name, frozenset(labels.items())] = who, value


def text_of_kubelet(cluster: Cluster) -> str:
    return cluster.kubectl("get", "--raw", f"/api/v1/nodes/{NODE}/proxy/metrics/cadvisor")


def label_names(text: str) -> dict[str, set[frozenset[str]]]:
    """Of each metric's series, labels that are empty included; but for the node, which is ours alone."""
    found: dict[str, set[frozenset[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in DOCUMENTED:
                found.setdefault(sample.name, set()).add(frozenset(sample.labels) - {"node"})
    return found


def of_kubelet(cluster: Cluster) -> Series:
    text = text_of_kubelet(cluster)
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in DOCUMENTED:
                add(found, sample.name, {key: value for key, value in sample.labels.items() if value}, sample.value)
    return found


def of_exporter(receiver: OtlpReceiver) -> Series:
    found: Series = {}
    for point in otlp.points(receiver.messages):
        if point.metric in NAMES:
            add(found, NAMES[point.metric], dict(point.attributes), point.value)
    return found


def ids(series: Series) -> set[str]:
    return {dict(labels)["id"] for _, labels in series}


def test_the_kubelet_has_the_same_series(cluster: Cluster, observer: Observer) -> None:
    """Each of a pod, its container and the node's levels that has a value there is ours, by name and labels; limits are
    the same, and no CPU time of ours is behind. (In this node the kubelet does not know containerd, and so a container
    by its cgroup alone.)
    """
    limits = resources(requests={"cpu": "100m"}, limits={"cpu": "200m", "memory": "64Mi"})
    running = cluster.run(pod("cadvisor", container("burn", "500", "pause", resources=limits)))
    pod_id = f"/kubepods/burstable/pod{running['metadata']['uid']}"
    (status,) = running["status"]["containerStatuses"]
    container_id = f"{pod_id}/{status['containerID'].removeprefix('containerd://')}"
    wanted = {*LEVELS, pod_id, container_id}
    cpu_key = "container_cpu_usage_seconds_total", frozenset({("id", container_id), ("cpu", "total")})

    def kubelet() -> Series | None:
        # It reads cgroups every 10 s or so.
        found = of_kubelet(cluster)
        return found if found.get(cpu_key, ({}, 0.0))[1] >= 0.5 and pod_id in ids(found) else None

    theirs = {key: of for key, of in eventually(kubelet, seconds=60).items() if dict(key[1])["id"] in wanted}
    with OtlpReceiver("http/protobuf") as receiver:
        flags = {
            "--config": str(EXAMPLES / "cadvisor.toml"),
            **api_flags(),
            "--poll-interval": "500ms",
            "--otlp-endpoint": receiver.endpoint,
            "--health-listen": str(port := free_port()),
            "--scrape": "true",
        }
        with exporter(*words(flags), environ=clean_environ(NODE_NAME=NODE)):
            receiver.wait_for(lambda _messages: wanted <= ids(of_exporter(receiver)))
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                scraped = label_names(answer.read().decode())
        ours = of_exporter(receiver)
    # What is scraped has the kubelet's labels, and those that are empty there are empty here.
    of_both = label_names(text_of_kubelet(cluster))
    assert {name: of_both.get(name, labels) for name, labels in scraped.items()} == scraped
    # Where there is no limit, and where it cannot read a figure, it writes 0. Of a level, the API says no start.
    missing = {key for key, (_, value) in theirs.items() if value} - ours.keys()
    assert missing == {("container_start_time_seconds", frozenset({("id", level)})) for level in LEVELS}
    assert {dict(key[1])["id"] for key in theirs} == wanted
    for key, (who, value) in theirs.items():
        if key not in ours:
            continue
        our_who, our_value = ours[key]
        assert who.items() <= our_who.items(), key
        assert our_who["node"] == NODE
        if key[0].startswith("container_spec_") and value:
            assert our_value == value, key
        elif key[0].startswith(("container_cpu_usage_", "container_cpu_cfs_")):
            # Not the time by mode: on v1 it takes that from cpuacct.stat, whose sampling goes back and forth.
            assert our_value >= value - 1e-6, key
    who, _ = ours[cpu_key]
    assert who == {
        "container": "main",
        "image": "node.test/workload:1",
        "name": status["containerID"].removeprefix("containerd://"),
        "namespace": "default",
        "node": NODE,
        "pod": "cadvisor",
    }
    assert ours["container_spec_cpu_quota", frozenset({("id", container_id)})][1] == 20_000
    assert ours["container_spec_memory_limit_bytes", frozenset({("id", container_id)})][1] == 64 << 20
