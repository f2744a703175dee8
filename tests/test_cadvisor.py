"""Schema ``cadvisor``: the names and labels of the kubelet's /metrics/cadvisor, once Prometheus has translated them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from otel_k8s_cgroup.cadvisor_labels import cadvisor_points
from otel_k8s_cgroup.figures import FIGURES
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.metrics import Instrument, Metric
from otel_k8s_cgroup.model import Container, EntityKind, Pod
from otel_k8s_cgroup.schemas import cadvisor, figures_of, select

POD = Pod("d75d892c-9bb2-4b9c-8ce2-7868eb91e665", "cart-5d9f", "shop", "node-1", None, "d75d892c")
PATH = "/kubepods.slice/kubepods-podd75d892c.slice"
ID = "f" * 64

DOCUMENTED = {
    "container_cpu_cfs_periods_total": (),
    "container_cpu_cfs_throttled_periods_total": (),
    "container_cpu_cfs_throttled_seconds_total": (),
    "container_cpu_system_seconds_total": (),
    "container_cpu_usage_seconds_total": ("cpu",),
    "container_cpu_user_seconds_total": (),
    "container_fs_reads_bytes_total": ("device",),
    "container_fs_reads_total": ("device",),
    "container_fs_writes_bytes_total": ("device",),
    "container_fs_writes_total": ("device",),
    "container_memory_cache": (),
    "container_memory_failcnt": (),
    "container_memory_failures_total": ("failure_type", "scope"),
    "container_memory_kernel_usage": (),
    "container_memory_mapped_file": (),
    "container_memory_max_usage_bytes": (),
    "container_memory_rss": (),
    "container_memory_swap": (),
    "container_memory_total_active_file_bytes": (),
    "container_memory_total_inactive_file_bytes": (),
    "container_memory_usage_bytes": (),
    "container_memory_working_set_bytes": (),
    "container_network_receive_bytes_total": ("interface",),
    "container_network_receive_errors_total": ("interface",),
    "container_network_receive_packets_dropped_total": ("interface",),
    "container_network_receive_packets_total": ("interface",),
    "container_network_transmit_bytes_total": ("interface",),
    "container_network_transmit_errors_total": ("interface",),
    "container_network_transmit_packets_dropped_total": ("interface",),
    "container_network_transmit_packets_total": ("interface",),
    "container_oom_events_total": (),
    "container_pressure_cpu_stalled_seconds_total": (),
    "container_pressure_cpu_waiting_seconds_total": (),
    "container_pressure_io_stalled_seconds_total": (),
    "container_pressure_io_waiting_seconds_total": (),
    "container_pressure_memory_stalled_seconds_total": (),
    "container_pressure_memory_waiting_seconds_total": (),
    "container_spec_cpu_period": (),
    "container_spec_cpu_quota": (),
    "container_spec_cpu_shares": (),
    "container_spec_memory_limit_bytes": (),
    "container_spec_memory_reservation_limit_bytes": (),
    "container_spec_memory_swap_limit_bytes": (),
    "container_start_time_seconds": (),
    "container_threads": (),
    "container_threads_max": (),
}
"""cAdvisor 0.53: name → labels beside those of the container."""


def translated(metric: Metric) -> str:
    """As Prometheus' OTLP receiver names it by default (UnderscoreEscapingWithSuffixes)."""
    words = re.findall(r"[A-Za-z0-9:]+", metric.name)
    unit = {"": "", "s": "seconds", "By": "bytes"}["" if metric.unit.startswith("{") else metric.unit]
    if unit and unit not in words:
        words.append(unit)
    if metric.instrument is Instrument.COUNTER:
        words = [word for word in words if word != "total"] + ["total"]
    return "_".join(words)


def test_names_and_labels_are_cadvisors() -> None:
    """Each metric has, translated, a documented name and its documented labels; none is missing."""
    found = {
        translated(metric): tuple(key for key, _ in (*metric.points[0].attributes, *metric.by))
        for metric in cadvisor.METRICS
    }
    assert found == DOCUMENTED
    assert len(found) == len(cadvisor.METRICS)


def test_values_are_those_of_the_named_unit() -> None:
    """Time is in seconds; nothing else is converted, and all that only grows is cumulative."""
    for metric in cadvisor.METRICS:
        of_time = all(point.figure.endswith("_ns") for point in metric.points)
        assert (metric.unit == "s", metric.scale) == (of_time, 1e-9 if of_time else None), metric.name
        assert metric.schema == "cadvisor"
        assert metric.instrument is not Instrument.COUNTER or not metric.is_delta
        counters = {figure.name for figure in FIGURES if figure.is_counter}
        only_grows = {point.figure in counters for point in metric.points}
        assert only_grows == {metric.instrument is not Instrument.GAUGE}, metric.name


def test_every_figure_is_there() -> None:
    """The rows name figures of the table."""
    assert figures_of(cadvisor.METRICS)


