"""The table of figures: what a cgroup has, and where cgroup v2 and v1 have it.

A figure is a value of the kernel's. Its name is the kernel's key, with the words of its file where the key alone is
ambiguous, and with its unit; a plain number of things has none. To add one, add a row: ``cgroup.plan`` compiles what is
read from the rows, and ``table`` makes a column of each. What a schema sends of figures stands in ``metrics``.

Where a comment names a version, older kernels lack the key, and so the figure.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/accounting/psi.html, and of v1
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (5.2 stat file), …/cpuacct.html, …/blkio-controller.html,
…/cpusets.html, …/hugetlb.html, …/pids.html and https://docs.kernel.org/scheduler/sched-bwc.html.
"""

from __future__ import annotations

import os
from collections import namedtuple
from dataclasses import dataclass, replace
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable

NS_PER_US = 1000
# ``cpuacct.stat`` counts in USER_HZ; the C library knows it (100 on every platform that Linux runs on today).
NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")


class Format(Enum):
    """How a file is written; ``cgroup.formats`` has a parser of each, which says what the keys are."""

    SINGLE = "single value"
    LIMIT = "single value of v1, which may mean that there is no limit"
    PAIR = "two values"
    CPUS = "list of CPUs"
    FLAT = "flat keyed"
    NESTED = "nested keyed"
    BLKIO = "keyed by device and operation"
    PRESSURE = "pressure"


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a figure: a file, and in it a key."""

    file: str
    """A ``*`` stands for what the figure is ``by``: one file each."""
    key: str = ""
    """Empty where the file has one value."""
    factor: int = 1
    """What the kernel's value is multiplied by to have the figure's unit."""
    controller: str = ""
    """On v1 the hierarchy that the file is in; on v2 there is only one."""
    format: Format = Format.FLAT
    flat_key: str | None = None
    """On v1, the key where ``memory.use_hierarchy`` is 0: there are no sums over descendants then."""
    is_local: bool = False
    """Whether it leaves out what is in cgroups below, though the figure's other sources count that too."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Of several sources the first counts that this kernel has; a version without any has no such figure."""

    name: str
    v2: tuple[Source, ...]
    v1: tuple[Source, ...] = ()
    is_counter: bool = False
    """Whether it only grows, from zero at the cgroup's birth on."""
    by: str = ""
    """Where a cgroup has one value for each of something, what that is; such a value is a mapping, empty where the
    kernel has the file and lists none."""
    net_dev: int | None = None
    """Of a pod's network, which no cgroup knows: which number of an interface's line in ``/proc/PID/net/dev``."""

    @property
    def zero(self) -> Any:
        """What a counter is at the cgroup's birth."""
        return {} if self.by else 0


@dataclass(frozen=True, slots=True)
class Rate:
    """A derived figure: ``scale`` × what a counter grew by ÷ the nanoseconds since the reading before."""

    name: str
    counter: str
    scale: float


@dataclass(frozen=True, slots=True)
class Difference:
    """A derived figure: one minus another, and never below 0 (the two are not read at one instant)."""

    name: str
    whole: str
    part: str


@dataclass(frozen=True, slots=True)
class Ratio:
    """A derived figure: one divided by another; absent where that is 0."""

    name: str
    dividend: str
    divisor: str


@dataclass(frozen=True, slots=True)
class EitherOf:
    """A derived figure: one where it is there, else another; what cgroup v2 and v1 have under one name of a schema."""

    name: str
    one: str
    other: str


def _v2(file: str, key: str = "", factor: int = 1, form: Format | None = None) -> tuple[Source, ...]:
    return (Source(file, key, factor, format=form or (Format.FLAT if key else Format.SINGLE)),)


def _v1(controller: str, file: str, key: str = "", form: Format | None = None) -> tuple[Source, ...]:
    return (Source(file, key, 1, controller, form or (Format.FLAT if key else Format.SINGLE)),)


def _cpuacct(file: str, ticks_key: str = "") -> tuple[Source, ...]:
    exact = Source(file, controller="cpuacct", format=Format.SINGLE)
    # Kernels before 4.7 have the kinds of CPU time in ticks only.
    return (exact, Source("cpuacct.stat", ticks_key, NS_PER_TICK, "cpuacct")) if ticks_key else (exact,)


def _stat(name: str, key: str, v1_key: str = "", *, is_counter: bool = False) -> Figure:
    """Of ``memory.stat``. ``v1_key`` is that of the cgroup alone; before those of the sums stands ``total_``."""
    v1 = (Source("memory.stat", f"total_{v1_key}", 1, "memory", Format.FLAT, v1_key),) if v1_key else ()
    return Figure(name, _v2("memory.stat", key), v1, is_counter)


def _limit(controller: str, file: str) -> tuple[Source, ...]:
    return _v1(controller, file, form=Format.LIMIT)


