"""A receiver that does as little as a receiver can, so that the exporter's cost is what is measured."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Literal

import grpc
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

if TYPE_CHECKING:
    from types import TracebackType

Protocol = Literal["grpc", "http/protobuf"]


class Sink:
    """Keeps the raw bodies; decoding them waits until the measurement is over."""

    def __init__(self, protocol: Protocol) -> None:
        self.protocol = protocol
        self.bodies: list[bytes] = []
        self._arrived = threading.Condition()
        sink = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                sink._keep(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Not a word."""

        if protocol == "grpc":
            self._grpc = grpc.server(ThreadPoolExecutor(1))
            export: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(
                lambda body, _context: sink._keep(body)
            )
            service = "opentelemetry.proto.collector.metrics.v1.MetricsService"
            self._grpc.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": export}),))
            self.endpoint = f"http://127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
            self._grpc.start()
        else:
            self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            self.endpoint = f"http://127.0.0.1:{self._http.server_port}"
            threading.Thread(target=self._http.serve_forever, daemon=True).start()

    def _keep(self, body: bytes) -> bytes:
        with self._arrived:
            self.bodies.append(body)
            self._arrived.notify_all()
        return b""

    def wait_for(self, requests: int, timeout_seconds: float = 60) -> None:
        """Until so many requests have come."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: len(self.bodies) >= requests, timeout_seconds):
                raise TimeoutError(f"{len(self.bodies)} of {requests} requests within {timeout_seconds:g} s")

    def decoded(self) -> list[ExportMetricsServiceRequest]:
        return [ExportMetricsServiceRequest.FromString(body) for body in self.bodies]

    def __enter__(self) -> Sink:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.protocol == "grpc":
            self._grpc.stop(None)
        else:
            self._http.shutdown()
            self._http.server_close()
