"""Nothing is lost, nothing is counted twice: what is exported of a pod's CPU time is what its counter grew by.

The whole way from the cgroup's files to the request's bytes, with clocks and a receiver that the test drives.
"""

from __future__ import annotations

import random
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from uuid import UUID

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.errors import ExportRejected, ExportRetryable
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.metrics import ALUMET
from otel_k8s_cgroup.model import Pod
from tests.otlp import cpu_time, defects, points

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.errors import ExportError

SECOND = 10**9


@dataclass
class Receiver:
    """Takes requests, but for those of which ``fault`` says otherwise."""

    fault: Callable[[], ExportError | None] = lambda: None
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)

    def send(self, body: bytes) -> Receipt:
        if (error := self.fault()) is not None:
            raise error
        self.requests.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


class Node:
    """A tree of cgroup v2 files, the pods in it, and an agent on clocks that the test moves."""

    def __init__(self, root: Path, receiver: Receiver, *, queue_bytes: int = 1 << 24) -> None:
        self.root = root
        self.mono_ns = 5 * SECOND
        self.wall_offset_ns = 1_800_000_000 * SECOND
        self.pods: dict[str, Pod] = {}
        self.told: tuple[Pod, ...] = ()
        self.counters: dict[str, int] = {}
        self.at_first_sight: dict[str, int] = {}
        self.receiver = receiver
        (root / "cgroup.controllers").write_text("cpu memory\n")
        (root / "kubepods").mkdir()
        self.exporter = Exporter(receiver, ALUMET, queue_bytes=queue_bytes, point_attributes=True)
        self.agent = Agent(
            cgroups=NodeCgroups(str(root), open_files=OpenFiles(40), clock=lambda: self.mono_ns),
            pods=lambda: self.told,
            exporter=self.exporter,
            metrics=ALUMET,
            mono_clock=lambda: self.mono_ns,
            wall_clock=lambda: self.mono_ns + self.wall_offset_ns,
        )

    def start(self, number: int, *, used_usec: int = 0) -> str:
        """A pod begins; one that has used time already was there before the exporter."""
        uid = str(UUID(int=number))
        (self.root / "kubepods" / f"pod{uid}").mkdir()
        self.pods[uid] = Pod(uid, f"pod-{number}", "ns", "node", "2026-01-01T00:00:00Z", uid)
        self.at_first_sight[uid] = used_usec
        self.use(uid, used_usec)
        self.tell()
        return uid

    def use(self, uid: str, usec: int) -> None:
        """It uses so much more CPU time, two thirds of it in user mode."""
        self.counters[uid] = total = self.counters.get(uid, 0) + usec
        user = total * 2 // 3
        directory = self.root / "kubepods" / f"pod{uid}"
        # In place, as the kernel's files are: the descriptor that the exporter holds stays the file's.
        (directory / "cpu.stat").write_text(f"usage_usec {total}\nuser_usec {user}\nsystem_usec {total - user}\n")
        (directory / "memory.current").write_text(f"{total % 4096}\n")

    def end(self, uid: str) -> None:
        shutil.rmtree(self.root / "kubepods" / f"pod{uid}")
        del self.pods[uid]
        self.tell()

    def tell(self) -> None:
        """The API tells the pods as they are."""
        self.told = tuple(self.pods.values())

    def tick(self) -> None:
        self.agent.tick()
        self.mono_ns += SECOND

    def deliver(self) -> None:
        self.exporter.delivery.deliver()

    def assert_conserved(self) -> None:
        """Every pod's sum is its counter's growth since it was first seen, in each kind."""
        received = points(self.receiver.requests)
        assert not defects(received)
        sums = {uid: cpu_time(received, uid) for uid in self.counters}
        grown = {}
        for uid, total in self.counters.items():
            first = self.at_first_sight[uid]
            user = total * 2 // 3 - first * 2 // 3
            grown[uid] = {"total": (total - first) * 1000, "user": user * 1000, "system": (total - first - user) * 1000}
        assert sums == grown


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path, Receiver())


def churn(node: Node, chance: random.Random, ticks: int, *, deliver_every: int = 1) -> None:
    """Pods come and go at random, 50 in all; what each uses is read before it ends (the kernel tells nobody after)."""
    alive: list[str] = []
    number = len(node.counters)
    for tick in range(ticks):
        if number < 50 and (chance.random() < 0.3 or not alive):
            number += 1
            alive.append(node.start(number))
        for uid in alive:
            node.use(uid, chance.choice([0, 1, 999, chance.randrange(10**6)]))
        node.tick()
        if tick % deliver_every == 0:
            node.deliver()
        if len(alive) > 5 and chance.random() < 0.25:
            gone = alive.pop(chance.randrange(len(alive)))
            node.end(gone)


