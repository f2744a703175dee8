"""The table of metrics: what a schema sends of figures. To add one, add a row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class Instrument(Enum):
    """What the metric is to the OpenTelemetry SDK, and so in OTLP."""

    COUNTER = "observable counter"
    """Read as a cumulative value, exported as a monotonic Sum of delta temporality, integer."""
    GAUGE_INT = "observable gauge, integer"
    GAUGE_DOUBLE = "observable gauge, double"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a metric: its column in the tick's table, and the attribute that tells it from its siblings."""

    figure: str
    """Of ``figures.FIGURES``, or ``DERIVED``; a counter's is one that only grows."""
    kind: str | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as the contract names it; ``unit`` is UCUM."""

    name: str
    instrument: Instrument
    unit: str
    description: str
    """The instrument's; it is not sent. The README says more."""
    points: tuple[Point, ...]
    schema: str = "alumet"


@dataclass(frozen=True, slots=True)
class Column:
    """One value of a row: a point of a metric."""

    metric: Metric
    point: Point

    @property
    def attributes(self) -> tuple[tuple[str, str], ...]:
        """What tells the point from the metric's others."""
        return () if self.point.kind is None else (("kind", self.point.kind),)

    @property
    def label(self) -> str:
        """Its name in the state file."""
        return " ".join((self.metric.name, *(value for _, value in self.attributes)))


def columns_of(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """One a point, in the order of the metrics."""
    return tuple(Column(metric, point) for metric in metrics for point in metric.points)


Row = tuple[int | float | None, ...]
"""One entity's values: one a column; a counter's is cumulative; None is absent."""


class Rows(NamedTuple):
    """What was collected at one tick."""

    columns: tuple[Column, ...]
    """The same object for as long as they are the same."""
    rows: list[Row]
    """One an entity."""


def _kinds(total: str, system: str, user: str) -> tuple[Point, ...]:
    return Point(total, "total"), Point(system, "system"), Point(user, "user")


def _one(figure: str) -> tuple[Point, ...]:
    return (Point(figure),)


ALUMET: tuple[Metric, ...] = (
    Metric(
        "cpu_time_delta",
        Instrument.COUNTER,
        "ns",
        "CPU time used; on cgroup v1 only kind total is exact",
        _kinds("cpu_usage_ns", "cpu_system_ns", "cpu_user_ns"),
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
        _one("memory_usage_bytes"),
    ),
    Metric(
        "cgroup_memory_anonymous",
        Instrument.GAUGE_INT,
        "By",
        "Anonymous memory",
        _one("anon_bytes"),
    ),
    Metric(
        "cgroup_memory_file",
        Instrument.GAUGE_INT,
        "By",
        "Page cache",
        _one("file_bytes"),
    ),
    Metric(
        "cgroup_memory_kernel_stack",
        Instrument.GAUGE_INT,
        "By",
        "Kernel stacks",
        _one("kernel_stack_bytes"),
    ),
    Metric(
        "cgroup_memory_pagetables",
        Instrument.GAUGE_INT,
        "By",
        "Page tables",
        _one("pagetables_bytes"),
    ),
)
"""Schema ``alumet``: Alumet's names and the meanings of its documentation until 2025, with one difference of today.

Alumet's ``cpu_percent`` is 100 where all cores are used fully since February 2026; ours is 100 where one core is, as it
was documented before. On cgroup v1 the kernel samples whether time was the user's or the system's, so there ``system``
and ``user`` do not add up to ``total``, which alone is exact.

Source: https://github.com/alumet-dev/alumet/blob/main/plugins/cgroups/k8s/README.md
"""
