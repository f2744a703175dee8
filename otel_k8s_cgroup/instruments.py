"""The table of a tick → observable instruments of the OpenTelemetry SDK, and what the SDK collects from them → rows.

The SDK never forgets an attribute set, takes 2,000 of them an instrument by default, and needs 3 µs a point. So it is
not shown the entities: an instrument's callback observes columns of the table, one observation each, whose value is a
number for the SDK and carries the column. A View gives each instrument an aggregation that keeps what was observed as
it was observed. The entities' attributes join the rows again when they are exported. Counters are collected as
cumulative values; ``export`` turns them into deltas against what was delivered.

Of all modules this one and ``observe`` name what is private to the SDK, for which pyproject.toml bounds its version and
tests/test_sdk_facts.py shows what has changed.
"""

from __future__ import annotations

import logging
import math
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics._internal.aggregation import _LastValueAggregation
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, View
from opentelemetry.sdk.resources import Resource

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.metrics import ALL_KINDS, Column, Instrument, Rows, columns_of, member_attributes
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    from otel_k8s_cgroup.metrics import Metric, Point
    from otel_k8s_cgroup.model import Reading
    from otel_k8s_cgroup.table import Values

_log = logging.getLogger(__name__)

SCOPE_NAME = "otel_k8s_cgroup"


def creators(meter: Meter) -> Mapping[Instrument, Callable[..., object]]:
    """What makes each of ``meter``'s instruments: of a name, the callbacks, a unit and a description."""
    return {
        Instrument.COUNTER: meter.create_observable_counter,
        Instrument.UPDOWN: meter.create_observable_up_down_counter,
        Instrument.GAUGE: meter.create_observable_gauge,
    }


class _Observed(float):
    """A finite number, which is what the SDK checks; it carries a column."""

    __slots__ = ("values",)

    values: Values


def _observed(values: Values) -> _Observed:
    observed = _Observed(0.0)
    observed.values = values
    return observed


class _AsObserved(_LastValueAggregation):
    """Keeps the columns of a collect. (The SDK takes it for a gauge's; a counter's values are cumulative.)"""

    def __init__(self) -> None:
        self._columns: list[Values] = []

    def aggregate(self, measurement: Measurement, should_sample_exemplar: bool = True) -> None:  # noqa: ARG002 the SDK's signature
        observed: Any = measurement.value
        self._columns.append(observed.values)

    def collect(self, *_temporality_and_start: object) -> Any:
        """All of them as the one data point of their metric."""
        columns, self._columns = self._columns, []
        return columns or None


class _KeepAsObserved(Aggregation):
    def _create_aggregation(self, *_instrument_and_more: object) -> _AsObserved:
        return _AsObserved()


class ManualReader(MetricReader):
    """Hands on what the SDK collected, at our own clock's ticks."""

    def __init__(self) -> None:
        super().__init__()
        self._collected: MetricsData | None = None

    def collect_now(self) -> MetricsData | None:
        """What the callbacks yield now; None where that is nothing."""
        self._collected = None
        # A time limit would be checked against the wall clock, and a collect that it cuts short counts twice.
        self.collect(timeout_millis=math.inf)
        return self._collected

    def _receive_metrics(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: object) -> None:  # noqa: ARG002 the SDK's signature
        self._collected = metrics_data

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: object) -> None:
        """Nothing is held that would have to be let go."""


_MOST_MEMBERS = 256
"""Of a figure that has one value for each of something: what a tree that is no kernel's can cost."""


