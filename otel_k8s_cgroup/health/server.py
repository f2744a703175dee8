"""Serves ``Health``'s answers, in one thread of its own.

That thread serves all connections at once and never waits for one: a client that sends or reads slowly, or never ends,
is let go after a while, and of too many the oldest goes. A long answer is made as it is read, a piece at a time.
"""

from __future__ import annotations

import logging
import selectors
import socket
import threading
import time
import zlib
from contextlib import contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import ExporterError
from otel_k8s_cgroup.health.answers import Answer, Health, Status
from otel_k8s_cgroup.http_words import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_log = logging.getLogger(__name__)

_MOST_CONNECTIONS = 32
_MOST_STREAMS = 4
"""Long answers at once: each holds what a tick has read until it is read itself."""
_MOST_HEAD_BYTES = 8192
_CONNECTION_SECONDS = 5.0
_STREAM_SECONDS = 10.0
"""What Prometheus gives a scrape by default."""
_TURN_SECONDS = 0.0005
"""After a piece of a long answer, for the tick: however much is scraped, most of the time is its own."""
_LOOK_SECONDS = 0.5
_LOG_SECONDS = 60.0
"""Between two lines of the log about requests that fail: anybody may make them."""
_GZIP = 16 + zlib.MAX_WBITS


class _Client:
    """One connection: what came of its request, and what is left to send."""

    def __init__(self, sock: socket.socket, until: float) -> None:
        self.sock = sock
        self.until = until
        self.head = b""
        self.answer: Iterator[bytes] | None = None
        """Its pieces that are not made yet; None before the request is there."""
        self.rest = b""
        self.is_stream = False


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
        self._failed = 0
        """Requests, since the last line of the log about one."""
        self._quiet_until = -inf
        self._selector = selectors.DefaultSelector()
        self._closing = threading.Event()
        # A daemon: no client keeps the process from ending.
        self._thread = threading.Thread(target=self._run, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def close(self, timeout_seconds: float = 1.0) -> None:
        """Ends all connections, and listens no more."""
        self._closing.set()
        with suppress(OSError):
            # Its thread need not wait for the next look.
            self._listener.shutdown(socket.SHUT_RDWR)
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
            if client.answer is None:
                self._read(client)
            if client.answer is not None:
                self._write(client, client.answer)
        except BlockingIOError:
            pass
        except OSError:
            self._let_go(client)

    def _read(self, client: _Client) -> None:
        piece = client.sock.recv(4096)
        client.head += piece
        if b"\r\n\r\n" in client.head or b"\n\n" in client.head:
            client.answer = self._answered(client)
        elif len(client.head) > _MOST_HEAD_BYTES:
            client.answer = _response(Answer(431, "the head of the request is too large\n"))
        elif not piece:
            self._let_go(client)
            return
        if client.answer is not None:
            self._selector.modify(client.sock, selectors.EVENT_WRITE)

    def _write(self, client: _Client, answer: Iterator[bytes]) -> None:
        """One piece, so that the others have their turn."""
        if not client.rest:
            try:
                piece = next(answer, None)
            except Exception as error:  # noqa: BLE001 it is logged
                self._log_failure(error)
                piece = None
            if piece is None:
                self._let_go(client)
                return
            client.rest = piece
            if client.is_stream:
                self._closing.wait(_TURN_SECONDS)
        if client.rest:
            client.rest = client.rest[client.sock.send(client.rest) :]

    def _answered(self, client: _Client) -> Iterator[bytes]:
        first, *lines = client.head.decode("latin-1").splitlines()
        words = first.split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return _response(Answer(400, "no request of HTTP/1.1\n"))
        method, target, version = words
        if method not in ("GET", "HEAD"):
            return _response(Answer(405, "only GET and HEAD\n"))
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in reversed(lines))}
        try:
            answer = self._health.answer(target.partition("?")[0], fields.get("accept", ""))
        except Exception as error:  # noqa: BLE001 it is logged
            # Whatever is wrong with a figure, the next request has its chance.
            self._log_failure(error)
            answer = Answer(500, "an error of the exporter; the log has it\n")
        if answer.pieces is None or method == "HEAD":
            return _response(answer, with_body=method == "GET")
        self._begin_stream(client)
        return _stream(answer, answer.pieces, version=version, with_gzip=_takes_gzip(fields.get("accept-encoding", "")))

    def _log_failure(self, error: Exception) -> None:
        self._failed += 1
        now = self._clock()
        if now < self._quiet_until:
            return
        others = f" (as are {self._failed - 1} others since the last such line)" if self._failed > 1 else ""
        what = f"{type(error).__name__}: {quoted(str(error))}"
        # A defect's traceback, for who looks for it.
        with_traceback = _log.isEnabledFor(logging.DEBUG)
        _log.error("a request to health_listen is not answered: %s%s", what, others, exc_info=with_traceback)
        self._failed, self._quiet_until = 0, now + _LOG_SECONDS

    def _begin_stream(self, client: _Client) -> None:
        others = [each for each in self._clients.values() if each.is_stream]
        if len(others) >= _MOST_STREAMS:
            self._let_go(others[0])
        client.is_stream = True
        client.until = self._clock() + _STREAM_SECONDS

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


def _head(answer: Answer, *fields: str) -> bytes:
    reason = {200: "OK", 400: "Bad Request", 404: "Not Found", 405: "Method Not Allowed"}.get(answer.status, "Error")
    lines = [
        f"HTTP/1.1 {answer.status} {reason}",
        f"Content-Type: {answer.content_type}",
        *fields,
        "Cache-Control: no-store",
        "X-Content-Type-Options: nosniff",
        "Connection: close",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode()


def _response(answer: Answer, *, with_body: bool = True) -> Iterator[bytes]:
    body = answer.text.encode()
    # Nobody knows how long what comes in pieces is.
    length = [f"Content-Length: {len(body)}"] if answer.pieces is None else []
    yield _head(answer, *length) + (body if with_body else b"")


def _stream(answer: Answer, pieces: Iterable[str], *, version: str, with_gzip: bool) -> Iterator[bytes]:
    """In chunks, by which who reads knows that nothing is missing at the end; HTTP/1.0 has none."""
    is_chunked = version != "HTTP/1.0"
    fields = ["Vary: Accept, Accept-Encoding"]
    fields += ["Transfer-Encoding: chunked"] if is_chunked else []
    fields += ["Content-Encoding: gzip"] if with_gzip else []
    yield _head(answer, *fields)
    for body in _gzipped(pieces) if with_gzip else (piece.encode() for piece in pieces):
        yield b"%x\r\n%b\r\n" % (len(body), body) if is_chunked and body else body
    if is_chunked:
        yield b"0\r\n\r\n"


def _gzipped(pieces: Iterable[str]) -> Iterator[bytes]:
    # The lowest level: the text says the same again and again, and others need the CPU.
    compressor = zlib.compressobj(1, zlib.DEFLATED, _GZIP)
    for piece in pieces:
        yield compressor.compress(piece.encode())
    yield compressor.flush()


def _takes_gzip(accept_encoding: str) -> bool:
    """Whether the request's header names it, and not to refuse it (``gzip;q=0``)."""
    for each in accept_encoding.split(","):
        name, _, quality = each.partition(";")
        if name.strip().lower() == "gzip":
            return quality.replace(" ", "").lower() not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False