@pytest.mark.parametrize("seed", range(5))
def test_the_deltas_of_fifty_pods_that_come_and_go_are_their_counters(node: Node, seed: int) -> None:
    """Over 300 ticks, some exports with several readings each."""
    chance = random.Random(seed)
    old = node.start(0, used_usec=123_456_789)
    node.tick()
    churn(node, chance, 300, deliver_every=1 + seed)
    node.use(old, 7)
    node.tick()
    node.deliver()
    assert len(node.counters) == 50
    node.assert_conserved()


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_when_the_receiver_fails_at_random(tmp_path: Path, seed: int) -> None:
    """Half of the requests fail; what they had is sent again, with what came meanwhile."""
    chance = random.Random(seed)
    healthy = False

    def fault() -> ExportError | None:
        if healthy or chance.random() < 0.5:
            return None
        return ExportRetryable("receiver", "HTTP 503", "not now")

    node = Node(tmp_path, Receiver(fault))
    node.tick()
    churn(node, chance, 200)
    healthy = True
    node.deliver()
    node.assert_conserved()


def test_what_a_receiver_rejects_is_in_the_next_delta(tmp_path: Path) -> None:
    """A request that can never succeed is dropped once; its pods' CPU time is not."""
    answers = iter([None, ExportRejected("receiver", "HTTP 400", "no"), None, None])
    node = Node(tmp_path, Receiver(lambda: next(answers)))
    node.tick()
    uid = node.start(1)
    for _ in range(3):
        node.use(uid, 1000)
        node.tick()
        node.deliver()
    node.assert_conserved()
    assert len(node.receiver.requests) == 2


def test_an_outage_that_fills_the_queue_loses_no_cpu_time(tmp_path: Path) -> None:
    """The oldest readings go; the newest of each pod, also of one that ended meanwhile, holds the whole sum."""
    down = True
    node = Node(
        tmp_path,
        Receiver(lambda: ExportRetryable("receiver", "HTTP 503", "down") if down else None),
        queue_bytes=64 * 1024,
    )
    node.tick()
    brief, lasting = node.start(1), node.start(2)
    for tick in range(2000):
        node.use(lasting, 10)
        if tick < 5:
            node.use(brief, 100)
        node.tick()
        if tick % 50 == 0:
            node.deliver()
        if tick == 5:
            node.end(brief)
    assert node.exporter.stats.readings_dropped > 1000
    down = False
    node.deliver()
    node.assert_conserved()


def test_a_pod_that_the_api_tells_late_is_counted_from_its_birth(node: Node) -> None:
    """Its first point covers what it used while it had no name."""
    node.tick()
    uid = node.start(1)
    node.told = ()
    for _ in range(3):
        node.use(uid, 500)
        node.tick()
        node.deliver()
    assert not node.receiver.requests
    node.tell()
    node.tick()
    node.deliver()
    node.assert_conserved()
    first = next(point for point in points(node.receiver.requests) if point.metric == "cpu_time_delta")
    assert first.value == 1_500_000
    assert first.time_ns - first.start_ns == 4 * SECOND


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_changes_no_sum_and_no_percentage(node: Node, hours: int) -> None:
    """Elapsed time is the monotonic clock's; the wall clock only stamps."""
    node.tick()
    uid = node.start(1)
    for tick in range(6):
        if tick == 3:
            node.wall_offset_ns += hours * 3600 * SECOND
        node.use(uid, 250_000)
        node.tick()
        node.deliver()
    received = points(node.receiver.requests)
    assert cpu_time(received, uid)["total"] == 6 * 250_000_000
    shares = [
        point.value for point in received if point.metric == "cpu_percent" and point.attributes["kind"] == "total"
    ]
    assert shares == [25.0] * 6
    deltas = [point for point in received if point.metric == "cpu_time_delta"]
    assert all(point.time_ns - point.start_ns == SECOND for point in deltas)


def test_a_counter_that_went_down_is_a_new_baseline(node: Node) -> None:
    """No negative delta, no percentage of it, and what comes after counts."""
    node.tick()
    uid = node.start(1)
    for total in (1000, 2000, 300, 800):
        node.counters[uid] = 0
        node.use(uid, total)
        node.tick()
        node.deliver()
    received = points(node.receiver.requests)
    deltas = [p.value for p in received if p.metric == "cpu_time_delta" and p.attributes["kind"] == "total"]
    assert deltas == [1_000_000, 1_000_000, 500_000]
    shares = [p.value for p in received if p.metric == "cpu_percent" and p.attributes["kind"] == "total"]
    assert len(shares) == 3


def test_a_first_reading_is_a_baseline(node: Node) -> None:
    """A pod that was there before the exporter has memory at once, and CPU points from the second reading on."""
    uid = node.start(1, used_usec=10**9)
    node.tick()
    node.deliver()
    assert {point.metric for point in points(node.receiver.requests)} == {"memory_usage"}
    node.use(uid, 1)
    node.tick()
    node.deliver()
    node.assert_conserved()
