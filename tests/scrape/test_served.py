"""A scrape over HTTP: in chunks, packed where that is asked for, and in nobody's way."""

from __future__ import annotations

import gzip
import http.client
import socket
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ExporterError
from otel_k8s_cgroup.health import Health, HealthServer, Status
from otel_k8s_cgroup.run import latest_of
from otel_k8s_cgroup.scrape import Pods
from otel_k8s_cgroup.settings import load
from otel_k8s_cgroup.sources import metrics_of
from tests.fakes.faulty_otlp import free_port
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import started
from tests.scrape.scraping import OPENMETRICS, families_of, scraped
from tests.scrape.test_text import of_entities
from tests.test_cli import flags
from tests.test_cli import node as node  # noqa: PLC0414 a fixture
from tests.test_health import get, raw

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_k8s_cgroup.scrape import Latest

PODS = 3000
"""More text than any socket's buffers take."""


@pytest.fixture
def latest() -> Latest:
    return of_entities(*({"k8s.pod.uid": str(number), "k8s.pod.name": "x" * 250} for number in range(PODS)))


class Serving:
    """With a clock that stands still."""

    def __init__(self, latest: Latest) -> None:
        self.now = 0.0
        health = Health(Status(lambda: 1, lambda: True, lambda: 1, lambda: 1, lambda: 1, measured_pods=Pods(latest)))
        self.server = HealthServer("127.0.0.1:0", health, clock=lambda: self.now)
        self.server.start()

    def connect(self, version: str = "1.1", *fields: str) -> socket.socket:
        """A client that has asked, and reads nothing yet."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(20)
        sock.connect(("127.0.0.1", self.server.port))
        head = "\r\n".join([f"GET /metrics HTTP/{version}", f"Accept: {OPENMETRICS}", *fields, "", ""])
        sock.sendall(head.encode())
        assert sock.recv(1) == b"H"
        return sock


@pytest.fixture
def serving(latest: Latest) -> Iterator[Serving]:
    found = Serving(latest)
    yield found
    found.server.close()


def asked(port: int, **fields: str) -> tuple[http.client.HTTPResponse, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", "/metrics", headers={"Accept": OPENMETRICS} | fields)
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def rest_of(sock: socket.socket) -> bytes:
    found = b""
    with sock:
        while piece := sock.recv(1 << 20):
            found += piece
    return found


def test_it_comes_in_chunks(serving: Serving, latest: Latest) -> None:
    """All of it, by the parser of its format."""
    response, body = asked(serving.server.port)
    assert (response.status, response.headers["Transfer-Encoding"]) == (200, "chunked")
    assert response.headers["Content-Type"].startswith("application/openmetrics-text")
    assert body.decode() == scraped(latest)
    (of_pods,) = (family for family in families_of(body.decode()) if family.type != "info")
    assert len(of_pods.samples) == PODS


@pytest.mark.parametrize(
    ("accepted", "is_packed"),
    [("gzip", True), ("br, GZIP;q=0.5", True), ("gzip; q=0", False), ("identity", False), ("", False)],
)
def test_it_is_packed_where_that_is_asked_for(accepted: str, is_packed: bool, serving: Serving, latest: Latest) -> None:
    """As Prometheus does; it says the same again and again."""
    response, body = asked(serving.server.port, **{"Accept-Encoding": accepted})
    assert response.headers["Content-Encoding"] == ("gzip" if is_packed else None)
    assert (gzip.decompress(body) if is_packed else body).decode() == scraped(latest)
    assert not is_packed or len(body) < len(scraped(latest)) / 10


def test_http_1_0_gets_no_chunks(serving: Serving, latest: Latest) -> None:
    """But the same text, to the end of the connection."""
    head, _, body = raw(
        serving.server.port, f"GET /metrics HTTP/1.0\r\nAccept: {OPENMETRICS}\r\n\r\n".encode()
    ).partition(b"\r\n\r\n")
    assert b"chunked" not in head
    assert body.decode() == scraped(latest)


def test_a_head_has_no_body(serving: Serving) -> None:
    """And nothing is made for it."""
    answer = raw(serving.server.port, b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.endswith(b"\r\n\r\n")


def test_two_scrapes_at_once_and_a_probe_between_them(serving: Serving, latest: Latest) -> None:
    """Each is served a piece at a time: a scraper that reads nothing holds up neither another nor a probe."""
    slow, other = serving.connect(), serving.connect("1.1", "Accept-Encoding: gzip")
    assert get(serving.server.port, "/livez")[0] == 200
    _, body = asked(serving.server.port)
    assert body.decode() == scraped(latest)
    assert rest_of(slow).endswith(b"# EOF\n\r\n0\r\n\r\n")
    assert rest_of(other).endswith(b"0\r\n\r\n")


def test_a_scraper_that_does_not_read_is_let_go(serving: Serving) -> None:
    """After ten seconds, and knows by the missing last chunk that it has not got all."""
    slow = serving.connect()
    serving.now += 9
    assert get(serving.server.port, "/livez")[0] == 200
    serving.now += 1
    answer = rest_of(slow)
    assert answer
    assert not answer.endswith(b"0\r\n\r\n")


def test_of_too_many_scrapes_the_oldest_goes(serving: Serving) -> None:
    """Each holds what a tick has read; four are served at once."""
    first, *others = [serving.connect() for _ in range(5)]
    assert not rest_of(first).endswith(b"0\r\n\r\n")
    assert all(rest_of(each).endswith(b"0\r\n\r\n") for each in others)


def test_a_figure_that_cannot_be_written_ends_the_answer_short_of_its_end(
    latest: Latest, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged, and the next request is answered."""
    tick = latest.tick()
    assert tick is not None
    # What no tick makes: a row is missing.
    latest._tick = tick._replace(rows=tick.rows[:-1])
    serving = Serving(latest)
    with pytest.raises(http.client.IncompleteRead):
        asked(serving.server.port)
    assert get(serving.server.port, "/livez")[0] == 200
    serving.server.close()
    assert "a request to health_listen is not answered: " in caplog.text
    assert "Traceback" not in caplog.text


