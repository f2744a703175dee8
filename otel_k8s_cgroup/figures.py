"""The table of figures: what a cgroup has, and where cgroup v2 and v1 have it.

A figure is a value of the kernel's. Its name is the kernel's key with the unit. To add one, add a row: ``cgroup.plan``
compiles what is read from the rows, and ``table`` makes a column of each. What a schema sends of figures stands in
``metrics``.

Sources: https://docs.kernel.org/admin-guide/cgroup-v2.html, https://docs.kernel.org/admin-guide/cgroup-v1/memory.html
(5.2 stat file) and https://docs.kernel.org/admin-guide/cgroup-v1/cpuacct.html.
"""

from __future__ import annotations

import os
from collections import namedtuple
from dataclasses import dataclass
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
    PAIR = "two values"
    FLAT = "flat keyed"
    NESTED = "nested keyed"
    PRESSURE = "pressure"


@dataclass(frozen=True, slots=True)
class Source:
    """One place of a figure: a file, and in it a key."""

    file: str
    key: str = ""
    """Empty where the file has one value."""
    factor: int = 1
    """What the kernel's value is multiplied by to have the figure's unit."""
    controller: str = ""
    """On v1 the hierarchy that the file is in; on v2 there is only one."""
    format: Format = Format.FLAT
    flat_key: str | None = None
    """On v1, the key where ``memory.use_hierarchy`` is 0: there are no sums over descendants then."""


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. Of several sources the first counts that this kernel has; a version without any has no such figure."""

    name: str
    v2: tuple[Source, ...]
    v1: tuple[Source, ...] = ()
    is_counter: bool = False
    """Whether it only grows, from zero at the cgroup's birth on."""


@dataclass(frozen=True, slots=True)
class Rate:
    """A derived figure: ``scale`` × what a counter grew by ÷ the nanoseconds since the reading before."""

    name: str
    counter: str
    scale: float


def _v2(file: str, key: str = "", factor: int = 1) -> tuple[Source, ...]:
    return (Source(file, key, factor, format=Format.FLAT if key else Format.SINGLE),)


def _cpuacct(file: str, ticks_key: str = "") -> tuple[Source, ...]:
    exact = Source(file, controller="cpuacct", format=Format.SINGLE)
    # Kernels before 4.7 have the kinds of CPU time in ticks only.
    return (exact, Source("cpuacct.stat", ticks_key, NS_PER_TICK, "cpuacct")) if ticks_key else (exact,)


def _memory(file: str, key: str = "", flat_key: str | None = None) -> tuple[Source, ...]:
    return (Source(file, key, 1, "memory", Format.FLAT if key else Format.SINGLE, flat_key),)


FIGURES: tuple[Figure, ...] = (
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
    Figure("memory_usage_bytes", _v2("memory.current"), _memory("memory.usage_in_bytes")),
    Figure("anon_bytes", _v2("memory.stat", "anon"), _memory("memory.stat", "total_rss", "rss")),
    Figure("file_bytes", _v2("memory.stat", "file"), _memory("memory.stat", "total_cache", "cache")),
    Figure("kernel_stack_bytes", _v2("memory.stat", "kernel_stack")),
    Figure("pagetables_bytes", _v2("memory.stat", "pagetables")),
)

DERIVED: tuple[Rate, ...] = (
    Rate("cpu_usage_percent", "cpu_usage_ns", 100.0),
    Rate("cpu_system_percent", "cpu_system_ns", 100.0),
    Rate("cpu_user_percent", "cpu_user_ns", 100.0),
)
"""Made of figures, a column at a time. A core used fully is 100 %."""


def row_type(figures: Iterable[Figure]) -> Any:
    """The tuple that one reading of ``figures`` is; a figure that the kernel does not have is None."""
    names = [figure.name for figure in figures]
    return namedtuple("Stats", names, defaults=[None] * len(names))


Stats = row_type(FIGURES)


def v1_controllers(figures: Iterable[Figure]) -> tuple[str, ...]:
    """The hierarchies that the rows name; pods are looked for in the first one that is mounted."""
    return tuple(dict.fromkeys(source.controller for figure in figures for source in figure.v1))
