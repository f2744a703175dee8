"""Every metric of every schema, from the kernel's files to the bytes that are sent, on cgroup v1 and v2.

``python -m tests.test_schemas`` writes the payloads that are kept in tests/fixtures/ anew; look at the difference.
"""

from __future__ import annotations

import operator
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import opentelemetry.semconv._incubating.metrics.container_metrics as container_names
import opentelemetry.semconv._incubating.metrics.k8s_metrics as k8s_names
import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe, point_attributes
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.metrics import Instrument
from otel_k8s_cgroup.model import Container, Details, EntityKind, Group, Pod, Resources, Schema
from otel_k8s_cgroup.schemas import figures_of, select
from tests import otlp
from tests.cgroup.expected_figures import BUSY, EXPECTED
from tests.fixtures.record import make

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.scrape import Latest
    from tests.otlp import Point

FIXTURES = Path(__file__).parent / "fixtures"
GROUPS: tuple[Group, ...] = get_args(Group)
SCHEMAS: tuple[Schema, ...] = get_args(Schema)
MEMBER = ("device", "system.device", "page_size")
"""What tells the members of a figure apart."""
MEMBERS = {"sda": "8:0", "/dev/sda": "8:0"}
NOT_ITS_OWN = frozenset(
    [
        *MEMBER,
        "device_name",
        *dict(point_attributes(Pod("u", "n", "ns", "node", None, "u"), "/")),
        "container",
        "id",
        "pod",
        "image",
    ]
)
"""Attributes that a row does not have itself."""
SECOND = 10**9
NOW_NS = 1_800_000_000 * SECOND
UID = "7922aa99-d4aa-4885-a953-82976860b23a"
CONTAINER = Container(
    name="app",
    id=BUSY.rpartition("-")[2].removesuffix(".scope"),
    runtime="containerd",
    restart_count=3,
    image_name="registry/app",
    image_tags=("v1",),
    ready=True,
    started_at="2027-01-15T07:00:00Z",
    state="running",
    desired=Resources(250_000_000, 1_500_000_000, 64 << 20, 128 << 20),
    actual=Resources(250_000_000, 1_000_000_000, 48 << 20, 96 << 20),
    allocated=Resources(250_000_000, None, 56 << 20, None),
)
POD = Pod(UID, "web-0", "shop", "node-1", "2027-01-15T06:00:00Z", UID, details=Details(containers=(CONTAINER,)))


class Kept:
    """A receiver that takes everything."""

    def __init__(self) -> None:
        self.messages: list[ExportMetricsServiceRequest] = []

    def send(self, body: bytes) -> Receipt:
        self.messages.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


def sent(fixture: str, metrics: Sequence[Metric], directory: Path, latest: Latest | None = None) -> list[Point]:
    """What is sent of a tree whose cgroups were made between two readings a second apart; ``latest`` has the last."""
    mono_ns = 5 * SECOND
    if fixture.startswith("v2"):
        (directory / "cgroup.controllers").write_text("cpu memory\n")
    else:
        for controller in ("blkio", "cpu", "cpuacct", "cpuset", "hugetlb", "memory", "pids"):
            (directory / controller).mkdir(parents=True)
            (directory / controller / "cgroup.procs").write_text("")
    kept = Kept()
    instruments = Instruments(metrics, {"8:0": "sda"}.get)
    exporter = Exporter(kept, instruments, queue_bytes=1 << 20)
    cgroups = NodeCgroups(
        str(directory),
        open_files=OpenFiles(1000),
        clock=lambda: mono_ns,
        parts=((figures_of(metrics), 1),),
        containers=True,
        node_totals=True,
    )
    agent = Agent(
        cgroups=cgroups,
        pods=lambda: (POD,),
        exporter=exporter,
        instruments=instruments,
        describe=Describe("node-1", boot_unix_ns=1_799_000_000 * SECOND),
        latest=latest,
        mono_clock=lambda: mono_ns,
        wall_clock=lambda: mono_ns + NOW_NS,
    )
    agent.tick()
    make(fixture, directory)
    mono_ns += 31 * SECOND
    agent.tick()
    assert exporter.deliver() is None
    cgroups.close()
    assert not agent.read_errors.by_cause
    return otlp.points(kept.messages)


def all_of(schema: Schema) -> tuple[Metric, ...]:
    return select((schema,), GROUPS)


def of_container(points: Sequence[Point]) -> list[Point]:
    return [point for point in points if "k8s.container.name" in point.resource]


SAID = {
    "api_cpu_limit_cores": 1.5,
    "api_cpu_request_cores": 0.25,
    "api_memory_limit_bytes": 128 << 20,
    "api_memory_request_bytes": 64 << 20,
    "api_cpu_request_current_cores": 0.25,
    "api_memory_request_current_bytes": 48 << 20,
    "api_cpu_request_allocated_cores": 0.25,
    "api_memory_request_allocated_bytes": 56 << 20,
    "api_restart_count": 3,
    "api_ready": 1,
    "uptime_s": 3636.0,
    "api_start_unix_ns": 1_799_996_400 * SECOND,
}
# Each made of two others, after all that it is made of itself.
DERIVED: tuple[tuple[str, str, str, Callable[[Any, Any], Any]], ...] = (
    ("memory_working_set_bytes", "memory_usage_bytes", "inactive_file_bytes", lambda one, other: max(0, one - other)),
    ("memory_available_bytes", "memory_max_bytes", "memory_working_set_bytes", lambda one, other: max(0, one - other)),
    ("minor_faults", "pgfault", "pgmajfault", lambda one, other: max(0, one - other)),
    ("cpu_limit_cores", "cpu_quota_us", "cpu_period_us", operator.truediv),
    *(
        (f"cpu_{kind}_percent", f"cpu_{kind}_ns", f"cpu_{kind}_ns", lambda one, _: 100 * one / (31 * SECOND))
        for kind in ("usage", "system", "user")
    ),
    ("cpu_usage_cores", "cpu_usage_ns", "cpu_usage_ns", lambda one, _: one / (31 * SECOND)),
    ("cpu_limit_utilization", "cpu_usage_cores", "cpu_limit_cores", operator.truediv),
    ("cpu_request_utilization", "cpu_usage_cores", "api_cpu_request_cores", operator.truediv),
)
EITHER_OF = (
    ("memory_reservation_bytes", "memory_min_bytes", "memory_soft_limit_bytes"),
    ("memory_swap_limit_bytes", "memory_swap_max_bytes", "memory_memsw_limit_bytes"),
)


