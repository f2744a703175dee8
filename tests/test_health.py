"""``health_listen``: what it answers, and clients that mean no good."""

from __future__ import annotations

import http.client
import socket
import sys
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ExporterError
from otel_k8s_cgroup.health import Health, HealthServer, Status
from otel_k8s_cgroup.telemetry import OwnMetric
from tests.fakes.cgroup_tree import CgroupTree
from tests.fakes.faulty_otlp import free_port
from tests.fakes.kube_api import KubeApi
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import clean_environ, started
from tests.test_cli import flags
from tests.test_cli import node as node  # noqa: PLC0414 a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Exporter:
    """An exporter's figures, as the test sets them."""

    def __init__(self) -> None:
        self.now = 100.0
        self.ticks = self.pods = self.measured = self.accepted = 0
        self.listed = False
        rows = [
            OwnMetric("ticks", "{tick}", "Readings", lambda: self.ticks),
            OwnMetric("tick.duration", "s", "Time", lambda: 1.5),
            OwnMetric("queue.bytes", "By", "Waits", lambda: 7, monotonic=False),
            OwnMetric("read.errors", "{error}", "Errors", lambda: {('a"b\n',): 2}, ("cause",)),
        ]
        self.status = Status(
            ticks=lambda: self.ticks,
            are_pods_listed=lambda: self.listed,
            pods=lambda: self.pods,
            measured=lambda: self.measured,
            accepted=lambda: self.accepted,
            rows=rows,
            poll_seconds=5.0,
        )
        self.health = Health(self.status, clock=lambda: self.now)


def test_livez_fails_once_no_tick_ends() -> None:
    """After 30 s, or three intervals; and is good again with the next tick."""
    exporter = Exporter()
    exporter.now += 30
    assert exporter.health.answer("/livez").status == 200
    exporter.now += 1
    answer = exporter.health.answer("/livez")
    assert answer.status == 503
    assert answer.text == "no tick has ended for 31 s (poll_interval 5 s)\n"
    exporter.ticks = 1
    assert exporter.health.answer("/livez").status == 200
    slow = Health(exporter.status._replace(poll_seconds=3600.0), clock=lambda: exporter.now)
    exporter.now += 3 * 3600
    assert slow.answer("/livez").status == 200


def test_readyz_says_what_is_missing() -> None:
    """In words, one after the other; a node without pods has no cgroups to wait for."""
    exporter = Exporter()

    def missing() -> list[str]:
        answer = exporter.health.answer("/readyz")
        found = [line.partition(":")[0] for line in answer.text.splitlines() if "missing" in line]
        assert answer.status == (503 if found else 200)
        assert answer.text.splitlines()[0] == ("not ready" if found else "ready")
        return found

    assert missing() == ["pods", "cgroups", "export"]
    assert "mounted" not in exporter.health.answer("/readyz").text
    exporter.listed = True
    assert missing() == ["export"]
    exporter.pods = 3
    assert missing() == ["cgroups", "export"]
    assert "is the host's /sys/fs/cgroup mounted?" in exporter.health.answer("/readyz").text
    exporter.measured = 2
    assert missing() == ["export"]
    exporter.accepted = 1
    assert missing() == []


def test_readyz_waits_for_no_receiver_where_nothing_is_sent() -> None:
    """And says so."""
    status = Exporter().status._replace(are_pods_listed=lambda: True, accepted=None)
    answer = Health(status).answer("/readyz")
    assert (answer.status, "export: none, for otlp_endpoint is none" in answer.text) == (200, True)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"), ("", "text/plain")],
)
def test_metrics_in_the_form_that_is_asked_for(accept: str, content_type: str) -> None:
    """OpenMetrics or Prometheus' older text, with the names that OpenTelemetry's rules give."""
    answer = Exporter().health.answer("/metrics", accept)
    assert (answer.status, answer.content_type.partition(";")[0]) == (200, content_type)
    lines = "".join(answer.pieces or ()).splitlines()
    assert "otel_k8s_cgroup_ticks_total 0.0" in lines
    assert "otel_k8s_cgroup_tick_duration_seconds_total 1.5" in lines
    assert "otel_k8s_cgroup_queue_bytes 7.0" in lines
    assert 'otel_k8s_cgroup_read_errors_total{cause="a\\"b\\n"} 2.0' in lines
    assert (lines[-1] == "# EOF") == bool(accept)


