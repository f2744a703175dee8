"""The table of metrics. To add one, add a row (and, if the figure is new, a field of ``model.Stats``)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.model import Reading


class Instrument(Enum):
    """What the metric is to the OpenTelemetry SDK, and so in OTLP."""

    COUNTER = "observable counter"
    """Read as a cumulative value, exported as a monotonic Sum of delta temporality, integer."""
    GAUGE_INT = "observable gauge, integer"
    GAUGE_DOUBLE = "observable gauge, double"


@dataclass(frozen=True, slots=True)
class Figure:
    """One point of a metric: where its value is in a Reading, and the attribute that tells it from its siblings."""

    get: Callable[[Reading], int | float | None]
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as the contract names it; ``unit`` is UCUM."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    """The instrument's; it is not sent. The README says more."""
    figures: tuple[Figure, ...]


def _kinds(total: str, system: str, user: str) -> tuple[Figure, ...]:
    return tuple(
        Figure(attrgetter(field), kind) for field, kind in ((total, "total"), (system, "system"), (user, "user"))
    )


def _one(field: str) -> tuple[Figure, ...]:
    return (Figure(attrgetter(field)),)


ALUMET: tuple[Metric, ...] = (
    Metric(
        "cpu_time_delta",
        Instrument.COUNTER,
        "ns",
        "CPU time used; on cgroup v1 only kind total is exact",
        _kinds("stats.cpu_usage_ns", "stats.cpu_system_ns", "stats.cpu_user_ns"),
    ),
    Metric(
        "cpu_percent",
        Instrument.GAUGE_DOUBLE,
        "%",
        "CPU use, one core used fully = 100; on cgroup v1 only kind total is exact",
        _kinds("cpu_usage_percent", "cpu_system_percent", "cpu_user_percent"),
    ),
    Metric(
        "memory_usage",
        Instrument.GAUGE_INT,
        "By",
        "Memory",
        _one("stats.memory_usage_bytes"),
    ),
    Metric(
        "cgroup_memory_anonymous",
        Instrument.GAUGE_INT,
        "By",
        "Anonymous memory",
        _one("stats.anon_bytes"),
    ),
    Metric(
        "cgroup_memory_file",
        Instrument.GAUGE_INT,
        "By",
        "Page cache",
        _one("stats.file_bytes"),
    ),
    Metric(
        "cgroup_memory_kernel_stack",
        Instrument.GAUGE_INT,
        "By",
        "Kernel stacks",
        _one("stats.kernel_stack_bytes"),
    ),
    Metric(
        "cgroup_memory_pagetables",
        Instrument.GAUGE_INT,
        "By",
        "Page tables",
        _one("stats.pagetables_bytes"),
    ),
)
"""Schema ``alumet``: Alumet's names and the meanings of its documentation until 2025, with one difference of today.

Alumet's ``cpu_percent`` is 100 where all cores are used fully since February 2026; ours is 100 where one core is, as it
was documented before. On cgroup v1 the kernel samples whether time was the user's or the system's, so there ``system``
and ``user`` do not add up to ``total``, which alone is exact.

Source: https://github.com/alumet-dev/alumet/blob/main/plugins/cgroups/k8s/README.md
"""
