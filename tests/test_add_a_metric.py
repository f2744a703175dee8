"""A figure and a metric are two rows: what is read, observed and sent follows from them, on cgroup v1 and v2."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Literal

import pytest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter, open_transport
from otel_k8s_cgroup.figures import DEFAULT_FIGURES, Figure, Format, Source
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.metrics import Instrument, Metric, Point
from otel_k8s_cgroup.model import OtlpTarget, Pod
from otel_k8s_cgroup.schemas import ALUMET
from tests import otlp
from tests.cgroup.trees import Tree
from tests.fakes.otlp_receiver import OtlpReceiver

if TYPE_CHECKING:
    from pathlib import Path

# The two rows: a controller of its own, which neither version has read so far.
PIDS = Figure(
    "pids_current",
    v2=(Source("pids.current", format=Format.SINGLE),),
    v1=(Source("pids.current", controller="pids", format=Format.SINGLE),),
)
METRIC = Metric("cgroup_pids_current", Instrument.GAUGE, "{process}", "Processes", (Point("pids_current"),))

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
PATH = f"/kubepods/pod{UID}"


@pytest.mark.parametrize("version", [1, 2])
def test_two_rows_are_a_metric(tmp_path: Path, version: Literal[1, 2]) -> None:
    """The point arrives over a real socket, beside those of the rows that were there."""
    tree = Tree(tmp_path / "cgroup", version)
    tree.make(PATH)
    hierarchy = tree.root if version == 2 else tree.root / "pids"
    directory = hierarchy / PATH.lstrip("/")
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "pids.current").write_text("42\n")
    parts = (((*DEFAULT_FIGURES, PIDS), 1),)
    cgroups = NodeCgroups(str(tree.root), open_files=OpenFiles(100), clock=time.monotonic_ns, parts=parts)
    with OtlpReceiver("http/protobuf") as receiver:
        transport = open_transport(OtlpTarget("http/protobuf", f"{receiver.endpoint}/v1/metrics"))
        instruments = Instruments((*ALUMET, METRIC))
        exporter = Exporter(transport, instruments, queue_bytes=1 << 20)
        pods = (Pod(UID, "cart", "shop", "node", "2026-01-01T00:00:00Z", UID),)
        agent = Agent(
            cgroups=cgroups, pods=lambda: pods, exporter=exporter, instruments=instruments, describe=Describe()
        )
        agent.tick()
        assert exporter.deliver() is None
        points = {point.metric: point for point in otlp.points(receiver.messages)}
        transport.close()
    cgroups.close()
    point = points["cgroup_pids_current"]
    assert (point.kind, point.unit, point.value, point.pod) == ("gauge int", "{process}", 42, UID)
    assert points["memory_usage"].value == 4096
