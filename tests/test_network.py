"""Metrics of `network`, from a pod's process to OTLP, in every schema."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter, StateFile, StateSaver
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import Details, Pod
from otel_k8s_cgroup.readings import NodeReader
from otel_k8s_cgroup.schemas import select
from otel_k8s_cgroup.sources import parts_of
from tests import otlp
from tests.cgroup.trees import Tree
from tests.test_devices import Receiver

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Schema
    from tests.cgroup.trees import Version

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
POD = f"/kubepods/pod{UID}"
SECOND = 10**9

EXPECTED: dict[Schema, dict[str, tuple[str, str, str]]] = {
    "alumet": {
        "network_io": ("By", "direction", "interface"),
        "network_packets": ("{packet}", "direction", "interface"),
        "network_errors": ("{error}", "direction", "interface"),
        "network_dropped": ("{packet}", "direction", "interface"),
    },
    "semconv": {
        "k8s.pod.network.io": ("By", "network.io.direction", "network.interface.name"),
        "k8s.pod.network.errors": ("{error}", "network.io.direction", "network.interface.name"),
        "k8s.pod.cgroup.network.packets": ("{packet}", "direction", "interface"),
        "k8s.pod.cgroup.network.dropped": ("{packet}", "direction", "interface"),
    },
    "cadvisor": {
        f"container_network_{way}_{name}": (unit, "", "interface")
        for way in ("receive", "transmit")
        for name, unit in (
            ("bytes", "By"),
            ("packets", "{packet}"),
            ("errors", "{error}"),
            ("packets_dropped", "{packet}"),
        )
    },
}
# Bytes, packets, errs and drop, received and then sent, of three ticks.
TICKS = (((10, 1, 0, 0), (20, 2, 0, 0)), ((110, 4, 1, 2), (220, 6, 3, 4)), ((111, 5, 1, 2), (221, 7, 3, 4)))
KEYS = ("io", "packets", "errors", "dropped")


def cgroups_of(tree: Tree, proc: Path, metrics: Sequence[Metric], clock: Callable[[], int]) -> NodeCgroups:
    """What reads ``metrics`` of the node at each tick."""
    parts = parts_of(metrics, {}, timedelta(seconds=1))
    return NodeCgroups(str(tree.root), open_files=OpenFiles(100), clock=clock, parts=parts, proc=str(proc))


def a_node(home: Path, version: Version = 2) -> tuple[Tree, Path]:
    """With one pod, whose sandbox has the process 7; and its /proc, where networks are still empty."""
    tree = Tree(home / "cgroup", version)
    for path in (POD, f"{POD}/sandbox"):
        tree.make(path)
    (tree.directory(POD) / "sandbox/cgroup.procs").write_text("7\n")
    proc = home / "proc"
    for pid in (1, 7):
        (proc / f"{pid}/net").mkdir(parents=True)
        (proc / f"{pid}/stat").write_text(f"{pid} (pause) S {' '.join(['0'] * 19)}\n")
        (proc / f"{pid}/net/dev").write_text("")
    return tree, proc


@pytest.mark.parametrize("started", ["2026-01-01T00:00:00Z", None])
def test_a_pod_on_the_hosts_network_by_the_api(tmp_path: Path, started: str | None) -> None:
    """It has none, for what is read next to a node in a container, too; also while it waits for its start time."""
    tree, proc = a_node(tmp_path)
    (proc / "7/net/dev").write_text(f"head\nhead\n  eth0: {' '.join(['5'] * 16)}\n")
    metrics = select(("alumet",), ("cpu", "network"))
    now_ns = SECOND
    cgroups = cgroups_of(tree, proc, metrics, lambda: now_ns)
    listed = [(Pod(UID, "cart", "shop", "node", started, UID, details=Details(host_network=True)),)]
    rows: list[object] = []
    for reader in (
        NodeReader(cgroups, lambda: listed[0], describe=Describe("node")),
        NodeReader(cgroups, lambda: listed[0], describe=Describe("node")),
    ):
        (shot,) = reader.read(lambda _error: None)
        rows.append(shot.reading.stats.network_receive_bytes)
        listed[0] = (replace(listed[0][0], details=Details()),)
    assert rows == [None, {"eth0": 5}]
    receiver, instruments = Receiver(), Instruments(metrics)
    exporter = Exporter(receiver, instruments, queue_bytes=1 << 20)
    agent = Agent(
        cgroups=cgroups,
        pods=lambda: listed[0],
        exporter=exporter,
        instruments=instruments,
        describe=Describe("node"),
        mono_clock=lambda: now_ns,
        wall_clock=lambda: now_ns + 1_800_000_000 * SECOND,
    )
    listed[0] = (replace(listed[0][0], details=Details(host_network=True)),)
    for _ in range(20):
        now_ns += SECOND
        agent.tick()
    exporter.deliver()
    cgroups.close()
    sent = {point.metric for point in otlp.points(receiver.messages)}
    assert "cpu_time_delta" in sent
    assert not [metric for metric in sent if "network" in metric]


def received_over_restarts(home: Path, *runs: Sequence[str]) -> dict[str, float]:
    """Interface → bytes received, as they were sent by one process after the other, with a state file. A run is its
    readings: interfaces with the bytes that they have received.
    """
    tree, proc = a_node(home)
    metrics = select(("alumet",), ("cpu", "network"))
    receiver = Receiver()
    pods = (Pod(UID, "cart", "shop", "node", "2026-01-01T00:00:00Z", UID),)
    for readings in runs:
        instruments = Instruments(metrics)
        saver = StateSaver(StateFile(str(home / "state")))
        exporter = Exporter(receiver, instruments, queue_bytes=1 << 20, state=saver)
        cgroups = cgroups_of(tree, proc, metrics, time.monotonic_ns)
        agent = Agent(
            cgroups=cgroups,
            pods=lambda: pods,
            exporter=exporter,
            instruments=instruments,
            describe=Describe("node"),
        )
        exporter.start()
        for reading in readings:
            lines = (f"{each.replace('=', ': ')}{' 0' * 15}\n" for each in reading.split())
            (proc / "7/net/dev").write_text("head\nhead\n" + "".join(lines))
            agent.tick()
        exporter.close(5)
        cgroups.close()
    received: dict[str, float] = {}
    for point in otlp.points(receiver.messages):
        if point.metric == "network_io" and point.attributes["direction"] == "receive":
            name = str(point.attributes["interface"])
            received[name] = received.get(name, 0) + point.value
    return received


def test_over_a_restart_with_a_state_file_it_goes_on(tmp_path: Path) -> None:
    """What was received meanwhile is sent once; an interface that has come meanwhile counts from zero."""
    received = received_over_restarts(tmp_path, ("eth0=100", "eth0=150"), ("eth0=1150 net1=7", "eth0=1200 net1=9"))
    assert received == {"eth0": 1100, "net1": 9}


def test_of_too_many_interfaces_none_counts_its_life_after_a_restart(tmp_path: Path) -> None:
    """The seventeenth is there all along, and counts from its first reading."""
    others = " ".join(f"eth{number}=5" for number in range(1, 16))
    received = received_over_restarts(
        tmp_path,
        (f"eth0=100 {others} big=1000000000",) * 2,
        (f"{others} big=1000000000", f"{others} big=1000000007"),
    )
    assert {name: by for name, by in received.items() if by} == {"big": 7}


def test_what_is_not_wanted_for_a_while_goes_on(tmp_path: Path) -> None:
    """Its files are closed meanwhile; a network that was made anew is counted on, and no interface is one too many."""
    tree, proc = a_node(tmp_path)
    now_ns = SECOND
    metrics = select(("alumet",), ("cpu", "network"))
    cgroups = cgroups_of(tree, proc, metrics, lambda: now_ns)
    values: list[object] = []
    for wanted, received in (({UID}, 100), (set[str](), 100), ({UID}, 7)):
        (proc / "7/net/dev").write_text(f"head\nhead\neth0: {received}{' 0' * 15}\n")
        values += [reading.stats.network_receive_bytes for reading in cgroups.read(wanted, lambda _error: None)]
        now_ns += SECOND
    cgroups.close()
    assert values == [{"eth0": 100}, {"eth0": 107}]


def test_who_is_born_with_too_many_interfaces_has_the_first(tmp_path: Path) -> None:
    """None of them was there before the exporter."""
    tree, proc = a_node(tmp_path)
    now_ns = SECOND
    metrics = select(("alumet",), ("cpu", "network"))
    cgroups = cgroups_of(tree, proc, metrics, lambda: now_ns)
    lines = "".join(f"eth{number}: 5{' 0' * 15}\n" for number in range(17))
    (proc / "7/net/dev").write_text(f"head\nhead\n{lines}")
    born = UID.replace("d", "e")
    wanted = {UID, born}
    first = {reading.key: reading.stats for reading in cgroups.read(wanted, lambda _error: None)}
    for path in (f"/kubepods/pod{born}", f"/kubepods/pod{born}/sandbox"):
        tree.make(path)
    (tree.directory(f"/kubepods/pod{born}") / "sandbox/cgroup.procs").write_text("7\n")
    now_ns += SECOND
    then = {reading.key: reading.stats for reading in cgroups.read(wanted, lambda _error: None)}
    cgroups.close()
    assert [first[UID].network_receive_bytes, then[UID].network_receive_bytes] == [None, None]
    assert then[born].network_receive_bytes == {f"eth{number}": 5 for number in range(16)}


@pytest.mark.parametrize("schema", EXPECTED)
@pytest.mark.parametrize("version", [1, 2])
def test_a_pods_network_in_every_schema(tmp_path: Path, schema: Schema, version: Version) -> None:
    """Of a pod that was there before; what cannot be sent at once comes later, and each point is right."""
    tree, proc = a_node(tmp_path, version)
    metrics = select((schema,), ("cpu", "network"))
    now_ns = SECOND
    receiver, instruments = Receiver(), Instruments(metrics)
    exporter = Exporter(receiver, instruments, queue_bytes=1 << 20)
    cgroups = cgroups_of(tree, proc, metrics, lambda: now_ns)
    pods = (Pod(UID, "cart", "shop", "node", "2026-01-01T00:00:00Z", UID),)
    agent = Agent(
        cgroups=cgroups,
        pods=lambda: pods,
        exporter=exporter,
        instruments=instruments,
        describe=Describe("node"),
        mono_clock=lambda: now_ns,
        wall_clock=lambda: now_ns + 1_800_000_000 * SECOND,
    )
    for number, (received, sent) in enumerate(TICKS):
        numbers = (*received, 0, 0, 0, 0, *sent, 0, 0, 0, 0)
        (proc / "7/net/dev").write_text(f"head\nhead\n    lo: {'9 ' * 16}\n  eth0: {' '.join(map(str, numbers))}\n")
        receiver.answer = "is down" if number == 1 else "takes"
        agent.tick()
        exporter.deliver()
        now_ns += SECOND
    cgroups.close()
    points = [point for point in otlp.points(receiver.messages) if "network" in point.metric]
    assert otlp.defects(points) == []
    assert {point.resource["k8s.pod.name"] for point in points} == {"cart"}
    assert {point.metric for point in points} == EXPECTED[schema].keys()
    for metric, (unit, direction, interface) in EXPECTED[schema].items():
        of = [point for point in points if point.metric == metric]
        assert {point.unit for point in of} == {unit}
        assert {point.attributes[interface] for point in of} == {"eth0"}
        for way in ("receive", "transmit"):
            mine = [
                point for point in of if way == (point.attributes[direction] if direction else metric.split("_")[2])
            ]
            if not mine:
                assert schema == "cadvisor"
                continue
            key = next(key for key in KEYS if key.rstrip("s") in metric.replace("bytes", "io").replace("packets_", ""))
            values = [tick[way == "transmit"][KEYS.index(key)] for tick in TICKS]
            if schema == "alumet":
                assert sum(point.value for point in mine) == values[-1] - values[0]
                assert all(point.kind == "delta monotonic sum int" for point in mine)
            else:
                assert [point.value for point in mine] == values
                assert all(point.kind == "cumulative monotonic sum int" for point in mine)
