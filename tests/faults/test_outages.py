"""Every way in which a receiver can fail, over both protocols and real sockets: what holds meanwhile and afterwards.

The node's clocks are the test's, so minutes and hours of outage take seconds; only the time limit of a request is real.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import grpc
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status

from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.model import OtlpTarget
from tests.fakes.faulty_otlp import FaultyServer, free_port
from tests.fakes.node import Node
from tests.fakes.otlp_receiver import Answer, OtlpReceiver, Received, accept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from otel_k8s_cgroup.export import Transport
    from otel_k8s_cgroup.export.transport import Receipt
    from tests.fakes.faulty_otlp import Fault

Protocol = Literal["grpc", "http/protobuf"]
PROTOCOLS: tuple[Protocol, ...] = ("grpc", "http/protobuf")

QUEUE_BYTES = 64 * 1024
TICK_SECONDS = 5
LONGEST_BACKOFF_SECONDS = 12.0
"""Of a failure whose receiver does not say when to come again."""


def retry_info(seconds: int) -> tuple[tuple[str, bytes], ...]:
    detail = AnyMessage()
    detail.Pack(RetryInfo(retry_delay=Duration(seconds=seconds)))
    return (("grpc-status-details-bin", Status(code=8, details=[detail]).SerializeToString()),)


def http(status: int, **headers: str) -> dict[Protocol, Answer]:
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    return {"http/protobuf": Answer(status=status, headers=headers)}


def grpc_status(
    code: grpc.StatusCode, details: str = "no", *, retry_seconds: int | None = None
) -> dict[Protocol, Answer]:
    trailers = () if retry_seconds is None else retry_info(retry_seconds)
    return {"grpc": Answer(code=code, details=details, trailers=trailers)}


@dataclass(frozen=True)
class Case:
    """One fault. ``retried``: what it costs is time alone, no reading is given up while the queue has room."""

    cause: str
    retried: bool
    longest_wait_seconds: float = LONGEST_BACKOFF_SECONDS


ANSWERS: dict[str, tuple[dict[Protocol, Answer], Case]] = {
    "429 with seconds": (http(429, retry_after="30"), Case("HTTP 429", True, 30.0)),
    "503": (http(503), Case("HTTP 503", True)),
    "503 with a date": (http(503, retry_after="Fri, 31 Dec 2099 23:59:59 GMT"), Case("HTTP 503", True, 300.0)),
    "503 with nonsense": (http(503, retry_after="soon"), Case("HTTP 503", True)),
    "502": (http(502), Case("HTTP 502", True)),
    "504": (http(504), Case("HTTP 504", True)),
    "500": (http(500), Case("HTTP 500", False)),
    "400": (http(400), Case("HTTP 400", False)),
    "401": (http(401), Case("HTTP 401", False)),
    "404": (http(404), Case("HTTP 404", False)),
    "413": (http(413), Case("HTTP 413", False)),
    "301": (http(301, location="http://127.0.0.1:1/"), Case("HTTP 301", False)),
    "307": (http(307, location="/v1/metrics"), Case("HTTP 307", False)),
    "UNAVAILABLE": (grpc_status(grpc.StatusCode.UNAVAILABLE), Case("gRPC UNAVAILABLE", True)),
    "UNAVAILABLE with RetryInfo": (
        grpc_status(grpc.StatusCode.UNAVAILABLE, retry_seconds=30),
        Case("gRPC UNAVAILABLE", True, 30.0),
    ),
    "RESOURCE_EXHAUSTED with RetryInfo": (
        grpc_status(grpc.StatusCode.RESOURCE_EXHAUSTED, retry_seconds=60),
        Case("gRPC RESOURCE_EXHAUSTED", True, 60.0),
    ),
    "RESOURCE_EXHAUSTED": (
        grpc_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"),
        Case("gRPC RESOURCE_EXHAUSTED", False),
    ),
    "larger than max": (
        grpc_status(grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (9 vs. 8)"),
        Case("gRPC RESOURCE_EXHAUSTED", False),
    ),
    "tonic's too large": (
        grpc_status(grpc.StatusCode.OUT_OF_RANGE, "Error, decoded message length too large: found 9 bytes"),
        Case("gRPC OUT_OF_RANGE", False),
    ),
    "DEADLINE_EXCEEDED": (grpc_status(grpc.StatusCode.DEADLINE_EXCEEDED), Case("gRPC DEADLINE_EXCEEDED", True)),
    "INVALID_ARGUMENT": (grpc_status(grpc.StatusCode.INVALID_ARGUMENT), Case("gRPC INVALID_ARGUMENT", False)),
    "UNAUTHENTICATED": (grpc_status(grpc.StatusCode.UNAUTHENTICATED), Case("gRPC UNAUTHENTICATED", False)),
    "UNIMPLEMENTED": (grpc_status(grpc.StatusCode.UNIMPLEMENTED), Case("gRPC UNIMPLEMENTED", False)),
}

BELOW: dict[tuple[Fault, Protocol], str] = {
    ("black hole", "http/protobuf"): "timeout",
    ("black hole", "grpc"): "gRPC DEADLINE_EXCEEDED",
    ("reset mid-body", "http/protobuf"): "broken",
    ("reset mid-body", "grpc"): "gRPC UNAVAILABLE",
    ("closed at once", "http/protobuf"): "broken",
    ("closed at once", "grpc"): "gRPC UNAVAILABLE",
    ("drip of interim answers", "http/protobuf"): "timeout",
    ("drip of headers", "http/protobuf"): "timeout",
    ("drip of headers", "grpc"): "gRPC UNAVAILABLE",
    ("drip of a body", "http/protobuf"): "HTTP 503",
    ("not OTLP", "http/protobuf"): "broken",
    ("not OTLP", "grpc"): "gRPC UNAVAILABLE",
    ("goes away", "grpc"): "gRPC UNAVAILABLE",
}


@dataclass
class Site:
    """A receiver at one address for as long as the test lasts, whoever listens there, and a node that sends to it."""

    protocol: Protocol
    root: Path
    timeout_seconds: float = 0.3
    port: int = 0
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    queue_bytes: int = QUEUE_BYTES

    def __post_init__(self) -> None:
        self.respond: Callable[[Received], Answer] = accept
        self._listening: OtlpReceiver | FaultyServer | None = None
        self.port = free_port()
        self.back()
        self.transport = open_transport(self.target(self.timeout_seconds))
        self.node = Node(self.root, self.transport, queue_bytes=self.queue_bytes, tick_seconds=TICK_SECONDS)
        self.waits_seconds: list[float] = []

    def target(self, timeout_seconds: float) -> OtlpTarget:
        path = "" if self.protocol == "grpc" else "/v1/metrics"
        return OtlpTarget(self.protocol, f"http://127.0.0.1:{self.port}{path}", timeout_seconds=timeout_seconds)

    def _respond(self, request: Received) -> Answer:
        answer = self.respond(request)
        if answer.kept and answer.status == 200 and answer.code is grpc.StatusCode.OK:
            self.requests.append(request.message)
        return answer

    def gone(self) -> None:
        """Nobody listens."""
        if self._listening is not None:
            self._listening.close()
        self._listening = None

    def back(self) -> None:
        """The receiver listens."""
        self.gone()
        self._listening = OtlpReceiver(self.protocol, respond=self._respond, port=self.port)

    def broken(self, fault: Fault) -> FaultyServer:
        """Something else listens."""
        self.gone()
        self._listening = FaultyServer(fault, self.port)
        return self._listening

    def tick(self) -> None:
        """One tick of three pods, each with something used, and the export where it is due; the queue is bounded."""
        node = self.node
        before_ns = node.mono_ns
        for number, uid in enumerate(node.pods):
            node.use(uid, 1000 + number)
        node.read()
        if node.mono_ns >= node.next_try_ns and (wait_seconds := node.deliver()) is not None:
            self.waits_seconds.append(wait_seconds)
        assert node.mono_ns - before_ns == TICK_SECONDS * 10**9
        assert node.exporter.queue_bytes <= self.queue_bytes

    def recover(self) -> None:
        """Delivers what waits. (gRPC connects again in its own time, which is real: at most two seconds.)"""
        pause = threading.Event()
        for _ in range(200):
            if self.node.deliver() is None:
                return
            pause.wait(0.05)
        raise AssertionError(f"it never recovered: {self.node.exporter.stats}")

    def close(self) -> None:
        self.transport.close()
        self.gone()
        self.node.close()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(protocol: Protocol, *, timeout_seconds: float = 0.3) -> Site:
        made.append(Site(protocol, tmp_path, timeout_seconds))
        return made[-1]

    yield make
    for site in made:
        site.close()


def go_through(site: Site, begin: Callable[[], object], end: Callable[[], object], *, ticks: int, case: Case) -> None:
    """Some ticks of health, ``ticks`` of the fault with pods that come and go, then health: nothing was lost."""
    node, stats = site.node, site.node.exporter.stats
    node.read()
    for number in range(3):
        node.start(number)
    for _ in range(3):
        site.tick()
    assert len(site.requests) == 3
    begin()
    for tick in range(ticks):
        if tick == ticks // 3:
            node.start(10)
        if tick == ticks // 2:
            node.start(11)
        site.tick()
    assert len(site.requests) == 3, "the fault took something"
    assert set(stats.requests) == {"ok", case.cause}
    assert all(0.5 <= wait <= case.longest_wait_seconds for wait in site.waits_seconds)
    assert bool(site.waits_seconds) == case.retried
    end()
    for _ in range(3):
        site.tick()
    site.recover()
    site.tick()
    site.recover()
    # The next wait is that of a first failure again.
    assert stats.requests["ok"] > 3
    node.assert_conserved(site.requests)
    assert stats.lost_ns == 0
    if case.retried:
        assert stats.readings_dropped == 0 or stats.folded_ns > 0
    else:
        assert stats.readings_dropped > 0
        assert stats.folded_ns > 0


@pytest.mark.parametrize(
    ("name", "protocol"), [(name, protocol) for name, (answers, _) in ANSWERS.items() for protocol in answers]
)
def test_an_answer_that_refuses(make_site: Callable[..., Site], name: str, protocol: Protocol) -> None:
    """Minutes of each: what may be retried waits, what may not is dropped once, and no CPU time is lost."""
    answers, case = ANSWERS[name]
    site = make_site(protocol, timeout_seconds=5.0)

    def refuse() -> None:
        site.respond = lambda _request: answers[protocol]

    go_through(site, refuse, lambda: setattr(site, "respond", accept), ticks=100, case=case)


@pytest.mark.parametrize(("fault", "protocol"), BELOW, ids=str)
def test_a_connection_that_breaks(make_site: Callable[..., Site], fault: Fault, protocol: Protocol) -> None:
    """Whatever a server does on the wire, the request ends by its time limit, waits, and arrives later."""
    site = make_site(protocol)
    case = Case(BELOW[fault, protocol], retried=True)
    go_through(site, lambda: site.broken(fault), site.back, ticks=20, case=case)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_hours_without_a_receiver(make_site: Callable[..., Site], protocol: Protocol) -> None:
    """Refused for two hours: the queue stays within its bound, the newest readings are there, and the sum is whole."""
    site = make_site(protocol, timeout_seconds=5.0)
    cause = "gRPC UNAVAILABLE" if protocol == "grpc" else "refused"
    go_through(site, site.gone, site.back, ticks=2 * 720, case=Case(cause, retried=True))
    newest = max(point.time_ns for point in site.node.assert_conserved(site.requests))
    assert newest == site.node.wall_offset_ns + site.node.mono_ns - TICK_SECONDS * 10**9


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_receiver_that_is_too_slow(make_site: Callable[..., Site], protocol: Protocol) -> None:
    """It answers after the time limit, and has not kept what nobody waited for."""
    site = make_site(protocol, timeout_seconds=0.2)
    over = threading.Event()

    def answer_late(_request: Received) -> Answer:
        over.wait(1.0)
        return Answer(kept=False)

    def begin() -> None:
        site.respond = answer_late

    def end() -> None:
        over.set()
        site.back()
        site.respond = accept

    cause = "gRPC DEADLINE_EXCEEDED" if protocol == "grpc" else "timeout"
    go_through(site, begin, end, ticks=20, case=Case(cause, retried=True))


class Rerouted:
    """A transport whose way the test changes: to a name that does not resolve, and back."""

    def __init__(self, way: Transport) -> None:
        self.way = way

    def send(self, body: bytes) -> Receipt:
        return self.way.send(body)

    def close(self) -> None:
        """Each way is closed by itself."""


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_name_that_does_not_resolve(make_site: Callable[..., Site], protocol: Protocol) -> None:
    """It waits, and goes on once it does."""
    site = make_site(protocol, timeout_seconds=5.0)
    nowhere = open_transport(OtlpTarget(protocol, "http://no-such-host.invalid:4317", timeout_seconds=5.0))
    rerouted = Rerouted(site.transport)
    site.node.transport = rerouted
    site.node.restart()
    cause = "gRPC UNAVAILABLE" if protocol == "grpc" else "DNS"
    go_through(
        site,
        lambda: setattr(rerouted, "way", nowhere),
        lambda: setattr(rerouted, "way", site.transport),
        ticks=20,
        case=Case(cause, retried=True),
    )
    nowhere.close()


@pytest.mark.parametrize(
    ("fault", "protocol"),
    [("black hole", "grpc"), ("black hole", "http/protobuf"), ("drip of interim answers", "http/protobuf")],
)
def test_ticks_go_on_while_a_request_hangs(make_site: Callable[..., Site], fault: Fault, protocol: Protocol) -> None:
    """The sender is in a request that does not end, and a thousand readings are taken: nothing waits for it."""
    site = make_site(protocol, timeout_seconds=600.0)
    server = site.broken(fault)
    exporter = site.node.exporter
    exporter.start()
    site.node.read()
    site.node.start(1)
    site.node.read()
    exporter.flush()
    server.wait_for_connections(1)
    for _ in range(1000):
        site.node.read()
        exporter.flush()
    assert exporter.is_alive
    assert not exporter.stats.requests
    # Nor does the end wait: what hangs is cut off.
    assert exporter.close(0.6) is False
    assert not exporter.is_alive