def test_cpu_and_memory_are_the_default() -> None:
    """The other groups are asked for."""
    default = select(("cadvisor",))
    assert default == select(("cadvisor",), ("cpu", "memory")) != select(("cadvisor",), ("cpu",))
    assert {metric.group for metric in default} == {"cpu", "memory"}


def test_the_readme_names_them_by_group() -> None:
    """Its table has each metric in its group."""
    text = (Path(__file__).parents[1] / "README.md").read_text().partition("## For cAdvisor users")[2]
    rows = re.findall(r"^\| `(\w+)`(?: \(default\))? \| (.+) \|$", text.partition("\n## ")[0], re.MULTILINE)
    named = {
        group: set(re.findall(r"`(container_\w+)`", cells))
        | {
            f"container_pressure_{resource}_{verb}_seconds_total"
            for resource in ("memory", "io")
            for verb in ("waiting", "stalled")
            if "and the same of `memory` and `io`" in cells
        }
        for group, cells in rows
    }
    found: dict[str, set[str]] = {}
    for metric in cadvisor.METRICS:
        found.setdefault(metric.group, set()).add(translated(metric))
    assert named == found


def test_it_is_cumulative_whatever_the_others_are() -> None:
    """Prometheus refuses a whole request for one delta in it."""
    assert select(("cadvisor",), are_deltas=True) == select(("cadvisor",))


def test_a_pod_has_no_container_and_no_image() -> None:
    """As the kubelet has of a pod's own cgroup, where it writes them as empty labels."""
    assert dict(cadvisor_points("node-1", PATH, POD)) == {
        "id": PATH,
        "node": "node-1",
        "namespace": "shop",
        "pod": "cart-5d9f",
    }


def test_a_level_of_the_node_has_its_path() -> None:
    """And the node, which the kubelet leaves to the scrape."""
    assert dict(cadvisor_points("node-1", "/kubepods.slice")) == {"id": "/kubepods.slice", "node": "node-1"}


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (("nginx", ("1.29",), ()), "docker.io/library/nginx:1.29"),
        (("team/cart", ("v3",), ()), "docker.io/team/cart:v3"),
        (("localhost/cart", ("v3",), ()), "localhost/cart:v3"),
        (("registry:5000/cart", ("v3",), ()), "registry:5000/cart:v3"),
        (("ghcr.io/team/cart", (), ("ghcr.io/team/cart@sha256:ab",)), "ghcr.io/team/cart@sha256:ab"),
        (("ghcr.io/team/cart", ("v3",), ("ghcr.io/team/cart@sha256:ab",)), "ghcr.io/team/cart:v3"),
        ((None, (), ("ghcr.io/team/cart@sha256:ab",)), "ghcr.io/team/cart@sha256:ab"),
        (("ghcr.io/team/cart", (), ()), "ghcr.io/team/cart"),
        ((None, (), ()), None),
    ],
)
def test_the_image_of_a_container(image: tuple[str | None, tuple[str, ...], tuple[str, ...]], expected: str) -> None:
    """A reference with its registry, and a tag before a digest."""
    name, tags, digests = image
    container = Container("app", image_name=name, image_tags=tags, image_repo_digests=digests)
    assert dict(cadvisor_points("", PATH, POD, container)).get("image") == expected


@pytest.mark.parametrize(
    ("runtime", "expected"),
    [
        ("containerd", ID),
        ("cri-o", f"k8s_app_cart-5d9f_shop_{POD.uid}_2"),
        ("docker", f"k8s_app_cart-5d9f_shop_{POD.uid}_2"),
    ],
)
def test_the_name_of_a_container(runtime: str, expected: str) -> None:
    """What its runtime calls it."""
    container = Container("app", id=ID, runtime=runtime, restart_count=2)
    labels = dict(cadvisor_points("", PATH, POD, container))
    assert (labels["container"], labels["name"]) == ("app", expected)


def test_a_static_pods_container_is_named_after_the_kubelets_uid() -> None:
    """That of its manifest, by which the runtime knows it, not of its mirror."""
    pod = Pod("mirror", "etcd-node-1", "kube-system", "node-1", None, "3e61", config_hash="3e61")
    container = Container("etcd", id=ID, runtime="cri-o")
    assert dict(cadvisor_points("", PATH, pod, container))["name"] == "k8s_etcd_etcd-node-1_kube-system_3e61_0"


def test_labels_do_not_depend_on_alumets_point_attributes() -> None:
    """Prometheus has no other way to tell series apart."""
    describe = Describe("node-1", with_points=False)
    container = Container("app", id=ID, runtime="containerd")
    for entity in (
        describe.pod(POD, PATH),
        describe.container(POD, container, f"{PATH}/x"),
        describe.level(EntityKind.QOS, "/kubepods.slice", "burstable"),
    ):
        points = entity.describe().points
        assert list(points) == ["cadvisor"]
        assert dict(points["cadvisor"])["node"] == "node-1"