@pytest.mark.parametrize("accept", ["text/plain;q=\xff;version=\x00", "a;version=1;q=\\u20ac", ";", "=,"])
def test_an_accept_header_that_is_malformed_is_none(accept: str) -> None:
    """Whatever the library thinks of it, the answer is Prometheus' text."""
    answer = Exporter().health.answer("/metrics", accept)
    assert (answer.status, answer.content_type.partition(";")[0]) == (200, "text/plain")
    assert "otel_k8s_cgroup_ticks_total 0.0" in "".join(answer.pieces or ())


def test_metrics_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """What to install; the rest goes on."""
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    answer = Exporter().health.answer("/metrics")
    assert answer.status == 501
    assert "otel-k8s-cgroup[scrape]" in answer.text


@pytest.fixture
def server() -> Iterator[HealthServer]:
    listening = HealthServer("127.0.0.1:0", Exporter().health)
    listening.start()
    yield listening
    listening.close()


def get(port: int, path: str, method: str = "GET") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request(method, path)
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def raw(port: int, sent: bytes) -> bytes:
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        sock.sendall(sent)
        received = b""
        while piece := sock.recv(65536):
            received += piece
        return received


@pytest.mark.parametrize("path", ["/", "/metrics/", "/debug", "//livez", "/livez/../x", "http://x/livez", "/%6civez"])
def test_no_other_path(server: HealthServer, path: str) -> None:
    """404, whatever it looks like."""
    assert get(server.port, path)[0] == 404


def test_methods(server: HealthServer) -> None:
    """GET, HEAD without a body, a query that says nothing; and no other."""
    assert get(server.port, "/livez") == (200, "ok: 0 ticks\n")
    assert get(server.port, "/livez?verbose") == (200, "ok: 0 ticks\n")
    assert get(server.port, "/readyz", "HEAD") == (503, "")
    assert get(server.port, "/livez", "POST")[0] == 405


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (b"GET /livez\r\n\r\n", b"400"),
        (b"\x16\x03\x01\x02\x00\x01\r\n\r\n", b"400"),
        (b"GET /livez HTTP/2.0\r\n\r\n", b"400"),
        (b"GET /" + b"x" * 9000, b"431"),
        (b"GET /livez HTTP/1.1\r\n" + b"a: b\r\n" * 2000, b"431"),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n" + b"x" * 3000, b"200"),
    ],
)
def test_requests_that_are_none(server: HealthServer, sent: bytes, status: bytes) -> None:
    """Each is answered and ended; the next one is served."""
    assert raw(server.port, sent).startswith(b"HTTP/1.1 " + status)
    assert get(server.port, "/livez")[0] == 200


def test_slow_clients_are_in_nobodys_way(server: HealthServer) -> None:
    """More than there is room for, which send half a request or nothing: the oldest go, and who asks is answered."""
    slow = []
    try:
        for number in range(200):
            sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
            slow.append(sock)
            sock.sendall(b"GET /livez HTTP/1.1\r\n" if number % 2 else b"")
            if number % 50 == 0:
                assert get(server.port, "/livez")[0] == 200
        assert get(server.port, "/readyz")[0] == 503
        slow[0].settimeout(20)
        assert slow[0].recv(1) == b""
    finally:
        for sock in slow:
            sock.close()


