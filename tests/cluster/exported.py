"""What an exporter has sent, held against the kernel and the API."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING

from tests import otlp
from tests.cluster.api import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from tests.cluster.kernel import Life
    from tests.fakes.otlp_receiver import OtlpReceiver
    from tests.otlp import Point

SLACK_NS = 50_000_000
"""Between the moment of a reading and the time that its point tells: between the two, others may have the core."""
ALL_METRICS = {
    "cpu_time_delta",
    "cpu_percent",
    "memory_usage",
    "cgroup_memory_anonymous",
    "cgroup_memory_file",
}


@dataclass(slots=True)
class PodPoints:
    """The points of one pod's cgroup."""

    resources: list[dict[str, str]] = field(default_factory=list)
    """Each Resource that was sent, once."""
    points: list[Point] = field(default_factory=list)

    @property
    def resource(self) -> dict[str, str]:
        (only,) = self.resources
        return only

    def of(self, metric: str, kind: str | None = None) -> list[Point]:
        wanted = [
            point for point in self.points if point.metric == metric and kind in (None, point.attributes.get("kind"))
        ]
        return sorted(wanted, key=lambda point: point.time_ns)

    @property
    def cpu_time_ns(self) -> int:
        return sum(int(point.value) for point in self.of("cpu_time_delta", "total"))

    def disagreements(self, life: Life, *, counted_from_zero: bool) -> list[str]:
        """Points whose CPU time is not what the kernel's counter was at their time. One line each."""
        deltas = self.of("cpu_time_delta", "total")
        if not deltas:
            return [f"{life.path}: no CPU time"]
        base = (0, 0) if counted_from_zero else life.bounds_ns(deltas[0].start_ns, SLACK_NS)
        found = []
        for point, sent_ns in zip(deltas, accumulate(int(point.value) for point in deltas), strict=True):
            least, most = life.bounds_ns(point.time_ns, SLACK_NS)
            if sent_ns + (base[1] or 0) < least or (most is not None and sent_ns + base[0] > most):
                found.append(f"{life.path}: {sent_ns} ns sent (of {base}), the counter was {least} to {most}: {point}")
        return found


class Exported:
    """An exporter's receiver, read pod by pod."""

    def __init__(self, receiver: OtlpReceiver) -> None:
        self._receiver = receiver
        self._pods: dict[str, PodPoints] = {}
        self._read = 0

    def pods(self, since: int | None = None) -> dict[str, PodPoints]:
        """By the uid in the cgroup's path; of all messages, or of those from number ``since`` on."""
        messages = self._receiver.messages
        if since is not None:
            return _add({}, messages[since:])
        # There are hundreds of thousands of points in the end: each is looked at once.
        _add(self._pods, messages[self._read :])
        self._read = len(messages)
        return dict(self._pods)

    @property
    def count(self) -> int:
        """Of the messages so far, to go on from."""
        return len(self._receiver.messages)

    def wait_for(
        self, condition: Callable[[dict[str, PodPoints]], bool], *, since: int | None = None, seconds: float = 30.0
    ) -> dict[str, PodPoints]:
        """The pods, once ``condition`` is true of them."""

        def pods() -> dict[str, PodPoints] | None:
            found = self.pods(since)
            return found if condition(found) else None

        return eventually(pods, seconds)

    def wait_for_pod(self, uid: str, *, since: int | None = None, seconds: float = 30.0) -> PodPoints:
        """What was sent of it since then, once there is something."""
        return self.wait_for(lambda pods: uid in pods, since=since, seconds=seconds)[uid]


def _add(pods: dict[str, PodPoints], messages: Iterable[ExportMetricsServiceRequest]) -> dict[str, PodPoints]:
    for point in otlp.points(messages):
        if "cgroup.path" in point.resource:
            pod = pods.setdefault(point.resource["cgroup.path"].rpartition("/pod")[2], PodPoints())
            pod.points.append(point)
            if point.resource not in pod.resources:
                pod.resources.append(point.resource)
    return pods


def longest_gap_seconds(points: list[Point]) -> float:
    """Between two readings."""
    times = sorted({point.time_ns for point in points})
    return max(((after - before) / 1e9 for before, after in pairwise(times)), default=0.0)
