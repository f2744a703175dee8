"""OTLP over HTTP with binary protobuf.

Source: https://opentelemetry.io/docs/specs/otlp/#otlphttp-response
"""

from __future__ import annotations

import gzip
import time
from contextlib import suppress
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import requests
import urllib3
from google.protobuf.message import DecodeError
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse
from requests.structures import CaseInsensitiveDict
from requests.utils import get_environ_proxies

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.connections import Adapter, OpenSockets
from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.advice import advised
from otel_k8s_cgroup.export.transport import USER_AGENT, Receipt, tls_of
from otel_k8s_cgroup.http_words import TRANSPORT_ERRORS, Peer, let_go, quoted, retry_after_seconds, why_unreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3 import BaseHTTPResponse

    from otel_k8s_cgroup.model import OtlpTarget

_RETRYABLE = frozenset({429, 502, 503, 504})

# The level that is cheap: 9, the default, takes five times the CPU for 3 % fewer bytes.
_GZIP_LEVEL = 1

_MOST_CHARACTERS = 160
_MAX_ANSWER_BYTES = 64 * 1024


class HttpTransport:
    """POSTs to ``target.endpoint`` through one kept-alive connection.

    Args:
        target: the settings.
        wall_clock: seconds since the epoch, for a Retry-After that is a date.

    Raises:
        ExportRejected: a certificate or key cannot be used.
    """

    def __init__(self, target: OtlpTarget, wall_clock: Callable[[], float] = time.time) -> None:
        self._endpoint = target.endpoint
        self._timeout_seconds = target.timeout_seconds
        self._gzip = target.compression == "gzip"
        self._wall_clock = wall_clock
        self._peer = Peer(
            setting="otlp_endpoint",
            program="the OTLP receiver",
            ca=f"otlp_certificate {target.certificate_file!r}" if target.certificate_file else "the system's CAs",
            ca_remedy="set otlp_certificate (OTEL_EXPORTER_OTLP_CERTIFICATE) to the CA of the receiver",
        )
        self._sockets = OpenSockets()
        self._closed = False
        # Headers of the user's own come last: they may replace any of ours.
        headers: CaseInsensitiveDict[str] = CaseInsensitiveDict(
            {
                "content-type": "application/x-protobuf",
                "user-agent": f"{USER_AGENT}/{__version__}",
                "accept-encoding": "identity",
            }
        )
        if self._gzip:
            headers["content-encoding"] = "gzip"
        headers.update(dict(target.headers))
        # Prepared once, and sent by the connection pool itself: what a Session and its adapter add to a request takes
        # longer than the request. No cookies and no netrc, whose entry would take the place of the configured
        # Authorization header. Proxies hold as for others.
        request = requests.Request("POST", target.endpoint, headers).prepare()
        request.headers.pop("content-length", None)  # of no body; each request has its own
        proxies = get_environ_proxies(target.endpoint)
        is_tls = urlsplit(target.endpoint).scheme == "https"
        self._adapter = Adapter(tls_of(target) if is_tls else None, self._sockets)
        self._pool = self._adapter.get_connection_with_tls_context(request, verify=True, proxies=proxies)
        self._url = self._adapter.request_url(request, proxies)
        self._headers = dict(request.headers)
        self._timeout = urllib3.Timeout(connect=target.timeout_seconds, read=target.timeout_seconds)

    def send(self, body: bytes) -> Receipt:
        if self._gzip:
            body = gzip.compress(body, _GZIP_LEVEL)
        self._sockets.renew()
        if self._closed:
            raise ExportRetryable(self._endpoint, "closed", "the exporter ends")
        with self._sockets.deadline(self._timeout_seconds) as deadline:
            try:
                response = self._pool.urlopen(
                    "POST",
                    self._url,
                    body,
                    self._headers,
                    retries=False,
                    redirect=False,
                    assert_same_host=False,
                    timeout=self._timeout,
                    preload_content=False,
                    decode_content=False,
                )
                try:
                    if deadline.has_passed:
                        raise TimeoutError  # what was cut off looks like a whole head of an answer
                    answer = b""
                    # From here on the status alone decides: a request that was taken must not be sent again.
                    with suppress(*TRANSPORT_ERRORS):
                        answer = _read(response)
                    return self._judge(response, answer)
                finally:
                    response.close()
            except TRANSPORT_ERRORS as error:
                let_go(error)
                raise self._unreachable(error, timed_out=deadline.has_passed) from None

    def close(self) -> None:
        self._closed = True
        self._sockets.wake()
        self._adapter.close()

    def _judge(self, response: BaseHTTPResponse, answer: bytes) -> Receipt:
        status = response.status
        if 200 <= status < 300:
            date = response.headers.get("date", "")
            try:
                return Receipt.of(ExportMetricsServiceResponse.FromString(answer), date)
            except DecodeError:
                # It took the request; that is what counts.
                return Receipt(date=date)
        cause = f"HTTP {status}"
        if 300 <= status < 400:
            where = quoted(response.headers.get("location", "nowhere"))
            raise ExportRejected(
                self._endpoint,
                cause,
                f"it redirects to {where}, which is not followed; name the place itself as otlp_endpoint",
            )
        message = advised(cause, _words(answer) or response.reason or "no reason given")
        if status in _RETRYABLE:
            after = retry_after_seconds(response.headers.get("retry-after"), self._wall_clock())
            raise ExportRetryable(self._endpoint, cause, message, after)
        if status == 413:
            raise ExportTooLarge(self._endpoint, cause, message)
        raise ExportRejected(self._endpoint, cause, message)

    def _unreachable(self, error: Exception, *, timed_out: bool) -> ExportError:
        if self._closed:
            return ExportRetryable(self._endpoint, "closed", "the exporter ends")
        if timed_out:
            return ExportRetryable(self._endpoint, "timeout", f"no answer within {self._timeout_seconds:g} s")
        why = why_unreachable(error, self._peer, self._timeout_seconds)
        return ExportRetryable(self._endpoint, why.cause, advised(why.cause, why.text, _cut(why.text)))


def _read(response: BaseHTTPResponse) -> bytes:
    """The answer's body, bounded."""
    answer = bytearray()
    while len(answer) < _MAX_ANSWER_BYTES and (piece := response.read1(_MAX_ANSWER_BYTES, decode_content=False)):
        answer += piece
    return bytes(answer[:_MAX_ANSWER_BYTES])


def _words(answer: bytes) -> str:
    """What the receiver says: its ``google.rpc.Status``, else its text; nothing where that is a page for a browser."""
    try:
        text = Status.FromString(answer).message
    except DecodeError:
        text = ""
    text = (text or answer.decode("utf-8", "replace")).strip()
    return "" if text.startswith("<") else text


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_CHARACTERS else f"{text[:_MOST_CHARACTERS]}…"
