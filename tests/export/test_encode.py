"""A pod's message that is filled in is the library's own, byte by byte."""

from __future__ import annotations

import gc

from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.export.encode import Encoder
from otel_k8s_cgroup.export.layout import Layout, Shape
from otel_k8s_cgroup.export.ledger import Step
from otel_k8s_cgroup.metrics import Instrument, columns_of
from otel_k8s_cgroup.model import Attributes, Description, Entity, EntityKind
from otel_k8s_cgroup.schemas import ALUMET
from tests import otlp

COLUMNS = columns_of(ALUMET)
LAYOUT = Layout(COLUMNS)

times = st.integers(1, 2**63 - 1)
counts = st.integers(0, 2**63 - 1)
numbers = st.floats(allow_nan=False)


@st.composite
def a_step(draw: st.DrawFn) -> Step:
    """A value of each column, or none; the row's own value of a counter is not sent."""
    kinds = [numbers if column.is_double else counts for column in COLUMNS]
    row = draw(st.tuples(*(st.none() | kind for kind in kinds)))
    shape = LAYOUT.shape(row)
    deltas, starts = (draw(st.tuples(*[kind] * len(shape.numbers))) for kind in (counts, times))
    return Step(shape, (draw(times), *row, *deltas, *starts))


steps = st.lists(a_step(), min_size=1, max_size=3)


def expected(given_steps: list[Step]) -> list[tuple[object, ...]]:
    """Every point: metric, kind, time, start of a counter, value."""
    found = []
    for shape, (unix_ns, *values) in given_steps:
        row, rest = values[: len(COLUMNS)], values[len(COLUMNS) :]
        counters = iter(zip(rest[: len(rest) // 2], rest[len(rest) // 2 :], strict=True))
        for column, value, is_there in zip(COLUMNS, row, shape.present, strict=True):
            if is_there:
                is_counter = column.metric.instrument is Instrument.COUNTER
                sent, start = next(counters) if is_counter else (value, 0)
                found.append((column.metric.name, dict(column.attributes).get("kind"), unix_ns, start, sent))
    return sorted(found, key=repr)


def entity(point: Attributes) -> Entity:
    """A pod whose points say ``point``."""
    description = Description((("k8s.pod.uid", "uid"), ("n", 1), ("several", ("a", "b"))), {"alumet": point})
    return Entity("uid", EntityKind.POD, lambda: description)


@settings(deadline=None)
@given(requests=st.lists(steps, min_size=1, max_size=4), point_attributes=st.booleans())
def test_any_values_in_any_order(requests: list[list[Step]], point_attributes: bool) -> None:
    """One encoder, request after request, absent values coming and going: each is what the library would serialize."""
    encoder = Encoder(entity((("uid", "uid"),) if point_attributes else ()))
    for request in requests:
        body = encoder.encode(request)
        message = ExportMetricsServiceRequest.FromString(body)
        assert message.SerializeToString() == body
        points = otlp.points([message])
        found = [(each.metric, each.attributes.get("kind"), each.time_ns, each.start_ns, each.value) for each in points]
        assert sorted(found, key=repr) == expected(request)
        assert {each.attributes.get("uid") for each in points} <= {"uid" if point_attributes else None}


def test_a_time_before_1970_is_0() -> None:
    """The library leaves a 0 out, the template writes it: both say the same."""
    row = (7, *[None] * (len(COLUMNS) - 1))
    body = Encoder(entity(())).encode([Step(LAYOUT.shape(row), (0, *row, 7, 0))])
    (point,) = otlp.points([ExportMetricsServiceRequest.FromString(body)])
    assert (point.time_ns, point.start_ns, point.value) == (0, 0, 7)


def test_shapes_are_bounded() -> None:
    """Who makes what is read come and go, as a pod's interfaces do, makes no memory grow for good."""
    layout = Layout(COLUMNS)
    for number in range(2 ** len(COLUMNS)):
        layout.shape([1 if number >> place & 1 else None for place in range(len(COLUMNS))])
    kept = [each for each in gc.get_objects() if isinstance(each, Shape) and each.layout is layout]
    assert 0 < len(kept) <= 1000 < 2 ** len(COLUMNS)