def _event(file: str, key: str, v1: tuple[Source, ...] = ()) -> Figure:
    """Of ``memory.events``, ``memory.swap.events`` or ``pids.events``."""
    return Figure(f"{file.replace('.', '_')}_{key}", _v2(file, key), v1, is_counter=True)


def _io(key: str, file: str, operation: str) -> Figure:
    # Only the recursive files count what is in cgroups below; kernels that have none lack the figures on v1. From 6.10
    # on they count only on disks for which some cgroup has a limit (blkio.throttle.*_device).
    v1 = _v1("blkio", f"blkio.throttle.{file}_recursive", operation, Format.BLKIO)
    return Figure(f"io_{key}", _v2("io.stat", key, form=Format.NESTED), v1, is_counter=True, by="device")


def _pressure(resource: str, kind: str) -> tuple[Figure, ...]:
    def of(key: str, factor: int = 1) -> tuple[Source, ...]:
        return _v2(f"{resource}.pressure", f"{kind} {key}", factor, Format.PRESSURE)

    name = f"{resource}_pressure_{kind}"
    return (
        Figure(f"{name}_total_ns", of("total", NS_PER_US), is_counter=True),
        *(Figure(f"{name}_{average}_percent", of(average)) for average in ("avg10", "avg60", "avg300")),
    )


DEFAULT_FIGURES: tuple[Figure, ...] = (
    Figure("cpu_usage_ns", _v2("cpu.stat", "usage_usec", NS_PER_US), _cpuacct("cpuacct.usage"), is_counter=True),
    Figure(
        "cpu_system_ns",
        _v2("cpu.stat", "system_usec", NS_PER_US),
        _cpuacct("cpuacct.usage_sys", "system"),
        is_counter=True,
    ),
    Figure(
        "cpu_user_ns",
        _v2("cpu.stat", "user_usec", NS_PER_US),
        _cpuacct("cpuacct.usage_user", "user"),
        is_counter=True,
    ),
    Figure("memory_usage_bytes", _v2("memory.current"), _v1("memory", "memory.usage_in_bytes")),
    _stat("anon_bytes", "anon", "rss"),
    _stat("file_bytes", "file", "cache"),
    _stat("kernel_stack_bytes", "kernel_stack"),
    _stat("pagetables_bytes", "pagetables"),  # 5.11
)
"""What the default metrics are made of."""

_MEMORY: tuple[Figure, ...] = (
    Figure("memory_peak_bytes", _v2("memory.peak"), _v1("memory", "memory.max_usage_in_bytes")),  # v2: 5.19
    Figure(
        "memory_swap_current_bytes",
        _v2("memory.swap.current"),
        (Source("memory.stat", "total_swap", 1, "memory", Format.FLAT, "swap"),),
    ),
    Figure("memory_swap_peak_bytes", _v2("memory.swap.peak")),  # 6.5
    _stat("inactive_anon_bytes", "inactive_anon", "inactive_anon"),
    _stat("active_anon_bytes", "active_anon", "active_anon"),
    _stat("inactive_file_bytes", "inactive_file", "inactive_file"),
    _stat("active_file_bytes", "active_file", "active_file"),
    _stat("unevictable_bytes", "unevictable", "unevictable"),
    _stat("file_mapped_bytes", "file_mapped", "mapped_file"),
    _stat("file_dirty_bytes", "file_dirty", "dirty"),
    _stat("file_writeback_bytes", "file_writeback", "writeback"),
    _stat("shmem_bytes", "shmem", "shmem"),
    _stat("slab_bytes", "slab"),
    _stat("slab_reclaimable_bytes", "slab_reclaimable"),
    _stat("slab_unreclaimable_bytes", "slab_unreclaimable"),
    # No source of v1 for `sock`: memory.kmem.tcp.usage_in_bytes is 0 until someone sets that limit.
    _stat("sock_bytes", "sock"),
    Figure("kernel_bytes", _v2("memory.stat", "kernel"), _v1("memory", "memory.kmem.usage_in_bytes")),  # v2: 5.18
)

