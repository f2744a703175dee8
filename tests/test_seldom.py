"""What happens seldom to entities: found by a hostile reading, and each once a defect."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.errors import ExportRetryable
from otel_k8s_cgroup.export import Exporter, StateFile, StateSaver
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.kube.details import PodReader
from otel_k8s_cgroup.kube.objects import parse_pod
from otel_k8s_cgroup.model import Container, Details, LeftOut, Pod, Wanted
from otel_k8s_cgroup.schemas import select
from otel_k8s_cgroup.scrape import Latest
from otel_k8s_cgroup.sources import parts_of, seldom_of
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import pod
from tests.otlp import points
from tests.programs import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.model import Group, Schema
    from tests.otlp import Point

UID, OTHER = (f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{digit}" for digit in "12")
CONTAINER = Container("app", id="a" * 64, runtime="containerd", state="running")
POD = Pod(UID, "web", "shop", "node", "2026-01-01T00:00:00Z", UID)
SECOND = 10**9


@dataclass
class Receiver:
    """Takes everything while it is up."""

    is_up: bool = True
    messages: list[ExportMetricsServiceRequest] = field(default_factory=list)
    meanwhile: Callable[[], None] | None = None
    """What happens, once, while the next request is under way."""

    def send(self, body: bytes) -> Receipt:
        if not self.is_up:
            raise ExportRetryable("receiver", "unavailable", "not now")
        if happens := self.meanwhile:
            self.meanwhile = None
            happens()
        self.messages.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


class Node:
    """An agent on a clock of its own."""

    def __init__(
        self,
        root: Path,
        *groups: Group,
        schemas: tuple[Schema, ...] = ("alumet",),
        queue_bytes: int = 1 << 20,
        intervals: dict[str, timedelta] | None = None,
        state: Path | None = None,
    ) -> None:
        self.tree = CgroupTree(root)
        self.now_ns = SECOND
        self.listed: tuple[Pod, ...] = ()
        self.left_out = LeftOut()
        self.receiver = Receiver()
        metrics = select(schemas, groups)
        parts = parts_of(metrics, intervals or {}, timedelta(seconds=1))
        self.latest = Latest(metrics, parts, most_ns=30 * SECOND, clock=lambda: self.now_ns)
        self._saver: StateSaver | None = None

        def start() -> tuple[Exporter, Agent]:
            """The exporter's process; it may be started anew."""
            if state is not None:
                file = StateFile(str(state), mono_clock=lambda: self.now_ns)
                self._saver = StateSaver(file, load_seconds=PATIENCE_SECONDS, save_seconds=PATIENCE_SECONDS)
            instruments = Instruments(metrics)
            exporter = Exporter(
                self.receiver,
                instruments,
                queue_bytes=queue_bytes,
                seldom=seldom_of(metrics, parts),
                state=self._saver,
            )
            cgroups = NodeCgroups(
                str(self.tree.root),
                open_files=OpenFiles(100),
                clock=lambda: self.now_ns,
                parts=parts,
                containers=True,
            )
            agent = Agent(
                cgroups=cgroups,
                pods=lambda: self.listed,
                left_out=lambda: self.left_out,
                exporter=exporter,
                instruments=instruments,
                describe=Describe("node"),
                latest=self.latest,
                mono_clock=lambda: self.now_ns,
                wall_clock=lambda: self.now_ns + 10**18,
            )
            return exporter, agent

        self._start = start
        self.exporter, self.agent = start()

    def restart(self) -> None:
        assert self._saver is not None
        self._saver.close()
        self.exporter, self.agent = self._start()

    def use(self, usec: int, *, uid: str = UID, device: str = "8:0") -> None:
        """A pod has used so much in all, and its one container as well; as many bytes are read."""
        self.tree.write(uid, Figures(user_usec=usec))
        directory = self.tree.root / self.tree.path(uid)[1:]
        (directory / "io.stat").write_text(f"{device} rbytes={usec} wbytes=0 rios=1\n" if usec else "")
        container = directory / f"cri-containerd-{CONTAINER.id}.scope"
        container.mkdir(exist_ok=True)
        (container / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\n")

    def tick(self, *, delivers: bool = True) -> None:
        self.agent.tick()
        if delivers:
            self.exporter.deliver()
        self.now_ns += SECOND

    def sent(self, name: str) -> list[Point]:
        return [point for point in points(self.receiver.messages) if point.metric == name]


def total(of: list[Point], *, container: bool = False) -> float:
    return sum(
        point.value
        for point in of
        if ("container.id" in point.resource) == container and point.attributes.get("kind", "total") == "total"
    )


def test_a_container_whose_pod_is_left_out_for_a_while_is_not_counted_twice(tmp_path: Path) -> None:
    """As its pod is not: what was delivered of it is kept while its cgroup is there."""
    node = Node(tmp_path / "cgroup", "cpu")
    pod = replace(POD, details=Details(containers=(CONTAINER,)))
    node.listed = (pod,)
    node.tick()
    for usec, is_listed in ((1000, True), (2000, True), (3000, False), (3500, False), (4000, True), (4000, True)):
        node.use(usec)
        node.listed, node.left_out = ((pod,), LeftOut()) if is_listed else ((), LeftOut((pod,)))
        node.tick()
    times = node.sent("cpu_time_delta")
    assert total(times) == total(times, container=True) == 4_000_000


@pytest.mark.parametrize("group", ["io", "hugetlb"])
def test_a_tick_without_any_device_is_an_empty_one(tmp_path: Path, group: Group) -> None:
    """Where only they are asked for: there is no column yet."""
    node = Node(tmp_path / "cgroup", group)
    node.listed = (POD,)
    for usec in (0, 0, 7):
        node.use(usec)
        node.tick()
    assert total(node.sent("cgroup_io_rbytes")) == (7 if group == "io" else 0)


def test_a_full_queue_keeps_the_last_reading_where_no_deltas_are_sent(tmp_path: Path) -> None:
    """A pod's cumulative counter is what it had used in the end."""
    node = Node(tmp_path / "cgroup", schemas=("semconv",), queue_bytes=4000)
    node.listed = (POD,)
    node.receiver.is_up = False
    for usec in range(0, 40_000, 1000):
        node.use(usec)
        node.tick()
    node.tree.remove(UID)
    node.tick()
    node.receiver.is_up = True
    node.tick()
    assert node.sent("k8s.pod.cpu.time")[-1].value == 0.039


def test_a_pod_that_ends_unnamed_when_a_device_is_found_stops_nothing(tmp_path: Path) -> None:
    """Its last row has fewer columns than those of that tick."""
    node = Node(tmp_path / "cgroup", "cpu", "io")
    node.listed = (replace(POD, start_time=None), replace(POD, uid=OTHER, cgroup_uid=OTHER, name="other"))
    for _ in range(2):
        node.use(0)
        node.use(0, uid=OTHER)
        node.tick()
    node.tree.remove(UID)
    node.use(5, uid=OTHER)
    node.tick()
    node.tick()
    assert total(node.sent("cgroup_io_rbytes")) == 5


@pytest.mark.parametrize("schema", ["alumet", "semconv", "cadvisor"])
@pytest.mark.parametrize("start", ["9999-01-01T00:00:00Z", "2262-04-12T00:00:00Z", "0001-01-01T00:00:00Z"])
def test_a_start_that_otlp_has_no_number_for_is_not_known(tmp_path: Path, schema: Schema, start: str) -> None:
    """Who may write a pod's status ends nobody's metrics."""
    node = Node(tmp_path / "cgroup", schemas=(schema,))
    node.listed = (replace(POD, start_time=start),)
    for usec in (0, 1000):
        node.use(usec)
        node.tick()
    assert points(node.receiver.messages)
    assert {point.start_ns for point in points(node.receiver.messages)} <= {0, 10**18 + SECOND}


@pytest.mark.parametrize("schema", ["alumet", "semconv", "cadvisor"])
def test_limits_whose_sum_no_point_can_have_stop_nothing(tmp_path: Path, schema: Schema) -> None:
    """A pod's author writes them: the sum is the most that a point can have, and the other pod is sent as ever."""
    most: dict[str, dict[str, str]] = {
        "requests": {"cpu": "9223372036", "memory": "1Ki"},
        "limits": {"cpu": "9223372036", "memory": "7Ei"},
    }
    obj = pod("web", uid=OTHER)
    obj["spec"]["containers"] = [{"name": name, "resources": most} for name in ("one", "two")]
    listed = parse_pod(json.dumps(obj).encode(), "node-1", reader=PodReader(Wanted(resources=True)))
    assert listed is not None
    node = Node(tmp_path / "cgroup", "cpu", "limits", schemas=(schema,))
    node.listed = (POD, listed.pod)
    for usec in (0, 1000):
        for uid in (UID, OTHER):
            node.use(usec, uid=uid)
        node.tick()
    sent = points(node.receiver.messages)
    assert {point.resource["k8s.pod.uid"] for point in sent} == {UID, OTHER}
    desired = [point.value for point in sent if point.metric.endswith(("memory_limit_desired", "memory.limit_desired"))]
    assert desired == ([] if schema == "cadvisor" else [2**63 - 1] * 2)


def ends_in_an_outage(node: Node, ticks: int) -> int:
    """The pod is read at so many ticks but one, its IO at every third; the last IO that was read."""
    node.receiver.is_up = False
    for number in range(1, ticks):
        node.use(1000 * number)
        node.tick()
    node.tree.remove(UID)
    node.tick()
    return 1000 * ((ticks - 1) // 3 * 3)


@pytest.mark.parametrize("ticks", [11, 12, 13])
def test_what_is_read_more_rarely_is_not_lost_with_a_full_queue(tmp_path: Path, ticks: int) -> None:
    """A pod ends in an outage: its last reading lacks what was not due, and the one that had it was dropped."""
    node = Node(tmp_path / "cgroup", "cpu", "io", queue_bytes=3000, intervals={"io": timedelta(seconds=3)})
    node.listed = (POD,)
    node.use(0)
    node.tick()
    last_io = ends_in_an_outage(node, ticks)
    node.receiver.is_up = True
    node.tick()
    assert total(node.sent("cpu_time_delta")) == 1_000_000 * (ticks - 1)
    assert total(node.sent("cgroup_io_rbytes")) == last_io


@pytest.mark.parametrize("outage", range(20, 40))
def test_a_reading_that_is_dropped_while_a_request_is_under_way_counts_once(tmp_path: Path, outage: int) -> None:
    """The queue is full at the end of an outage, and CPU time is read at every tenth tick."""
    node = Node(tmp_path / "cgroup", "cpu", "memory", queue_bytes=7_800, intervals={"cpu": timedelta(seconds=10)})
    node.listed = (POD,)
    used = 1000

    def tick(*, delivers: bool = True) -> None:
        nonlocal used
        node.use(used)
        node.tick(delivers=delivers)
        used += 100

    for _ in range(3):
        tick()
    node.receiver.is_up = False
    for _ in range(outage):
        tick()
    node.receiver.is_up = True
    node.receiver.meanwhile = lambda: tick(delivers=False)
    for _ in range(12):
        tick()
    node.use(used)
    node.agent.tick(is_last=True)
    node.exporter.deliver()
    assert total(node.sent("cpu_time_delta")) == 1000 * (used - 1000)


def test_the_start_of_a_cgroup_that_was_made_anew_stays(tmp_path: Path) -> None:
    """As a static pod's at the same path: its cumulative counters go on from one start over each restart."""
    node = Node(tmp_path / "cgroup", "cpu", schemas=("semconv",), state=tmp_path / "state.json")
    node.listed = (replace(POD, start_time="2001-01-01T00:00:00Z"),)
    node.use(5000)
    node.tick()
    (node.tree.root / node.tree.path(UID)[1:]).rename(tmp_path / "before")
    starts: list[set[int]] = []
    for used in (100, 300, 400):
        node.use(used)
        node.restart()
        node.receiver.messages.clear()
        node.tick()
        node.tick()
        starts.append({point.start_ns for point in node.sent("k8s.pod.cpu.time")})
    assert starts == [{10**18 + SECOND}] * 3


@pytest.mark.parametrize("used_before", [0, 500])
@pytest.mark.parametrize("ticks", [5, 6, 7])
def test_what_is_read_more_rarely_is_not_lost_with_a_restart(tmp_path: Path, ticks: int, used_before: int) -> None:
    """A pod ends in an outage, in which the exporter is restarted: also if it first used its device in that outage."""
    node = Node(tmp_path / "cgroup", "cpu", "io", intervals={"io": timedelta(seconds=3)}, state=tmp_path / "state.json")
    node.listed = (POD,)
    node.use(used_before)
    node.tick()
    last_io = ends_in_an_outage(node, ticks)
    node.restart()
    node.receiver.is_up = True
    node.tick()
    node.tick()
    assert total(node.sent("cpu_time_delta")) == 1_000 * (1000 * (ticks - 1) - used_before)
    assert total(node.sent("cgroup_io_rbytes")) == last_io - used_before
