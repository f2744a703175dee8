"""What the exporter relies on in the OpenTelemetry SDK, the OTLP package and protobuf, each fact by itself.

When one fails after an upgrade, its message says which of our modules has to change, and how.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.view import Aggregation, View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.export.encode import SCOPE_NAME, Encoder
from otel_k8s_cgroup.export.layout import Layout
from otel_k8s_cgroup.export.ledger import Step
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import ManualReader
from otel_k8s_cgroup.metrics import Instrument, columns_of
from otel_k8s_cgroup.model import Pod
from otel_k8s_cgroup.schemas import ALUMET

if TYPE_CHECKING:
    from collections.abc import Sequence

Kind = str
KINDS = ("counter", "gauge")


class Seen:
    """An observable instrument of each kind whose observations the test sets, and what is collected of it."""

    def __init__(self, kind: Kind, **provider: Any) -> None:
        self.observations: Sequence[Observation] = ()
        self.threads: list[threading.Thread] = []
        self.reader = ManualReader()
        self.provider = MeterProvider(
            [self.reader],
            resource=Resource.get_empty(),
            shutdown_on_exit=False,
            exemplar_filter=AlwaysOffExemplarFilter(),
            **provider,
        )
        meter = self.provider.get_meter("test")
        create = meter.create_observable_counter if kind == "counter" else meter.create_observable_gauge
        create("metric", [self._observe], "1", "")

    def _observe(self, _options: CallbackOptions) -> Sequence[Observation]:
        self.threads.append(threading.current_thread())
        return self.observations

    def collect(self, *observations: Observation) -> list[Any]:
        self.observations = observations
        collected = self.reader.collect_now()
        if collected is None:
            return []
        (metric,) = collected.resource_metrics[0].scope_metrics[0].metrics
        return list(metric.data.data_points)


@pytest.mark.parametrize("kind", KINDS)
def test_a_collect_runs_the_callbacks_in_the_thread_that_asks_for_it(kind: Kind) -> None:
    """And the reader has the result when it returns."""
    before = threading.enumerate()
    seen = Seen(kind)
    assert [point.value for point in seen.collect(Observation(1))] == [1], (
        "MetricReader.collect() no longer hands on what it collected before it returns: instruments.ManualReader"
    )
    assert seen.threads == [threading.current_thread()], (
        "callbacks run in another thread now: instruments.Instruments sets the readings without a lock"
    )
    assert threading.enumerate() == before, "MeterProvider or MetricReader starts a thread now: README, threads"


class Kept:
    """What an aggregation of ours is given; ``instruments`` has the like."""

    def __init__(self) -> None:
        self.values: list[tuple[object, int | float]] = []

    def view(self) -> View:
        try:
            from opentelemetry.sdk.metrics._internal.aggregation import _LastValueAggregation  # noqa: PLC0415
        except ImportError:
            pytest.fail("instruments._AsObserved: the SDK's _LastValueAggregation is no longer there")
        kept = self

        class Ours(_LastValueAggregation):
            def __init__(self) -> None:
                """Nothing of the SDK's."""

            def aggregate(self, measurement: Any, should_sample_exemplar: bool = True) -> None:  # noqa: ARG002
                kept.values.append((measurement.context, measurement.value))

            def collect(self, *_: object) -> Any:
                return list(kept.values) or None

        class Factory(Aggregation):
            def _create_aggregation(self, *_: object) -> Any:
                return Ours()

        return View(instrument_name="*", aggregation=Factory())


@pytest.mark.parametrize("kind", KINDS)
def test_an_aggregation_of_ours_is_given_each_observation_as_it_is(kind: Kind) -> None:
    """The same value, whatever came before it, with the observation's own context, in order; and what it collects are
    the metric's data points.
    """
    kept = Kept()
    seen = Seen(kind, views=[kept.view()])
    contexts = [Context({"any": number}) for number in range(3)]
    points = seen.collect(*(Observation(2**62 - number, None, each) for number, each in enumerate(contexts)))
    assert kept.values == [(each, 2**62 - number) for number, each in enumerate(contexts)], (
        "instruments._AsObserved: the SDK no longer hands every measurement to the aggregation of a View"
    )
    assert all(given is own for (given, _), own in zip(kept.values, contexts, strict=True)), (
        "instruments._Place: the SDK copies an observation's context now"
    )
    assert points == [kept.values], (
        "instruments.Instruments.collect: a metric's one data point is not what collect() gave"
    )


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_point_there_is_no_metric(kind: Kind) -> None:
    """What an aggregation collects may be None."""
    assert Seen(kind, views=[Kept().view()]).collect() == []


