"""What a receiver may answer, over sockets: whatever it is, that is a receipt or an ExportError, and read rightly."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.model import OtlpTarget
from tests.fakes.faulty_otlp import Connection, FaultyServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_k8s_cgroup.export import Transport

# No deadline: how long an answer takes is the machine's affair.
over_sockets = settings(deadline=None, max_examples=150)

RETRYABLE = {429, 502, 503, 504}


def tried(transport: Transport) -> Receipt | ExportError:
    """What comes of a request; an error is fit for a line of the log, and any other exception goes on."""
    try:
        outcome: Receipt | ExportError = transport.send(b"")
    except ExportError as error:
        outcome = error
    if isinstance(outcome, ExportError):
        assert str(outcome).isprintable()
        assert len(str(outcome)) < 1000
    else:
        assert outcome.rejected_points >= 0
    if isinstance(outcome, ExportRetryable) and outcome.retry_after_seconds is not None:
        assert 0 <= outcome.retry_after_seconds < math.inf
    return outcome


responses = st.builds(
    lambda points, message: ExportMetricsServiceResponse(
        partial_success=ExportMetricsPartialSuccess(rejected_data_points=points, error_message=message)
    ),
    st.integers(-(2**63), 2**63 - 1),
    st.text(max_size=30),
)
# A later version's answer has more in it: field 15, a varint.
later = st.sampled_from([b"", b"\x78\x01"])
whole_answers = st.builds(lambda response, more: response.SerializeToString() + more, responses, later)
answers = st.binary(max_size=60) | whole_answers


# --- HTTP -----------------------------------------------------------------------------------------------------------


class HttpSite(NamedTuple):
    """A server that answers each request with the bytes in ``answer``, and a transport to it."""

    answer: list[bytes]
    transport: Transport


@pytest.fixture(scope="module")
def http() -> Iterator[HttpSite]:
    answer = [b""]

    def behave(connection: Connection) -> None:
        while len(connection.read_request()) > 4:
            connection.send(answer[0])
            if b"Content-Length" not in answer[0] or b"Connection: close" in answer[0]:
                return

    with FaultyServer(behave) as server:
        transport = open_transport(OtlpTarget("http/protobuf", f"http://127.0.0.1:{server.port}/v1/metrics"))
        yield HttpSite(answer, transport)
        transport.close()


def http_answer(status: int, body: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Words" % status, b"Content-Length: %d" % len(body), *headers, b"", body]
    return b"\r\n".join(lines)


field_texts = st.text(st.characters(exclude_characters="\r\n"), max_size=20).map(
    lambda text: text.encode("utf-8", "surrogatepass")
)


@over_sockets
@given(
    status=st.integers(200, 599) | st.sampled_from([200, 301, 400, 413, *RETRYABLE]),
    body=answers,
    headers=st.lists(
        st.builds(
            lambda name, value: name + b": " + value,
            st.sampled_from([b"Retry-After", b"Location", b"Content-Encoding", b"Set-Cookie", b"X"]),
            field_texts | st.sampled_from([b"7", b"gzip", b"9" * 400, b"Thu, 01 Jan 1970 00:00:07 GMT"]),
        ),
        max_size=3,
    ),
)
def test_an_http_answer_is_what_its_status_says(http: HttpSite, status: int, body: bytes, headers: list[bytes]) -> None:
    """Whatever stands in its headers and body."""
    http.answer[0] = http_answer(status, body, *headers)
    outcome = tried(http.transport)
    expected: type[Receipt | ExportError] = (
        Receipt
        if status < 300
        else ExportRetryable
        if status in RETRYABLE
        else ExportTooLarge
        if status == 413
        else ExportRejected
    )
    assert type(outcome) is expected
    if isinstance(outcome, ExportError):
        assert outcome.cause == f"HTTP {status}"


@over_sockets
@given(response=responses, more=later, seconds=st.integers(0, 10**9))
def test_a_whole_http_answer_is_read_rightly(
    http: HttpSite, response: ExportMetricsServiceResponse, more: bytes, seconds: int
) -> None:
    """The points that it rejects and its words; the seconds that it asks for, and the words of its Status."""
    http.answer[0] = http_answer(200, response.SerializeToString() + more)
    partial = response.partial_success
    assert tried(http.transport) == Receipt(max(0, partial.rejected_data_points), partial.error_message)
    http.answer[0] = http_answer(503, Status(message="busy").SerializeToString() + more, b"Retry-After: %d" % seconds)
    outcome = tried(http.transport)
    assert isinstance(outcome, ExportRetryable)
    assert outcome.retry_after_seconds == seconds
    assert str(outcome).endswith(": 'busy'")


@over_sockets
@given(
    framing=st.sampled_from(
        [b"Transfer-Encoding: chunked", b"Content-Length: 999", b"Content-Encoding: gzip", b"X: y"]
    ),
    body=answers | answers.map(lambda answer: b"%x\r\n%b" % (len(answer) + 1, answer)),
)
def test_a_request_that_was_taken_is_never_sent_again(http: HttpSite, framing: bytes, body: bytes) -> None:
    """The status says so, whatever becomes of the rest of the answer."""
    http.answer[0] = b"HTTP/1.1 200 OK\r\nConnection: close\r\n%b\r\n\r\n%b" % (framing, body)
    assert isinstance(tried(http.transport), Receipt)


@over_sockets
@given(
    st.binary(max_size=60)
    | st.builds(
        lambda answer, cut, put: answer[:cut] + put + answer[cut:],
        st.builds(http_answer, st.sampled_from([200, 503]), answers, st.just(b"Transfer-Encoding: chunked")),
        st.integers(0, 90),
        st.sampled_from([b"\r\n", b"\r\n\r\n", b" ", b"\0", b"\xff", b"9" * 30, b":", b"0\r\n\r\n"]),
    )
)
def test_bytes_that_are_no_http_are_an_error(http: HttpSite, answer: bytes) -> None:
    """Or a receipt, where the status was whole and said so; never another exception."""
    http.answer[0] = answer.replace(b"Content-Length", b"Content-Long")  # so that the connection ends with it
    tried(http.transport)


# --- gRPC -----------------------------------------------------------------------------------------------------------


class GrpcSite:
    """A server that answers each request with the bytes, or the status and trailers, that it was given."""

    def __init__(self) -> None:
        self.body = b""
        self.code = grpc.StatusCode.OK
        self.details = ""
        self.trailers: tuple[tuple[str, bytes], ...] = ()
        self._pool = ThreadPoolExecutor(max_workers=1)
        self._server = grpc.server(self._pool)
        # No serializers: bytes as they are.
        handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(self._export)
        service = "opentelemetry.proto.collector.metrics.v1.MetricsService"
        self._server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(service, {"Export": handler})])
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.transport = open_transport(OtlpTarget("grpc", f"http://127.0.0.1:{port}"))

    def _export(self, _request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata(self.trailers)
        if self.code is not grpc.StatusCode.OK:
            context.abort(self.code, self.details)
        return self.body

    def close(self) -> None:
        self.transport.close()
        self._server.stop(None).wait()
        self._pool.shutdown()


@pytest.fixture(scope="module")
def rpc() -> Iterator[GrpcSite]:
    site = GrpcSite()
    yield site
    site.close()


DETAILS = "grpc-status-details-bin"
any_details = st.builds(
    AnyMessage,
    type_url=st.sampled_from(["", "/", "google.rpc.RetryInfo", "type.googleapis.com/google.rpc.RetryInfo"]),
    value=st.binary(max_size=12),
)
durations = st.builds(Duration, seconds=st.integers(-(2**63), 2**63 - 1), nanos=st.integers(-(2**31), 2**31 - 1))


@over_sockets
@given(
    code=st.just(grpc.StatusCode.OK) | st.sampled_from(list(grpc.StatusCode)),
    body=answers,
    details=st.text(max_size=20) | st.sampled_from(["larger than max", "message length too large"]),
    status=st.binary(max_size=30)
    | st.lists(any_details, max_size=3).map(lambda details: Status(details=details).SerializeToString()),
)
def test_a_grpc_answer_is_what_its_code_says(
    rpc: GrpcSite, code: grpc.StatusCode, body: bytes, details: str, status: bytes
) -> None:
    """Whatever stands in its message, details and trailers."""
    rpc.code, rpc.body, rpc.details, rpc.trailers = code, body, details, ((DETAILS, status),)
    outcome = tried(rpc.transport)
    if isinstance(outcome, ExportError):
        assert outcome.cause == f"gRPC {code.name}"
        assert isinstance(outcome, ExportRetryable | ExportRejected | ExportTooLarge)
    else:
        assert code is grpc.StatusCode.OK


@over_sockets
@given(response=responses, more=later, delay=durations, before=st.lists(any_details, max_size=2))
def test_a_whole_grpc_answer_is_read_rightly(
    rpc: GrpcSite, response: ExportMetricsServiceResponse, more: bytes, delay: Duration, before: list[AnyMessage]
) -> None:
    """The points that it rejects and its words; the time that its RetryInfo asks for, behind whatever else there is."""
    rpc.code, rpc.body, rpc.trailers = grpc.StatusCode.OK, response.SerializeToString() + more, ()
    partial = response.partial_success
    assert tried(rpc.transport) == Receipt(max(0, partial.rejected_data_points), partial.error_message)
    info = AnyMessage()
    info.Pack(RetryInfo(retry_delay=delay))
    others = [detail for detail in before if not detail.Is(RetryInfo.DESCRIPTOR)]
    rpc.code, rpc.details = grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"
    rpc.trailers = (("other-bin", b"\xff"), (DETAILS, Status(details=[*others, info]).SerializeToString()))
    outcome = tried(rpc.transport)
    assert isinstance(outcome, ExportRetryable)
    assert outcome.retry_after_seconds == pytest.approx(max(0.0, delay.seconds + delay.nanos / 1e9))
