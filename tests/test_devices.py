"""Counters by device come and go with the devices, and are as exact as CPU time."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Literal

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.errors import ExportRejected, ExportRetryable
from otel_k8s_cgroup.export import Exporter, StateFile, StateSaver
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import Pod
from otel_k8s_cgroup.schemas import figures_of, select
from tests import otlp
from tests.cgroup.trees import Tree
from tests.programs import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.model import Group, Schema

Answer = Literal["takes", "is down", "rejects"]
UID, OTHER, NEW = (f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{digit}" for digit in "567")
DEVICES = ("8:0", "8:16", "253:1")
SECOND = 10**9


class Receiver:
    """Takes what it is asked to take."""

    def __init__(self) -> None:
        self.answer: Answer = "takes"
        self.messages: list[ExportMetricsServiceRequest] = []

    def send(self, body: bytes) -> Receipt:
        if self.answer == "is down":
            raise ExportRetryable("receiver", "unavailable", "not now")
        if self.answer == "rejects":
            raise ExportRejected("receiver", "rejected", "never")
        self.messages.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


class Process:
    """The exporter, from its start to its end; ``state`` outlives it."""

    def __init__(
        self,
        root: Path,
        receiver: Receiver,
        state: Path,
        clock: Callable[[], int],
        *,
        schemas: tuple[Schema, ...] = ("alumet",),
        groups: tuple[Group, ...] = ("cpu", "memory", "io"),
        are_deltas: bool = False,
        uids: tuple[str, ...] = (UID,),
    ) -> None:
        metrics = select(schemas, groups, are_deltas=are_deltas)
        instruments = Instruments(metrics)
        self._saver = StateSaver(
            StateFile(str(state), mono_clock=clock), load_seconds=PATIENCE_SECONDS, save_seconds=PATIENCE_SECONDS
        )
        self._exporter = Exporter(receiver, instruments, queue_bytes=1 << 20, state=self._saver)
        self._cgroups = NodeCgroups(
            str(root), open_files=OpenFiles(100), clock=clock, parts=((figures_of(metrics), 1),)
        )
        pods = tuple(Pod(uid, "cart", "shop", "node", "2026-01-01T00:00:00Z", uid) for uid in uids)
        self._agent = Agent(
            cgroups=self._cgroups,
            pods=lambda: pods,
            exporter=self._exporter,
            instruments=instruments,
            describe=Describe("node"),
            mono_clock=clock,
            wall_clock=lambda: clock() + SECOND,
        )

    def tick(self) -> None:
        self._agent.tick()
        self._exporter.deliver()

    def end(self) -> None:
        self._saver.close()
        self._cgroups.close()


answers: st.SearchStrategy[Answer] = st.sampled_from(["takes", "is down", "rejects"])
# Of each tick: what each device does, which are listed, what the receiver does, and whether the exporter was restarted
# before it.
ticks = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 1000)),
        st.sets(st.sampled_from(DEVICES)),
        answers,
        st.booleans(),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(used=st.sampled_from(({}, {"8:0": 500})), first=answers, ticks=ticks)
@example(used={"8:0": 500}, first="takes", ticks=[({"253:1": 7}, {*DEVICES}, "takes", True)])
@example(used={}, first="takes", ticks=[({"253:1": 7}, {*DEVICES}, "takes", True)])
@example(
    used={"8:0": 500},
    first="is down",
    ticks=[({"8:0": 5}, {*DEVICES}, "is down", False), ({"8:0": 7}, {*DEVICES}, "takes", True)],
)
def test_the_sum_of_deltas_is_what_each_device_did(
    tmp_path_factory: pytest.TempPathFactory, used: dict[str, int], first: Answer, ticks: object
) -> None:
    """Whenever it is listed, however often what is known of it cannot be sent, and if it is first used while no
    exporter runs; the first reading is a baseline.
    """
    assert isinstance(ticks, list)
    directory = tmp_path_factory.mktemp("tree")
    tree = Tree(directory / "cgroup", 2)
    tree.make(f"/kubepods/pod{UID}")
    file = tree.root / f"kubepods/pod{UID}/io.stat"
    now_ns = SECOND
    receiver = Receiver()

    def start() -> Process:
        return Process(tree.root, receiver, directory / "state.json", lambda: now_ns)

    process = start()
    total = dict(used)
    nothing: dict[str, int] = {}
    for done, listed, receiver.answer, is_anew in (
        (nothing, {"8:0"}, first, False),
        *ticks,
        (nothing, {*DEVICES}, "takes", False),
    ):
        if is_anew:
            process.end()
            process = start()
        for device, more in done.items():
            total[device] = total.get(device, 0) + more
        lines = (f"{device} rbytes={count} wbytes=0 rios=0\n" for device, count in total.items() if device in listed)
        file.write_text("".join(lines))
        process.tick()
        now_ns += SECOND
    process.end()
    points = otlp.points(receiver.messages)
    assert otlp.defects(points) == []
    sums: dict[str, float] = {}
    for point in points:
        if point.metric == "cgroup_io_rbytes":
            device = point.attributes["device"]
            sums[device] = sums.get(device, 0) + point.value
    assert {device: sums.get(device, 0) for device in total} == {
        device: count - used.get(device, 0) for device, count in total.items()
    }


class Node:
    """Cgroups on a clock of their own, whose exporter is started again and again."""

    def __init__(self, directory: Path) -> None:
        self.tree = Tree(directory / "cgroup", 2)
        self.receiver = Receiver()
        self.state = directory / "state.json"
        self.now_ns = SECOND

    def use(self, uid: str, **bytes_by_device: int) -> None:
        """What a pod has read in all, by device (``d8_0``)."""
        directory = self.tree.root / f"kubepods/pod{uid}"
        if not directory.exists():
            self.tree.make(f"/kubepods/pod{uid}")
        used = {device.removeprefix("d").replace("_", ":"): count for device, count in bytes_by_device.items()}
        lines = (f"{device} rbytes={count} wbytes=0 rios=0\n" for device, count in used.items())
        (directory / "io.stat").write_text("".join(lines))

    def run(self, *ticks: Callable[[], None], **process: Any) -> None:
        """One process of the exporter; before each of its ticks something happens."""
        started = Process(self.tree.root, self.receiver, self.state, lambda: self.now_ns, **process)
        for happens in ticks:
            happens()
            started.tick()
            self.now_ns += SECOND
        started.end()

    def sums(self, metric: str = "cgroup_io_rbytes") -> dict[tuple[str, object], float]:
        """What was received, by pod and device."""
        sums: dict[tuple[str, object], float] = {}
        for point in otlp.points(self.receiver.messages):
            if point.metric == metric:
                device = point.attributes.get("device", point.attributes.get("system.device"))
                sums[point.pod, device] = sums.get((point.pod, device), 0) + point.value
        return sums


def test_a_pod_that_the_process_before_did_not_measure(tmp_path: Path) -> None:
    """It counts from where that process found it, and one that came since from zero, new devices included."""
    node = Node(tmp_path)
    node.use(UID, d8_0=1)
    node.use(OTHER, d8_0=10**9)
    node.run(lambda: None)
    node.use(OTHER, d8_0=10**9 + 5)
    node.use(NEW, d8_0=300, d253_7=700)
    node.run(lambda: None, lambda: None, uids=(UID, OTHER, NEW))
    assert node.sums() == {(UID, "8:0"): 0, (OTHER, "8:0"): 5, (NEW, "8:0"): 300, (NEW, "253:7"): 700}


@pytest.mark.parametrize("before", [("alumet",), ("alumet", "semconv")])
def test_a_metric_that_is_sent_as_deltas_from_a_restart_on(tmp_path: Path, before: tuple[Schema, ...]) -> None:
    """Another metric of the same figure knows the device; this one has delivered nothing, and begins there."""
    node = Node(tmp_path)
    node.use(UID, d8_0=10**6)
    node.run(lambda: None, lambda: node.use(UID, d8_0=10**6 + 10), schemas=before)
    node.receiver.messages.clear()
    after = {"schemas": ("alumet", "semconv"), "are_deltas": True}
    node.run(lambda: node.use(UID, d8_0=10**6 + 20), lambda: node.use(UID, d8_0=10**6 + 30), **after)
    assert node.sums() == {(UID, "8:0"): 20}
    assert node.sums("k8s.pod.cgroup.io.rbytes") == {(UID, "8:0"): 10}


def test_a_pod_costs_what_it_uses_not_what_others_use(tmp_path: Path) -> None:
    """Of devices that it never used nothing is remembered; of those that nobody uses, no column over a restart."""
    node = Node(tmp_path)
    uids = tuple(f"{number:08x}{UID[8:]}" for number in range(20))

    def use() -> None:
        for number, uid in enumerate(uids):
            node.use(uid, **{f"d253_{number}": number})

    node.run(use, use, uids=uids)
    state = json.loads(node.state.read_text())
    ours = [sum(base is not None for base in cgroup["bases"]) for cgroup in state["cgroups"].values()]
    of_all, of_device = 3, 3  # rbytes, wbytes and rios are written
    assert ours == [of_all + of_device] * len(uids)
    for uid in uids[1:]:
        shutil.rmtree(node.tree.root / f"kubepods/pod{uid}")
    node.run(lambda: None, lambda: None, uids=uids)
    node.run(lambda: None, lambda: None, uids=uids)
    labels = json.loads(node.state.read_text())["counters"]
    assert {label.rpartition(" ")[2] for label in labels if label.startswith("cgroup_io_rbytes")} == {"253:0"}


def test_a_counter_that_is_a_difference_loses_no_first_reading(tmp_path: Path) -> None:
    """Minor faults are all less the major ones; a first reading is where they begin, also if it is rejected."""
    node = Node(tmp_path)
    node.use(UID)
    file = node.tree.root / f"kubepods/pod{UID}/memory.stat"

    def faults(count: int) -> Callable[[], object]:
        return lambda: file.write_text(f"anon 1\nfile 1\npgfault {count}\npgmajfault 0\n")

    def rejected() -> None:
        node.receiver.answer = "rejects"
        faults(1000)()

    def taken() -> None:
        node.receiver.answer = "takes"
        faults(1500)()

    node.run(rejected, taken, schemas=("semconv",), groups=("cpu", "memory"), are_deltas=True)
    points = otlp.points(node.receiver.messages)
    minor = [point.value for point in points if point.attributes.get("system.paging.fault.type") == "minor"]
    assert minor == [500]
