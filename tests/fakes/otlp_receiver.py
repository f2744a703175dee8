"""An OTLP metrics receiver on loopback: gRPC and HTTP/protobuf, with TLS or mTLS where it is given certificates.

It keeps every request as it was decoded, and answers with what ``respond`` says, so that a test scripts its faults.
"""

from __future__ import annotations

import gzip
import ssl
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Literal

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import (
    MetricsServiceServicer,
    add_MetricsServiceServicer_to_server,
)

from tests.fakes.servers import QuietServer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path
    from types import TracebackType

    from google.protobuf.message import Message


@dataclass(frozen=True, slots=True)
class Received:
    """One request as it came."""

    message: ExportMetricsServiceRequest
    headers: Mapping[str, str]
    """HTTP headers or gRPC metadata, names in lower case."""
    path: str = ""
    """HTTP: what was posted to."""
    body_bytes: int = 0
    """HTTP: the body's length on the wire, so compressed where it was."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a request is answered with: ``status`` and ``headers`` over HTTP, ``code`` over gRPC, ``body`` over both."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    code: grpc.StatusCode = grpc.StatusCode.OK
    details: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    body: Message = field(default_factory=ExportMetricsServiceResponse)
    kept: bool = True
    """Whether the request counts as received; a receiver that refuses has kept nothing."""


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files: the receiver's own, and the CA that clients' must be from (mTLS), None where they need none."""

    certificate_file: Path
    key_file: Path
    client_ca_file: Path | None = None


def accept(_request: Received) -> Answer:
    """Takes everything."""
    return Answer()


class OtlpReceiver:
    """Collects what is exported to it; a context manager that listens from its creation on.

    Args:
        protocol: what it speaks.
        respond: called for each request, in a thread of the server's; over HTTP, what it raises resets the connection.
        tls: TLS where given; an ``http://`` endpoint where None.
        port: 0 for a free one; a given one lets a test stop a receiver and start another in its place.
        max_message_bytes: the bound on a gRPC message, decompressed (4 MiB, as is common).
    """

    def __init__(
        self,
        protocol: Literal["grpc", "http/protobuf"],
        *,
        respond: Callable[[Received], Answer] = accept,
        tls: Certificates | None = None,
        port: int = 0,
        max_message_bytes: int = 4 << 20,
    ) -> None:
        self.protocol = protocol
        self.respond = respond
        self._changed = threading.Condition()
        self._requests: list[Received] = []
        scheme = "https" if tls else "http"
        if protocol == "grpc":
            self._server: _GrpcServer | _HttpServer = _GrpcServer(self._handle, tls, port, max_message_bytes)
        else:
            self._server = _HttpServer(self._handle, tls, port)
        self.port = self._server.port
        self.endpoint = f"{scheme}://127.0.0.1:{self.port}"
        """The base endpoint, as ``OTEL_EXPORTER_OTLP_ENDPOINT`` has it."""

    def __enter__(self) -> OtlpReceiver:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stops listening; what was received stays."""
        self._server.close()

    @property
    def requests(self) -> list[Received]:
        """What was kept so far, oldest first."""
        with self._changed:
            return list(self._requests)

    @property
    def messages(self) -> list[ExportMetricsServiceRequest]:
        """The decoded messages of ``requests``."""
        return [request.message for request in self.requests]

    def wait_for(
        self, predicate: Callable[[list[ExportMetricsServiceRequest]], bool], timeout: float = 30.0
    ) -> list[ExportMetricsServiceRequest]:
        """Blocks until ``predicate`` is true of the messages kept so far, and returns them.

        Raises:
            TimeoutError: it was not in ``timeout`` seconds.
        """
        messages: list[ExportMetricsServiceRequest] = []

        def is_true() -> bool:
            messages[:] = (request.message for request in self._requests)
            return predicate(messages)

        with self._changed:
            if not self._changed.wait_for(is_true, timeout):
                raise TimeoutError(f"not what was waited for in {timeout} s: {len(messages)} requests received")
        return messages

    def _handle(self, request: Received) -> Answer:
        answer = self.respond(request)
        if answer.kept and answer.status == 200 and answer.code is grpc.StatusCode.OK:
            with self._changed:
                self._requests.append(request)
                self._changed.notify_all()
        return answer


class _GrpcServer(MetricsServiceServicer):
    def __init__(
        self, handle: Callable[[Received], Answer], tls: Certificates | None, port: int, max_message_bytes: int
    ) -> None:
        self._handle = handle
        self._pool = ThreadPoolExecutor(max_workers=4, thread_name_prefix="otlp-receiver")
        # Without SO_REUSEPORT a port that is still taken is an error, not a share of its requests.
        options = [("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_message_bytes)]
        self._server = grpc.server(self._pool, options=options)
        add_MetricsServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # generated code
        if tls is None:
            self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        else:
            client_ca = None if tls.client_ca_file is None else tls.client_ca_file.read_bytes()
            credentials = grpc.ssl_server_credentials(
                [(tls.key_file.read_bytes(), tls.certificate_file.read_bytes())],
                client_ca,
                require_client_auth=client_ca is not None,
            )
            self.port = self._server.add_secure_port(f"127.0.0.1:{port}", credentials)
        self._server.start()

    def Export(  # noqa: N802 the name is that of the service's method
        self, request: ExportMetricsServiceRequest, context: grpc.ServicerContext
    ) -> ExportMetricsServiceResponse:
        headers = {key: str(value) for key, value in context.invocation_metadata()}
        answer = self._handle(Received(request, headers))
        context.set_trailing_metadata(answer.trailers)
        if answer.code is not grpc.StatusCode.OK:
            context.abort(answer.code, answer.details)
        if not isinstance(answer.body, ExportMetricsServiceResponse):
            raise TypeError(f"a gRPC answer of {type(answer.body).__name__}")
        return answer.body

    def close(self) -> None:
        self._server.stop(grace=None).wait()
        self._pool.shutdown()


class _HttpServer:
    def __init__(self, handle: Callable[[Received], Answer], tls: Certificates | None, port: int) -> None:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 30

            def do_POST(self) -> None:  # the name is that of the base class's protocol
                body = self.rfile.read(int(self.headers.get("content-length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                message = ExportMetricsServiceRequest.FromString(_decompressed(body, headers))
                answer = handle(Received(message, headers, self.path, len(body)))
                payload = answer.body.SerializeToString()
                self.send_response_only(answer.status)
                self.send_header("Server", self.version_string())
                if "Date" not in answer.headers:
                    self.send_header("Date", self.date_time_string())
                for name, value in {"Content-Type": "application/x-protobuf", **answer.headers}.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(payload)))
                self.end_headers()
                self.wfile.write(payload)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
                pass

        self._server = QuietServer(("127.0.0.1", port), Handler)
        if tls is not None:
            self._server.tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.client_ca_file)
            self._server.tls.load_cert_chain(tls.certificate_file, tls.key_file)
            if tls.client_ca_file is not None:
                self._server.tls.verify_mode = ssl.CERT_REQUIRED
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(
            target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, name="otlp-receiver", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _decompressed(body: bytes, headers: Mapping[str, str]) -> bytes:
    match headers.get("content-encoding", "identity"):
        case "gzip":
            return gzip.decompress(body)
        case "deflate":
            return zlib.decompress(body)
        case _:
            return body
