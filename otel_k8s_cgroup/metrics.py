"""The table of metrics: what a schema sends of figures. To add one, add a row."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from collections.abc import Iterable


class Instrument(Enum):
    """What the metric is to the OpenTelemetry SDK, and so in OTLP."""

    COUNTER = "observable counter"
    """Read as a cumulative value, exported as a monotonic Sum, of delta temporality where ``Metric.is_delta``."""
    UPDOWN = "observable up-down counter"
    """An amount, exported as a Sum that is not monotonic, as the semantic conventions want it."""
    GAUGE = "observable gauge"


@dataclass(frozen=True, slots=True)
class Point:
    """One point of a metric: its column in the tick's table, and the attributes that tell it from its siblings."""

    figure: str
    """Of ``figures.FIGURES``, or ``DERIVED``; a counter's is one that only grows."""
    attributes: tuple[tuple[str, str], ...] = ()


class By(Enum):
    """What an attribute says of the member of a figure that has one value for each of something (``Figure.by``)."""

    KEY = "the kernel's key: the device's ``major:minor``, or the page size"
    NAME = "the device's name as /sys/dev/block has it; absent where it has none"
    NAME_OR_KEY = "its name, or else its key"
    PATH = "``/dev/`` and its name, or else its key"


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric, as the contract names it; ``unit`` is UCUM."""

    name: str
    """Where ``of_entity``, what follows on the entity's name: ``k8s.pod``, ``container`` or ``k8s.node``."""
    instrument: Instrument
    unit: str
    description: str
    """The instrument's; it is not sent. The README says more."""
    points: tuple[Point, ...]
    group: str = "cpu"
    schema: str = "alumet"
    kinds: frozenset[EntityKind] = frozenset(EntityKind)
    """Of the entities that have it."""
    of_entity: bool = False
    scale: float | None = None
    """What the figure is multiplied by to have the unit; the value is a floating-point number then."""
    is_double: bool = False
    """Whether the figure itself is one."""
    is_delta: bool = True
    """Of a counter. The default schema's always are; others' as the temporality is set."""
    by: tuple[tuple[str, By], ...] = ()
    """The attributes that tell a figure's members apart."""

    def named(self, kind: EntityKind) -> str:
        """Its name for such entities."""
        return f"{_ENTITY_NAMES[kind]}.{self.name}" if self.of_entity else self.name


_ENTITY_NAMES = {
    EntityKind.POD: "k8s.pod",
    EntityKind.CONTAINER: "container",
    EntityKind.QOS: "k8s.node",
    EntityKind.NODE: "k8s.node",
}


@dataclass(frozen=True, slots=True)
class Column:
    """One value of a row: a point of a metric, or of a member of it."""

    metric: Metric
    point: Point
    member: str | None = None
    """Of a figure that has one value for each of something: which."""
    attributes: tuple[tuple[str, str], ...] = ()
    """What tells it from the metric's others."""

    @property
    def is_double(self) -> bool:
        """Whether the row's value is a floating-point number."""
        return self.metric.is_double

    @property
    def label(self) -> str:
        """Its name in the state file."""
        of_member = () if self.member is None else (self.member,)
        return " ".join((self.metric.name, *(value for _, value in self.point.attributes), *of_member))


def columns_of(metrics: Iterable[Metric]) -> tuple[Column, ...]:
    """One a point, in the order of the metrics; the members of a metric come once they are found."""
    return tuple(
        Column(metric, point, attributes=point.attributes)
        for metric in metrics
        if not metric.by
        for point in metric.points
    )


Row = tuple[int | float | None, ...]
"""One entity's values: one a column; a counter's is cumulative; None is absent."""


class Rows(NamedTuple):
    """What was collected at one tick."""

    columns: tuple[Column, ...]
    """The same object for as long as they are the same."""
    rows: list[Row]
    """One an entity."""


def _kinds(total: str, system: str, user: str) -> tuple[Point, ...]:
    figures = ("total", total), ("system", system), ("user", user)
    return tuple(Point(figure, (("kind", kind),)) for kind, figure in figures)


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
        Instrument.GAUGE,
        "%",
        "CPU use, one core used fully = 100; on cgroup v1 only kind total is exact",
        _kinds("cpu_usage_percent", "cpu_system_percent", "cpu_user_percent"),
        is_double=True,
    ),
    Metric(
        "memory_usage",
        Instrument.GAUGE,
        "By",
        "Memory",
        _one("memory_usage_bytes"),
        group="memory",
    ),
    Metric(
        "cgroup_memory_anonymous",
        Instrument.GAUGE,
        "By",
        "Anonymous memory",
        _one("anon_bytes"),
        group="memory",
    ),
    Metric(
        "cgroup_memory_file",
        Instrument.GAUGE,
        "By",
        "Page cache",
        _one("file_bytes"),
        group="memory",
    ),
    Metric(
        "cgroup_memory_kernel_stack",
        Instrument.GAUGE,
        "By",
        "Kernel stacks",
        _one("kernel_stack_bytes"),
        group="memory",
    ),
    Metric(
        "cgroup_memory_pagetables",
        Instrument.GAUGE,
        "By",
        "Page tables",
        _one("pagetables_bytes"),
        group="memory",
    ),
)
"""Schema ``alumet``: Alumet's names and the meanings of its documentation until 2025, with one difference of today.

Alumet's ``cpu_percent`` is 100 where all cores are used fully since February 2026; ours is 100 where one core is, as it
was documented before. On cgroup v1 the kernel samples whether time was the user's or the system's, so there ``system``
and ``user`` do not add up to ``total``, which alone is exact.

Source: https://github.com/alumet-dev/alumet/blob/main/plugins/cgroups/k8s/README.md
"""
