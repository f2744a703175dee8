"""The package as a library: pods in a program's own MeterProvider."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, get_args
from uuid import UUID

import pytest
from opentelemetry.sdk.metrics import MeterProvider, ObservableCounter
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader

from otel_k8s_cgroup import ExporterError, observe_pods, pod_view
from otel_k8s_cgroup.model import Group, Schema
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import pod
from tests.fixtures.record import make

from .test_read_pods import UID, A, B, busy_pod, environment, pods_file

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["environment"]

DELTA: dict[type, AggregationTemporality] = {ObservableCounter: AggregationTemporality.DELTA}


def points(reader: InMemoryMetricReader) -> dict[str, list[Any]]:
    """Name → the points of a collection."""
    data = reader.get_metrics_data()
    found: dict[str, list[Any]] = {}
    for resource in data.resource_metrics if data else ():
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                found.setdefault(metric.name, []).extend(metric.data.data_points)
    return found


def most_series(provider: MeterProvider) -> int:
    """Of one instrument, those that the SDK keeps; there is no public way to ask it."""
    return max(
        len(match._attributes_aggregation)
        for storage in provider._measurement_consumer._reader_storages.values()
        for matches in storage._instrument_view_instrument_matches.values()
        for match in matches
    )


@pytest.mark.parametrize("fixture", ["v1", "v2-6.12"])
def test_points_say_who_they_are_of(fixture: str, tmp_path: Path) -> None:
    """On recorded trees: the conventions' names, the identity as attributes, and nothing else of ours."""
    root = tmp_path / "cgroup"
    make(fixture, root)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
    with observe_pods(provider, cgroup_root=str(root), pods_file=pods_file(tmp_path, busy_pod()), containers=True):
        found = points(reader)
    identity = {
        "k8s.pod.uid": UID,
        "k8s.pod.name": "busy",
        "k8s.namespace.name": "default",
        "k8s.node.name": "node-1",
    }
    assert [dict(point.attributes) for point in found["k8s.pod.cpu.time"]] == [identity]
    modes = {point.attributes["cpu.mode"]: dict(point.attributes) for point in found["container.cpu.time"]}
    assert modes.keys() == {"user", "system"}
    assert modes["user"].items() >= (identity | {"k8s.container.name": "app"}).items()
    assert {"k8s.pod.memory.usage", "container.memory.usage"} <= found.keys()
    assert points(reader) == {}, "it is closed"


