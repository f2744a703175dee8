"""What the receiver decoded, added up by pod: the rows of the table."""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_k8s_cgroup.demo.receiver import Point, Value

HISTORY = 24


@dataclass(frozen=True, slots=True)
class PodRow:
    """A pod as its points tell it. None: no point told it (yet)."""

    uid: str
    label: str
    """``namespace/name``."""
    qos: str
    static: bool
    cpu_percent: float | None
    cpu_history: tuple[float, ...]
    """The last ``cpu_percent`` points of kind ``total``, the oldest first; at most ``HISTORY``."""
    cpu_time_ns: int | None
    """Sum of the ``cpu_time_delta`` points of kind ``total``."""
    memory_bytes: int | None
    anonymous_bytes: int | None
    points: int
    last_time_unix_nano: int


@dataclass(slots=True)
class _PodState:
    resource: dict[str, Value]
    points: int = 0
    last_time_unix_nano: int = 0
    cpu_time_ns: int | None = None
    cpu_history: deque[float] = field(default_factory=lambda: deque(maxlen=HISTORY))
    gauges: dict[str, int] = field(default_factory=dict)


class PointStore:
    """Adds points up; ``add`` and the rest may be called from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pods: dict[str, _PodState] = {}
        self._pod_points = 0
        self._own_points = 0

    def add(self, points: Iterable[Point]) -> None:
        with self._lock:
            for point in points:
                if point.pod_uid is None:
                    self._own_points += 1
                else:
                    self._pod_points += 1
                    _add(self._pods.setdefault(point.pod_uid, _PodState(point.resource)), point)

    @property
    def pod_points(self) -> int:
        """How many points of pods came in."""
        with self._lock:
            return self._pod_points

    @property
    def own_points(self) -> int:
        """How many points came in that are about the exporter itself."""
        with self._lock:
            return self._own_points

    def rows(self) -> list[PodRow]:
        """A row a pod, in the order of their first points."""
        with self._lock:
            return [_row(uid, state) for uid, state in self._pods.items()]

    def row(self, uid: str) -> PodRow | None:
        """The pod's row; None where no point of it came in."""
        with self._lock:
            state = self._pods.get(uid)
            return _row(uid, state) if state else None


def _add(state: _PodState, point: Point) -> None:
    state.resource = point.resource
    state.points += 1
    state.last_time_unix_nano = max(state.last_time_unix_nano, point.time_unix_nano)
    kind = point.attributes.get("kind")
    match point.metric, point.value:
        case "cpu_time_delta", int(delta_ns) if kind == "total":
            state.cpu_time_ns = (state.cpu_time_ns or 0) + delta_ns
        case "cpu_percent", float(percent) if kind == "total":
            state.cpu_history.append(percent)
        case metric, int(value) if kind is None:
            state.gauges[metric] = value
        case _:
            pass


def _row(uid: str, state: _PodState) -> PodRow:
    resource = state.resource
    path = str(resource.get("cgroup.path", ""))
    history = tuple(state.cpu_history)
    return PodRow(
        uid=uid,
        label=f"{resource.get('k8s.namespace.name')}/{resource.get('k8s.pod.name')}",
        # The kubelet puts the QoS class into the path, of Guaranteed pods none; and a static pod's directory has the
        # hash of its manifest where another's has the API's uid.
        qos="Burstable" if "-burstable" in path else "BestEffort" if "-besteffort" in path else "Guaranteed",
        static=bool(path) and uid.replace("-", "_") not in path,
        cpu_percent=history[-1] if history else None,
        cpu_history=history,
        cpu_time_ns=state.cpu_time_ns,
        memory_bytes=state.gauges.get("memory_usage"),
        anonymous_bytes=state.gauges.get("cgroup_memory_anonymous"),
        points=state.points,
        last_time_unix_nano=state.last_time_unix_nano,
    )
