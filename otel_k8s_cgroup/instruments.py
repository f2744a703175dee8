"""The table of metrics → observable instruments of the OpenTelemetry SDK, and what the SDK collects from them → rows.

The SDK never forgets an attribute set, and takes 2,000 of them an instrument by default. So it is not shown the pods:
an observation has no attributes, and says by its context whose it is. A View gives each instrument an aggregation that
keeps what was observed, as it was observed; the SDK's own, with attributes that tell the pods apart, take more than
twice the CPU. The pods' attributes join the rows again when they are exported. Counters are collected as cumulative
values; ``export`` turns them into deltas against what was delivered.

This is the one module that names what is private to the SDK, for which pyproject.toml bounds its version and
tests/test_sdk_facts.py tells what has changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opentelemetry.context import Context
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics._internal.aggregation import _LastValueAggregation
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, View
from opentelemetry.sdk.resources import Resource

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Reading

Row = list[int | float | None]
"""One reading's values: one a figure, in the order of the table; a counter's is cumulative; None is absent."""

SCOPE_NAME = "otel_k8s_cgroup"

# So many pods are shown to the SDK at a time: what it makes of them then stays in the processor's cache, and at 1,000
# pods a point costs as much as at 100.
_READINGS_AT_ONCE = 128


class _Place(Context):
    """Whose the value is that is observed: the number of its figure among all readings' figures of one metric."""

    number = 0


class _Observed(Observation):
    """A callback's one observation, another one at each of its steps: a new one takes ten times as long."""

    # The properties of Observation look up what these hold themselves; mypy takes that for less than it is.
    __slots__ = ("attributes", "context", "place", "value")

    def __init__(self) -> None:
        self.value: int | float = 0
        self.attributes = None  # type: ignore[misc]
        # Not empty: an empty one counts as none, and the SDK would look the current one up.
        self.context = self.place = _Place({SCOPE_NAME: None})  # type: ignore[misc]


class _AsObserved(_LastValueAggregation):
    """Keeps every value of a collect with its place. (The SDK takes it for a gauge's; a counter's is cumulative.)"""

    def __init__(self) -> None:
        self._points: list[tuple[int, int | float]] = []

    def aggregate(self, measurement: Measurement, should_sample_exemplar: bool = True) -> None:  # noqa: ARG002 the SDK's signature
        place: Any = measurement.context
        self._points.append((place.number, measurement.value))

    def collect(self, *_temporality_and_start: object) -> Any:
        """All of them as the one data point of their metric."""
        points, self._points = self._points, []
        return points or None


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


class PodInstruments:
    """The instruments of one schema. Not for several threads.

    Args:
        metrics: the table.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._readings: Sequence[Reading] = ()
        self._reader = ManualReader()
        # No exemplars, no detected resource: the pods' Resources are put on when the rows are exported.
        provider = MeterProvider(
            [self._reader],
            resource=Resource.get_empty(),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
            views=[View(instrument_name="*", aggregation=_KeepAsObserved())],
        )
        meter = provider.get_meter(SCOPE_NAME, __version__)
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

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        getters = [figure.get for figure in metric.figures]
        observed = _Observed()
        place = observed.place

        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            number = 0
            for reading in self._readings:
                for get in getters:
                    value = get(reading)
                    if value is not None:
                        observed.value = value
                        place.number = number
                        yield observed
                    number += 1

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
            points: Any = metric.data.data_points[0]
            for number, value in points:
                index, nth = divmod(number, width)
                rows[index][first + nth] = value
        return rows
