"""Schema ``cadvisor``: what the kubelet's ``/metrics/cadvisor`` has of a cgroup's own figures, by its names.

The names are OTLP's: Prometheus' OTLP receiver appends a unit (``s`` is ``_seconds``, ``By`` is ``_bytes``, what is in
braces is nothing) and, to what only grows, ``_total``, which makes cAdvisor's of them. Hence a metric whose name there
has no unit has none here, and the one counter of cAdvisor's that does not end in ``_total`` is an up-down counter.

The points' labels, those of ``cadvisor_labels`` beside those of the rows, are the kubelet's. Counters are
cumulative, as Prometheus needs them.

Where cAdvisor writes 0 for what there is none of (no limit) or what it cannot read, there is no point.

Sources: https://github.com/google/cadvisor/blob/v0.53.0/metrics/prometheus.go,
https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/kubelet/server/server.go and
https://github.com/prometheus/otlptranslator/blob/v1.0.0/metric_namer.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.figures import START
from otel_k8s_cgroup.metrics import By, Instrument, Metric, Point
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from otel_k8s_cgroup.model import Group

_SECONDS_OF_NS = 1e-9


def _gauge(group: Group, name: str, unit: str, figure: str, description: str) -> Metric:
    return Metric(name, Instrument.GAUGE, unit, description, (Point(figure),), group, "cadvisor")


def _count(group: Group, name: str, unit: str, description: str, *points: Point) -> Metric:
    return Metric(name, Instrument.COUNTER, unit, description, points, group, "cadvisor", is_delta=False)


def _seconds(group: Group, name: str, description: str, point: Point) -> Metric:
    """A counter of time, whose figure is in nanoseconds."""
    return Metric(
        name,
        Instrument.COUNTER,
        "s",
        description,
        (point,),
        group,
        "cadvisor",
        scale=_SECONDS_OF_NS,
        is_delta=False,
    )


def _by_device(name: str, unit: str, figure: str, description: str) -> Metric:
    by = (("device", By.PATH),)
    return Metric(
        name, Instrument.COUNTER, unit, description, (Point(figure),), "io", "cadvisor", is_delta=False, by=by
    )


def _failures() -> tuple[Point, ...]:
    """Both scopes have the same value: the figures count what is in cgroups below, too."""
    return tuple(
        Point(figure, (("failure_type", figure), ("scope", scope)))
        for scope in ("container", "hierarchy")
        for figure in ("pgfault", "pgmajfault")
    )


DEFAULT: tuple[Metric, ...] = (
    # The kubelet has cAdvisor leave out the single CPUs.
    _seconds("cpu", "container_cpu_usage", "CPU time used", Point("cpu_usage_ns", (("cpu", "total"),))),
    _seconds("cpu", "container_cpu_user", "CPU time used in user mode", Point("cpu_user_ns")),
    _seconds("cpu", "container_cpu_system", "CPU time used in the kernel", Point("cpu_system_ns")),
    Metric(
        "container_start_time",
        Instrument.GAUGE,
        "s",
        "When it began, by the API, since 1970",
        (Point(START),),
        "cpu",
        "cadvisor",
        # That of a level would be when its cgroup was made, which nobody says.
        kinds=frozenset({EntityKind.POD, EntityKind.CONTAINER}),
        scale=_SECONDS_OF_NS,
    ),
    _gauge("memory", "container_memory_usage", "By", "memory_usage_bytes", "Memory"),
    _gauge(
        "memory",
        "container_memory_working_set",
        "By",
        "memory_working_set_bytes",
        "Memory without page cache that was not used lately",
    ),
    _gauge("memory", "container_memory_max_usage", "By", "memory_peak_bytes", "Most memory at once"),
    _gauge("memory", "container_memory_rss", "", "anon_bytes", "Anonymous memory, in bytes"),
    _gauge("memory", "container_memory_cache", "", "file_bytes", "Page cache, in bytes"),
    _gauge("memory", "container_memory_mapped_file", "", "file_mapped_bytes", "Page cache that is mapped, in bytes"),
    _gauge(
        "memory",
        "container_memory_total_active_file",
        "By",
        "active_file_bytes",
        "Page cache that was used lately",
    ),
    _gauge(
        "memory",
        "container_memory_total_inactive_file",
        "By",
        "inactive_file_bytes",
        "Page cache that was not used lately",
    ),
    _gauge("memory", "container_memory_swap", "", "memory_swap_current_bytes", "Swap, in bytes"),
    _gauge("memory", "container_memory_kernel_usage", "", "kernel_bytes", "Memory of the kernel, in bytes"),
)
"""What is sent by default: groups ``cpu`` and ``memory``."""

METRICS: tuple[Metric, ...] = (
    *DEFAULT,
    # Absent where there is no limit.
    _gauge("limits", "container_spec_cpu_quota", "", "cpu_quota_us", "CPU time of a period that may be used, in µs"),
    _gauge("limits", "container_spec_cpu_period", "", "cpu_period_us", "Period of the CPU quota, in µs"),
    # On v2 the kernel has no shares, and the weight is not converted: the formula differs between runtimes.
    _gauge("limits", "container_spec_cpu_shares", "", "cpu_shares", "CPU shares against other cgroups (cgroup v1)"),
    _gauge("limits", "container_spec_memory_limit", "By", "memory_max_bytes", "Limit of memory"),
    _gauge(
        "limits",
        "container_spec_memory_reservation_limit",
        "By",
        "memory_reservation_bytes",
        "Memory that is not reclaimed (cgroup v1: its soft limit)",
    ),
    _gauge(
        "limits",
        "container_spec_memory_swap_limit",
        "By",
        "memory_swap_limit_bytes",
        "Limit of swap (cgroup v1: of memory and swap together)",
    ),
    _gauge("limits", "container_threads_max", "{thread}", "pids_max", "Limit of threads"),
    _count("throttling", "container_cpu_cfs_periods", "{period}", "Periods of the CPU quota", Point("nr_periods")),
    _count(
        "throttling",
        "container_cpu_cfs_throttled_periods",
        "{period}",
        "Periods in which the CPU quota was used up",
        Point("nr_throttled"),
    ),
    _seconds("throttling", "container_cpu_cfs_throttled", "Time throttled by the CPU quota", Point("throttled_ns")),
    _count(
        "events",
        "container_oom_events",
        "{event}",
        "Processes killed for lack of memory",
        Point("memory_events_oom_kill"),
    ),
    Metric(
        "container_memory_failcnt",
        Instrument.UPDOWN,
        "",
        "How often the limit of memory was hit (cgroup v1)",
        (Point("memory_failcnt"),),
        "events",
        "cadvisor",
    ),
    _count("events", "container_memory_failures", "{fault}", "Page faults", *_failures()),
    _by_device("container_fs_reads_bytes", "By", "io_rbytes", "Bytes read"),
    _by_device("container_fs_reads", "{operation}", "io_rios", "Reads"),
    _by_device("container_fs_writes_bytes", "By", "io_wbytes", "Bytes written"),
    _by_device("container_fs_writes", "{operation}", "io_wios", "Writes"),
    # A cgroup's pids are tasks: threads count.
    _gauge("pids", "container_threads", "{thread}", "pids_current", "Threads"),
    *(
        _seconds(
            "pressure",
            f"container_pressure_{resource}_{verb}",
            f"Time in which {whose} waited for {named}",
            Point(f"{resource}_pressure_{kind}_total_ns"),
        )
        for resource, named in (("cpu", "the CPU"), ("memory", "memory"), ("io", "I/O"))
        for verb, kind, whose in (("waiting", "some", "some tasks"), ("stalled", "full", "all tasks"))
    ),
    *(
        Metric(
            f"container_network_{way}_{name}",
            Instrument.COUNTER,
            unit,
            f"{said} {verb}",
            (Point(f"network_{way}_{key}"),),
            "network",
            "cadvisor",
            kinds=frozenset({EntityKind.POD}),
            is_delta=False,
            by=(("interface", By.KEY),),
        )
        for way, verb in (("receive", "received"), ("transmit", "sent"))
        for name, key, unit, said in (
            ("bytes", "bytes", "By", "Bytes"),
            ("packets", "packets", "{packet}", "Packets"),
            ("errors", "errs", "{error}", "Errors of packets that were"),
            ("packets_dropped", "drop", "{packet}", "Packets dropped that were to be"),
        )
    ),
)
"""All."""