def test_each_observation_is_aggregated_before_the_next_is_asked_for() -> None:
    """So one object may be all of them."""
    kept = Kept()
    seen = Seen("gauge", views=[kept.view()])

    class Lazily(list[Observation]):
        def __iter__(self) -> Any:
            for number in range(3):
                assert len(kept.values) == number, "instruments._Observed: the SDK gathers observations first now"
                yield Observation(number)

    seen.observations = Lazily()
    seen.reader.collect_now()
    assert len(kept.values) == 3, "instruments._Observed: the SDK asked for no, or not all observations"


def test_a_context_of_its_own_is_what_an_observation_has() -> None:
    """And one that is not empty spares the look for the current one."""
    context = Context({"any": None})
    assert Observation(1, {}, context).context is context, "instruments._Observed: Observation's arguments have changed"
    assert bool(context), "instruments._Place: this context counts as none, and the SDK looks for one"


def test_requests_that_are_joined_are_one_request() -> None:
    """What delivery._send_one() does: the concatenation of serialized messages holds the elements of both."""
    one, two = ExportMetricsServiceRequest(), ExportMetricsServiceRequest()
    one.resource_metrics.add().schema_url = "a"
    two.resource_metrics.add().schema_url = "b"
    joined = ExportMetricsServiceRequest.FromString(one.SerializeToString() + two.SerializeToString())
    assert [each.schema_url for each in joined.resource_metrics] == ["a", "b"]


def test_a_pods_bytes_are_those_of_the_librarys_encoder() -> None:
    """The messages that we keep say what ``encode_metrics`` says of the same points."""
    pod = Pod("uid-1", "cart", "shop", "node-1", "2026-01-01T00:00:00Z", "uid-1")
    columns = columns_of(ALUMET)
    values = tuple(number + 0.5 if column.is_double else number for number, column in enumerate(columns))
    counters = [
        value for column, value in zip(columns, values, strict=True) if column.metric.instrument is Instrument.COUNTER
    ]
    step = Step(Layout(columns).shape(values), (2_000, *values, *counters, *[1_000] * len(counters)))
    ours = Encoder(Describe(with_points=False).pod(pod, "/pod")).encode([step])

    def data(metric_name: str) -> Sum | Gauge:
        points = [
            NumberDataPoint(
                dict(column.attributes),
                1_000 if column.metric.instrument is Instrument.COUNTER else None,  # type: ignore[arg-type] # a gauge has none
                2_000,
                value,
            )
            for column, value in zip(columns, values, strict=True)
            if column.metric.name == metric_name
        ]
        metric = next(metric for metric in ALUMET if metric.name == metric_name)
        if metric.instrument is Instrument.COUNTER:
            return Sum(points, AggregationTemporality.DELTA, is_monotonic=True)
        return Gauge(points)

    resource = Resource(
        {
            "k8s.pod.uid": "uid-1",
            "k8s.pod.name": "cart",
            "k8s.namespace.name": "shop",
            "k8s.node.name": "node-1",
            "k8s.pod.start_time": "2026-01-01T00:00:00Z",
            "cgroup.path": "/pod",
        }
    )
    metrics = [Metric(metric.name, "", metric.unit, data(metric.name)) for metric in ALUMET]
    scope = ScopeMetrics(InstrumentationScope(SCOPE_NAME, __version__), metrics, "")
    theirs = encode_metrics(MetricsData([ResourceMetrics(resource, [scope], "")]))
    assert ExportMetricsServiceRequest.FromString(ours) == theirs, (
        "OTLP's shape or the library's encoder has changed: export/encode.Encoder"
    )
