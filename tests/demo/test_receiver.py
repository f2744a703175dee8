"""The receiver decodes what the protocol allows and refuses the rest with the right status."""

from __future__ import annotations

import gzip
import http.client
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_k8s_cgroup.demo.receiver import MAX_BODY_BYTES, Point, Receiver, decode

if TYPE_CHECKING:
    from collections.abc import Iterator

PROTOBUF = {"Content-Type": "application/x-protobuf"}


@pytest.fixture
def points() -> list[Point]:
    return []


@pytest.fixture
def receiver(points: list[Point]) -> Iterator[Receiver]:
    server = Receiver(points.extend)
    yield server
    server.close()


def _request(value: float = 2.5) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    of_resource.resource.attributes.add(key="k8s.pod.uid").value.string_value = "u"
    metrics = of_resource.scope_metrics.add().metrics
    delta = metrics.add(name="cpu_time_delta", unit="ns").sum.data_points.add(
        time_unix_nano=20, start_time_unix_nano=10, as_int=7
    )
    delta.attributes.add(key="kind").value.string_value = "total"
    metrics.add(name="cpu_percent", unit="%").gauge.data_points.add(time_unix_nano=20, as_double=value)
    return request


EXPECTED = [
    Point(20, 10, "cpu_time_delta", "ns", 7, {"kind": "total"}, {"k8s.pod.uid": "u"}),
    Point(20, None, "cpu_percent", "%", 2.5, {}, {"k8s.pod.uid": "u"}),
]


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_points_come_out_as_they_were_sent(receiver: Receiver, points: list[Point], encoding: str) -> None:
    """Plain and compressed; the answer is the protocol's own."""
    body = _request().SerializeToString()
    answer = requests.post(
        receiver.url + "/v1/metrics",
        data=gzip.compress(body) if encoding == "gzip" else body,
        headers=PROTOBUF | {"Content-Encoding": encoding},
        timeout=10,
    )
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/x-protobuf"
    assert ExportMetricsServiceResponse.FromString(answer.content) == ExportMetricsServiceResponse()
    assert points == EXPECTED


BOMB = gzip.compress(bytes(MAX_BODY_BYTES + 1))


@pytest.mark.parametrize(
    ("path", "headers", "body", "status"),
    [
        ("/v1/traces", PROTOBUF, b"", 404),
        ("/v1/metrics", {"Content-Type": "application/json"}, b"{}", 415),
        ("/v1/metrics", PROTOBUF | {"Content-Encoding": "br"}, b"", 415),
        ("/v1/metrics", PROTOBUF, b"no protobuf", 400),
        ("/v1/metrics", PROTOBUF | {"Content-Encoding": "gzip"}, b"no gzip", 400),
        ("/v1/metrics", PROTOBUF | {"Content-Encoding": "gzip"}, gzip.compress(b"cut short")[:-9], 400),
        ("/v1/metrics", PROTOBUF | {"Content-Encoding": "gzip"}, BOMB, 413),
        ("/v1/metrics", PROTOBUF | {"Content-Length": str(MAX_BODY_BYTES + 1)}, b"", 413),
        ("/v1/metrics", PROTOBUF | {"Content-Length": "-1"}, b"", 411),
    ],
    ids=["path", "type", "encoding", "protobuf", "gzip", "cut-gzip", "bomb", "too-long", "no-length"],
)
def test_what_it_does_not_take_is_refused(
    receiver: Receiver, points: list[Point], *, path: str, headers: dict[str, str], body: bytes, status: int
) -> None:
    """Each by its own status; nothing of it is kept, and the next request is served."""
    connection = http.client.HTTPConnection(urlsplit(receiver.url).netloc, timeout=10)
    connection.request("POST", path, body, {"Content-Length": str(len(body))} | headers)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == status
    assert points == []
    connection.request("POST", "/v1/metrics", _request().SerializeToString(), PROTOBUF)
    assert connection.getresponse().status == 200
    connection.close()


def test_every_kind_of_metric_gives_points() -> None:
    """A histogram's or a summary's value is its count and sum; a metric without data gives none."""
    request = ExportMetricsServiceRequest()
    metrics = request.resource_metrics.add().scope_metrics.add().metrics
    metrics.add(name="empty")
    metrics.add(name="h").histogram.data_points.add(count=3, sum=1.5)
    metrics.add(name="e").exponential_histogram.data_points.add(count=4, sum=2.5)
    metrics.add(name="s").summary.data_points.add(count=5, sum=3.5)
    metrics.add(name="none").gauge.data_points.add()
    assert {point.metric: point.value for point in decode(request.SerializeToString())} == {
        "h": {"count": 3, "sum": 1.5},
        "e": {"count": 4, "sum": 2.5},
        "s": {"count": 5, "sum": 3.5},
        "none": None,
    }


def test_every_kind_of_attribute_is_plain() -> None:
    """So that it can be written as JSON."""
    request = ExportMetricsServiceRequest()
    of_resource = request.resource_metrics.add()
    add = of_resource.resource.attributes.add
    add(key="text").value.string_value = "t"
    add(key="flag").value.bool_value = True
    add(key="count").value.int_value = -1
    add(key="ratio").value.double_value = 0.5
    add(key="raw").value.bytes_value = b"\x01\xff"
    add(key="list").value.array_value.values.add().string_value = "item"
    add(key="map").value.kvlist_value.values.add(key="k").value.int_value = 2
    add(key="nothing")
    of_resource.scope_metrics.add().metrics.add(name="m").gauge.data_points.add(as_int=1)
    (point,) = decode(request.SerializeToString())
    assert point.resource == {
        "text": "t",
        "flag": True,
        "count": -1,
        "ratio": 0.5,
        "raw": "01ff",
        "list": ["item"],
        "map": {"k": 2},
        "nothing": None,
    }


@pytest.mark.parametrize(("sent", "told"), [(float("inf"), "inf"), (float("nan"), "nan")])
def test_numbers_that_json_lacks_are_words(sent: float, told: str) -> None:
    """A line of --json is JSON whatever came in."""
    assert decode(_request(sent).SerializeToString())[1].value == told


@given(st.binary(max_size=200))
def test_any_bytes_are_points_or_a_value_error(body: bytes) -> None:
    """No other exception comes out of decoding."""
    try:
        assert isinstance(decode(body), list)
    except ValueError as error:
        assert "ExportMetricsServiceRequest" in str(error)  # noqa: PT017 - most bytes raise, some do not
