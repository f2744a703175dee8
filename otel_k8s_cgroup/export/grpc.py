"""OTLP over gRPC.

Source: https://opentelemetry.io/docs/specs/otlp/#otlpgrpc-response
"""

from __future__ import annotations

import re
import ssl
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import grpc
from google.protobuf.message import DecodeError
from google.rpc.error_details_pb2 import RetryInfo
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.advice import advised
from otel_k8s_cgroup.export.transport import USER_AGENT, Receipt, tls_of

if TYPE_CHECKING:
    from otel_k8s_cgroup.model import OtlpTarget

_EXPORT = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export"

# RESOURCE_EXHAUSTED is one of them where RetryInfo says so.
_RETRYABLE = frozenset(
    {
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.OUT_OF_RANGE,
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DATA_LOSS,
    }
)

# A message over the receiver's limit has no code of its own: gRPC's C core and Go send RESOURCE_EXHAUSTED "… message
# larger than max …", Java "… exceeds maximum size …", Rust's tonic OUT_OF_RANGE "… message length too large …".
_TOO_LARGE = re.compile(r"larger than max|exceeds maximum|too large")

# So says our own end of an answer over 4 MiB, which nobody reads.
_ANSWER_TOO_LARGE = "CLIENT: Received message larger than max"

_OPTIONS = (
    ("grpc.primary_user_agent", f"{USER_AGENT}/{__version__}"),
    # gRPC waits up to two minutes between connection attempts; our own backoff decides here.
    ("grpc.initial_reconnect_backoff_ms", 500),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # A receiver that went away without a word (a node that lost power) is noticed.
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)


class GrpcTransport:
    """Calls ``MetricsService/Export`` at ``target.endpoint``.

    Args:
        target: the settings; https is TLS.

    Raises:
        ExportRejected: a certificate or key file cannot be used.
    """

    def __init__(self, target: OtlpTarget) -> None:
        self._endpoint = target.endpoint
        self._timeout_seconds = target.timeout_seconds
        self._metadata = target.headers
        url = urlsplit(target.endpoint)
        compression = grpc.Compression.Gzip if target.compression == "gzip" else grpc.Compression.NoCompression
        if url.scheme == "https":
            self._channel = grpc.secure_channel(url.netloc, _credentials(target), _OPTIONS, compression)
        else:
            self._channel = grpc.insecure_channel(url.netloc, _OPTIONS, compression)
        # Bytes go in as they are: the request was serialized pod by pod. The answer is decoded here: what gRPC's own
        # threads cannot decode they log with a traceback.
        self._call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(
            _EXPORT, request_serializer=None, response_deserializer=None
        )

    def send(self, body: bytes) -> Receipt:
        try:
            answer = self._call(body, timeout=self._timeout_seconds, metadata=self._metadata)
        except grpc.RpcError as error:
            if _ANSWER_TOO_LARGE in _details(error):
                # It took the request; that is what counts.
                return Receipt()
            # Not by way of a variable: its traceback leads to this frame, and that circle would hold the request.
            raise self._judge(error) from error
        except ValueError as error:  # the channel was closed meanwhile
            raise ExportRetryable(self._endpoint, "closed", str(error)) from error
        try:
            return Receipt.of(ExportMetricsServiceResponse.FromString(answer))
        except DecodeError:
            return Receipt()  # as above

    def close(self) -> None:
        self._channel.close()

    def _judge(self, error: Any) -> ExportError:
        # Any: grpc.RpcError is an empty class; what unary_unary raises is a grpc.Call as well.
        code: grpc.StatusCode = error.code()
        details = _details(error)
        cause = f"gRPC {code.name}"
        message = advised(cause, details, None if details else "no details given")
        retry_after = _retry_delay_seconds(error)
        exhausted = code is grpc.StatusCode.RESOURCE_EXHAUSTED
        if (exhausted or code is grpc.StatusCode.OUT_OF_RANGE) and _TOO_LARGE.search(details):
            return ExportTooLarge(self._endpoint, cause, message)
        if code in _RETRYABLE or (exhausted and retry_after is not None):
            return ExportRetryable(self._endpoint, cause, message, retry_after)
        return ExportRejected(self._endpoint, cause, message)


def _details(error: Any) -> str:
    return error.details() or ""


def _credentials(target: OtlpTarget) -> grpc.ChannelCredentials:
    # gRPC itself says nothing of files that it cannot use until it connects, and then little.
    tls_of(target)
    roots = _system_roots() if target.certificate_file is None else target.certificate_file
    return grpc.ssl_channel_credentials(
        *(
            Path(path).read_bytes() if path else None
            for path in (roots, target.client_key_file, target.client_certificate_file)
        )
    )


def _system_roots() -> str | None:
    """The file of the system's CAs, which gRPC does not look for; None (then it has its own) where there is none."""
    paths = ssl.get_default_verify_paths()
    # Debian's OpenSSL names only the directory; that file in it holds them all.
    in_directory = Path(paths.capath or "/etc/ssl/certs", "ca-certificates.crt")
    return paths.cafile or (str(in_directory) if in_directory.is_file() else None)


def _retry_delay_seconds(error: Any) -> float | None:
    """The receiver's RetryInfo, which stands in ``grpc-status-details-bin``."""
    for key, value in error.trailing_metadata() or ():
        if key != "grpc-status-details-bin":
            continue
        try:
            for detail in Status.FromString(value).details:
                info = RetryInfo()
                if detail.Unpack(info):
                    return max(0.0, float(info.retry_delay.seconds + info.retry_delay.nanos / 1e9))
        except DecodeError:
            return None
    return None
