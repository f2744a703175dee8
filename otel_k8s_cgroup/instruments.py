"""The table of a tick → observable instruments of the OpenTelemetry SDK, and what the SDK collects from them → rows.

The SDK never forgets an attribute set, takes 2,000 of them an instrument by default, and needs 3 µs a point. So it is
not shown the pods: an instrument's callback observes columns of the table, one observation each, whose value is a
number for the SDK and carries the column. A View gives each instrument an aggregation that keeps what was observed as
it was observed. The pods' attributes join the rows again when they are exported. Counters are collected as cumulative
values; ``export`` turns them into deltas against what was delivered.

This is the one module that names what is private to the SDK, for which pyproject.toml bounds its version and
tests/test_sdk_facts.py tells what has changed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics._internal.aggregation import _LastValueAggregation
from opentelemetry.sdk.metrics.export import MetricReader, MetricsData
from opentelemetry.sdk.metrics.view import Aggregation, View
from opentelemetry.sdk.resources import Resource

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.metrics import Instrument, Rows, columns_of
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from opentelemetry.sdk.metrics._internal.measurement import Measurement

    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Reading
    from otel_k8s_cgroup.table import Values

SCOPE_NAME = "otel_k8s_cgroup"


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


class PodInstruments:
    """The instruments of one schema. Not for several threads.

    Args:
        metrics: the table.
    """

    def __init__(self, metrics: Sequence[Metric]) -> None:
        self._table = Table(())
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
        for metric in metrics:
            create = (
                meter.create_observable_counter
                if metric.instrument is Instrument.COUNTER
                else meter.create_observable_gauge
            )
            create(metric.name, [self._callback(metric)], metric.unit, metric.description)
        self._names = [metric.name for metric in metrics]
        self.columns = columns_of(metrics)

    def _callback(self, metric: Metric) -> Callable[[CallbackOptions], Iterator[Observation]]:
        def observe(_options: CallbackOptions) -> Iterator[Observation]:
            for point in metric.points:
                yield Observation(_observed(self._table.column(point.figure)))

        return observe

    def collect(self, readings: Sequence[Reading]) -> Rows:
        """Lets the SDK collect this tick's readings; one row a reading, in their order."""
        self._table = Table(readings)
        collected = self._reader.collect_now()
        self._table = Table(())
        if collected is None:
            return Rows(self.columns, [])
        metrics = {metric.name: metric for metric in collected.resource_metrics[0].scope_metrics[0].metrics}
        columns: list[Any] = []
        for name in self._names:
            kept: Any = metrics[name].data.data_points[0]
            columns += kept
        return Rows(self.columns, list(zip(*columns, strict=True)))