def test_a_silent_client_is_let_go() -> None:
    """After its time, with nobody else there."""
    now = [0.0]
    listening = HealthServer("127.0.0.1:0", Exporter().health, clock=lambda: now[0])
    listening.start()
    with socket.create_connection(("127.0.0.1", listening.port), timeout=20) as sock:
        assert get(listening.port, "/livez")[0] == 200  # so that the first one has been accepted
        now[0] += 6
        assert sock.recv(1) == b""
    listening.close()


def test_requests_that_fail_are_a_line_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """However many a client makes: the line has the error and how many there were, and no traceback."""
    exporter, now = Exporter(), [0.0]

    def defect() -> int:
        raise ValueError(f"it is\n{'x' * 5000}")

    health = Health(exporter.status._replace(pods=defect))
    listening = HealthServer("127.0.0.1:0", health, clock=lambda: now[0])
    listening.start()
    with caplog.at_level("INFO", logger="otel_k8s_cgroup.health"):
        for _ in range(3):
            assert get(listening.port, "/readyz")[0] == 500
        now[0] += 61
        assert get(listening.port, "/readyz")[0] == 500
    listening.close()
    first, second = caplog.records
    assert first.getMessage().startswith("a request to health_listen is not answered: ValueError: 'it is\\nxxx")
    assert second.getMessage().endswith(" (as are 2 others since the last such line)")
    assert all(len(record.getMessage()) < 350 and not record.exc_info for record in caplog.records)


def test_an_address_that_is_taken_is_named() -> None:
    """One line; exit code 1 of `run`."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(ExporterError, match=f"health_listen {address}: cannot listen there"):
            HealthServer(address, Exporter().health)


def test_a_real_exporter_becomes_ready(node: Path) -> None:
    """With a receiver; its metrics have its own figures, and neither header nor token is in any answer."""
    port = free_port()
    secret = "s3cret-of-this-test"
    with OtlpReceiver("grpc") as receiver:
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", *flags(node), "--poll-interval", "100ms"),
            *("--otlp-endpoint", receiver.endpoint, "--health-listen", str(port)),
        ]
        environ = clean_environ(OTEL_EXPORTER_OTLP_HEADERS=f"authorization=Bearer%20{secret}")
        with started(argv, environ) as program:
            receiver.wait_for(lambda messages: len(messages) > 1)
            answers = [get(port, path) for path in ("/livez", "/readyz", "/metrics")]
            assert program.stop() == 0
    assert [status for status, _ in answers] == [200, 200, 200]
    assert "pods: 1 listed" in answers[1][1]
    assert "otel_k8s_cgroup_pods 1.0" in answers[2][1]
    assert not any(secret in text for _, text in answers)


def test_an_exporter_without_pods_or_receiver_is_alive_and_not_ready(tmp_path: Path) -> None:
    """Each of the three is named; a restart would help none of them."""
    port = free_port()
    with KubeApi(token="another") as api:
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-api-url", api.url, "--token-retrieval", "none"),
            *("--cgroup-root", str(CgroupTree(tmp_path / "cgroup").root), "--otlp-endpoint", "http://127.0.0.1:9"),
            *("--health-listen", f"127.0.0.1:{port}"),
        ]
        with started(argv) as program:
            program.wait_for_line(lambda line: "401" in line or "wants a token" in line)
            assert get(port, "/livez")[0] == 200
            status, text = get(port, "/readyz")
            assert program.stop() == 0
    assert status == 503
    assert text.count("missing") == 3


def test_an_exporter_that_is_switched_off_is_alive_and_ready() -> None:
    """A DaemonSet with probes must not start it again and again."""
    port = free_port()
    argv = [sys.executable, "-m", "otel_k8s_cgroup", "run", "--health-listen", str(port)]
    with started(argv, clean_environ(OTEL_SDK_DISABLED="true")) as program:
        program.wait_for_line(lambda line: "health:" in line)
        assert [get(port, path)[0] for path in ("/livez", "/readyz", "/metrics")] == [200, 200, 200]
        assert program.stop() == 0