class Instruments:
    """The instruments of all entities. Not for several threads.

    Args:
        metrics: the table.
        device_name: a device's ``major:minor`` → its name; None where it has none.
    """

    def __init__(
        self, metrics: Sequence[Metric], device_name: Callable[[str], str | None] = lambda _device: None
    ) -> None:
        self.columns = columns_of(metrics)
        """Of the rows; those of members that are found later are added at the end."""
        self._metrics = metrics
        self._is_of_some = any(metric.kinds is not ALL_KINDS for metric in metrics)
        self._device_name = device_name
        self._members: dict[tuple[Metric, Point], dict[str, None]] = {
            (metric, point): {} for metric in metrics if metric.by for point in metric.points
        }
        self.families = {
            Column(metric, point).family: point.figure for metric, point in self._members if metric.has_deltas
        }
        """Of the columns that come with the members and are sent as deltas: family → figure."""
        self._is_full = False
        """Whether a member was refused, and that was logged."""
        self._table = Table(())
        self._reader = ManualReader()
        # No exemplars, no detected resource: the entities' Resources are put on when the rows are exported.
        provider = MeterProvider(
            [self._reader],
            resource=Resource.get_empty(),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
            views=[View(instrument_name="*", aggregation=_KeepAsObserved())],
        )
        for schema in dict.fromkeys(metric.schema for metric in metrics):
            meter = provider.get_meter(SCOPE_NAME, __version__, schema)
            create = creators(meter)
            of_schema = [metric for metric in metrics if metric.schema == schema]
            for name in dict.fromkeys(metric.name for metric in of_schema):
                same = [metric for metric in of_schema if metric.name == name]
                create[same[0].instrument](name, [*map(self._callback, same)], same[0].unit, same[0].description)

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for point in metric.points:
                yield Observation(_observed(self._table.column(point.figure)))

        return observe

    def collect(
        self,
        readings: Sequence[Reading],
        reported: Sequence[Mapping[str, int | float]] = (),
        wall_offset_ns: int = 0,
    ) -> Rows:
        """Lets the SDK collect this tick's readings; one row a reading, in their order. The others: see ``Table``."""
        self._table = Table(readings, reported, wall_offset_ns)
        collected = self._reader.collect_now()
        self._table = Table(())
        if collected is None:
            return Rows(self.columns, [])
        by_name: dict[tuple[str | None, str], Any] = {
            (scope.scope.schema_url, metric.name): iter(metric.data.data_points[0])  # type: ignore[call-overload] # what was kept
            for scope in collected.resource_metrics[0].scope_metrics
            for metric in scope.metrics
        }
        kinds = [reading.kind for reading in readings] if self._is_of_some else []
        values: list[Any] = []
        of_members: list[tuple[Metric, Point, Any]] = []
        for metric in self._metrics:
            # Two rows of one name are one instrument, and its columns come in their order.
            for point in metric.points:
                column = next(by_name[metric.schema, metric.name])
                if metric.kinds is not ALL_KINDS:
                    has_it = [kind in metric.kinds for kind in kinds]
                    column = [value if has else None for value, has in zip(column, has_it, strict=True)]
                if metric.by:
                    of_members.append((metric, point, column))
                else:
                    values.append(column)
        if of_members:
            values += self._of_members(of_members)
        return Rows(self.columns, list(zip(*values, strict=True)) if values else [()] * len(readings))

    def know(self, labels: Collection[str]) -> tuple[Column, ...]:
        """The columns, with those of the members that have such labels (``Column.label``): of a process before this."""
        for metric, point in self._members:
            prefix = f"{Column(metric, point).family} "
            for label in labels:
                if label.startswith(prefix):
                    self._find(metric, point, label.removeprefix(prefix))
        return self.columns

    def _find(self, metric: Metric, point: Point, member: str) -> None:
        members = self._members[metric, point]
        if member in members:
            return
        if len(members) >= _MOST_MEMBERS:
            if not self._is_full:
                self._is_full = True
                _log.warning(
                    "%s: no more than %d of %s are measured; %s and further ones are left out",
                    metric.name,
                    _MOST_MEMBERS,
                    " and ".join(attribute for attribute, _ in metric.by),
                    member,
                )
        else:
            members[member] = None
            attributes = point.attributes + member_attributes(metric, member, self._device_name(member))
            self.columns = (*self.columns, Column(metric, point, member, attributes))

    def _of_members(self, of_members: Sequence[tuple[Metric, Point, Sequence[Any]]]) -> list[Values]:
        """A column for each member of figures that have one value for each of something, new ones included."""
        by_point: dict[tuple[Metric, Point], Sequence[Any]] = {}
        for metric, point, column in of_members:
            by_point[metric, point] = column
            members = self._members[metric, point]
            for mapping in column:
                for member in mapping or ():
                    if member not in members:
                        self._find(metric, point, member)
        return [
            [mapping.get(column.member) if mapping else None for mapping in by_point[column.metric, column.point]]
            for column in self.columns
            if column.member is not None
        ]
