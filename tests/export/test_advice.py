"""What the log says where the settings and the receiver do not fit, over real sockets: it names the setting."""

from __future__ import annotations

import threading
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import grpc
import pytest
import trustme

from otel_k8s_cgroup.errors import ExportError
from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.model import OtlpTarget
from tests.fakes.faulty_otlp import Connection, FaultyServer, free_port
from tests.fakes.otlp_receiver import Answer, Certificates, OtlpReceiver, Received

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.scenes import Protocol

PATHS: dict[Protocol, str] = {"grpc": "", "http/protobuf": "/v1/metrics"}
OTHER: dict[Protocol, Protocol] = {"grpc": "http/protobuf", "http/protobuf": "grpc"}
BOTH = pytest.mark.parametrize("protocol", list(PATHS))


def line(protocol: Protocol, base: str, certificate_file: str | None = None) -> str:
    """What is said of a request to ``base``."""
    endpoint = base + PATHS[protocol]
    target = OtlpTarget(protocol, endpoint, timeout_seconds=5.0, certificate_file=certificate_file)
    with closing(open_transport(target)) as transport, pytest.raises(ExportError) as raised:
        transport.send(b"")
    text = str(raised.value)
    assert text.isprintable()
    assert len(text) < 350
    return text


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("tls")
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(home / "ca.pem"))
    issued = ca.issue_cert("localhost")
    issued.private_key_pem.write_to_path(str(home / "key.pem"))
    issued.cert_chain_pems[0].write_to_path(str(home / "cert.pem"))
    return home


@pytest.fixture
def web_server() -> Iterator[int]:
    """An HTTP server that knows nothing of OTLP."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 the base class's name
            """Nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield server.server_port
        server.shutdown()


@BOTH
def test_tls_against_plaintext(protocol: Protocol) -> None:
    """``localhost:4317`` without a scheme means TLS: what to write instead is said."""
    with OtlpReceiver(protocol) as receiver:
        text = line(protocol, f"https://localhost:{receiver.port}")
    assert "http://" in text
    assert "otlp_endpoint" in text
    assert ("otlp_insecure" in text) == (protocol == "grpc")


@BOTH
def test_plaintext_against_tls(protocol: Protocol, certificates: Path) -> None:
    """https:// is said."""
    with OtlpReceiver(protocol, tls=Certificates(certificates / "cert.pem", certificates / "key.pem")) as receiver:
        assert "begin otlp_endpoint with https://" in line(protocol, f"http://localhost:{receiver.port}")


@BOTH
@pytest.mark.parametrize("tls", [False, True])
def test_the_other_protocols_port(protocol: Protocol, tls: bool, certificates: Path) -> None:
    """otlp_protocol is named, with TLS and without."""
    files = Certificates(certificates / "cert.pem", certificates / "key.pem")
    scheme = "https" if tls else "http"
    with OtlpReceiver(OTHER[protocol], tls=files if tls else None) as receiver:
        text = line(protocol, f"{scheme}://localhost:{receiver.port}", certificate_file=str(certificates / "ca.pem"))
    assert "otlp_protocol" in text


@BOTH
def test_an_unknown_ca(protocol: Protocol, certificates: Path) -> None:
    """otlp_certificate is named."""
    with OtlpReceiver(protocol, tls=Certificates(certificates / "cert.pem", certificates / "key.pem")) as receiver:
        assert "set otlp_certificate" in line(protocol, f"https://localhost:{receiver.port}")


@BOTH
def test_nobody_there(protocol: Protocol) -> None:
    """Refused, or a name that does not resolve: otlp_endpoint is named."""
    assert "is otlp_endpoint right" in line(protocol, f"http://localhost:{free_port()}")
    assert "is otlp_endpoint right" in line(protocol, "http://no-such-host.invalid:4317")


@BOTH
@pytest.mark.parametrize("status", [401, 403])
def test_credentials_that_are_refused(protocol: Protocol, status: int) -> None:
    """otlp_headers is named."""
    code = grpc.StatusCode.UNAUTHENTICATED if status == 401 else grpc.StatusCode.PERMISSION_DENIED

    def respond(_request: Received) -> Answer:
        return Answer(status=status, code=code, details="no")

    with OtlpReceiver(protocol, respond=respond) as receiver:
        assert "otlp_headers" in line(protocol, f"http://localhost:{receiver.port}")


def test_a_path_that_is_not_there(web_server: int) -> None:
    """What was appended is said, and not the page."""
    text = line("http/protobuf", f"http://localhost:{web_server}")
    assert text.endswith(
        "HTTP 404: 'Not Found'; is the path right? /v1/metrics is appended to otlp_endpoint unless it ends so"
    )


def test_grpc_to_a_server_that_has_no_such_service() -> None:
    """otlp_endpoint is named."""

    def respond(_request: Received) -> Answer:
        return Answer(code=grpc.StatusCode.UNIMPLEMENTED, details="unknown service")

    with OtlpReceiver("grpc", respond=respond) as receiver:
        assert "is otlp_endpoint its OTLP port?" in line("grpc", f"http://localhost:{receiver.port}")


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (b"\x15\x03\x01\x00\x02\x02\x16", "does otlp_endpoint mean https://?"),
        (
            b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n",
            "begin otlp_endpoint with https://",
        ),
    ],
)
def test_what_tls_servers_say_to_plaintext(answer: bytes, advice: str) -> None:
    """A TLS alert, and Go's words."""

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(answer)

    with FaultyServer(behave) as server:
        assert advice in line("http/protobuf", f"http://127.0.0.1:{server.port}")


def test_a_grpc_port_that_resets_what_it_does_not_know() -> None:
    """As servers do that read a request over HTTP/1.1: otlp_protocol is named."""

    def behave(connection: Connection) -> None:
        connection.read_some()
        connection.reset()

    with FaultyServer(behave) as server:
        text = line("http/protobuf", f"http://127.0.0.1:{server.port}")
    assert "ConnectionResetError" in text
    assert "is it a gRPC port (otlp_protocol)?" in text
