"""GET requests to the Kubernetes API (or a kubelet): TLS, token, bounded answers, and errors in a user's words.

API conventions: https://github.com/kubernetes/community/blob/master/contributors/devel/sig-architecture/api-conventions.md
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING, NamedTuple

import requests
from requests.auth import AuthBase
from requests.utils import get_environ_proxies

from otel_k8s_cgroup.connections import Adapter, OpenSockets, tls_context
from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, KubeError, MalformedObject
from otel_k8s_cgroup.http_words import TRANSPORT_ERRORS, Peer, let_go, quoted, retry_after_seconds, why_unreachable

from .addresses import checked_url, is_loopback
from .complaints import status_message
from .files import Signature, read_bounded, signature
from .objects import decode

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterator, Mapping

    from .credentials import Credentials

_CHUNK_BYTES = 64 * 1024
_MAX_CA_BYTES = 4 * 1024 * 1024
_MAX_ERROR_BYTES = 64 * 1024


class Permission(NamedTuple):
    """What a request needs of RBAC, to count it by and to name it where it is refused."""

    verb: str
    resource: str


class _Bearer(AuthBase):
    """The only Authorization header: with it given, requests looks neither into the URL nor into a netrc file."""

    def __init__(self, token: str | None) -> None:
        self._token = token

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class ApiClient:
    """One API server, asked by GET only.

    ``ca_file`` is a PEM file (read again when it was replaced; None: the system's CAs). ``setting`` is the name under
    which the user gave ``base_url``. ``max_body_bytes`` bounds one answer, ``max_line_bytes`` one line of a stream;
    ``idle_seconds`` is the longest silence of the server and the longest time until an answer begins,
    ``answer_seconds`` the longest time for a whole answer. Raises KubeError where ``base_url`` is no address of an API.
    Thread-safe; but an answer that does not begin ends what other threads wait for, too.
    """

    def __init__(
        self,
        base_url: str,
        *,
        credentials: Credentials,
        ca_file: str | None = None,
        setting: str = "k8s_api_url",
        connect_seconds: float = 5.0,
        idle_seconds: float = 30.0,
        answer_seconds: float = 60.0,
        max_body_bytes: int = 256 * 1024 * 1024,
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
        self._ca_file = ca_file
        self._ca_signature: Signature | None = None
        self._setting = setting
        self._connect_seconds = connect_seconds
        self._idle_seconds = idle_seconds
        self._answer_seconds = answer_seconds
        self._max_body_bytes = max_body_bytes
        self._max_line_bytes = max_line_bytes
        self._clock = clock
        self._wall_clock = wall_clock
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

    @property
    def request_counts(self) -> Mapping[tuple[str, str], int]:
        """How many requests there were by (verb, result): an HTTP status, ``"unreachable"`` or ``"broken"``."""
        with self._lock:
            return dict(self._counts)

    def get_json(self, path: str, params: Mapping[str, str], needs: Permission) -> object:
        """The answer, decoded. Raises KubeError: TokenError, ApiUnreachable, ApiStatusError or MalformedObject."""
        with self._answer(path, params, needs, self._idle_seconds) as response:
            body = bytearray()
            deadline = self._clock() + self._answer_seconds
            for chunk in self._chunks(response, needs, self._idle_seconds):
                body += chunk
                if len(body) > self._max_body_bytes:
                    raise MalformedObject(f"{self.base_url}{path}: an answer of over {self._max_body_bytes} bytes")
                if self._clock() > deadline:
                    self._count(needs, "broken")
                    raise ApiUnreachable(
                        self.base_url + path, f"the answer was not complete after {self._answer_seconds:g} s"
                    )
            return decode(body, self.base_url + path)

    @contextlib.contextmanager
    def lines(
        self, path: str, params: Mapping[str, str], needs: Permission, *, idle_seconds: float
    ) -> Iterator[Iterator[bytes]]:
        """A stream, open once this is entered: its lines as they come, without empty ones, until the server closes it.

        Entering and reading raise as ``get_json`` does; ApiUnreachable also after ``idle_seconds`` without a byte.
        """
        with self._answer(path, params, needs, idle_seconds) as response:
            yield self._split(self.base_url + path, self._chunks(response, needs, idle_seconds))

    def close(self) -> None:
        """For good, and from any thread: ends what hangs (a request, a stream, a kubectl) and refuses what follows."""
        self._open_sockets.close()
        self._credentials.close()
        self._session.close()

    @contextlib.contextmanager
    def _answer(
        self, path: str, params: Mapping[str, str], needs: Permission, idle_seconds: float
    ) -> Iterator[requests.Response]:
        url = self.base_url + path
        response = self._send(url, params, needs, idle_seconds)
        if response.status_code == 401:
            # Bound tokens rotate: what is refused may be the last one, so the next is tried before anything is said.
            response.close()
            self._credentials.invalidate()
            response = self._send(url, params, needs, idle_seconds)
        with response:
            if response.status_code != 200:
                raise self._status_error(url, response, needs)
            yield response

    def _send(self, url: str, params: Mapping[str, str], needs: Permission, idle_seconds: float) -> requests.Response:
        token = self._credentials.token()
        if token is not None and not self._private:
            raise KubeError(
                f"{self._setting} {self.base_url!r}: a token is sent only over https or to this machine itself; use "
                'https://, or token_retrieval = "none" if the API wants no token'
            )
        self._mount()
        self._open_sockets.renew()
        if self._open_sockets.ended:
            raise ApiUnreachable(url, "the client is closed")
        # A stream may be silent for minutes, but not before it has begun.
        with self._open_sockets.deadline(self._idle_seconds) as passed:
            try:
                response = self._session.get(
                    url,
                    params=dict(params),
                    auth=_Bearer(token),
                    stream=True,
                    allow_redirects=False,
                    timeout=(self._connect_seconds, idle_seconds),
                )
                if passed.is_set():
                    response.close()
                    raise TimeoutError  # what was cut off looks like a whole head of an answer
            except TRANSPORT_ERRORS as error:
                self._count(needs, "unreachable")
                let_go(error)
                why = (
                    f"no answer within {self._idle_seconds:g} s" if passed.is_set() else self._why(error, idle_seconds)
                )
                raise ApiUnreachable(url, why) from None
        self._count(needs, str(response.status_code))
        return response

    def _mount(self) -> None:
        """Takes the CA anew where its file was replaced."""
        with self._lock:
            current: Signature | None = None
            context: ssl.SSLContext | None = None
            try:
                if self._tls and self._ca_file is not None:
                    current = signature(self._ca_file)
                if self._adapter is not None and current == self._ca_signature:
                    return
                pem: str | None = None
                if self._tls and self._ca_file is not None:
                    content, current = read_bounded(self._ca_file, _MAX_CA_BYTES)
                    pem = content.decode("ascii", errors="ignore")  # names beside the certificates may be UTF-8
                if self._tls:
                    context = tls_context(pem)
            except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
                reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
                raise KubeError(
                    f"k8s_ca_file {self._ca_file!r}: {quoted(reason)}; it must be a PEM file with the certificate of "
                    "the CA that signed the API server's"
                ) from error
            stale, self._adapter, self._ca_signature = self._adapter, Adapter(context, self._open_sockets), current
            for prefix in ("https://", "http://"):
                self._session.mount(prefix, self._adapter)
            if stale is not None:
                stale.close()

    def _split(self, url: str, chunks: Iterator[bytes]) -> Iterator[bytes]:
        rest = bytearray()
        for chunk in chunks:
            rest += chunk
            if b"\n" in chunk:
                *whole, rest = rest.split(b"\n")
                yield from (bytes(line) for line in whole if line.strip())
            if len(rest) > self._max_line_bytes:
                raise MalformedObject(f"{url}: a line of over {self._max_line_bytes} bytes")
        if rest.strip():
            yield bytes(rest)

    def _chunks(self, response: requests.Response, needs: Permission, idle_seconds: float) -> Iterator[bytes]:
        """Of the body, each as soon as it is there: unlike iter_content, which waits until a chunk is full."""
        while True:
            try:
                chunk = response.raw.read1(_CHUNK_BYTES, decode_content=True)
            except TRANSPORT_ERRORS as error:
                self._count(needs, "broken")
                let_go(error)
                raise ApiUnreachable(response.url.partition("?")[0], self._why(error, idle_seconds)) from None
            if not chunk:
                return
            yield chunk

    def _why(self, error: Exception, idle_seconds: float) -> str:
        peer = Peer(
            setting=self._setting,
            program="the API server (or kubectl proxy)",
            ca=f"k8s_ca_file {self._ca_file!r}" if self._ca_file is not None else "the system's CAs",
            ca_remedy="set k8s_ca_file to the CA of the cluster",
        )
        return why_unreachable(error, peer, idle_seconds).text

    def _status_error(self, url: str, response: requests.Response, needs: Permission) -> ApiStatusError:
        status = response.status_code
        body = bytearray()
        with self._open_sockets.deadline(self._idle_seconds), contextlib.suppress(*TRANSPORT_ERRORS):
            while len(body) < _MAX_ERROR_BYTES and (chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True)):
                body += chunk
        said = status_message(bytes(body[:_MAX_ERROR_BYTES]))
        if 300 <= status < 400:
            message = (
                f"it redirects to {quoted(response.headers.get('Location', ''))}, which is not followed because the "
                f"token is for this server alone; set {self._setting} to the address of the API itself"
            )
        elif status == 401:
            message = f"it does not take the token (from {self._credentials.origin}): {said}; see token_retrieval"
        elif status == 403:
            message = (
                f"not allowed to {needs.verb} {needs.resource} (token from {self._credentials.origin}): {said}; grant "
                f"the verb {needs.verb!r} on {needs.resource!r} by a ClusterRole and its binding"
            )
        else:
            message = said
        after = retry_after_seconds(response.headers.get("Retry-After"), self._wall_clock())
        return ApiStatusError(url, status, message, after)

    def _count(self, needs: Permission, result: str) -> None:
        with self._lock:
            self._counts[needs.verb, result] += 1
