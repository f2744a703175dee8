"""What a metric is, and the rows of values that are collected of metrics. The tables of metrics are in ``schemas``."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_k8s_cgroup.model import Group, Schema


ALL_KINDS = frozenset(EntityKind)


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
    group: Group = "cpu"
    schema: Schema = "alumet"
    kinds: frozenset[EntityKind] = ALL_KINDS
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

    @property
    def has_deltas(self) -> bool:
        """Whether what it grew by is sent, not what it is."""
        return self.instrument is Instrument.COUNTER and self.is_delta

    def named(self, kind: EntityKind) -> str:
        """Its name for such entities."""
        return f"{ENTITY_NAMES[kind]}.{self.name}" if self.of_entity else self.name


ENTITY_NAMES = {
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
    def family(self) -> str:
        """What all members' columns are called."""
        return " ".join((self.metric.name, *(value for _, value in self.point.attributes)))

    @property
    def label(self) -> str:
        """Its name in the state file."""
        return self.family if self.member is None else f"{self.family} {self.member}"


def member_attributes(metric: Metric, member: str, name: str | None) -> tuple[tuple[str, str], ...]:
    """What tells a member of ``metric``'s figures from the others; ``name``: the device's, where it has one."""
    found: list[tuple[str, str]] = []
    for attribute, by in metric.by:
        match by:
            case By.KEY:
                found.append((attribute, member))
            case By.NAME if name is not None:
                found.append((attribute, name))
            case By.NAME_OR_KEY:
                found.append((attribute, name or member))
            case By.PATH:
                found.append((attribute, f"/dev/{name}" if name else member))
    return tuple(found)


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
