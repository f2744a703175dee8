"""Schema ``semconv``: OpenTelemetry's semantic conventions 1.44; who it is stands on the Resource alone.

What the conventions lack stands under ``k8s.pod.cgroup.``, ``container.cgroup.`` and ``k8s.node.cgroup.`` with the
words of schema ``alumet``: its rows, with time in seconds, and amounts as up-down counters, as the conventions have it.

``….limit.current`` is what the cgroup enforces, ``….desired`` what the API's spec says. No cgroup enforces a request:
``….request.current`` is what the API says that the kubelet has applied, as the conventions have it.

Sources: https://opentelemetry.io/docs/specs/semconv/system/k8s-metrics/ and …/container-metrics/
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from otel_k8s_cgroup.metrics import By, Instrument, Metric, Point
from otel_k8s_cgroup.model import EntityKind
from otel_k8s_cgroup.schemas import alumet

if TYPE_CHECKING:
    from otel_k8s_cgroup.model import Group

_CONTAINERS = frozenset({EntityKind.CONTAINER})
_OTHERS = frozenset(EntityKind) - _CONTAINERS
_SECONDS = 1e-9


def _conventions(
    group: Group, name: str, instrument: Instrument, unit: str, description: str, *points: Point, **more: object
) -> Metric:
    """``more``: other fields of the metric."""
    metric = Metric(name, instrument, unit, description, points, group, "semconv", of_entity=True)
    return replace(metric, **more)  # type: ignore[arg-type] # mypy does not see through it


def _memory(name: str, figure: str, description: str) -> Metric:
    return _conventions("memory", f"memory.{name}", Instrument.UPDOWN, "By", description, Point(figure))


def _of_container(name: str, unit: str, description: str, figure: str, *, is_gauge: bool = False) -> Metric:
    return Metric(
        f"k8s.container.{name}",
        Instrument.GAUGE if is_gauge else Instrument.UPDOWN,
        unit,
        description,
        (Point(figure),),
        "limits",
        "semconv",
        kinds=_CONTAINERS,
        is_double=unit in ("{cpu}", "1"),
    )


def _direction(read: str, write: str) -> tuple[Point, ...]:
    return tuple(Point(figure, (("disk.io.direction", way),)) for way, figure in (("read", read), ("write", write)))


DEFAULT: tuple[Metric, ...] = (
    _conventions(
        "cpu",
        "cpu.time",
        Instrument.COUNTER,
        "s",
        "CPU time used",
        Point("cpu_usage_ns"),
        kinds=_OTHERS,
        scale=_SECONDS,
    ),
    # With modes or without, never both; on cgroup v1 the kernel samples them.
    _conventions(
        "cpu",
        "cpu.time",
        Instrument.COUNTER,
        "s",
        "CPU time used",
        Point("cpu_user_ns", (("cpu.mode", "user"),)),
        Point("cpu_system_ns", (("cpu.mode", "system"),)),
        kinds=_CONTAINERS,
        scale=_SECONDS,
    ),
    _conventions("cpu", "cpu.usage", Instrument.GAUGE, "{cpu}", "Cores used", Point("cpu_usage_cores"), is_double=True),
    _memory("usage", "memory_usage_bytes", "Memory"),
    _memory("working_set", "memory_working_set_bytes", "Memory without inactive file memory"),
    _memory("rss", "anon_bytes", "Anonymous memory"),
    _memory("available", "memory_available_bytes", "What the limit leaves, where there is one"),
    _conventions(
        "memory",
        "paging.faults",
        Instrument.COUNTER,
        "{fault}",
        "Page faults",
        Point("minor_faults", (("system.paging.fault.type", "minor"),)),
        Point("pgmajfault", (("system.paging.fault.type", "major"),)),
    ),
    _conventions("cpu", "uptime", Instrument.GAUGE, "s", "Time since the start", Point("uptime_s"), is_double=True),
)
"""What is sent where no groups are asked for."""

_LIMITS: tuple[Metric, ...] = (
    _of_container("cpu.limit.desired", "{cpu}", "Limit of CPU use, of the API", "api_cpu_limit_cores"),
    _of_container("cpu.limit.current", "{cpu}", "Limit of CPU use, as the cgroup enforces it", "cpu_limit_cores"),
    _of_container("cpu.request.desired", "{cpu}", "Request of CPU, of the API", "api_cpu_request_cores"),
    _of_container(
        "cpu.request.current",
        "{cpu}",
        "Request of CPU that the kubelet has applied, of the API",
        "api_cpu_request_current_cores",
    ),
    _of_container("memory.limit.desired", "By", "Limit of memory, of the API", "api_memory_limit_bytes"),
    _of_container("memory.limit.current", "By", "Limit of memory, as the cgroup enforces it", "memory_max_bytes"),
    _of_container("memory.request.desired", "By", "Request of memory, of the API", "api_memory_request_bytes"),
    _of_container(
        "memory.request.current",
        "By",
        "Request of memory that the kubelet has applied, of the API",
        "api_memory_request_current_bytes",
    ),
    _of_container("cpu.limit.utilization", "1", "Share of the limit used", "cpu_limit_utilization", is_gauge=True),
    _of_container("cpu.request.utilization", "1", "CPU used by request", "cpu_request_utilization", is_gauge=True),
    _of_container("restart.count", "{restart}", "Restarts", "api_restart_count"),
    _of_container("ready", "{container}", "1 where it is ready, else 0", "api_ready"),
)

_DISK = Metric(
    "container.disk.io",
    Instrument.COUNTER,
    "By",
    "Bytes read and written",
    _direction("io_rbytes", "io_wbytes"),
    "io",
    "semconv",
    kinds=_CONTAINERS,
    by=(("system.device", By.NAME_OR_KEY),),
)

_PODS = frozenset({EntityKind.POD})


def _network(name: str, key: str, unit: str, description: str) -> Metric:
    points = (Point(f"network_{way}_{key}", (("network.io.direction", way),)) for way in ("receive", "transmit"))
    return _conventions(
        "network",
        f"network.{name}",
        Instrument.COUNTER,
        unit,
        description,
        *points,
        kinds=_PODS,
        by=(("network.interface.name", By.KEY),),
    )


_NETWORK = (
    _network("io", "bytes", "By", "Bytes received and sent"),
    _network("errors", "errs", "{error}", "Packets that were received or sent wrongly"),
)

# Which the conventions have under a name of theirs, or which say the same again.
_NOT_AGAIN = frozenset(
    {
        *("cpu_time_delta", "cpu_percent", "memory_usage", "cgroup_memory_anonymous", "cgroup_memory_working_set"),
        *("cgroup_memory_pgfault", "cgroup_memory_pgmajfault", "io_pressure_some_total", "io_pressure_full_total"),
        *("network_io", "network_errors"),
    }
)
_CONTROLLERS = ("cpu", "memory", "io", "pids", "hugetlb", "cpuset", "network", "nr")


def _of_cgroup(metric: Metric) -> Metric:
    words = metric.name.removeprefix("cgroup_")
    if not words.startswith(_CONTROLLERS):
        words = f"memory_{words}"
    is_time = metric.unit == "ns"
    # The sum of peaks is no peak.
    is_amount = metric.instrument is Instrument.GAUGE and metric.unit not in ("%", "1") and "peak" not in words
    kinds = metric.kinds
    if metric.name in ("cgroup_io_rbytes", "cgroup_io_wbytes"):
        kinds = _OTHERS  # a container's are container.disk.io
    elif metric.name.endswith(("_desired", "_request_current")):
        kinds = _PODS  # a container's are k8s.container.…
    return replace(
        metric,
        kinds=kinds,
        name="cgroup." + (words if words.startswith("nr_") else words.replace("_", ".", 1)),
        schema="semconv",
        of_entity=True,
        unit="s" if is_time else metric.unit,
        scale=_SECONDS if is_time else None,
        instrument=Instrument.UPDOWN if is_amount else metric.instrument,
    )


METRICS: tuple[Metric, ...] = (
    *DEFAULT,
    *_LIMITS,
    _DISK,
    *_NETWORK,
    *(_of_cgroup(metric) for metric in alumet.METRICS if metric.name not in _NOT_AGAIN),
)
"""All of them."""
