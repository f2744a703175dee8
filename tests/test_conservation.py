"""Nothing is lost, nothing is counted twice: what is exported of a pod's CPU time is what its counter grew by.

The whole way from the cgroup's files to the request's bytes, with clocks and a receiver that the test drives.
"""

from __future__ import annotations

import random
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ExportRejected, ExportRetryable
from tests.fakes.node import SECOND, DirectReceiver, Node
from tests.otlp import cpu_time, points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_k8s_cgroup.errors import ExportError


@pytest.fixture
def receiver() -> DirectReceiver:
    return DirectReceiver()


@pytest.fixture
def make_node(tmp_path: Path, receiver: DirectReceiver) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(*, queue_bytes: int = 1 << 24) -> Node:
        made.append(Node(tmp_path, receiver, queue_bytes=queue_bytes))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(make_node: Callable[..., Node]) -> Node:
    return make_node()


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
        node.read()
        if tick % deliver_every == 0:
            node.deliver()
        if len(alive) > 5 and chance.random() < 0.25:
            gone = alive.pop(chance.randrange(len(alive)))
            node.end(gone)


@pytest.mark.parametrize("seed", range(5))
def test_the_deltas_of_fifty_pods_that_come_and_go_are_their_counters(
    node: Node, receiver: DirectReceiver, seed: int
) -> None:
    """Over 300 ticks, some exports with several readings each."""
    chance = random.Random(seed)
    old = node.start(0, used_usec=123_456_789)
    node.read()
    churn(node, chance, 300, deliver_every=1 + seed)
    node.use(old, 7)
    node.read()
    node.deliver()
    assert len(node.counters) == 50
    node.assert_conserved(receiver.requests)


@pytest.mark.parametrize("seed", range(5))
def test_nothing_is_lost_when_the_receiver_fails_at_random(node: Node, receiver: DirectReceiver, seed: int) -> None:
    """Half of the requests fail; what they had is sent again, with what came meanwhile."""
    chance = random.Random(seed)
    healthy = False

    def fault() -> ExportError | None:
        if healthy or chance.random() < 0.5:
            return None
        return ExportRetryable("receiver", "HTTP 503", "not now")

    receiver.fault = fault
    node.read()
    churn(node, chance, 200)
    healthy = True
    node.deliver()
    node.assert_conserved(receiver.requests)


def test_what_a_receiver_rejects_is_in_the_next_delta(node: Node, receiver: DirectReceiver) -> None:
    """A request that can never succeed is dropped once; its pods' CPU time is not."""
    answers = iter([None, ExportRejected("receiver", "HTTP 400", "no"), None, None])
    receiver.fault = lambda: next(answers)
    node.read()
    uid = node.start(1)
    for _ in range(3):
        node.use(uid, 1000)
        node.read()
        node.deliver()
    node.assert_conserved(receiver.requests)
    assert len(receiver.requests) == 2


def test_an_outage_that_fills_the_queue_loses_no_cpu_time(
    make_node: Callable[..., Node], receiver: DirectReceiver
) -> None:
    """The oldest readings go; the newest of each pod, also of one that ended meanwhile, holds the whole sum."""
    down = True
    receiver.fault = lambda: ExportRetryable("receiver", "HTTP 503", "down") if down else None
    node = make_node(queue_bytes=64 * 1024)
    node.read()
    brief, lasting = node.start(1), node.start(2)
    for tick in range(2000):
        node.use(lasting, 10)
        if tick < 5:
            node.use(brief, 100)
        node.read()
        if tick % 50 == 0:
            node.deliver()
        if tick == 5:
            node.end(brief)
    assert node.exporter.stats.readings_dropped > 1000
    down = False
    node.deliver()
    node.assert_conserved(receiver.requests)


