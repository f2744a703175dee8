"""Counters by device come and go with the devices, and are as exact as CPU time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.errors import ExportRetryable
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

    import pytest

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
DEVICES = ("8:0", "8:16", "253:1")
SECOND = 10**9


class Receiver:
    """Takes what it is asked to take."""

    def __init__(self) -> None:
        self.is_up = True
        self.messages: list[ExportMetricsServiceRequest] = []

    def send(self, body: bytes) -> Receipt:
        if not self.is_up:
            raise ExportRetryable("receiver", "unavailable", "not now")
        self.messages.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


class Process:
    """The exporter, from its start to its end; ``state`` outlives it."""

    def __init__(self, root: Path, receiver: Receiver, state: Path, clock: Callable[[], int]) -> None:
        metrics = select(("alumet",), ("cpu", "io"))
        instruments = Instruments(metrics)
        self._saver = StateSaver(
            StateFile(str(state), mono_clock=clock), load_seconds=PATIENCE_SECONDS, save_seconds=PATIENCE_SECONDS
        )
        self._exporter = Exporter(receiver, instruments.know, queue_bytes=1 << 20, state=self._saver)
        self._cgroups = NodeCgroups(
            str(root), open_files=OpenFiles(100), clock=clock, parts=((figures_of(metrics), 1),)
        )
        pods = (Pod(UID, "cart", "shop", "node", "2026-01-01T00:00:00Z", UID),)
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


# Of each tick: what each device does, which are listed, whether the receiver takes it, and whether the exporter was
# restarted before it.
ticks = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 1000)),
        st.sets(st.sampled_from(DEVICES)),
        st.booleans(),
        st.booleans(),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(used=st.sampled_from(({}, {"8:0": 500})), ticks=ticks)
@example(used={"8:0": 500}, ticks=[({"253:1": 7}, {*DEVICES}, True, True)])
@example(used={}, ticks=[({"253:1": 7}, {*DEVICES}, True, True)])
def test_the_sum_of_deltas_is_what_each_device_did(
    tmp_path_factory: pytest.TempPathFactory, used: dict[str, int], ticks: object
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
    for done, listed, is_up, is_anew in (
        (nothing, {"8:0"}, True, False),
        *ticks,
        (nothing, {*DEVICES}, True, False),
    ):
        if is_anew:
            process.end()
            process = start()
        for device, more in done.items():
            total[device] = total.get(device, 0) + more
        lines = (f"{device} rbytes={count} wbytes=0 rios=0\n" for device, count in total.items() if device in listed)
        file.write_text("".join(lines))
        receiver.is_up = is_up
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
