"""``health_listen``: ``/livez``, ``/readyz`` and ``/metrics``, over HTTP, in one thread of its own.

That thread serves all connections at once and never waits for one: a client that sends or reads slowly, or never ends,
is let go after a while, and of too many the oldest goes. Nothing that others wrote, and no secret, is in an answer.

Source of the names of ``/metrics``: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple, Protocol

from otel_k8s_cgroup.errors import ExporterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 32
_MOST_HEAD_BYTES = 8192
_CONNECTION_SECONDS = 5.0
_LOOK_SECONDS = 0.5
_STALLED_SECONDS = 30.0
_PREFIX = "otel_k8s_cgroup_"
_UNITS = {"s": "_seconds", "ns": "_nanoseconds", "By": "_bytes"}
_NO_LIBRARY = "install otel-k8s-cgroup[scrape] for /metrics: the library prometheus-client is not there\n"


class Row(Protocol):
    """As ``telemetry.OwnMetric``."""

    @property
    def name(self) -> str: ...
    @property
    def unit(self) -> str: ...
    @property
    def description(self) -> str: ...
    @property
    def get(self) -> Callable[[], float | Mapping[tuple[str, ...], int]]: ...
    @property
    def attributes(self) -> tuple[str, ...]: ...
    @property
    def monotonic(self) -> bool: ...


class Status(NamedTuple):
    """What is asked of the exporter; each function is called in the server's thread, and reads only."""

    ticks: Callable[[], int]
    """How many there were."""
    are_pods_listed: Callable[[], bool]
    """Whether the pods were listed once."""
    pods: Callable[[], int]
    """How many are listed."""
    measured: Callable[[], int]
    """How many the last tick read."""
    accepted: Callable[[], int]
    """How many requests the receiver took."""
    rows: Sequence[Row] = ()
    """The exporter's own metrics."""
    poll_seconds: float = 5.0


class Answer(NamedTuple):
    """What a path is answered with."""

    status: int
    text: str
    content_type: str = "text/plain; charset=utf-8"