def test_a_pod_that_ends_while_a_full_queue_is_under_way_loses_nothing(
    make_node: Callable[..., Node], receiver: DirectReceiver
) -> None:
    """A request that hangs has all that waited, and readings go on: the newest of each pod is kept, not the request."""
    node = make_node(queue_bytes=64 * 1024)
    node.read()
    brief, lasting = node.start(1), node.start(2)
    hangs = True

    def fault() -> ExportError | None:
        if not hangs:
            return None
        for _ in range(200):
            for uid in node.pods:
                node.use(uid, 10)
            node.read()
            assert node.exporter.queue_bytes <= 64 * 1024
        if brief in node.pods:
            node.end(brief)
        return ExportRetryable("receiver", "timeout", "no answer")

    receiver.fault = fault
    for _ in range(200):
        node.use(lasting, 10)
        node.read()
    node.deliver()
    node.deliver()
    assert node.exporter.stats.readings_dropped > 100
    hangs = False
    node.deliver()
    node.assert_conserved(receiver.requests)


def test_a_pod_that_the_api_tells_late_is_counted_from_its_birth(node: Node, receiver: DirectReceiver) -> None:
    """Its first point covers what it used while it had no name."""
    node.read()
    uid = node.start(1)
    node.told = ()
    for _ in range(3):
        node.use(uid, 500)
        node.read()
        node.deliver()
    assert not receiver.requests
    node.tell()
    node.read()
    node.deliver()
    node.assert_conserved(receiver.requests)
    first = next(point for point in points(receiver.requests) if point.metric == "cpu_time_delta")
    assert first.value == 1_500_000
    assert first.time_ns - first.start_ns == 4 * SECOND


@pytest.mark.parametrize("hours", [1, -1])
def test_a_wall_clock_that_is_set_changes_no_sum_and_no_percentage(
    node: Node, receiver: DirectReceiver, hours: int
) -> None:
    """Elapsed time is the monotonic clock's; the wall clock only stamps."""
    node.read()
    uid = node.start(1)
    for tick in range(6):
        if tick == 3:
            node.wall_offset_ns += hours * 3600 * SECOND
        node.use(uid, 250_000)
        node.read()
        node.deliver()
    received = points(receiver.requests)
    assert cpu_time(received, uid)["total"] == 6 * 250_000_000
    shares = [
        point.value for point in received if point.metric == "cpu_percent" and point.attributes["kind"] == "total"
    ]
    assert shares == [25.0] * 6
    deltas = [point for point in received if point.metric == "cpu_time_delta"]
    assert all(point.time_ns - point.start_ns == SECOND for point in deltas)


def test_a_counter_that_went_down_is_a_new_baseline(node: Node, receiver: DirectReceiver) -> None:
    """No negative delta, no percentage of it, and what comes after counts."""
    node.read()
    uid = node.start(1)
    for total in (1000, 2000, 300, 800):
        node.counters[uid] = 0
        node.use(uid, total)
        node.read()
        node.deliver()
    received = points(receiver.requests)
    deltas = [p.value for p in received if p.metric == "cpu_time_delta" and p.attributes["kind"] == "total"]
    assert deltas == [1_000_000, 1_000_000, 500_000]
    shares = [p.value for p in received if p.metric == "cpu_percent" and p.attributes["kind"] == "total"]
    assert len(shares) == 3


@pytest.mark.parametrize("is_forgotten", [False, True], ids=["listed", "no longer listed"])
def test_a_pod_that_ends_before_its_start_time_is_known(
    node: Node, receiver: DirectReceiver, is_forgotten: bool
) -> None:
    """It is sent once, without that attribute, with all that it used until its last reading."""
    node.read()
    uid = node.start(1)
    waiting = node.told = (replace(node.pods[uid], start_time=None),)
    node.read()
    node.use(uid, 700)
    node.read()
    node.deliver()
    assert points(receiver.requests) == []
    node.end(uid)
    node.told = () if is_forgotten else waiting
    for _ in range(3):
        node.read()
        node.deliver()
    received = node.assert_conserved(receiver.requests)
    assert cpu_time(received, uid)["total"] == 700_000
    assert {"k8s.pod.start_time" in point.resource for point in received} == {False}


def test_a_first_reading_is_a_baseline(node: Node, receiver: DirectReceiver) -> None:
    """A pod that was there before the exporter has memory at once, and CPU points from the second reading on."""
    uid = node.start(1, used_usec=10**9)
    node.read()
    node.deliver()
    assert {point.metric for point in points(receiver.requests)} == {"memory_usage"}
    node.use(uid, 1)
    node.read()
    node.deliver()
    node.assert_conserved(receiver.requests)