def test_scrapes_while_ticks_go_on(latest: Latest) -> None:
    """Each is whole and of one tick."""
    serving, stop = Serving(latest), threading.Event()
    ticks = [
        of_entities(*({"k8s.pod.uid": str(n)} for n in range(200)), values=[value] * 200).tick() for value in (1, 2)
    ]

    def tick() -> None:
        while not stop.is_set():
            for each in ticks:
                latest._tick = each

    thread = threading.Thread(target=tick)
    thread.start()
    try:
        for _ in range(5):
            _, body = asked(serving.server.port)
            (of_pods,) = (family for family in families_of(body.decode()) if family.type != "info")
            assert len({sample.value for sample in of_pods.samples}) == 1
    finally:
        stop.set()
        thread.join()
        serving.server.close()


def test_without_the_library_the_start_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that says what to install; who does not scrape does not need it."""
    monkeypatch.setitem(sys.modules, "prometheus_client.exposition", None)
    wanted = load(flags={"health_listen": "8081", "scrape": "true"}, environ={}, config_file=None).plain()
    with pytest.raises(ExporterError, match=r"^scrape: install otel-k8s-cgroup\[scrape\]"):
        latest_of(wanted, metrics_of(wanted))
    nothing = load(flags={}, environ={}, config_file=None).plain()
    assert latest_of(nothing, metrics_of(nothing)) is None


def test_a_real_exporter_is_scraped(node: Path) -> None:
    """Its own metrics and its pods', while it also sends them."""
    port = free_port()
    with OtlpReceiver("grpc") as receiver:
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", *flags(node), "--poll-interval", "100ms"),
            *("--otlp-endpoint", receiver.endpoint, "--health-listen", str(port), "--scrape"),
        ]
        with started(argv) as program:
            receiver.wait_for(lambda messages: len(messages) > 1)
            names = {family.name for family in families_of(asked(port)[1].decode())}
            assert program.stop() == 0
    assert {"otel_k8s_cgroup_pods", "cpu_time_delta_nanoseconds", "memory_usage_bytes", "k8s_pod"} <= names


def test_a_real_exporter_that_is_scraped_alone(node: Path) -> None:
    """It is ready without a receiver, keeps nothing that waits, and ends as any other."""
    port = free_port()
    argv = [
        *(sys.executable, "-m", "otel_k8s_cgroup", "run", *flags(node), "--poll-interval", "50ms"),
        *("--otlp-endpoint", "none", "--health-listen", str(port), "--scrape"),
    ]
    with started(argv) as program:
        program.wait_for_line(lambda line: "to /metrics alone" in line)
        while get(port, "/readyz")[0] != 200:
            pass
        of = {family.name: family for family in families_of(asked(port)[1].decode())}
        assert program.stop() == 0
    assert of["cpu_time_delta_nanoseconds"].samples
    assert [sample.value for sample in of["otel_k8s_cgroup_queue_bytes"].samples] == [0]
    assert of["otel_k8s_cgroup_export_requests"].samples == []