class Health:
    """The answers.

    Args:
        status: the exporter's; None: nothing is measured, because it is switched off.
        clock: seconds, monotonic.
    """

    def __init__(self, status: Status | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._ticks = 0
        self._ticked = clock()
        self._lock = threading.Lock()

    def answer(self, path: str, accept: str = "") -> Answer:
        """Of a GET. ``accept``: the header of that name."""
        match path:
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
            case "/metrics":
                return _metrics(() if self._status is None else self._status.rows, accept)
        return Answer(404, "not found: /livez, /readyz and /metrics are here\n")

    def _livez(self) -> Answer:
        if self._status is None:
            return Answer(200, "ok: nothing is measured, for OTEL_SDK_DISABLED is true\n")
        with self._lock:
            now, ticks = self._clock(), self._status.ticks()
            if ticks != self._ticks:
                self._ticks, self._ticked = ticks, now
            seconds = now - self._ticked
        if seconds > max(_STALLED_SECONDS, 3 * self._status.poll_seconds):
            return Answer(
                503, f"no tick has ended for {seconds:.0f} s (poll_interval {self._status.poll_seconds:g} s)\n"
            )
        return Answer(200, f"ok: {ticks} ticks\n")

    def _readyz(self) -> Answer:
        status = self._status
        if status is None:
            return Answer(200, "ready: nothing is measured, for OTEL_SDK_DISABLED is true\n")
        listed, pods, measured = status.are_pods_listed(), status.pods(), status.measured()
        waiting = "missing: no list of pods yet (the log says why; `otel-k8s-cgroup check` finds out)"
        lines = [
            f"pods: {pods} listed" if listed else f"pods: {waiting}",
            f"cgroups: {measured} pods measured"
            if measured or (listed and not pods)
            else "cgroups: missing: no pod is measured yet (is the host's /sys/fs/cgroup mounted?)",
            f"export: {status.accepted()} requests accepted"
            if status.accepted()
            else "export: missing: the OTLP receiver has taken no request yet (the log says why)",
        ]
        ready = not any(": missing: " in line for line in lines)
        return Answer(200 if ready else 503, "\n".join(["ready" if ready else "not ready", *lines, ""]))


class _Client:
    """One connection: what came of its request, and what is left to send."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self.head = b""
        self.rest: bytes | None = None


class HealthServer:
    """Listens on ``address`` (``127.0.0.1:8081``, ``[::]:8081``) from its creation on, and answers from ``start`` on.

    Raises:
        ExporterError: it cannot listen there.
    """

    def __init__(self, address: str, health: Health, *, clock: Callable[[], float] = time.monotonic) -> None:
        host, _, port = address.rpartition(":")
        host = host.strip("[]")
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            self._listener = socket.create_server((host, int(port)), family=family, backlog=_MOST_CONNECTIONS)
        except OSError as error:
            raise ExporterError(f"health_listen {address}: cannot listen there: {error.strerror or error}") from None
        self._listener.setblocking(False)
        self.port = int(self._listener.getsockname()[1])
        self._health = health
        self._clock = clock
        self._clients: dict[socket.socket, _Client] = {}
        """The oldest first."""
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        # A daemon: no client keeps the process from ending.
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Ends all connections, and listens no more."""
        self._closing.set()
        if self._thread.ident is None:
            self._listener.close()
        else:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        self._selector.register(self._listener, selectors.EVENT_READ)
        try:
            while not self._closing.is_set():
                for key, _ in self._selector.select(_LOOK_SECONDS / 10 if self._clients else _LOOK_SECONDS):
                    if key.fileobj is self._listener:
                        self._accept()
                    elif (client := self._clients.get(key.fileobj)) is not None:  # type: ignore[call-overload]
                        self._go_on(client)
                now = self._clock()
                for client in [each for each in self._clients.values() if each.until <= now]:
                    self._let_go(client)
        finally:
            for client in list(self._clients.values()):
                self._let_go(client)
            self._selector.close()
            self._listener.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it has gone again, or no descriptor is left
            self._closing.wait(0.01)
            return
        sock.setblocking(False)
        if len(self._clients) >= _MOST_CONNECTIONS:
            self._let_go(next(iter(self._clients.values())))
        self._clients[sock] = _Client(sock, self._clock() + _CONNECTION_SECONDS)
        self._selector.register(sock, selectors.EVENT_READ)

    def _go_on(self, client: _Client) -> None:
        try:
            if client.rest is None:
                self._read(client)
            if client.rest is not None:
                client.rest = client.rest[client.sock.send(client.rest) :]
                if not client.rest:
                    self._let_go(client)
        except BlockingIOError:
            pass
        except OSError:
            self._let_go(client)

    def _read(self, client: _Client) -> None:
        piece = client.sock.recv(4096)
        client.head += piece
        if b"\r\n\r\n" in client.head or b"\n\n" in client.head:
            client.rest = _response(*self._answered(client.head))
        elif len(client.head) > _MOST_HEAD_BYTES:
            client.rest = _response(Answer(431, "the head of the request is too large\n"), with_body=True)
        elif not piece:
            self._let_go(client)
            return
        if client.rest is not None:
            self._selector.modify(client.sock, selectors.EVENT_WRITE)

    def _answered(self, head: bytes) -> tuple[Answer, bool]:
        first, *fields = head.decode("latin-1").splitlines()
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return Answer(400, "no request of HTTP/1.1\n"), True
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return Answer(405, "only GET and HEAD\n"), True
        accept = next((line.partition(":")[2].strip() for line in fields if line.lower().startswith("accept:")), "")
        try:
            answer = self._health.answer(target.partition("?")[0], accept)
        except Exception:  # noqa: BLE001 it is logged
            # Whatever is wrong with a figure, the next request has its chance.
            _log.exception("%s cannot be answered", "a request to health_listen")
            answer = Answer(500, "an error of the exporter; the log has it\n")
        return answer, method == "GET"

    def _let_go(self, client: _Client) -> None:
        del self._clients[client.sock]
        with suppress(KeyError, ValueError):
            self._selector.unregister(client.sock)
        with suppress(OSError):
            # What was not read would make the kernel send RST, and the answer might be lost by that.
            client.sock.shutdown(socket.SHUT_WR)
            client.sock.recv(_MOST_HEAD_BYTES)
        client.sock.close()


@contextmanager
def serving(address: str | None, status: Status | None) -> Iterator[None]:
    """Serves at ``address`` inside; nothing where that is None. Raises as ``HealthServer``."""
    if address is None:
        yield
        return
    server = HealthServer(address, Health(status))
    server.start()
    _log.info("health: /livez, /readyz and /metrics at %s", address)
    try:
        yield
    finally:
        server.close()


def _response(answer: Answer, with_body: bool) -> bytes:
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}.get(answer.status, "Error")
    body = answer.text.encode()
    head = (
        f"HTTP/1.1 {answer.status} {reason}\r\nContent-Type: {answer.content_type}\r\nContent-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + (body if with_body else b"")


def _metrics(rows: Sequence[Row], accept: str) -> Answer:
    try:
        # Some megabytes, which only who scrapes has to have.
        from prometheus_client import CollectorRegistry  # noqa: PLC0415
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily  # noqa: PLC0415
        from prometheus_client.exposition import choose_encoder  # noqa: PLC0415
    except ImportError:
        return Answer(501, _NO_LIBRARY)

    class Rows:
        def collect(self) -> list[CounterMetricFamily | GaugeMetricFamily]:
            found = []
            for row in rows:
                unit = _UNITS.get(row.unit, "")
                name = _PREFIX + row.name.replace(".", "_").removesuffix(unit) + unit
                kind = CounterMetricFamily if row.monotonic else GaugeMetricFamily
                family = kind(name, row.description, labels=row.attributes)
                value = row.get()
                for labels, each in {(): value}.items() if isinstance(value, int | float) else value.items():
                    family.add_metric(labels, each)
                found.append(family)
            return found

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Rows())
    encode, content_type = choose_encoder(accept)
    return Answer(200, encode(registry).decode(), content_type)