def with_derived(figures: dict[str, Any]) -> dict[str, Any]:
    """And what the API says."""
    found = figures | SAID
    for name, one, other, made in DERIVED:
        if one in found and other in found:
            found[name] = made(found[one], found[other])
    for name, one, other in EITHER_OF:
        if one in found or other in found:
            found[name] = found.get(one, found.get(other))
    return found


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("fixture", ["v2-6.12", "v2-written", "v1", "v1-written"])
def test_each_point_is_its_figure(fixture: str, schema: Schema, tmp_path: Path) -> None:
    """Of a container: every point with its value, and no other; absent where the kernel has no such figure."""
    metrics = [metric for metric in all_of(schema) if EntityKind.CONTAINER in metric.kinds]
    figures = with_derived(EXPECTED[fixture, BUSY])
    expected = [
        (metric.named(EntityKind.CONTAINER), point.attributes, member, value * (metric.scale or 1))
        for metric in metrics
        for point in metric.points
        if point.figure in figures
        for member, value in (figures[point.figure].items() if metric.by else [(None, figures[point.figure])])
    ]
    found = [
        (
            point.metric,
            tuple((key, value) for key, value in point.attributes.items() if key not in NOT_ITS_OWN),
            next(
                (
                    {"sda": "8:0", "/dev/sda": "8:0"}.get(value, value)
                    for key, value in point.attributes.items()
                    if key in MEMBER
                ),
                None,
            ),
            pytest.approx(point.value),
        )
        for point in of_container(sent(fixture, metrics, tmp_path))
    ]
    by_name = operator.itemgetter(0, 1)
    assert sorted(found, key=lambda each: (*by_name(each), each[2] or "")) == sorted(
        expected, key=lambda each: (*by_name(each), each[2] or "")
    )


@pytest.mark.parametrize("schema", SCHEMAS)
@pytest.mark.parametrize("fixture", ["v2-6.12", "v1"])
def test_a_whole_payload_is_what_it_was(fixture: str, schema: Schema, tmp_path: Path) -> None:
    """Of the pod, its container and the levels above."""
    kept = (FIXTURES / f"payload-{schema}-{fixture}.txt").read_text()
    assert payload(fixture, schema, tmp_path) == kept


def payload(fixture: str, schema: Schema, directory: Path) -> str:
    """One line a point, under a line for each Resource."""
    lines: list[str] = []
    resource = None
    for point in sent(fixture, all_of(schema), directory):
        if point.resource is not resource and point.resource != resource:
            resource = point.resource
            lines.append(" ".join(f"{key}={value}" for key, value in resource.items()))
        own = " ".join(f"{key}={value}" for key, value in point.attributes.items())
        start = f" since {point.start_ns}" if point.start_ns else ""
        lines.append(f"\t{point.metric} {point.value!r} {point.unit} ({point.kind}{start}) {own}".rstrip())
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("kind", [EntityKind.POD, EntityKind.CONTAINER, EntityKind.NODE])
def test_the_conventions_have_these_names(kind: EntityKind) -> None:
    """And where they have none, the name says so."""
    known = {
        value for module in (k8s_names, container_names) for value in vars(module).values() if isinstance(value, str)
    }
    for metric in all_of("semconv"):
        if kind in metric.kinds:
            name = metric.named(kind)
            assert name in known or ".cgroup." in name, name


def test_no_two_rows_are_one_point() -> None:
    """Of one kind of entity, a name and its attributes stand for one figure."""
    for schema in SCHEMAS:
        for kind in EntityKind:
            points = [
                (metric.named(kind), point.attributes)
                for metric in all_of(schema)
                if kind in metric.kinds
                for point in metric.points
            ]
            assert len(points) == len(set(points))


def test_temporality_and_the_nodes_percentage_are_as_asked() -> None:
    """Alumet's counters are deltas whatever is asked, cAdvisor's never; the conventions' where deltas are asked."""
    for are_deltas in (False, True):
        for metric in select(SCHEMAS, GROUPS, are_deltas=are_deltas):
            if metric.instrument is Instrument.COUNTER:
                asked = {"alumet": True, "semconv": are_deltas, "cadvisor": False}
                assert metric.is_delta == asked[metric.schema]
    (of_node,) = (m for m in select(("alumet",), cpu_percent_of="node", cpus=4) if m.name == "cpu_percent")
    assert of_node.scale == 0.25
    assert replace(of_node, scale=None) in select(("alumet",))


if __name__ == "__main__":
    for each in SCHEMAS:
        for name in ("v2-6.12", "v1"):
            with tempfile.TemporaryDirectory() as temporary:
                (FIXTURES / f"payload-{each}-{name}.txt").write_text(payload(name, each, Path(temporary)))
    sys.stdout.write("look at git diff tests/fixtures\n")