_LIMITS: tuple[Figure, ...] = (
    Figure("cpu_quota_us", _v2("cpu.max", "0", form=Format.PAIR), _limit("cpu", "cpu.cfs_quota_us")),
    Figure("cpu_period_us", _v2("cpu.max", "1", form=Format.PAIR), _v1("cpu", "cpu.cfs_period_us")),
    # Neither is converted to the other: the formula differs between runtimes.
    Figure("cpu_weight", _v2("cpu.weight")),
    Figure("cpu_shares", (), _v1("cpu", "cpu.shares")),
    Figure(
        "cpuset_cpus",
        _v2("cpuset.cpus.effective", form=Format.CPUS),
        _v1("cpuset", "cpuset.effective_cpus", form=Format.CPUS),
    ),
    Figure("memory_max_bytes", _v2("memory.max"), _limit("memory", "memory.limit_in_bytes")),
    Figure("memory_high_bytes", _v2("memory.high")),
    Figure("memory_low_bytes", _v2("memory.low")),
    Figure("memory_min_bytes", _v2("memory.min")),
    Figure("memory_soft_limit_bytes", (), _limit("memory", "memory.soft_limit_in_bytes")),
    Figure("memory_swap_max_bytes", _v2("memory.swap.max")),
    # Of memory and swap together; v2 has no such limit.
    Figure("memory_memsw_limit_bytes", (), _limit("memory", "memory.memsw.limit_in_bytes")),
    Figure("pids_max", _v2("pids.max"), _v1("pids", "pids.max")),
)

_THROTTLING: tuple[Figure, ...] = (
    Figure("nr_periods", _v2("cpu.stat", "nr_periods"), _v1("cpu", "cpu.stat", "nr_periods"), is_counter=True),
    Figure("nr_throttled", _v2("cpu.stat", "nr_throttled"), _v1("cpu", "cpu.stat", "nr_throttled"), is_counter=True),
    Figure(
        "throttled_ns",
        _v2("cpu.stat", "throttled_usec", NS_PER_US),
        _v1("cpu", "cpu.stat", "throttled_time"),
        is_counter=True,
    ),
    # Bursts: 5.16.
    Figure("nr_bursts", _v2("cpu.stat", "nr_bursts"), _v1("cpu", "cpu.stat", "nr_bursts"), is_counter=True),
    Figure("burst_ns", _v2("cpu.stat", "burst_usec", NS_PER_US), _v1("cpu", "cpu.stat", "burst_time"), is_counter=True),
)

_EVENTS: tuple[Figure, ...] = (
    _event("memory.events", "low"),
    _event("memory.events", "high"),
    _event("memory.events", "max"),
    _event("memory.events", "oom"),
    # v1 counts a kill in the cgroup that the process was in, and in none above it.
    _event(
        "memory.events", "oom_kill", (replace(_v1("memory", "memory.oom_control", "oom_kill")[0], is_local=True),)
    ),  # 4.13
    _event("memory.events", "oom_group_kill"),  # 5.17
    _event("memory.swap.events", "high"),  # 5.8
    _event("memory.swap.events", "max"),
    _event("memory.swap.events", "fail"),
    # How often this cgroup's own limit was hit.
    Figure("memory_failcnt", (), _v1("memory", "memory.failcnt"), is_counter=True),
    _stat("pgfault", "pgfault", "pgfault", is_counter=True),
    _stat("pgmajfault", "pgmajfault", "pgmajfault", is_counter=True),
    _stat("workingset_refault_anon", "workingset_refault_anon", "workingset_refault_anon", is_counter=True),  # 5.9
    _stat("workingset_refault_file", "workingset_refault_file", "workingset_refault_file", is_counter=True),  # 5.9
    _stat("pgscan", "pgscan", is_counter=True),
    _stat("pgsteal", "pgsteal", is_counter=True),
    _stat("pswpin", "pswpin", is_counter=True),  # 6.13
    _stat("pswpout", "pswpout", is_counter=True),  # 6.13
)

_IO: tuple[Figure, ...] = (
    _io("rbytes", "io_service_bytes", "Read"),
    _io("wbytes", "io_service_bytes", "Write"),
    _io("dbytes", "io_service_bytes", "Discard"),
    _io("rios", "io_serviced", "Read"),
    _io("wios", "io_serviced", "Write"),
    _io("dios", "io_serviced", "Discard"),
)

_PIDS: tuple[Figure, ...] = (
    Figure("pids_current", _v2("pids.current"), _v1("pids", "pids.current")),
    Figure("pids_peak", _v2("pids.peak"), _v1("pids", "pids.peak")),  # 6.1
    # v1, and v2 before 6.11, count a refused fork in the cgroup of the process, and in none above it.
    _event("pids.events", "max", (replace(_v1("pids", "pids.events", "max")[0], is_local=True),)),
)

_PRESSURE: tuple[Figure, ...] = tuple(
    figure
    for resource in ("cpu", "memory", "io")
    for kind in ("some", "full")  # `full` of the CPU: 5.13
    for figure in _pressure(resource, kind)
)

_HUGETLB: tuple[Figure, ...] = (
    Figure(
        "hugetlb_current_bytes",
        _v2("hugetlb.*.current"),
        _v1("hugetlb", "hugetlb.*.usage_in_bytes"),
        by="page size",
    ),
    Figure("hugetlb_max_bytes", _v2("hugetlb.*.max"), _limit("hugetlb", "hugetlb.*.limit_in_bytes"), by="page size"),
    Figure(
        "hugetlb_events_max",
        _v2("hugetlb.*.events", "max"),
        _v1("hugetlb", "hugetlb.*.failcnt"),
        is_counter=True,
        by="page size",
    ),
)

