"""A pod's message that is filled in is the library's own, byte by byte."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.export.encode import PodEncoder, columns_of
from otel_k8s_cgroup.export.ledger import Step
from otel_k8s_cgroup.metrics import ALUMET, Instrument
from otel_k8s_cgroup.model import Pod
from tests import otlp

COLUMNS = columns_of(ALUMET, "", "")
POD = Pod("uid", "name", "ns", "node", None, "uid")

times = st.integers(1, 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False)


def values() -> st.SearchStrategy[list[int | float | None]]:
    """One of each column, or absent."""
    kinds = [numbers if column.metric.instrument is Instrument.GAUGE_DOUBLE else counts for column in COLUMNS]
    return st.tuples(*(st.none() | kind for kind in kinds)).map(list)


steps = st.lists(st.builds(Step, times, values(), st.lists(times, min_size=3, max_size=3)), min_size=1, max_size=3)


def expected(given_steps: list[Step]) -> list[tuple[object, ...]]:
    """Every point: metric, kind, time, start of a counter, value."""
    found = []
    for step in given_steps:
        starts = iter(step.starts_unix_ns)
        for column, value in zip(COLUMNS, step.values, strict=True):
            start = next(starts) if column.metric.instrument is Instrument.COUNTER else 0
            if value is not None:
                found.append((column.name, column.kind, step.unix_ns, start, value))
    return sorted(found, key=repr)


@settings(deadline=None)
@given(requests=st.lists(steps, min_size=1, max_size=4), point_attributes=st.booleans())
def test_any_values_in_any_order(requests: list[list[Step]], point_attributes: bool) -> None:
    """One encoder, request after request, absent values coming and going: each is what the library would serialize."""
    encoder = PodEncoder(POD, "/path", COLUMNS, point_attributes=point_attributes)
    for request in requests:
        body, count = encoder.encode(request)
        message = ExportMetricsServiceRequest.FromString(body)
        assert message.SerializeToString() == body
        points = otlp.points([message])
        found = [(each.metric, each.attributes.get("kind"), each.time_ns, each.start_ns, each.value) for each in points]
        assert sorted(found, key=repr) == expected(request)
        assert count == len(found)
        assert {each.attributes.get("uid") for each in points} <= {"uid" if point_attributes else None}


def test_a_time_before_1970_is_0() -> None:
    """The library leaves a 0 out, the template writes it: both say the same."""
    encoder = PodEncoder(POD, "/path", COLUMNS, point_attributes=False)
    row: list[int | float | None] = [7, *[None] * (len(COLUMNS) - 1)]
    body, _ = encoder.encode([Step(0, row, [0, 0, 0])])
    (point,) = otlp.points([ExportMetricsServiceRequest.FromString(body)])
    assert (point.time_ns, point.start_ns, point.value) == (0, 0, 7)