def test_two_readers_have_exact_counters(tmp_path: Path) -> None:
    """Cumulative is the kernel's counter; the deltas' sum is, too, however the two readers take turns."""
    tree = CgroupTree(tmp_path)
    cumulative, delta = InMemoryMetricReader(), InMemoryMetricReader(preferred_temporality=DELTA)
    provider = MeterProvider([cumulative, delta], views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, pod("a", uid=A), pod("b", uid=B))
    deltas: dict[str, float] = {}
    with observe_pods(provider, schema="alumet", cgroup_root=str(tmp_path), pods_file=listed):
        for usec in (1_000, 3_000, 3_000, 70_000):
            tree.write(A, Figures(user_usec=usec))
            if usec > 1_000:
                tree.write(B, Figures(user_usec=usec // 2))
            totals = {
                point.attributes["name"]: point.value
                for point in points(cumulative)["cpu_time_delta"]
                if point.attributes["kind"] == "total"
            }
            for point in points(delta)["cpu_time_delta"]:
                if point.attributes["kind"] == "total":
                    deltas[point.attributes["name"]] = deltas.get(point.attributes["name"], 0) + point.value
            assert totals["a"] == usec * 1_000
            assert deltas == totals


def test_concurrent_collections_are_each_whole(tmp_path: Path) -> None:
    """Readers that collect at the same time have every pod, each once."""
    tree = CgroupTree(tmp_path)
    tree.write(A, Figures(user_usec=7))
    readers = [InMemoryMetricReader() for _ in range(3)]
    provider = MeterProvider(readers, views=[pod_view()], shutdown_on_exit=False)
    counts: list[set[int]] = []

    def collect(reader: InMemoryMetricReader) -> None:
        for _ in range(20):
            found = points(reader)
            counts.append({len(found["k8s.pod.cpu.time"]), len(found["k8s.pod.memory.usage"])})

    with observe_pods(provider, cgroup_root=str(tmp_path), pods_file=pods_file(tmp_path, pod("a", uid=A))):
        threads = [threading.Thread(target=collect, args=(reader,)) for reader in readers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert counts == [{1}] * 60


def test_pods_come_and_go_for_ever(tmp_path: Path) -> None:
    """2,500 pods, more than the SDK takes: no overflow, each counted from zero, as many series as pods at once."""
    tree = CgroupTree(tmp_path)
    uids = [str(UUID(int=0x4000_8000_0000_0000_0000 + number)) for number in range(2500)]
    readers = InMemoryMetricReader(preferred_temporality=DELTA), InMemoryMetricReader()
    provider = MeterProvider(readers, views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, *(pod(f"p{number}", uid=uid) for number, uid in enumerate(uids)))
    seen: dict[str, float] = {}
    with observe_pods(provider, cgroup_root=str(tmp_path), pods_file=listed, groups=["cpu"]):
        running: list[str] = []
        for start in range(0, 2500, 250):
            for uid in running:
                tree.remove(uid)
            running = uids[start : start + 250]
            for number, uid in enumerate(running, start):
                tree.write(uid, Figures(user_usec=5_000 - number))
            for reader in readers:
                found = points(reader)["k8s.pod.cpu.time"]
                assert len(found) == len(running), "ended pods have no points"
                for point in found:
                    assert "otel.metric.overflow" not in point.attributes
                    assert seen.setdefault(point.attributes["k8s.pod.uid"], point.value) == point.value
    assert most_series(provider) == 250
    assert seen == {uid: pytest.approx((5_000 - number) / 1e6) for number, uid in enumerate(uids)}


def test_devices_come_and_go_for_ever(tmp_path: Path) -> None:
    """While their pod stays: nothing is kept of those that are gone, and each counts from zero."""
    tree = CgroupTree(tmp_path)
    tree.write(A, Figures())
    io = tmp_path / tree.path(A).lstrip("/") / "io.stat"
    reader = InMemoryMetricReader(preferred_temporality=DELTA)
    provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, pod("a", uid=A))
    found: dict[str, float] = {}
    with observe_pods(
        provider, schema="alumet", cgroup_root=str(tmp_path), pods_file=listed, groups=["io"]
    ) as observed:
        for number in range(30):
            if number == 20:
                io.write_text("777:0 rbytes=x\n")
                assert points(reader) == {}, "who cannot be read is not gone"
            values = {"777:0": 1000 + number, f"777:{number + 1}": number + 1}
            io.write_text("".join(f"{key} rbytes={value} wbytes=0\n" for key, value in values.items()))
            for point in points(reader)["cgroup_io_rbytes"]:
                device = str(point.attributes["device"])
                found[device] = found.get(device, 0) + point.value
        assert len({member for _, member in observed._attributes}) == 2
    assert found == {"777:0": 1029} | {f"777:{number + 1}": number + 1 for number in range(30)}
    assert most_series(provider) == 2


def test_a_provider_without_the_view_is_an_error(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line names the remedy, and nothing overflows in silence: no pods are observed."""
    tree = CgroupTree(tmp_path)
    tree.write(A, Figures(user_usec=1))
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    with observe_pods(provider, cgroup_root=str(tmp_path), pods_file=pods_file(tmp_path, pod("a", uid=A))):
        points(reader)
        assert points(reader) == {}
    (line,) = caplog.messages
    assert line == "no pods are observed: the MeterProvider needs views=[otel_k8s_cgroup.pod_view()]"


def test_a_figure_that_is_absent_for_a_while_is_not_counted_twice(tmp_path: Path) -> None:
    """A root that is lost and comes back costs points; deltas go on from what was collected."""
    root = tmp_path / "root"
    tree = CgroupTree(root)
    tree.write(A, Figures(user_usec=1_000))
    reader = InMemoryMetricReader(preferred_temporality=DELTA)
    provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, pod("a", uid=A))
    with observe_pods(provider, cgroup_root=str(root), pods_file=listed):
        (first,) = points(reader)["k8s.pod.cpu.time"]
        root.rename(tmp_path / "away")
        assert points(reader) == {}
        (tmp_path / "away").rename(root)
        tree.write(A, Figures(user_usec=3_000))
        (second,) = points(reader)["k8s.pod.cpu.time"]
    assert (first.value, second.value) == (pytest.approx(0.001), pytest.approx(0.002))


def test_a_provider_takes_one_call(tmp_path: Path) -> None:
    """A second one would be silent, since the SDK takes no further callbacks of an instrument: it is refused."""
    CgroupTree(tmp_path)
    provider = MeterProvider(views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, pod("a", uid=A))
    with observe_pods(provider, cgroup_root=str(tmp_path), pods_file=listed):
        pass
    with pytest.raises(ExporterError, match="this MeterProvider has its instruments already; it takes one call"):
        observe_pods(provider, cgroup_root=str(tmp_path), pods_file=listed)
    assert [thread.name for thread in threading.enumerate() if thread.name == "pods"] == []


@pytest.mark.parametrize("schema", get_args(Schema))
def test_each_schema_has_each_series_once(schema: Schema, tmp_path: Path) -> None:
    """Of all groups, containers and devices included: no two points of a metric have the same attributes."""
    root = tmp_path / "cgroup"
    make("v2-6.12", root)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
    listed = pods_file(tmp_path, busy_pod())
    with observe_pods(
        provider, schema=schema, cgroup_root=str(root), pods_file=listed, groups=get_args(Group), containers=True
    ):
        found = points(reader)
    assert len(found) > 20
    for name, of_name in found.items():
        whose = [tuple(sorted(point.attributes.items())) for point in of_name]
        assert len(set(whose)) == len(whose), name
        assert "otel_k8s_cgroup" not in str(whose), name
    assert any("disk" in name or "io_" in name or "fs_" in name or ".io" in name for name in found)
