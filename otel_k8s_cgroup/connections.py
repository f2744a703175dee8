"""HTTP connections: verified TLS, keep-alive probes, and sockets that another thread can wake.

The only part that knows requests' and urllib3's insides, and only their documented points for subclasses.
"""

from __future__ import annotations

import contextlib
import functools
import http.client
import os
import socket
import ssl
import tempfile
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection

if TYPE_CHECKING:
    from collections.abc import Iterator

# A peer that is gone without a word (a node that lost power, a NAT that forgot us) is noticed after 30 + 3 × 10 s also
# where nothing is due to be read. client-go does the same by HTTP/2 pings.
_KEEPALIVE = [
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    *(
        (socket.IPPROTO_TCP, getattr(socket, name), value)
        for name, value in (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
        if hasattr(socket, name)  # macOS has no TCP_KEEPIDLE
    ),
]

_MOST_INTERIM_ANSWERS = 100


class OpenSockets:
    """Every socket that is connected, so that ``wake`` ends whatever a thread waits for on one of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._closed = False
        self.ended = False
        self._watch = threading.Condition()
        self._due: set[Deadline] = set()
        """Those that are under way."""
        self._watcher: threading.Thread | None = None
        self._watches_until = 0.0

    def add(self, sock: object) -> None:
        """Of a connection that was just made. After ``wake`` it is of no use any more."""
        with self._lock:
            # TLS inside a TLS proxy has a wrapper here that is no socket; it can only run into its time limit.
            if isinstance(sock, socket.socket):
                self._sockets.add(sock)
                if self.ended:
                    _shut(sock)

    def wake(self) -> None:
        """Reads end as if the peer had closed, on these connections and, until ``renew``, on all later ones."""
        with self._lock:
            self.ended = True
            for sock in list(self._sockets):
                _shut(sock)

    def renew(self) -> None:
        """Connections that are made from here on are of use again."""
        with self._lock:
            self.ended = self._closed

    def close(self) -> None:
        """Wakes, and no ``renew`` helps any more."""
        self._closed = True
        self.wake()

    def deadline(self, seconds: float) -> Deadline:
        """Wakes after ``seconds``, however much the peer has sent by then, unless what it is ``with`` has ended.

        A time limit of requests' holds for one read, so a peer that sends a byte now and then would hold us for ever.
        (Not bounded: the look-up of a name. The system's resolver gives up after 5 s × 2 for each of its servers unless
        resolv.conf says otherwise; only the thread that asks waits for it, and it is a daemon.)
        """
        return Deadline(self, time.monotonic() + seconds)

    def _begin(self, deadline: Deadline) -> None:
        with self._watch:
            if self._watcher is None:
                # One for all that begin while it lives: a thread for each request would cost a sixth of it.
                watcher = threading.Thread(target=self._end_what_is_due, name="deadline", daemon=True)
                watcher.start()
                self._watcher = watcher
            self._due.add(deadline)
            if deadline.end < self._watches_until:
                self._watch.notify()

    def _end(self, deadline: Deadline) -> None:
        with self._watch:
            self._due.discard(deadline)

    def _end_what_is_due(self) -> None:
        """In a thread that ends once it wakes and no deadline is under way."""
        with self._watch:
            while self._due:
                now = time.monotonic()
                for deadline in [deadline for deadline in self._due if deadline.end <= now]:
                    self._due.discard(deadline)
                    deadline.has_passed = True
                    self.wake()
                self._watches_until = min((deadline.end for deadline in self._due), default=now)
                self._watch.wait(self._watches_until - now)
            self._watcher = None


class Deadline:
    """Of what happens while it is entered; see ``OpenSockets.deadline``."""

    __slots__ = ("_sockets", "end", "has_passed")

    def __init__(self, sockets: OpenSockets, end: float) -> None:
        self._sockets = sockets
        self.end = end
        """On the monotonic clock, in seconds."""
        self.has_passed = False

    def __enter__(self) -> Deadline:
        self._sockets._begin(self)  # noqa: SLF001 its other half
        return self

    def __exit__(self, *_: object) -> None:
        self._sockets._end(self)  # noqa: SLF001


def _shut(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it ended by itself
        # Not SSLSocket.shutdown: that takes the TLS state away under the thread that reads.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


class _FinalResponse(http.client.HTTPResponse):
    """Reads past interim answers (102, 103, …), which the standard library does for 100 alone (RFC 9110, 15.2)."""

    def begin(self) -> None:
        super().begin()
        for _ in range(_MOST_INTERIM_ANSWERS):
            # 101 answers an Upgrade, which nobody here asks for: after it, no HTTP follows.
            if self.status >= 200 or self.status == 101:
                return
            self.headers = self.msg = None  # type: ignore[assignment] # begin() reads an answer where there is none yet
            super().begin()
        raise http.client.HTTPException(f"more than {_MOST_INTERIM_ANSWERS} interim answers")


class _Connection(HTTPConnection):
    response_class = _FinalResponse

    def __init__(self, *args: Any, open_sockets: OpenSockets, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_sockets = open_sockets

    def connect(self) -> None:
        super().connect()
        self._open_sockets.add(self.sock)


class _TlsConnection(HTTPSConnection):
    response_class = _FinalResponse
    _twin: socket.socket | None = None

    def __init__(self, *args: Any, open_sockets: OpenSockets, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._open_sockets = open_sockets

    def _new_conn(self) -> socket.socket:
        # While the TLS handshake goes on, its socket is out of reach: it is made from this one, which ends with that.
        sock = super()._new_conn()
        self._twin = sock.dup()
        self._open_sockets.add(self._twin)
        return sock

    def connect(self) -> None:
        try:
            super().connect()
        finally:
            if self._twin is not None:
                self._twin.close()
                self._twin = None
        self.is_verified = True  # or nobody wants it to be: urllib3 would warn on stderr, with each connection
        self._open_sockets.add(self.sock)


class Adapter(HTTPAdapter):
    """``tls`` alone decides which certificates are good (None: plain http only); nothing is retried here.

    ``server_name`` is the name that they must be for, instead of the host's.
    """

    def __init__(
        self, tls: ssl.SSLContext | None, open_sockets: OpenSockets, *, server_name: str | None = None
    ) -> None:
        self._tls = tls
        self._server_name = server_name
        self._open_sockets = open_sockets
        super().__init__(max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs | self._for_pools)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        return super().proxy_manager_for(proxy, **kwargs | self._for_pools)

    @property
    def _for_pools(self) -> dict[str, Any]:
        named = {} if self._server_name is None else {"server_hostname": self._server_name}
        return {"ssl_context": self._tls, "socket_options": _KEEPALIVE} | named

    def cert_verify(self, conn: Any, url: Any, verify: Any, cert: Any) -> None:
        """Nothing: requests would add its own bundle of public CAs to those that ``tls`` trusts."""

    def get_connection_with_tls_context(self, request: Any, verify: Any, proxies: Any = None, cert: Any = None) -> Any:
        # urllib3 would set verify_mode by this.
        verify = self._tls is None or self._tls.verify_mode is not ssl.CERT_NONE
        pool: Any = super().get_connection_with_tls_context(request, verify, proxies, cert)
        kind = _TlsConnection if pool.scheme == "https" else _Connection
        # urllib3 documents ConnectionCls as the class to make connections by; it is only ever called.
        pool.ConnectionCls = functools.partial(kind, open_sockets=self._open_sockets)
        return pool


def tls_context(ca_pem: str | None, *, verify: bool = True) -> ssl.SSLContext:
    """Server certificates must be signed by ``ca_pem`` (None: by a CA of the system's) and be for the host asked for;
    ``verify`` False: any will do.

    Raises ssl.SSLError or ValueError where ``ca_pem`` holds no certificate.
    """
    if ca_pem is not None and not ca_pem.strip():
        raise ValueError("it is empty")  # which create_default_context would take for "the system's"
    context = ssl.create_default_context(cadata=ca_pem)
    # Python 3.13 asks for extensions (authority key identifier) that the CAs of many clusters do not have; what
    # VERIFY_DEFAULT checks is what every other Kubernetes client checks.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def load_client_certificate(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Shows ``certificate`` (PEM) to servers that ask for one.

    Raises ssl.SSLError or ValueError where the two are no certificate and its key. OpenSSL takes files only: these are
    in memory where the system can do that, so that no key that was in none is left on a disk.
    """
    with _file_of(certificate) as certificate_path, _file_of(key) as key_path:
        # An empty password: without one, an encrypted key would be asked for on the terminal.
        context.load_cert_chain(certificate_path, key_path, password="")


@contextlib.contextmanager
def _file_of(content: bytes) -> Iterator[str]:
    if hasattr(os, "memfd_create") and os.path.isdir("/proc/self/fd"):  # noqa: PTH112 not worth an import
        with os.fdopen(os.memfd_create("pem"), "wb") as file:
            file.write(content)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(content)
            file.flush()
            yield file.name
