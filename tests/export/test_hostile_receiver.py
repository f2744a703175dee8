"""A receiver that means harm, or is smaller than others: it ends nothing, and costs only its own points."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.export.bound import REQUEST_BYTES
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.model import OtlpTarget
from otel_k8s_cgroup.telemetry import OwnMetric, Telemetry
from tests.fakes.faulty_otlp import Connection, FaultyServer
from tests.fakes.node import DirectReceiver, Node
from tests.fakes.otlp_receiver import Answer, OtlpReceiver, Received
from tests.otlp import points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.scenes import Protocol

BOTH = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
KIB = 1024


@pytest.fixture
def make_node(tmp_path: Path) -> Iterator[Callable[..., Node]]:
    made: list[Node] = []

    def make(transport: object, pods: int = 3, **options: object) -> Node:
        made.append(Node(tmp_path, transport, **options))  # type: ignore[arg-type] # each test's own
        made[-1].read()
        for number in range(pods):
            made[-1].start(number)
        return made[-1]

    yield make
    for node in made:
        node.close()


def tick(node: Node) -> float | None:
    """Each pod uses something, is read, and all is delivered."""
    for uid in node.pods:
        node.use(uid, 1000)
    node.read()
    return node.deliver()


@BOTH
@pytest.mark.parametrize("rejected", [2**63 - 1, 10, -1, -(2**63)])
def test_rejected_points_are_at_most_those_that_were_sent(
    make_node: Callable[..., Node], protocol: Protocol, rejected: int
) -> None:
    """Whatever number the answer has, the exporter's own counters stay what OTLP can hold."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = rejected
    path = "" if protocol == "grpc" else "/v1/metrics"
    with OtlpReceiver(protocol, respond=lambda _request: Answer(body=answer)) as receiver:
        transport = open_transport(OtlpTarget(protocol, receiver.endpoint + path))
        node = make_node(transport)
        for _ in range(3):
            assert tick(node) is None
        transport.close()
        sent = len(points(receiver.messages))
    stats = node.exporter.stats
    assert stats.points_sent + stats.points_rejected == sent
    assert stats.points_rejected == (sent if rejected == 2**63 - 1 else max(0, rejected) * 3)


