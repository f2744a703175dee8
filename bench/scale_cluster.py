"""Thousands of agents and their API servers, simulated: when lists are asked for, refused and answered.

The agents wait by the exporter's own ``Retry`` and ``WatchTimes``; tests/bench/test_scale.py holds the steps between to
those of the real client. The API servers admit as Kubernetes 1.34 does by default, as read in its source
(staging/src/k8s.io/apiserver/pkg: ``apis/flowcontrol/bootstrap/default.go``, ``util/flowcontrol``): agents are one
ServiceAccount, so one flow at the priority level ``workload-low``, which has 245 of a server's 600 seats; a list of
pods takes 10 of them in a large cluster; six queues of 50 hold what must wait; what is beyond gets 429 and a
Retry-After that doubles while that goes on.
"""

from __future__ import annotations

import heapq
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable
from otel_k8s_cgroup.kube import WatchTimes
from otel_k8s_cgroup.kube.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LISTS_AT_ONCE = 245 // 10
LISTS_QUEUED = 6 * 50
_MAX_RETRY_AFTER_SECONDS = 32
_STREAMS_BEFORE_LIST = 3


class ApiServers:
    """``servers`` of them behind one address; a list takes each ``list_seconds``; none answers in ``down``."""

    def __init__(self, servers: int, list_seconds: float, down: tuple[float, float] = (0.0, 0.0)) -> None:
        self._list_seconds = list_seconds
        self._down = down
        self._free_at = [0.0] * (LISTS_AT_ONCE * servers)
        self._places = (LISTS_AT_ONCE + LISTS_QUEUED) * servers
        self._ends: deque[float] = deque()
        self._refused: Counter[int] = Counter()
        self._retry_after = 1
        self._raised_at = -_MAX_RETRY_AFTER_SECONDS

    def is_down(self, now: float) -> bool:
        return self._down[0] <= now < self._down[1]

    def list(self, now: float) -> float:
        """When a list that is asked for now is answered. Raises ApiUnreachable, or ApiStatusError (429)."""
        if self.is_down(now):
            raise ApiUnreachable("", "down")
        while self._ends and self._ends[0] <= now:
            self._ends.popleft()
        if len(self._ends) >= self._places:
            raise ApiStatusError("", 429, "too many requests", float(self._refusal(int(now))))
        end = max(now, heapq.heappop(self._free_at)) + self._list_seconds
        heapq.heappush(self._free_at, end)
        self._ends.append(end)
        return end

    def _refusal(self, second: int) -> int:
        """The Retry-After, as the ``droppedRequestsTracker`` adapts it at the first refusal of a second."""
        if second not in self._refused:
            lately = sum(self._refused[second - ago] for ago in range(1, self._retry_after + 1))
            if second - self._raised_at >= self._retry_after and lately >= 3 * self._retry_after:
                self._retry_after = min(_MAX_RETRY_AFTER_SECONDS, 2 * self._retry_after)
                self._raised_at = second
            elif lately < self._retry_after:
                self._retry_after = max(1, self._retry_after - 1)
        self._refused[second] += 1
        return self._retry_after


@dataclass(slots=True)
class Lists:
    """What the API servers saw: moments in seconds."""

    asked: list[float] = field(default_factory=list)
    """Those that a server was there to take."""
    answered: list[float] = field(default_factory=list)
    refused: int = 0
    in_vain: int = 0
    """Connections that nobody took."""


class _Agent:
    """What ``kube.pods`` and ``kube.watch`` do until the pods are listed."""

    def __init__(self, cluster: _Cluster) -> None:
        self._cluster = cluster
        self._listing = Retry("list", wait=self._wait, jitter=cluster.jitter)
        self._watching = Retry("watch", wait=self._wait, jitter=cluster.jitter, tolerated=_STREAMS_BEFORE_LIST)
        self._has_version = False

    def start(self, at: float, spread_seconds: float) -> None:
        self._cluster.schedule(at + spread_seconds * self._cluster.jitter(), self._list)

    def lose_stream(self) -> None:
        """Its watch broke just now."""
        self._has_version = True
        self._watching.failed(ApiUnreachable("", "the stream broke"))

    def _wait(self, seconds: float) -> None:
        self._cluster.waits.append(seconds)
        may_resume = self._has_version and self._watching.failures < _STREAMS_BEFORE_LIST
        self._cluster.schedule(self._cluster.now + seconds, self._resume if may_resume else self._list)

    def _resume(self) -> None:
        if self._cluster.servers.is_down(self._cluster.now):
            self._cluster.lists.in_vain += 1
            self._watching.failed(ApiUnreachable("", "down"))
        else:
            # A server that has just started remembers no older version.
            self._has_version = False
            self._watching.failed(ApiStatusError("", 410, "too old resource version"))

    def _list(self) -> None:
        lists = self._cluster.lists
        self._has_version = False
        try:
            answered = self._cluster.servers.list(self._cluster.now)
        except ApiUnreachable as error:
            lists.in_vain += 1
            self._listing.failed(error)
        except ApiStatusError as error:
            lists.asked.append(self._cluster.now)
            lists.refused += 1
            self._listing.failed(error)
        else:
            lists.asked.append(self._cluster.now)
            lists.answered.append(answered)


class _Cluster:
    """Simulated time, and who does what next."""

    def __init__(self, servers: ApiServers, jitter: Callable[[], float]) -> None:
        self.servers = servers
        self.jitter = jitter
        self.now = 0.0
        self.lists = Lists()
        self.waits: list[float] = []
        self._due: list[tuple[float, int, Callable[[], None]]] = []
        self._scheduled = 0

    def schedule(self, at: float, do: Callable[[], None]) -> None:
        self._scheduled += 1  # the first that was scheduled goes first, and no two actions are compared
        heapq.heappush(self._due, (at, self._scheduled, do))

    def run(self, actions: int | None = None) -> None:
        """Until nothing is due, or so many actions were done."""
        while self._due and actions != 0:
            self.now, _, do = heapq.heappop(self._due)
            do()
            actions = None if actions is None else actions - 1


def starts(
    at_seconds: Sequence[float],
    servers: ApiServers,
    jitter: Callable[[], float],
    spread_seconds: float = WatchTimes().start_seconds,
) -> Lists:
    """Agents that start at these moments, until each has its list. ``jitter``: 0 to 1."""
    cluster = _Cluster(servers, jitter)
    for at in at_seconds:
        _Agent(cluster).start(at, spread_seconds)
    cluster.run()
    return cluster.lists


def outage(agents: int, servers: ApiServers, jitter: Callable[[], float]) -> Lists:
    """Agents whose streams all break at 0, when ``servers`` go down, until each has a list again."""
    cluster = _Cluster(servers, jitter)
    for _ in range(agents):
        _Agent(cluster).lose_stream()
    cluster.run()
    return cluster.lists


def waits_of_one(servers: ApiServers, count: int) -> list[float]:
    """The first waits of an agent whose stream broke, the longest that jitter makes: to hold beside the client's."""
    cluster = _Cluster(servers, lambda: 1.0)
    _Agent(cluster).lose_stream()
    cluster.run(count)
    return cluster.waits[:count]
