"""Every way in which the Kubernetes API can fail, over a real socket: what holds meanwhile and afterwards.

The clocks are the test's, so that hours of outage take seconds; only the time limit of a request is real.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest

from tests.fakes.kube_api import PATIENCE_SECONDS, Exchange, body, failing, pod, stream
from tests.fakes.node import SECOND
from tests.faults.cluster import TICK_SECONDS, Cluster
from tests.otlp import points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.fakes.kube_api import Answer
    from tests.otlp import Point


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    made = Cluster(tmp_path)
    yield made
    made.close()


@dataclass(frozen=True)
class Fault:
    """How it begins and ends; ``each_tick`` is done at each tick while it lasts."""

    begin: Callable[[Cluster], object]
    end: Callable[[Cluster], object]
    each_tick: Callable[[Cluster, int], object] = lambda _cluster, _tick: None
    tells: bool | None = False
    """Whether the API tells of the new pod while it lasts; None: as it happens."""
    longest_wait_seconds: float = 30.0
    named_within_seconds: float = 40.0
    """After its end."""
    ticks: int = 60
    most_warnings: int = 5


def answering(lists: Answer | None, watches: Answer | None, **options: Any) -> Fault:
    """Lists and watches are answered so (None: as usual), and what is open ends."""

    def put(cluster: Cluster, lists: Answer | None, watches: Answer | None) -> None:
        cluster.api.always("list", lists)
        cluster.api.always("watch", watches)
        cluster.api.cut()

    return Fault(lambda cluster: put(cluster, lists, watches), lambda cluster: put(cluster, None, None), **options)


def both(answer: Answer, **options: Any) -> Fault:
    return answering(answer, answer, **options)


def flap(cluster: Cluster, tick: int) -> None:
    """Down for two ticks, up for one."""
    if tick % 3 == 1:
        cluster.api.up()
    elif tick % 3 == 2:
        cluster.api.down()


def half_a_list(exchange: Exchange) -> None:
    """Its first page; the second is of a state that was compacted."""
    if "continue" in exchange.request.params:
        exchange.status(410, "expired")
    elif "limit" in exchange.request.params:
        exchange.json({"metadata": {"resourceVersion": "1", "continue": "more"}, "items": [pod("half-a-list")]})
    else:
        exchange.usual()


def blank_lines(exchange: Exchange) -> None:
    """A gateway that keeps a watch open for ever, and holds back what it tells."""
    exchange.stream_head()
    while not exchange.is_over(10):
        exchange.chunk(b"\n")


def without_cache(exchange: Exchange) -> None:
    """So it lists in pages."""
    if "resourceVersion" in exchange.request.params:
        exchange.status(410, "no cache")
    else:
        exchange.usual()


def five_thousand(cluster: Cluster) -> None:
    cluster.api.add(*(pod(f"other-{number}") for number in range(5000)))
    cluster.api.always("list", without_cache)
    cluster.api.always("watch", failing(410))
    cluster.api.cut()


def new_token(cluster: Cluster) -> None:
    cluster.token_file.write_text("second")


def refuse_the_token(cluster: Cluster) -> None:
    cluster.api.token = "second"
    cluster.api.cut()


def set_the_clock(hours: int) -> Callable[[Cluster], None]:
    def change(cluster: Cluster) -> None:
        cluster.node.wall_offset_ns += hours * 3600 * SECOND

    return change


def clock_and_retry_after(cluster: Cluster) -> None:
    """It asks for an hour by a date, of a node whose clock then goes an hour ahead."""
    date = "Fri, 15 Jan 2027 09:00:00 GMT"  # the node's clock begins an hour before
    cluster.api.always("list", failing(503, Retry_After=date))
    cluster.api.always("watch", failing(503, Retry_After=date))
    cluster.api.cut()
    set_the_clock(-1)(cluster)


def clock_is_right_again(cluster: Cluster) -> None:
    set_the_clock(1)(cluster)
    cluster.api.always("list", None)
    cluster.api.always("watch", None)


def mute_until_its_end(cluster: Cluster) -> Answer:
    """A stream that tells nothing, and ends in order when it was asked to."""

    def play(exchange: Exchange) -> None:
        exchange.stream_head()
        with cluster.api.parking():
            cluster.time.until(cluster.time.now + float(exchange.request.params["timeoutSeconds"]))
        exchange.finish()

    return play


def mute(cluster: Cluster) -> None:
    cluster.api.always("watch", mute_until_its_end(cluster))
    cluster.api.cut()


DOWN = Fault(lambda cluster: cluster.api.down(), lambda cluster: cluster.api.up())
TOKEN = Fault(refuse_the_token, new_token)
SILENT = both(Exchange.hang)
GARBAGE = answering(body(b"<html>log in</html>"), stream(b"{not json\n"))

FAULTS: dict[str, Fault] = {
    "down for an hour": replace(DOWN, ticks=720),
    "503 for an hour": both(failing(503, "etcd is down"), ticks=720),
    "429 with Retry-After": both(
        failing(429, Retry_After="3600"), ticks=200, longest_wait_seconds=330.0, named_within_seconds=340.0
    ),
    "flapping": Fault(
        lambda cluster: cluster.api.down(), lambda cluster: cluster.api.up(), flap, tells=None, most_warnings=40
    ),
    "resets": both(Exchange.reset),
    "no answer": SILENT,
    "no answer to a watch": answering(None, Exchange.hang, tells=None),
    # It never ends: the list that is due after a while tells it.
    "a watch that sends nothing": Fault(mute, lambda _cluster: None, named_within_seconds=330.0),
    "a watch of blank lines": answering(None, blank_lines, tells=True, ticks=20),
    "a watch that is half-open": answering(None, stream(then=Exchange.hang), tells=None),
    "401 until the token file changes": TOKEN,
    "403": both(failing(403, "pods is forbidden")),
    "403 to a watch": answering(None, failing(403, "no watching"), tells=True),
    "410 for watches": answering(None, failing(410, "too old"), tells=True),
    "410 for all": both(failing(410, "too old")),
    "410 on a continue": answering(half_a_list, failing(410, "too old"), tells=True),
    "a list of 5000 in pages": Fault(
        five_thousand, answering(None, None).end, tells=True, ticks=8, named_within_seconds=40.0
    ),
    "garbage": GARBAGE,
    "half an answer": both(lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")),
    "clocks that jump": Fault(
        clock_and_retry_after, clock_is_right_again, longest_wait_seconds=330.0, named_within_seconds=340.0, ticks=100
    ),
}


def go_through(cluster: Cluster, fault: Fault, *, new: str, known: list[str]) -> None:
    """While it lasts: ticks stay on their grid, those that are known are measured; the new pod is not, if it is hidden.
    After it, the new one is named in time, and nothing was lost.
    """
    named = cluster.ticks
    while not any(point.pod == new for point in points(cluster.receiver.requests[-1:])):
        cluster.settle(lambda: cluster.told(new))
        cluster.tick()
        assert (cluster.ticks - named - 1) * TICK_SECONDS <= fault.named_within_seconds
    for _ in range(3):
        cluster.tick()
    received = cluster.node.assert_conserved(cluster.receiver.requests, gaps=fault is FAULTS["clocks that jump"])
    assert {point.resource["k8s.pod.name"] for point in received if point.pod == new} == {f"pod-{UUID(new).int}"}
    assert max(cluster.time.waits, default=0) <= fault.longest_wait_seconds
    assert sum(cluster.watcher.stats.api_requests.values()) <= 60 + cluster.time.now
    for uid in known:
        assert_on_the_grid([point for point in received if point.pod == uid], cluster.ticks)


def assert_on_the_grid(received: list[Point], ticks: int) -> None:
    """A pod that was known has a point at each tick, all of them five seconds apart but where the clock was set."""
    times = [point.time_ns for point in received if point.metric == "memory_usage"]
    assert len(times) == ticks
    apart = [(after - before) // SECOND for before, after in pairwise(times)]
    assert [seconds for seconds in apart if seconds != TICK_SECONDS] in ([], [5 - 3600, 5 + 3600])


@pytest.mark.parametrize("name", FAULTS)
def test_the_api_fails(cluster: Cluster, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Known pods are measured with what is known of them; a new one is named afterwards, with all its CPU time."""
    fault = FAULTS[name]
    old = cluster.start(1, used_usec=10**6)
    cluster.first_look()
    other = cluster.start(2)
    cluster.watcher.start()
    assert cluster.watcher.synced.wait(PATIENCE_SECONDS)
    cluster.api.wait_for("watch", 1)
    for _ in range(3):
        cluster.tick()
    fault.begin(cluster)
    new = ""
    for tick in range(fault.ticks):
        if tick == 2:
            new = cluster.start(3)
        if tick == 4:
            cluster.end(other)
        fault.each_tick(cluster, tick)
        cluster.settle()
        cluster.tick()
    assert fault.tells in (None, any(point.pod == new for point in cluster.points()))
    fault.end(cluster)
    go_through(cluster, fault, new=new, known=[old])
    assert len([record for record in caplog.records if record.levelname == "WARNING"]) <= fault.most_warnings


@pytest.mark.parametrize("fault", [DOWN, TOKEN, SILENT, GARBAGE], ids=["down", "401", "no answer", "garbage"])
def test_the_api_fails_from_the_start(cluster: Cluster, fault: Fault) -> None:
    """Nothing is measured that has no name; then all is, a pod that was there before from its first reading, one that
    was born meanwhile from its birth.
    """
    cluster.start(1, used_usec=10**6)
    cluster.first_look()
    fault.begin(cluster)
    cluster.watcher.start()
    new = ""
    for tick in range(40):
        if tick == 2:
            new = cluster.start(2)
        cluster.settle()
        cluster.tick()
    assert cluster.receiver.requests == []
    fault.end(cluster)
    go_through(cluster, fault, new=new, known=[])
