"""One address, and what is behind it at the moment: the server itself, a broken one, or nobody."""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING

from tests.fakes.faulty_otlp import Connection, FaultyServer
from tests.fakes.otlp_receiver import OtlpReceiver

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from tests.fakes.faulty_otlp import Fault
    from tests.fakes.otlp_receiver import Answer, Received


class Front:
    """Listens at ``port`` in front of a server. Whatever is put there ends the connections that there were.

    Args:
        target_port: the server's, on loopback. Another one is for the connections that come then.
    """

    def __init__(self, target_port: int) -> None:
        self.target_port = target_port
        self.on_change: Callable[[], None] = lambda: None
        """Is called before connections end: what was under way may have been taken, and its answer lost."""
        # Bound and never listening: while nobody listens the port is refused, and nobody else is given it.
        self._hold = socket.socket()
        self._hold.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._hold.bind(("127.0.0.1", 0))
        self.port = int(self._hold.getsockname()[1])
        self._listening: FaultyServer | OtlpReceiver | None = None

    def nobody(self) -> None:
        self.on_change()
        if self._listening is not None:
            self._listening.close()
            self._listening = None

    def relay(self, cut_after_seconds: Callable[[], float] | None = None) -> None:
        """The server itself; with ``cut_after_seconds`` each connection is reset when it is so old."""
        self.nobody()
        self._listening = FaultyServer(_relay(lambda: self.target_port, cut_after_seconds), self.port)

    def broken(self, fault: Fault) -> None:
        self.nobody()
        self._listening = FaultyServer(fault, self.port)

    def answer(self, protocol: Literal["grpc", "http/protobuf"], respond: Callable[[Received], Answer]) -> None:
        """A receiver that answers as ``respond`` says."""
        self.nobody()
        self._listening = OtlpReceiver(protocol, respond=respond, port=self.port)

    def close(self) -> None:
        self.nobody()
        self._hold.close()


def _relay(
    target_port: Callable[[], int], cut_after_seconds: Callable[[], float] | None
) -> Callable[[Connection], None]:
    def behave(connection: Connection) -> None:
        cut = time.monotonic() + cut_after_seconds() if cut_after_seconds else None
        near, closing = connection._sock, connection._closing  # to carry bytes is what a fault is not made for
        with socket.create_connection(("127.0.0.1", target_port())) as far:
            other = {near: far, far: near}
            while not closing.is_set():
                if cut is not None and time.monotonic() >= cut:
                    connection.reset()
                    return
                for each in select.select(list(other), [], [], 0.02)[0]:
                    piece = each.recv(1 << 16)
                    if not piece:
                        return
                    other[each].sendall(piece)

    return behave
