"""OTLP messages → plain values that tests compare."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint

_TYPES = {"as_int": "int", "as_double": "double"}


@dataclass(frozen=True, slots=True)
class Point:
    """One data point, with what is said of its resource and metric."""

    resource: dict[str, Any]
    scope: str
    metric: str
    unit: str
    kind: str
    """``gauge int``, ``gauge double``, ``delta monotonic sum int``, …"""
    attributes: dict[str, Any]
    start_ns: int
    time_ns: int
    value: int | float

    @property
    def pod(self) -> str:
        """``k8s.pod.uid``; empty where the resource is no pod."""
        return str(self.resource.get("k8s.pod.uid", ""))

    @property
    def series(self) -> tuple[str, str, tuple[tuple[str, str], ...]]:
        """What makes points those of one series."""
        return self.pod, self.metric, tuple(sorted(self.attributes.items()))


def points(messages: Iterable[ExportMetricsServiceRequest]) -> list[Point]:
    """Every point of ``messages``, in their order."""
    return [point for message in messages for point in _points_of(message)]


def cpu_time(of: Iterable[Point], pod: str) -> dict[str, int]:
    """kind → the sum of the pod's ``cpu_time_delta``, in ns."""
    sums: dict[str, int] = defaultdict(int)
    for point in of:
        if point.pod == pod and point.metric == "cpu_time_delta":
            sums[point.attributes["kind"]] += int(point.value)
    return dict(sums)


def defects(of: Iterable[Point]) -> list[str]:
    """What no series may have: a negative sum, a point twice, a start after its time, a gap between two deltas, a
    cumulative sum that falls or starts anew, an empty attribute. One line each.
    """
    found = []
    series: dict[object, list[Point]] = defaultdict(list)
    for point in of:
        series[point.series].append(point)
        if point.time_ns < point.start_ns:
            found.append(f"starts after its time: {point}")
        if "" in (point.resource | point.attributes).values():
            found.append(f"an empty attribute: {point}")
        if "sum" in point.kind and point.value < 0:
            found.append(f"a negative sum: {point}")
    for of_one in series.values():
        ordered = sorted(of_one, key=lambda point: point.time_ns)
        for before, after in pairwise(ordered):
            if before.time_ns == after.time_ns:
                found.append(f"twice at one time: {before} {after}")
            elif "delta" in after.kind and after.start_ns != before.time_ns:
                found.append(f"does not start where the one before ended: {before} {after}")
            elif "cumulative" in after.kind and (after.start_ns != before.start_ns or after.value < before.value):
                found.append(f"does not go on from the one before: {before} {after}")
    return found


def _points_of(message: ExportMetricsServiceRequest) -> Iterator[Point]:
    for of_resource in message.resource_metrics:
        resource = _attributes(of_resource.resource.attributes)
        for of_scope in of_resource.scope_metrics:
            for metric in of_scope.metrics:
                for point in _data(metric):
                    which = point.WhichOneof("value") or ""
                    yield Point(
                        resource,
                        of_scope.scope.name,
                        metric.name,
                        metric.unit,
                        f"{_kind(metric)} {_TYPES[which]}",
                        _attributes(point.attributes),
                        point.start_time_unix_nano,
                        point.time_unix_nano,
                        point.as_int if which == "as_int" else point.as_double,
                    )


def _data(metric: Metric) -> Iterable[NumberDataPoint]:
    return metric.gauge.data_points if metric.HasField("gauge") else metric.sum.data_points


def _kind(metric: Metric) -> str:
    if metric.HasField("gauge"):
        return "gauge"
    if not metric.HasField("sum"):
        raise AssertionError(f"neither gauge nor sum: {metric}")
    delta = metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    return f"{'delta' if delta else 'cumulative'} {'monotonic ' if metric.sum.is_monotonic else ''}sum"


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Any]:
    attributes: dict[str, Any] = {}
    for pair in pairs:
        if pair.key in attributes:
            raise AssertionError(f"attribute {pair.key} twice")
        attributes[pair.key] = _value(pair.value)
    return attributes


def _value(value: AnyValue) -> Any:
    """A string, an integer, or a tuple of such."""
    match value.WhichOneof("value"):
        case "string_value":
            return value.string_value
        case "int_value":
            return value.int_value
        case "array_value":
            return tuple(map(_value, value.array_value.values))
        case other:
            raise AssertionError(f"{other}: {value}")
