"""Servers that break below the protocol: raw sockets that take a connection and do the one thing that they are for."""

from __future__ import annotations

import random
import socket
import struct
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

_PATIENCE_SECONDS = 30.0
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with no time: close() sends RST."""


class Connection:
    """One client's, as a fault sees it."""

    def __init__(self, sock: socket.socket, closing: threading.Event) -> None:
        self._sock = sock
        self._closing = closing

    def read_request(self) -> bytes:
        """Of HTTP/1.1: its head and body."""
        received = b""
        while b"\r\n\r\n" not in received and (piece := self._sock.recv(65536)):
            received += piece
        head, _, body = received.partition(b"\r\n\r\n")
        lengths = [line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        length = int(lengths[0].partition(b":")[2]) if lengths else 0
        while len(body) < length and (piece := self._sock.recv(65536)):
            body += piece
        return head + b"\r\n\r\n" + body

    def read_some(self) -> None:
        """A few bytes of what the client sends."""
        self._sock.recv(64)

    def send(self, content: bytes) -> None:
        self._sock.sendall(content)

    def drip(self, content: bytes) -> None:
        """Sends a byte at a time, over and over, much sooner than any time limit of a single read."""
        while not self._closing.is_set():
            for number in range(len(content)):
                self._sock.sendall(content[number : number + 1])
                if self._closing.wait(0.01):
                    return

    def hold(self) -> None:
        """Says nothing, until the server is closed."""
        self._closing.wait()

    def reset(self) -> None:
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


Fault = Literal[
    "black hole",
    "reset mid-body",
    "closed at once",
    "drip of interim answers",
    "drip of headers",
    "drip of a body",
    "not OTLP",
    "goes away",
]


def _black_hole(connection: Connection) -> None:
    connection.hold()


def _reset_mid_body(connection: Connection) -> None:
    connection.read_some()
    connection.reset()


def _closed_at_once(_connection: Connection) -> None:
    pass


def _drip_of_interim_answers(connection: Connection) -> None:
    connection.read_some()
    connection.drip(b"HTTP/1.1 100 Continue\r\n\r\n")


def _drip_of_headers(connection: Connection) -> None:
    connection.read_some()
    connection.send(b"HTTP/1.1 503 Service Unavailable\r\n")
    connection.drip(b"X-Drip: drop\r\n")


def _drip_of_a_body(connection: Connection) -> None:
    connection.read_some()
    connection.send(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 1000000\r\n\r\n")
    connection.drip(b"later ")


def _not_otlp(connection: Connection) -> None:
    connection.send(b"SSH-2.0-OpenSSH_9.9\r\n")
    connection.hold()


def _goes_away(connection: Connection) -> None:
    """HTTP/2's way to end a connection, whose other end stays open."""
    connection.read_some()
    connection.send(b"\0\0\0\4\0\0\0\0\0")  # SETTINGS
    connection.read_some()
    connection.send(b"\0\0\x08\7\0\0\0\0\0" + b"\0\0\0\0\0\0\0\2")  # GOAWAY, INTERNAL_ERROR
    connection.hold()


_FAULTS: dict[Fault, Callable[[Connection], None]] = {
    "black hole": _black_hole,
    "reset mid-body": _reset_mid_body,
    "closed at once": _closed_at_once,
    "drip of interim answers": _drip_of_interim_answers,
    "drip of headers": _drip_of_headers,
    "drip of a body": _drip_of_a_body,
    "not OTLP": _not_otlp,
    "goes away": _goes_away,
}


class FaultyServer:
    """Listens on loopback; each connection gets ``behave``. A context manager.

    Args:
        behave: a fault by its name, or what to do with a connection, in a thread of its own; it ends with the function.
        port: 0 for a free one.
    """

    def __init__(self, behave: Fault | Callable[[Connection], None], port: int = 0) -> None:
        self._behave = _FAULTS[behave] if isinstance(behave, str) else behave
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self._listener.getsockname()[1])
        self._come = threading.Semaphore(0)
        self._closing = threading.Event()
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, name="faulty-otlp", daemon=True)
        self._accepting.start()

    def __enter__(self) -> FaultyServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def wait_for_connections(self, more: int) -> None:
        """Blocks until so many have come since the last call."""
        for had in range(more):
            if not self._come.acquire(timeout=_PATIENCE_SECONDS):
                raise AssertionError(f"{had} connections came, not {more}")

    def close(self) -> None:
        """Ends every connection; the port is free again."""
        self._closing.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        for thread in self._threads:
            thread.join()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), name="faulty-otlp", daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        # A client that has gone makes every call fail, which is no news here.
        with sock, suppress(OSError):
            self._come.release()
            self._behave(Connection(sock, self._closing))


def free_port() -> int:
    """On which nobody listens. It is none that the kernel gives a client: it is free until somebody asks for it."""
    while True:
        port = random.randrange(10_240, 32_768)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
