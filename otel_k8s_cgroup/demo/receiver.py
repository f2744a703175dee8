"""An OTLP/HTTP receiver on a loopback port, and what it makes of a request: plain points.

Protocol: https://opentelemetry.io/docs/specs/otlp/#otlphttp (binary protobuf, gzip or not).
"""

from __future__ import annotations

import math
import threading
import zlib
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
    from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric

MAX_BODY_BYTES = 16 * 1024 * 1024
_IDLE_SECONDS = 60.0

Value = str | bool | int | float | list["Value"] | dict[str, "Value"] | None


@dataclass(frozen=True, slots=True)
class Point:
    """One data point with all that was said around it."""

    time_unix_nano: int
    start_time_unix_nano: int | None
    """None where the point has none (a gauge's)."""
    metric: str
    unit: str
    value: Value
    """A number; of a histogram or a summary ``{"count": …, "sum": …}``."""
    attributes: dict[str, Value]
    resource: dict[str, Value]

    @property
    def pod_uid(self) -> str | None:
        """Of the pod that it is about; None where it is one of the exporter's own."""
        uid = self.resource.get("k8s.pod.uid")
        return uid if isinstance(uid, str) else None


class Receiver:
    """Receives until closed.

    Args:
        sink: is given the points of each request that could be decoded, from several threads.
    """

    def __init__(self, sink: Callable[[list[Point]], None]) -> None:
        self._server = _Server(sink)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="demo-otlp", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """As an exporter's base endpoint: without ``/v1/metrics``."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def decode(body: bytes) -> list[Point]:
    """The points of an ``ExportMetricsServiceRequest``.

    Raises:
        ValueError: it is none.
    """
    try:
        request = ExportMetricsServiceRequest.FromString(body)
    except DecodeError as error:
        raise ValueError(f"not an ExportMetricsServiceRequest: {error}") from None
    return [
        point
        for of_resource in request.resource_metrics
        for resource in (_attributes(of_resource.resource.attributes),)
        for of_scope in of_resource.scope_metrics
        for metric in of_scope.metrics
        for point in _points(metric, resource)
    ]


def _points(metric: Metric, resource: dict[str, Value]) -> Iterator[Point]:
    kind = metric.WhichOneof("data")
    if kind is None:
        return
    for point in getattr(metric, kind).data_points:
        value: Value
        if kind in ("gauge", "sum"):
            number = point.WhichOneof("value")
            value = None if number is None else _finite(getattr(point, number))
        else:
            value = {"count": point.count, "sum": point.sum}
        yield Point(
            point.time_unix_nano,
            point.start_time_unix_nano or None,
            metric.name,
            metric.unit,
            value,
            _attributes(point.attributes),
            resource,
        )


def _finite(number: float) -> float | str:
    # JSON has no others; protobuf's own JSON form writes them as strings, too.
    return number if math.isfinite(number) else str(number)


def _attributes(pairs: Iterable[KeyValue]) -> dict[str, Value]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: AnyValue) -> Value:
    match value.WhichOneof("value"):
        case None:
            return None
        case "array_value":
            return [_value(item) for item in value.array_value.values]
        case "kvlist_value":
            return _attributes(value.kvlist_value.values)
        case "bytes_value":
            return value.bytes_value.hex()
        case kind:
            plain: str | bool | int | float = getattr(value, kind)
            return plain


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, sink: Callable[[list[Point]], None]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.sink = sink

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, as the exporter does at the end, is not worth a traceback."""


class _Refused(Exception):
    """The answer to a request that is not taken."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        pass

    def do_POST(self) -> None:
        try:
            points = self._points()
        except _Refused as refused:
            self._send(refused.status, "text/plain", str(refused).encode())
        else:
            self.server.sink(points)
            self._send(200, "application/x-protobuf", ExportMetricsServiceResponse().SerializeToString())

    def _points(self) -> list[Point]:
        body = self._body()
        if self.path != "/v1/metrics":
            raise _Refused(404, "metrics go to /v1/metrics")
        if self.headers.get_content_type() != "application/x-protobuf":
            raise _Refused(415, "only application/x-protobuf is understood")
        try:
            return decode(_decompressed(body, self.headers.get("Content-Encoding", "identity")))
        except ValueError as error:
            raise _Refused(400, str(error)) from None

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if length.isdecimal() and int(length) <= MAX_BODY_BYTES:
            return self.rfile.read(int(length))
        self.close_connection = True  # what is not read would be taken for the next request
        if length.isdecimal():
            raise _Refused(413, f"at most {MAX_BODY_BYTES} bytes are taken")
        raise _Refused(411, "a Content-Length is needed")

    def _send(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)


def _decompressed(body: bytes, encoding: str) -> bytes:
    if encoding == "identity":
        return body
    if encoding != "gzip":
        raise _Refused(415, f"Content-Encoding {encoding[:40]!r}: only gzip and identity are understood")
    inflate = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        plain = inflate.decompress(body, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise ValueError(f"not gzip: {error}") from None
    if len(plain) > MAX_BODY_BYTES:
        raise _Refused(413, f"at most {MAX_BODY_BYTES} bytes are taken, decompressed")
    if not inflate.eof:
        raise ValueError("not gzip: it ends in the middle")
    return plain
