"""Points become rows by what they say, and by nothing else."""

from __future__ import annotations

from typing import Any

from otel_k8s_cgroup.demo.receiver import Point
from otel_k8s_cgroup.demo.store import HISTORY, PodRow, PointStore

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
PATH = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podd75d892c_9bb2_4b9c_8ce2_7868eb91e665.slice"


def _point(metric: str, value: Any, *, kind: str | None = None, time: int = 1, path: str = PATH) -> Point:
    resource = {
        "k8s.pod.uid": UID,
        "k8s.namespace.name": "shop",
        "k8s.pod.name": "cart",
        "cgroup.path": path,
    }
    return Point(time, None, metric, "1", value, {"kind": kind} if kind else {}, {**resource})


def _row(*points: Point) -> PodRow:
    store = PointStore()
    store.add(points)
    (row,) = store.rows()
    assert store.row(UID) == row
    return row


def test_cpu_time_is_summed_and_the_rest_is_the_latest() -> None:
    """Deltas of kind total add up; a gauge is what its last point said; the kinds user and system stay out of it."""
    row = _row(
        _point("cpu_time_delta", 100, kind="total", time=10),
        _point("cpu_time_delta", 90, kind="user", time=10),
        _point("cpu_percent", 12.5, kind="total", time=10),
        _point("cpu_percent", 11.0, kind="system", time=10),
        _point("memory_usage", 5, time=10),
        _point("cpu_time_delta", 23, kind="total", time=20),
        _point("memory_usage", 7, time=20),
        _point("cgroup_memory_anonymous", 3, time=20),
    )
    assert row.cpu_time_ns == 123
    assert row.cpu_percent == 12.5
    assert row.memory_bytes == 7
    assert row.anonymous_bytes == 3
    assert row.points == 8
    assert row.last_time_unix_nano == 20


def test_what_no_point_told_is_absent() -> None:
    """Never 0."""
    row = _row(_point("memory_usage", 5))
    assert row.cpu_time_ns is None
    assert row.cpu_percent is None
    assert row.anonymous_bytes is None


def test_history_is_bounded() -> None:
    """Only the newest percentages are kept, in their order."""
    row = _row(*(_point("cpu_percent", float(n), kind="total") for n in range(HISTORY + 5)))
    assert row.cpu_history == tuple(float(n) for n in range(5, HISTORY + 5))


def test_qos_and_static_are_read_off_the_cgroup_path() -> None:
    """Guaranteed pods have no level; a static pod's directory is not named after its uid."""
    assert (_row(_point("memory_usage", 1)).qos, _row(_point("memory_usage", 1)).static) == ("Burstable", False)
    besteffort = _row(_point("memory_usage", 1, path=PATH.replace("burstable", "besteffort")))
    assert besteffort.qos == "BestEffort"
    guaranteed = "/kubepods.slice/kubepods-pod3e61c214bc3ed9ff81e21474dd6cba17.slice"
    static = _row(_point("memory_usage", 1, path=guaranteed))
    assert (static.qos, static.static) == ("Guaranteed", True)


def test_points_of_no_pod_are_counted_but_have_no_row() -> None:
    """The exporter's own metrics."""
    store = PointStore()
    store.add([Point(1, None, "otel_k8s_cgroup.ticks", "1", 3, {}, {"service.name": "otel-k8s-cgroup"})])
    assert (store.pod_points, store.own_points) == (0, 1)
    assert store.rows() == []
    assert store.row(UID) is None