# https://docs.kernel.org/filesystems/proc.html (1.4 Networking info in /proc/net)
_NET_DEV = ("bytes", "packets", "errs", "drop")
_NETWORK: tuple[Figure, ...] = tuple(
    Figure(f"network_{way}_{key}", (), is_counter=True, by="interface", net_dev=first + number)
    for way, first in (("receive", 0), ("transmit", 8))
    for number, key in enumerate(_NET_DEV)
)

_CGROUPS: tuple[Figure, ...] = (
    Figure("nr_descendants", _v2("cgroup.stat", "nr_descendants")),  # 4.14
    Figure("nr_dying_descendants", _v2("cgroup.stat", "nr_dying_descendants")),  # 4.14
)

FIGURES: tuple[Figure, ...] = (
    *DEFAULT_FIGURES,
    *_MEMORY,
    *_LIMITS,
    *_THROTTLING,
    *_EVENTS,
    *_IO,
    *_PIDS,
    *_PRESSURE,
    *_HUGETLB,
    *_CGROUPS,
    *_NETWORK,
)

DERIVED: tuple[Rate | Difference | Ratio | EitherOf, ...] = (
    Rate("cpu_usage_percent", "cpu_usage_ns", 100.0),
    Rate("cpu_system_percent", "cpu_system_ns", 100.0),
    Rate("cpu_user_percent", "cpu_user_ns", 100.0),
    Rate("cpu_usage_cores", "cpu_usage_ns", 1.0),
    Difference("memory_working_set_bytes", "memory_usage_bytes", "inactive_file_bytes"),
    Difference("minor_faults", "pgfault", "pgmajfault"),
    Difference("memory_available_bytes", "memory_max_bytes", "memory_working_set_bytes"),
    Ratio("cpu_limit_cores", "cpu_quota_us", "cpu_period_us"),
    Ratio("cpu_limit_utilization", "cpu_usage_cores", "cpu_limit_cores"),
    Ratio("cpu_request_utilization", "cpu_usage_cores", "api_cpu_request_cores"),
    EitherOf("memory_reservation_bytes", "memory_min_bytes", "memory_soft_limit_bytes"),
    EitherOf("memory_swap_limit_bytes", "memory_swap_max_bytes", "memory_memsw_limit_bytes"),
)
"""Made of figures, a column at a time. A core used fully is 100 %."""


UPTIME = "uptime_s"
"""Of an entity whose start is known: seconds."""
API_PREFIX = "api_"
"""Of what the API reports in numbers (``Entity.reported``), and no cgroup."""
START = f"{API_PREFIX}start_unix_ns"
"""When an entity began."""


def is_of_a_cgroup(name: str) -> bool:
    """Whether a figure is read of a cgroup, or made of such."""
    return name != UPTIME and not name.startswith(API_PREFIX)


def figures_named(names: Iterable[str]) -> tuple[Figure, ...]:
    """The rows that ``names``, which may be those of derived figures, are made of, in the table's order.

    Raises:
        KeyError: there is no figure of a name.
    """
    wanted: set[str] = set()
    derived = {each.name: each for each in DERIVED}
    known = {figure.name for figure in FIGURES}
    todo = list(names)
    while todo:
        name = todo.pop()
        match derived.get(name):
            case Rate(counter=counter):
                todo.append(counter)
            case (
                Difference(whole=one, part=other) | Ratio(dividend=one, divisor=other) | EitherOf(one=one, other=other)
            ):
                todo += one, other
            case None if name in known:
                wanted.add(name)
            case None if not is_of_a_cgroup(name):
                pass
            case None:
                raise KeyError(name)
    return tuple(figure for figure in FIGURES if figure.name in wanted)


def with_descendants(figures: Iterable[Figure]) -> tuple[Figure, ...]:
    """The rows for a cgroup that has others below it: what leaves out what is in those is no source."""
    return tuple(
        replace(
            figure,
            v2=tuple(source for source in figure.v2 if not source.is_local),
            v1=tuple(source for source in figure.v1 if not source.is_local),
        )
        for figure in figures
    )


def row_type(figures: Iterable[Figure]) -> Any:
    """The tuple that one reading of ``figures`` is; a figure that the kernel does not have is None."""
    names = [figure.name for figure in figures]
    return namedtuple("Stats", names, defaults=[None] * len(names))


Stats = row_type(DEFAULT_FIGURES)


def v1_controllers(figures: Iterable[Figure]) -> tuple[str, ...]:
    """The hierarchies that the rows name; pods are searched for in the first one that is mounted."""
    return tuple(dict.fromkeys(source.controller for figure in figures for source in figure.v1))
