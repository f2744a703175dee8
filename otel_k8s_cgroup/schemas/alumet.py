"""Schema ``alumet``: Alumet's names, and ``cgroup_<controller>_<the kernel's key>`` where it has none.

The first seven, which are sent by default, have the meanings of Alumet's documentation until 2025. Its ``cpu_percent``
is 100 where all cores are used fully since February 2026 (``cpu_percent_of``); ours is 100 where one core is, as it was
documented before. On cgroup v1 the kernel samples whether time was the user's or the system's, so there ``system`` and
``user`` do not add up to ``total``, which alone is exact.

All counters are of delta temporality, and time is in nanoseconds.

Source: https://github.com/alumet-dev/alumet/blob/main/plugins/cgroups/k8s/README.md
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.metrics import By, Instrument, Metric, Point
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from otel_k8s_cgroup.model import Group


def _by_attribute(attribute: str, **figures: str) -> tuple[Point, ...]:
    """A point for each value of ``attribute``."""
    return tuple(Point(figure, ((attribute, value),)) for value, figure in figures.items())


def _amount(group: Group, name: str, figure: str, unit: str, description: str, *, is_double: bool = False) -> Metric:
    return Metric(name, Instrument.GAUGE, unit, description, (Point(figure),), group, is_double=is_double)


def _count(group: Group, name: str, unit: str, description: str, *points: Point | str) -> Metric:
    of = tuple(Point(point) if isinstance(point, str) else point for point in points)
    return Metric(name, Instrument.COUNTER, unit, description, of, group)


_MEMORY: tuple[tuple[str, str, str], ...] = (
    ("cgroup_memory_working_set", "memory_working_set_bytes", "Memory without inactive file memory"),
    ("cgroup_memory_peak", "memory_peak_bytes", "Most memory at once since the cgroup was made"),
    ("cgroup_memory_swap_current", "memory_swap_current_bytes", "Swap"),
    ("cgroup_memory_swap_peak", "memory_swap_peak_bytes", "Most swap at once since the cgroup was made"),
    ("cgroup_memory_inactive_anon", "inactive_anon_bytes", "Anonymous memory that was not used lately"),
    ("cgroup_memory_active_anon", "active_anon_bytes", "Anonymous memory that was used lately"),
    ("cgroup_memory_inactive_file", "inactive_file_bytes", "Page cache that was not used lately"),
    ("cgroup_memory_active_file", "active_file_bytes", "Page cache that was used lately"),
    ("cgroup_memory_unevictable", "unevictable_bytes", "Memory that cannot be reclaimed"),
    ("cgroup_memory_file_mapped", "file_mapped_bytes", "Page cache that is mapped"),
    ("cgroup_memory_file_dirty", "file_dirty_bytes", "Page cache that is not written yet"),
    ("cgroup_memory_file_writeback", "file_writeback_bytes", "Page cache that is being written"),
    ("cgroup_memory_shmem", "shmem_bytes", "Page cache of shared memory and tmpfs"),
    ("cgroup_memory_slab", "slab_bytes", "The kernel's data structures"),
    ("cgroup_slab_reclaimable", "slab_reclaimable_bytes", "The kernel's data structures that can be reclaimed"),
    (
        "cgroup_memory_slab_unreclaimable",
        "slab_unreclaimable_bytes",
        "The kernel's data structures that cannot be reclaimed",
    ),
    ("cgroup_memory_sock", "sock_bytes", "Buffers of sockets"),
    ("cgroup_memory_kernel", "kernel_bytes", "All memory of the kernel for the cgroup"),
)

_LIMITS: tuple[tuple[str, str, str, str], ...] = (
    ("memory_max", "memory_max_bytes", "By", "Limit of memory"),
    ("cgroup_memory_high", "memory_high_bytes", "By", "Memory above which the cgroup is slowed down"),
    ("cgroup_memory_low", "memory_low_bytes", "By", "Memory that is reclaimed only where nothing else can be"),
    ("cgroup_memory_min", "memory_min_bytes", "By", "Memory that is never reclaimed"),
    ("cgroup_memory_soft_limit", "memory_soft_limit_bytes", "By", "Soft limit of memory (cgroup v1)"),
    ("cgroup_memory_swap_max", "memory_swap_max_bytes", "By", "Limit of swap"),
    ("cgroup_memory_memsw_limit", "memory_memsw_limit_bytes", "By", "Limit of memory and swap together (cgroup v1)"),
    ("cgroup_cpu_weight", "cpu_weight", "1", "Weight against other cgroups"),
    ("cgroup_cpu_shares", "cpu_shares", "1", "Shares against other cgroups (cgroup v1)"),
    ("cgroup_cpuset_cpus", "cpuset_cpus", "{cpu}", "CPUs that may be used"),
    ("cgroup_pids_max", "pids_max", "{process}", "Limit of processes and threads"),
)

_CONTAINERS = frozenset({EntityKind.CONTAINER})
_PODS_AND_CONTAINERS = _CONTAINERS | {EntityKind.POD}
_OF_API: tuple[tuple[str, str, str, frozenset[EntityKind]], ...] = (
    ("limit_desired", "limit", "Limit of {}", _PODS_AND_CONTAINERS),
    ("request_desired", "request", "Request of {}", _PODS_AND_CONTAINERS),
    ("request_current", "request_current", "Request of {} that the kubelet has applied", _PODS_AND_CONTAINERS),
    ("request_allocated", "request_allocated", "Request of {} that the node has admitted", _CONTAINERS),
)
"""A resize that waits for the node is desired and not allocated; one that goes on is allocated and not current."""

_IO: tuple[tuple[str, str, str], ...] = (
    ("rbytes", "By", "Bytes read"),
    ("wbytes", "By", "Bytes written"),
    ("dbytes", "By", "Bytes discarded"),
    ("rios", "{operation}", "Reads"),
    ("wios", "{operation}", "Writes"),
    ("dios", "{operation}", "Discards"),
)

_AVERAGES = ("avg10", "avg60", "avg300")
_RESOURCES = ("cpu", "memory", "io")


def _pressure(resource: str) -> tuple[Metric, ...]:
    figure = f"{resource}_pressure"
    kinds = {kind: f"{figure}_{kind}" for kind in ("some", "full")}
    return (
        _count(
            "pressure",
            f"cgroup_{figure}_time",
            "ns",
            "Time in which tasks waited: some of them, or all",
            *_by_attribute("type", **{kind: f"{of}_total_ns" for kind, of in kinds.items()}),
        ),
        *(
            Metric(
                f"cgroup_{figure}_{average}",
                Instrument.GAUGE,
                "%",
                f"Share of the last {average.removeprefix('avg')} seconds in which tasks waited",
                _by_attribute("type", **{kind: f"{of}_{average}_percent" for kind, of in kinds.items()}),
                "pressure",
                is_double=True,
            )
            for average in _AVERAGES
        ),
    )


DEFAULT: tuple[Metric, ...] = (
    _count(
        "cpu",
        "cpu_time_delta",
        "ns",
        "CPU time used; on cgroup v1 only kind total is exact",
        *_by_attribute("kind", total="cpu_usage_ns", system="cpu_system_ns", user="cpu_user_ns"),
    ),
    Metric(
        "cpu_percent",
        Instrument.GAUGE,
        "%",
        "CPU use, one core used fully = 100; on cgroup v1 only kind total is exact",
        _by_attribute("kind", total="cpu_usage_percent", system="cpu_system_percent", user="cpu_user_percent"),
        "cpu",
        is_double=True,
    ),
    _amount("memory", "memory_usage", "memory_usage_bytes", "By", "Memory"),
    _amount("memory", "cgroup_memory_anonymous", "anon_bytes", "By", "Anonymous memory"),
    _amount("memory", "cgroup_memory_file", "file_bytes", "By", "Page cache"),
    _amount("memory", "cgroup_memory_kernel_stack", "kernel_stack_bytes", "By", "Kernel stacks"),
    _amount("memory", "cgroup_memory_pagetables", "pagetables_bytes", "By", "Page tables"),
)
"""What is sent where no groups are asked for."""

METRICS: tuple[Metric, ...] = (
    *DEFAULT,
    *(_amount("memory", name, figure, "By", description) for name, figure, description in _MEMORY),
    Metric(
        "cgroup_nr_dying_descendants",
        Instrument.GAUGE,
        "{cgroup}",
        "Cgroups that are removed and still hold memory",
        (Point("nr_dying_descendants"),),
        "memory",
        kinds=frozenset({EntityKind.NODE, EntityKind.QOS}),
    ),
    _amount("limits", "cgroup_cpu_max", "cpu_limit_cores", "{cpu}", "Limit of CPU use, in cores", is_double=True),
    *(_amount("limits", name, figure, unit, description) for name, figure, unit, description in _LIMITS),
    *(
        Metric(
            f"{resource}_{name}",
            Instrument.GAUGE,
            unit,
            f"{description.format(named)}, of the API",
            (Point(f"api_{resource}_{figure}_{unit_of_figure}"),),
            "limits",
            kinds=kinds,
            is_double=unit == "{cpu}",
        )
        for resource, named, unit_of_figure, unit in (
            ("cpu", "CPU", "cores", "{cpu}"),
            ("memory", "memory", "bytes", "By"),
        )
        for name, figure, description, kinds in _OF_API
    ),
    _count("throttling", "cgroup_cpu_nr_periods", "{period}", "Periods of the CPU limit", "nr_periods"),
    _count("throttling", "cgroup_cpu_nr_throttled", "{period}", "Periods in which it was hit", "nr_throttled"),
    _count("throttling", "cgroup_cpu_throttled_time", "ns", "Time for which tasks were held up by it", "throttled_ns"),
    _count("throttling", "cgroup_cpu_nr_bursts", "{period}", "Periods with more CPU time than its quota", "nr_bursts"),
    _count("throttling", "cgroup_cpu_burst_time", "ns", "CPU time beyond the quota", "burst_ns"),
    _count(
        "events",
        "cgroup_memory_events",
        "{event}",
        "How often a limit of memory was hit, and what came of it",
        *_by_attribute(
            "event",
            **{key: f"memory_events_{key}" for key in ("low", "high", "max", "oom", "oom_kill", "oom_group_kill")},
        ),
    ),
    _count(
        "events",
        "cgroup_memory_swap_events",
        "{event}",
        "How often a limit of swap was hit, and swap could not be had",
        *_by_attribute("event", **{key: f"memory_swap_events_{key}" for key in ("high", "max", "fail")}),
    ),
    _count("events", "cgroup_memory_failcnt", "{event}", "How often the limit was hit (cgroup v1)", "memory_failcnt"),
    _count("events", "cgroup_memory_pgfault", "{fault}", "Page faults", "pgfault"),
    _count("events", "cgroup_memory_pgmajfault", "{fault}", "Page faults that had to read", "pgmajfault"),
    _count(
        "events",
        "cgroup_memory_workingset_refault",
        "{page}",
        "Pages that were needed again soon after they were reclaimed",
        *_by_attribute("type", anon="workingset_refault_anon", file="workingset_refault_file"),
    ),
    _count("events", "cgroup_memory_pgscan", "{page}", "Pages scanned for reclaim", "pgscan"),
    _count("events", "cgroup_memory_pgsteal", "{page}", "Pages reclaimed", "pgsteal"),
    _count("events", "cgroup_pswpin", "{page}", "Pages swapped in", "pswpin"),
    _count("events", "cgroup_pswpout", "{page}", "Pages swapped out", "pswpout"),
    *(
        Metric(
            f"cgroup_io_{key}",
            Instrument.COUNTER,
            unit,
            description,
            (Point(f"io_{key}"),),
            "io",
            by=(("device", By.KEY), ("device_name", By.NAME)),
        )
        for key, unit, description in _IO
    ),
    _amount("pids", "cgroup_pids_current", "pids_current", "{process}", "Processes and threads"),
    _amount("pids", "cgroup_pids_peak", "pids_peak", "{process}", "Most processes and threads at once"),
    _count(
        "pids",
        "cgroup_pids_events",
        "{event}",
        "Forks refused for the limit",
        *_by_attribute("event", max="pids_events_max"),
    ),
    *(metric for resource in _RESOURCES for metric in _pressure(resource)),
    _count("pressure", "io_pressure_some_total", "ns", "Time in which some tasks waited", "io_pressure_some_total_ns"),
    _count("pressure", "io_pressure_full_total", "ns", "Time in which all tasks waited", "io_pressure_full_total_ns"),
    *(
        Metric(name, Instrument.GAUGE, "By", description, (Point(figure),), "hugetlb", by=(("page_size", By.KEY),))
        for name, figure, description in (
            ("cgroup_hugetlb_current", "hugetlb_current_bytes", "Huge pages"),
            ("cgroup_hugetlb_max", "hugetlb_max_bytes", "Limit of huge pages"),
        )
    ),
    Metric(
        "cgroup_hugetlb_events",
        Instrument.COUNTER,
        "{event}",
        "How often the limit was hit",
        _by_attribute("event", max="hugetlb_events_max"),
        "hugetlb",
        by=(("page_size", By.KEY),),
    ),
    *(
        Metric(
            f"network_{name}",
            Instrument.COUNTER,
            unit,
            description,
            _by_attribute("direction", receive=f"network_receive_{key}", transmit=f"network_transmit_{key}"),
            "network",
            kinds=frozenset({EntityKind.POD}),
            by=(("interface", By.KEY),),
        )
        for name, key, unit, description in (
            ("io", "bytes", "By", "Bytes received and sent"),
            ("packets", "packets", "{packet}", "Packets received and sent"),
            ("errors", "errs", "{error}", "Packets that were received or sent wrongly"),
            ("dropped", "drop", "{packet}", "Packets that were dropped"),
        )
    ),
)
"""All of them, in the order of their groups."""
