"""Counters by device come and go with the devices, and are as exact as CPU time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.errors import ExportRetryable
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import Pod
from otel_k8s_cgroup.schemas import figures_of, select
from tests import otlp
from tests.cgroup.trees import Tree

if TYPE_CHECKING:
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


# Of each tick: what each device does, which are listed, and whether the receiver takes it.
ticks = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(DEVICES), st.integers(0, 1000)),
        st.sets(st.sampled_from(DEVICES)),
        st.booleans(),
    ),
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ticks=ticks)
def test_the_sum_of_deltas_is_what_each_device_did(tmp_path_factory: pytest.TempPathFactory, ticks: object) -> None:
    """Whenever it is listed, however often what is known of it cannot be sent; the first reading is a baseline."""
    assert isinstance(ticks, list)
    tree = Tree(tmp_path_factory.mktemp("tree") / "cgroup", 2)
    tree.make(f"/kubepods/pod{UID}")
    file = tree.root / f"kubepods/pod{UID}/io.stat"
    metrics = select(("alumet",), ("cpu", "io"))
    now_ns = 0
    receiver, instruments = Receiver(), Instruments(metrics)
    exporter = Exporter(receiver, instruments.know, queue_bytes=1 << 20)
    cgroups = NodeCgroups(
        str(tree.root), open_files=OpenFiles(100), clock=lambda: now_ns, parts=((figures_of(metrics), 1),)
    )
    pods = (Pod(UID, "cart", "shop", "node", "2026-01-01T00:00:00Z", UID),)
    agent = Agent(
        cgroups=cgroups,
        pods=lambda: pods,
        exporter=exporter,
        instruments=instruments,
        describe=Describe("node"),
        mono_clock=lambda: now_ns,
        wall_clock=lambda: now_ns + SECOND,
    )
    total = {"8:0": 500}
    baseline = dict(total)
    nothing: dict[str, int] = {}
    for done, listed, is_up in ((nothing, {"8:0"}, True), *ticks, (nothing, {*DEVICES}, True)):
        for device, more in done.items():
            total[device] = total.get(device, 0) + more
        lines = (f"{device} rbytes={count} wbytes=0 rios=0\n" for device, count in total.items() if device in listed)
        file.write_text("".join(lines))
        receiver.is_up = is_up
        agent.tick()
        exporter.deliver()
        now_ns += SECOND
    cgroups.close()
    points = otlp.points(receiver.messages)
    assert otlp.defects(points) == []
    sums: dict[str, float] = {}
    for point in points:
        if point.metric == "cgroup_io_rbytes":
            device = point.attributes["device"]
            sums[device] = sums.get(device, 0) + point.value
    assert {device: sums.get(device, 0) for device in total} == {
        device: count - baseline.get(device, 0) for device, count in total.items()
    }
