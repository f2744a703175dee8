"""One OTLP request → delivered, or one of three errors. ``http.py`` and ``grpc.py`` are the two ways.

The library's exporters are not used to send. Measured (1.45.2), they count a 3xx as success, never look at
``partial_success``, sleep between retries in the calling thread, read the standard's timeout (milliseconds) as seconds,
and go on with the default roots where the given CA file is missing. What they put on the wire is the same.

Source: https://opentelemetry.io/docs/specs/otlp/ (failures, throttling, partial success).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.connections import tls_context
from otel_k8s_cgroup.errors import ExportRejected

if TYPE_CHECKING:
    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

    from otel_k8s_cgroup.model import OtlpTarget

USER_AGENT = "otel-k8s-cgroup"


@dataclass(frozen=True, slots=True)
class Receipt:
    """What the receiver answered to a request that it took."""

    rejected_points: int = 0
    message: str = ""
    date: str = field(default="", compare=False)
    """Over HTTP: the answer's ``Date``, as the receiver wrote it."""

    @classmethod
    def of(cls, response: ExportMetricsServiceResponse, date: str = "") -> Receipt:
        partial = response.partial_success
        return cls(max(0, partial.rejected_data_points), partial.error_message, date)


class Transport(Protocol):
    """How requests reach the receiver, one at a time."""

    def send(self, body: bytes) -> Receipt:
        """Sends one ``ExportMetricsServiceRequest`` and waits for the answer, at most the target's timeout.

        Raises:
            ExportRetryable: later it may be taken.
            ExportTooLarge: a smaller one may be taken.
            ExportRejected: it will never be taken.
        """

    def close(self) -> None:
        """Lets the connection go, for good and from any thread: a request that is under way ends as retryable."""


def tls_of(target: OtlpTarget) -> ssl.SSLContext:
    """TLS to ``target``, as its certificate files say.

    Raises:
        ExportRejected: one of them cannot be read, or is none; going on without it would be another setting.
    """
    try:
        file = target.certificate_file
        # ASCII, as PEM is; names beside the certificates may be UTF-8.
        context = tls_context(None if file is None else Path(file).read_bytes().decode("ascii", errors="ignore"))
        file = target.client_certificate_file
        if file is not None:
            # An empty password: without one, an encrypted key would be asked for on the terminal.
            context.load_cert_chain(file, target.client_key_file, password="")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        if file == target.client_certificate_file and target.client_key_file:
            file = f"{file} with key {target.client_key_file}"
        found = f"{file} cannot be used: {reason}; it must be a PEM file"
        if isinstance(error, ssl.SSLError) and error.reason == "KEY_VALUES_MISMATCH":
            found = f"{target.client_key_file} is not the key of the certificate in {target.client_certificate_file}"
        raise ExportRejected(target.endpoint, "certificate", found) from error
    return context
