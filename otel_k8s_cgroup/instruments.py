"""The table of metrics → observable instruments of the OpenTelemetry SDK, and what the SDK collects from them → rows.

The SDK never forgets an attribute set, and takes 2,000 of them an instrument by default. So it is not shown the pods:
the one attribute that it sees is the number of a pod's point in this collect, which the next one uses again for
whatever pod then stands there. The pods' own attributes join the rows again when they are exported. Counters are
collected as cumulative values; ``export`` turns them into deltas against what was delivered.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import (
    AlwaysOffExemplarFilter,
    ExemplarReservoir,
    MeterProvider,
)
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.metrics import Exemplar

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Reading

Row = list[int | float | None]
"""One reading's values: one a figure, in the order of the table; a counter's is cumulative; None is absent."""

SCOPE_NAME = "otel_k8s_cgroup"

_POINT = "point"

# So many pods are shown to the SDK at a time, one after the other in the same places. What it keeps of them then stays
# small, and in the processor's cache: at 1,000 pods a point costs as much as at 100.
_READINGS_AT_ONCE = 128


# Where an observation has none, the SDK looks the current one up; an empty one counts as none. A tenth of a collect.
_CONTEXT = Context({SCOPE_NAME: None})


class _NoExemplars(ExemplarReservoir):
    """The one reservoir of all points: without it, each has its own, which takes a tenth of a collect to look into."""

    def offer(self, *_offered: object, **_more: object) -> None:
        """Nothing is sampled."""

    def collect(self, *_point_attributes: object) -> list[Exemplar]:
        """Nothing was."""
        return []


class _Place(Observation):
    """An observation that is made anew for whatever pod stands at its place, at a tenth of what a new one costs."""

    # The properties of Observation look up what these hold themselves; mypy takes that for less than it is.
    __slots__ = ("attributes", "context", "value")

    def __init__(self, number: int) -> None:
        self.value: int | float = 0
        self.attributes = {_POINT: number}  # type: ignore[misc]
        self.context = _CONTEXT  # type: ignore[misc]


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


class PodInstruments:
    """The instruments of one schema. Not for several threads.

    Args:
        metrics: the table.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._readings: Sequence[Reading] = ()
        self._reader = ManualReader()
        no_exemplars = _NoExemplars()
        # No exemplars, no detected resource: the pods' Resources are put on when the rows are exported.
        provider = MeterProvider(
            [self._reader],
            resource=Resource.get_empty(),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
            views=[
                View(instrument_name="*", exemplar_reservoir_factory=lambda _aggregation: lambda **_more: no_exemplars)
            ],
        )
        meter = provider.get_meter(SCOPE_NAME, __version__)
        widest = max((len(metric.figures) for metric in metrics), default=0)
        self._places = [_Place(number) for number in range(_READINGS_AT_ONCE * widest)]
        self._first_column: dict[str, tuple[int, int]] = {}
        self._columns = 0
        for metric in metrics:
            create = (
                meter.create_observable_counter
                if metric.instrument is Instrument.COUNTER
                else meter.create_observable_gauge
            )
            create(metric.name, [self._callback(metric)], metric.unit, metric.description)
            self._first_column[metric.name] = self._columns, len(metric.figures)
            self._columns += len(metric.figures)

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], list[Observation]]:
        getters = [figure.get for figure in metric.figures]

        def observe(_options: CallbackOptions) -> list[Observation]:
            places = iter(self._places)
            observed: list[Observation] = []
            for reading in self._readings:
                for get in getters:
                    place = next(places)
                    value = get(reading)
                    if value is not None:
                        place.value = value
                        observed.append(place)
            return observed

        return observe

    def collect(self, readings: Sequence[Reading]) -> list[Row]:
        """Lets the SDK collect this tick's readings; one row a reading, in their order."""
        rows: list[Row] = []
        for begin in range(0, len(readings), _READINGS_AT_ONCE):
            rows += self._collect_some(readings[begin : begin + _READINGS_AT_ONCE])
        return rows

    def _collect_some(self, readings: Sequence[Reading]) -> list[Row]:
        self._readings = readings
        collected = self._reader.collect_now()
        self._readings = ()
        rows: list[Row] = [[None] * self._columns for _ in readings]
        if collected is None:
            return rows
        for metric in collected.resource_metrics[0].scope_metrics[0].metrics:
            first, width = self._first_column[metric.name]
            points: Any = metric.data.data_points  # numbers all: the table has no histogram
            for point in points:
                index, nth = divmod(point.attributes[_POINT], width)
                rows[index][first + nth] = point.value
        return rows