def test_own_metrics_that_cannot_be_made_are_left_out(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    """Once in the log; the pods' points arrive."""

    def broken() -> bytes:
        raise ZeroDivisionError("no metrics\ntoday")

    receiver = DirectReceiver()
    node = make_node(receiver, own_metrics=broken)
    for _ in range(3):
        assert tick(node) is None
    node.assert_conserved(receiver.requests)
    (line,) = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert line == "the exporter's own metrics are not sent: ZeroDivisionError 'no metrics\\ntoday'"


def test_own_metrics_hold_what_otlp_can() -> None:
    """A number beyond its integers is its largest: the others are encoded."""
    rows = [
        OwnMetric("large", "1", "", lambda: 2**70),
        OwnMetric("by", "1", "", lambda: {("a",): 2**64}, ("name",)),
        OwnMetric("small", "1", "", lambda: 7),
    ]
    message = ExportMetricsServiceRequest.FromString(Telemetry(rows, node="n").encode())
    assert {p.metric.rpartition(".")[2]: p.value for p in points([message])} == {
        "large": 2**63 - 1,
        "by": 2**63 - 1,
        "small": 7,
    }


@pytest.mark.parametrize(
    "interim",
    [
        b"HTTP/1.1 102 Processing\r\n\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" * 3,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 199 What\r\nContent-Length: 5\r\n\r\n",
    ],
)
def test_interim_answers_are_read_past(interim: bytes) -> None:
    """The final one counts: a request that was taken is not sent again, on a connection that stays in use."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.rejected_data_points = 5
    body = answer.SerializeToString()

    def behave(connection: Connection) -> None:
        while len(connection.read_request()) > 4:
            connection.send(interim + b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    with FaultyServer(behave) as server:
        transport = open_transport(OtlpTarget("http/protobuf", f"http://127.0.0.1:{server.port}/v1/metrics"))
        assert transport.send(b"x") == Receipt(5)
        assert transport.send(b"x") == Receipt(5)
        transport.close()
        server.wait_for_connections(1)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"HTTP/1.1 102 Processing\r\n\r\n" * 1000, ExportRetryable),
        (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", ExportRetryable),
        (b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n", ExportRejected),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", ExportRejected),
    ],
)
def test_interim_answers_end(answer: bytes, error: type[ExportError]) -> None:
    """Too many break the connection; an error behind them is what it is; 101 is final."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer)

    with FaultyServer(behave) as server:
        transport = open_transport(OtlpTarget("http/protobuf", f"http://127.0.0.1:{server.port}/v1/metrics"))
        with pytest.raises(error):
            transport.send(b"x")
        transport.close()


@BOTH
@pytest.mark.parametrize("limit", [12 * KIB, 3 * KIB])
def test_a_receiver_of_small_requests_gets_everything(
    make_node: Callable[..., Node], protocol: Protocol, limit: int
) -> None:
    """Down to requests of a single reading of one pod."""
    path = "" if protocol == "grpc" else "/v1/metrics"

    def respond(request: Received) -> Answer:
        return Answer(status=413 if request.body_bytes > limit else 200)

    with OtlpReceiver(protocol, respond=respond, max_message_bytes=limit) as receiver:
        transport = open_transport(OtlpTarget(protocol, receiver.endpoint + path))
        node = make_node(transport, pods=20)
        for _ in range(5):
            node.read()
        for _ in range(4):
            assert tick(node) is None
        transport.close()
        node.assert_conserved(receiver.messages)
    assert node.exporter.stats.readings_dropped == 0


@dataclass
class Small:
    """A receiver that takes requests of ``limit`` bytes at most."""

    limit: int
    taken: list[int] = field(default_factory=list)
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    refused: int = 0

    def send(self, body: bytes) -> Receipt:
        if len(body) > self.limit:
            self.refused += 1
            raise ExportTooLarge("receiver", "HTTP 413", "less")
        self.taken.append(len(body))
        self.requests.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


def test_requests_grow_again_after_a_moment_of_413(make_node: Callable[..., Node]) -> None:
    """Once the receiver takes larger ones, it gets them."""
    receiver = Small(8 * KIB)
    node = make_node(receiver, pods=60)
    tick(node)
    assert max(receiver.taken) <= 8 * KIB
    receiver.limit = REQUEST_BYTES
    for _ in range(60):
        tick(node)
    assert receiver.taken[-1] > 100 * KIB, "60 pods in one request again"
    node.assert_conserved(receiver.requests)


@pytest.mark.parametrize("limit", [9 * KIB, 12 * KIB, 13 * KIB, 16 * KIB, 20 * KIB])
def test_a_fixed_limit_is_tried_ever_more_rarely(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture, limit: int
) -> None:
    """Larger requests are tried; what that costs is few refusals and no further line of the log."""
    receiver = Small(limit)
    node = make_node(receiver, pods=60)
    for _ in range(150):
        assert tick(node) is None
    assert len(receiver.taken) > 1000
    assert receiver.refused < 25
    node.assert_conserved(receiver.requests)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 1


def test_a_reading_that_is_too_large_by_itself_is_dropped(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    """It is counted and said, and its CPU time waits for the pod's next point."""
    receiver = Small(100)
    node = make_node(receiver, pods=3)
    for _ in range(3):
        assert tick(node) is None
    assert node.exporter.stats.readings_dropped == 9
    assert "one reading by itself is too large: 7 points of 1 pod dropped" in caplog.text
    receiver.limit = REQUEST_BYTES
    tick(node)
    node.assert_conserved(receiver.requests)


def test_own_metrics_have_a_request_of_their_own_where_there_is_no_room(
    make_node: Callable[..., Node], caplog: pytest.LogCaptureFixture
) -> None:
    """A receiver of small requests gets both, and nothing but the first refusal is said."""
    own = ExportMetricsServiceRequest()
    own.resource_metrics.add().resource.attributes.add(key="own" * 1000)
    receiver = Small(9 * KIB)
    seconds = [0.0]
    node = make_node(receiver, pods=3, own_metrics=own.SerializeToString, mono_clock=lambda: seconds[0])
    arrived: list[int] = []
    for seconds[0] in (1.0, 6.0, 11.0, 16.0, 21.0):
        assert tick(node) is None
        of_request = [not r.scope_metrics for request in receiver.requests for r in request.resource_metrics]
        arrived.append(sum(of_request))
    assert arrived == [1, 1, 2, 2, 3]
    assert receiver.refused == 1
    assert "own metrics" not in caplog.text
