"""What came out at the far end of the collector, and what of it counts."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from tests import otlp
from tests.fakes.otlp_receiver import Answer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tests.fakes.otlp_receiver import Received

OWN = "otel_k8s_cgroup."


class Series(NamedTuple):
    """Of ``cpu_time_delta``. By the cgroup: a static pod whose mirror was made anew has another uid, and goes on."""

    path: str
    kind: str


class Delta(NamedTuple):
    """One point of ``cpu_time_delta``."""

    start_ns: int
    time_ns: int
    value: int
    came_ns: int
    """When it was received, as the others on the wall clock."""


class Absence(NamedTuple):
    """When there was no cgroup at a path, on the wall clock."""

    from_ns: int
    to_ns: int


class Told(NamedTuple):
    """The deltas of one series: no two of ``once`` overlap, and what ``twice`` has is in ``once`` too."""

    once: list[Delta]
    twice: list[Delta]
    gaps: list[tuple[Delta, Delta]]
    """Two neighbours of ``once`` between which there is time that no delta covers."""

    @property
    def sum(self) -> int:
        return sum(delta.value for delta in self.once)


def told(deltas: Iterable[Delta], absences: Sequence[Absence] = ()) -> Told:
    """Tells what was sent once from what was sent again, from the newest on: a sender that does not know what arrived
    goes on from an older point, so of what overlaps the later sent is the wider or the same.

    A delta that goes over an absence is of the cgroup after it, from zero on: it covers nothing of the one before, of
    which more may have arrived than its sender knew when it was last saved.
    """
    result = Told([], [], [])
    deltas = [
        delta._replace(
            start_ns=max([delta.start_ns, *(each.to_ns for each in absences if each.to_ns <= delta.time_ns)])
        )
        for delta in deltas
    ]
    for delta in sorted(deltas, key=lambda delta: (delta.time_ns, delta.came_ns), reverse=True):
        after = result.once[-1] if result.once else None
        if after is not None and delta.time_ns > after.start_ns:
            result.twice.append(delta)
            continue
        if after is not None and delta.time_ns < after.start_ns:
            result.gaps.append((delta, after))
        result.once.append(delta)
    return result


class Arrivals:
    """Sums up requests as they come, for far more of them than could be kept. ``respond`` is an ``OtlpReceiver``'s."""

    def __init__(self, clock: Callable[[], int] = time.time_ns) -> None:
        self.points = 0
        """Of pods."""
        self.series: set[object] = set()
        """All that had a point."""
        self.names: dict[str, set[str]] = defaultdict(set)
        """A cgroup's path → the names of the pods under which its points came."""
        self.negative: list[Delta] = []
        self._clock = clock
        self._changed = threading.Condition()
        self._deltas: dict[Series, list[Delta]] = defaultdict(list)
        self._newest_ns: dict[str, int] = {}
        self._own: dict[tuple[str, str], float] = {}

    def respond(self, request: Received) -> Answer:
        came_ns = self._clock()
        points = otlp.points([request.message])
        with self._changed:
            for point in points:
                self._take(point, came_ns)
            self._changed.notify_all()
        return Answer(kept=False)

    def _take(self, point: otlp.Point, came_ns: int) -> None:
        if not point.pod:
            name = " ".join([point.metric.removeprefix(OWN), *point.attributes.values()])
            self._own[point.resource["service.instance.id"], name] = point.value
            return
        self.points += 1
        self.series.add(point.series)
        self.names[point.resource["cgroup.path"]].add(point.resource.get("k8s.pod.name", ""))
        if point.metric == "cpu_time_delta":
            series = Series(point.resource["cgroup.path"], point.attributes["kind"])
            delta = Delta(point.start_ns, point.time_ns, int(point.value), came_ns)
            self._deltas[series].append(delta)
            self._newest_ns[series.path] = max(point.time_ns, self._newest_ns.get(series.path, 0))
            if delta.value < 0 or delta.start_ns > delta.time_ns:
                self.negative.append(delta)

    def newest_ns(self, path: str) -> int:
        """The time of the newest CPU point of the cgroup, 0 where there is none."""
        with self._changed:
            return self._newest_ns.get(path, 0)

    @property
    def cpu_series(self) -> set[Series]:
        with self._changed:
            return set(self._deltas)

    def told(self, series: Series, absences: Sequence[Absence] = ()) -> Told:
        with self._changed:
            deltas = list(self._deltas.get(series, ()))
        return told(deltas, absences)

    def own(self) -> dict[str, float]:
        """What the exporter's processes said of themselves, all of them together, by name and attributes."""
        total: dict[str, float] = defaultdict(float)
        with self._changed:
            for (_, name), value in self._own.items():
                total[name] += value
        return total

    def wait_for(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        """Blocks until it is true, which only what arrives can make it; false after that time."""
        end = time.monotonic() + timeout_seconds
        while not predicate():
            with self._changed:
                # Whatever came since the predicate was looked at is seen a little later.
                self._changed.wait(0.2)
            if time.monotonic() > end:
                return False
        return True
