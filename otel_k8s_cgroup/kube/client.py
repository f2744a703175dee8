"""GET requests to the Kubernetes API (or a kubelet): TLS, token, bounded answers, and errors in a user's words.

API conventions: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import Counter
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import requests
from requests.auth import AuthBase
from requests.utils import get_environ_proxies

from otel_k8s_cgroup.connections import Adapter, OpenSockets
from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, KubeError, MalformedObject
from otel_k8s_cgroup.http_words import (
    TRANSPORT_ERRORS,
    Peer,
    Why,
    let_go,
    retry_after_seconds,
    why_unreachable,
)

from .addresses import checked_url, is_loopback
from .complaints import API_SERVER, Permission, Server, is_html, refusal
from .trust import Trust

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from otel_k8s_cgroup.model import ClientCertificate, Pem

    from .credentials import Credentials
    from .trust import Signatures

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 64 * 1024
_MAX_ERROR_BYTES = 64 * 1024
_END_SLACK_SECONDS = 1.0


class _Bearer(AuthBase):
    """The only Authorization header: with it given, requests looks neither into the URL nor into a netrc file."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class ApiClient:
    """One API server or kubelet, asked by GET only.

    ``ca`` is PEM (a file is read again when it was replaced; None: the system's CAs), as is ``client_certificate``
    (None: none is shown). ``tls_server_name`` is what the certificate must be for (None: the host of ``base_url``);
    ``verify`` False takes any certificate. ``server``: who is asked, in messages. ``max_body_bytes`` bounds one answer,
    ``max_line_bytes`` one line of a stream;
    ``idle_seconds`` is the longest silence of the server and the longest time until an answer begins,
    ``answer_seconds`` the longest time for a whole answer, by ``clock`` and by the real one. Raises KubeError where
    ``base_url`` is no address of an API, and where ``ca`` holds no certificates. Thread-safe; but an answer that
    does not begin, or does not end in time, ends what other threads wait for, too.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials,
        ca: Pem | None = None,
        client_certificate: ClientCertificate | None = None,
        tls_server_name: str | None = None,
        verify: bool = True,
        server: Server = API_SERVER,
        connect_seconds: float = 5.0,
        idle_seconds: float = 30.0,
        answer_seconds: float = 60.0,
        max_body_bytes: int = 4 * 1024 * 1024 * 1024,
        max_line_bytes: int = 8 * 1024 * 1024,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        parts = checked_url(base_url)
        on_this_machine = is_loopback(parts.hostname or "")
        self.base_url = base_url.rstrip("/")
        self._tls = parts.scheme == "https"
        self._private = self._tls or on_this_machine
        self._credentials = credentials
        self._trust = Trust(ca, verify=verify, client=client_certificate, server=server) if self._tls else None
        self._trusted: Signatures = ()
        self._tls_server_name = tls_server_name
        self._server = server
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._answer_seconds = answer_seconds
        self._max_body_bytes = max_body_bytes
        self._max_line_bytes = max_line_bytes
        self._clock = clock
        self._wall_clock = wall_clock
        self.server_date = "", 0.0
        """Of the last answer, as the server wrote it; and when that came, by our wall clock."""
        self._open_sockets = OpenSockets()
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._session = requests.Session()
        # No netrc, no CA bundle from the environment. HTTPS_PROXY and NO_PROXY hold as for kubectl, but never on this
        # machine and never for plain http: a proxy would be a third party that sees the token.
        self._session.trust_env = False
        self._session.proxies = get_environ_proxies(base_url) if self._tls and not on_this_machine else {}
        self._session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        self._adapter: Adapter | None = None
        self._mount()  # a CA that can never do is an error of the start

    @property
    def request_counts(self) -> Mapping[tuple[str, str], int]:
        """How many requests there were by (verb, result): an HTTP status, ``"unreachable"`` or ``"broken"``."""
        with self._lock:
            return dict(self._counts)

    def named(self, path: str) -> str:
        """The URL of ``path`` and the setting that it is from, for messages: another server may answer there."""
        return f"{self.base_url}{path} ({self._server.setting})"

    @contextlib.contextmanager
    def body(self, path: str, params: Mapping[str, str], needs: Permission) -> Iterator[Iterator[bytes]]:
        """An answer, begun once this is entered: its bytes as they come.

        Entering and reading raise KubeError: TokenError, ApiUnreachable, ApiStatusError or MalformedObject.
        """
        with self._answer(path, params, needs, self._idle_seconds) as response:
            yield self._bounded(self.base_url + path, self._chunks(response, needs, self._idle_seconds), needs)

    @contextlib.contextmanager
    def lines(
        self, path: str, params: Mapping[str, str], needs: Permission, *, end_seconds: float
    ) -> Iterator[Iterator[bytes]]:
        """A stream, open once this is entered: its lines as they come, until the server closes it. Blank ones, too, and
        an empty one for bytes with which no line is complete: so that who reads it knows of them.

        Entering, reading and leaving raise as ``body`` does. The stream ends ``end_seconds`` after it has begun at
        the latest, whatever has come until then: leaving raises ApiUnreachable then.
        """
        # Silence runs into its own limit only where the connection cannot be ended (TLS inside a TLS proxy).
        idle_seconds = end_seconds + _END_SLACK_SECONDS
        with self._answer(path, params, needs, idle_seconds, end_seconds) as response:
            yield self._split(self.base_url + path, self._chunks(response, needs, idle_seconds))

    def files_changed(self) -> bool:
        """Whether the token's or a certificate's file is another one than that of the last request."""
        return self._credentials.file_changed() or (self._trust is not None and self._trust.files_changed())

    def close(self) -> None:
        """For good, and from any thread: ends what hangs (a request, a stream, a kubectl) and refuses what follows."""
        self._open_sockets.close()
        self._credentials.close()
        self._session.close()

    @contextlib.contextmanager
    def _answer(
        self,
        path: str,
        params: Mapping[str, str],
        needs: Permission,
        idle_seconds: float,
        end_seconds: float | None = None,
    ) -> Iterator[requests.Response]:
        """``end_seconds``: the longest time from its head to its end (None: ``answer_seconds``)."""
        url = self.base_url + path
        end_seconds = self._answer_seconds if end_seconds is None else end_seconds
        response = self._send(url, params, needs, idle_seconds)
        if response.status_code == 401:
            # Bound tokens rotate: what is refused may be the last one, so the next is tried before anything is said.
            response.close()
            self._credentials.invalidate()
            response = self._send(url, params, needs, idle_seconds)
        with response:
            if response.status_code != 200:
                raise self._status_error(url, response, needs)
            if is_html(b"", response.headers):
                raise MalformedObject(f"{url}: an HTML page, no answer of an API; is {self._server.setting} right?")
            with self._open_sockets.deadline(end_seconds) as deadline:
                counted = False
                try:
                    yield response
                except KubeError as error:
                    if not deadline.has_passed:
                        raise  # else it is about what was cut off
                    counted = isinstance(error, ApiUnreachable)
            if deadline.has_passed:
                if not counted:
                    self._count(needs, "broken")
                raise ApiUnreachable(url, f"the answer did not end within {end_seconds:g} s")

    def _send(self, url: str, params: Mapping[str, str], needs: Permission, idle_seconds: float) -> requests.Response:
        token = self._credentials.token()
        if token is not None and not self._private:
            raise KubeError(
                f"{self._server.setting} {self.base_url!r}: a token is sent only over https or to this machine itself; "
                'use https://, or token_retrieval = "none" if the API wants no token'
            )
        self._mount()
        self._open_sockets.renew()
        if self._open_sockets.ended:
            raise ApiUnreachable(url, "the client is closed")
        # A stream may be silent for minutes, but not before it has begun.
        began = self._clock()
        with self._open_sockets.deadline(self._idle_seconds) as deadline:
            try:
                response = self._session.get(
                    url,
                    params=dict(params),
                    auth=_Bearer(token),
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._connect_seconds, idle_seconds),
                )
                if deadline.has_passed:
                    response.close()
                    raise TimeoutError  # what was cut off looks like a whole head of an answer
            except TRANSPORT_ERRORS as error:
                self._count(needs, "unreachable")
                let_go(error)
                why = (
                    Why("timeout", f"no answer within {self._idle_seconds:g} s")
                    if deadline.has_passed
                    else self._why(error, idle_seconds)
                )
                raise ApiUnreachable(url, why.text, why.cause) from None
        self.server_date = response.headers.get("Date", ""), self._wall_clock()
        self._count(needs, str(response.status_code))
        _log.debug("GET %s %s: HTTP %d after %.3f s", url, dict(params), response.status_code, self._clock() - began)
        return response

    def _mount(self) -> None:
        """Takes certificates anew where their files were replaced."""
        with self._lock:
            context = None
            if self._trust is not None:
                with contextlib.suppress(OSError):  # a file that is gone: what was read of it holds no longer
                    if self._adapter is not None and self._trust.signatures() == self._trusted:
                        return
                context, self._trusted = self._trust.read()
            elif self._adapter is not None:
                return
            stale = self._adapter
            self._adapter = Adapter(context, self._open_sockets, server_name=self._tls_server_name)
            for prefix in ("https://", "http://"):
                self._session.mount(prefix, self._adapter)
            if stale is not None:
                stale.close()

    def _bounded(self, url: str, chunks: Iterator[bytes], needs: Permission) -> Iterator[bytes]:
        size = 0
        deadline = self._clock() + self._answer_seconds
        for chunk in chunks:
            size += len(chunk)
            if size > self._max_body_bytes:
                raise MalformedObject(f"{url}: an answer of over {self._max_body_bytes} bytes")
            if self._clock() > deadline:
                self._count(needs, "broken")
                raise ApiUnreachable(url, f"the answer was not complete after {self._answer_seconds:g} s")
            yield chunk

    def _split(self, url: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        rest = bytearray()
        for chunk in chunks:
            *ended, begun = chunk.split(b"\n")
            for piece in ended:
                yield bytes(rest) + piece if rest else piece
                rest.clear()
            if not ended:
                yield b""
            rest += begun
            if len(rest) > self._max_line_bytes:
                raise MalformedObject(f"{url}: a line of over {self._max_line_bytes} bytes")
        if rest:
            yield bytes(rest)

    def _chunks(self, response: requests.Response, needs: Permission, idle_seconds: float) -> Iterator[bytes]:
        """Of the body, each as soon as it is there: unlike iter_content, which waits until a chunk is full."""
        while True:
            try:
                chunk = response.raw.read1(_CHUNK_BYTES, decode_content=True)
            except TRANSPORT_ERRORS as error:
                self._count(needs, "broken")
                let_go(error)
                why = self._why(error, idle_seconds)
                raise ApiUnreachable(response.url.partition("?")[0], why.text, why.cause) from None
            if not chunk:
                return
            yield chunk

    def _why(self, error: Exception, idle_seconds: float) -> Why:
        server = self._server
        peer = Peer(
            setting=server.setting,
            program=server.program,
            ca=self._trust.ca_name if self._trust is not None else "",
            ca_remedy=server.ca_remedy,
            name_remedy=server.name_remedy,
        )
        why = why_unreachable(error, peer, idle_seconds)
        if why.cause == "broken" and not self._tls:
            return Why(why.cause, f"{why.text}; does {server.setting} mean https://?")
        return why

    def _status_error(self, url: str, response: requests.Response, needs: Permission) -> ApiStatusError:
        status = response.status_code
        body = bytearray()
        with self._open_sockets.deadline(self._idle_seconds), contextlib.suppress(*TRANSPORT_ERRORS):
            while len(body) < _MAX_ERROR_BYTES and (chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True)):
                body += chunk
        why = refusal(
            status,
            bytes(body[:_MAX_ERROR_BYTES]),
            response.headers,
            server=self._server,
            needs=needs,
            credentials=self._credentials,
        )
        after = retry_after_seconds(response.headers.get("Retry-After"), self._wall_clock())
        return ApiStatusError(url, status, why.message, after, why.remedy)

    def _count(self, needs: Permission, result: str) -> None:
        with self._lock:
            self._counts[needs.verb, result] += 1
