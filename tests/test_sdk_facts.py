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
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.export.encode import SCOPE_NAME, PodEncoder, columns_of
from otel_k8s_cgroup.export.ledger import Step
from otel_k8s_cgroup.instruments import ManualReader
from otel_k8s_cgroup.metrics import ALUMET, Instrument
from otel_k8s_cgroup.model import Pod

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
        "callbacks run in another thread now: instruments.PodInstruments sets the readings without a lock"
    )
    assert threading.enumerate() == before, "MeterProvider or MetricReader starts a thread now: README, threads"


@pytest.mark.parametrize("kind", KINDS)
def test_a_place_that_is_used_again_has_the_new_value_alone(kind: Kind) -> None:
    """A counter's value is what was observed, not a sum; also where it goes down (another pod stands there now)."""
    seen = Seen(kind)
    place = {"point": 7}
    for value in (100, 3, 2**62):
        (point,) = seen.collect(Observation(value, place))
        assert (point.value, type(point.value), dict(point.attributes)) == (value, int, place), (
            "the SDK changes what was observed: instruments.py cannot show one place for several pods"
        )


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_not_observed_is_not_collected(kind: Kind) -> None:
    """A place without an observation has no point, whatever it had before."""
    seen = Seen(kind)
    assert len(seen.collect(Observation(1, {"point": 0}), Observation(2, {"point": 1}))) == 2
    assert [point.value for point in seen.collect(Observation(3, {"point": 1}))] == [3], (
        "the SDK repeats a point that was not observed: instruments._collect_some() would give it to another pod"
    )
    assert seen.collect() == []


def test_a_context_of_its_own_is_an_observations_third_argument() -> None:
    """And one that is not empty spares the look for the current one."""
    context = Context({"any": None})
    assert Observation(1, {}, context).context is context, "instruments._CONTEXT: Observation's arguments have changed"
    assert bool(context), "instruments._CONTEXT: this context counts as none, and the SDK looks for one"


def test_a_reservoir_is_made_by_what_a_factory_gives() -> None:
    """A View's factory is asked for a builder, and the one reservoir may serve all points."""
    made: list[object] = []
    reservoir = object()

    def factory(aggregation: type) -> Callable[..., Any]:
        made.append(aggregation)
        return lambda **_more: reservoir

    seen = Seen("gauge", views=[View(instrument_name="*", exemplar_reservoir_factory=factory)])
    with pytest.raises(AttributeError, match="collect"):
        seen.collect(Observation(1))
    assert made, "instruments.PodInstruments: the view's exemplar_reservoir_factory is not asked any more"


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
    columns = columns_of(ALUMET, "", "")
    values: list[int | float | None] = [
        number + 0.5 if column.metric.instrument is Instrument.GAUGE_DOUBLE else number
        for number, column in enumerate(columns)
    ]
    counters = sum(column.metric.instrument is Instrument.COUNTER for column in columns)
    ours, _ = PodEncoder(pod, "/pod", columns, point_attributes=False).encode([Step(2_000, values, [1_000] * counters)])

    def data(metric_name: str) -> Sum | Gauge:
        points = [
            NumberDataPoint(
                {} if column.kind is None else {"kind": column.kind},
                1_000 if column.metric.instrument is Instrument.COUNTER else None,  # type: ignore[arg-type] # a gauge has none
                2_000,
                value,  # type: ignore[arg-type] # all are there
            )
            for column, value in zip(columns, values, strict=True)
            if column.name == metric_name
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
        "OTLP's shape or the library's encoder has changed: export/encode.PodEncoder"
    )
