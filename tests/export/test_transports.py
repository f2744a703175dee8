"""How a request reaches the receiver, over both protocols and real sockets: TLS, client certificates, headers, gzip."""

from __future__ import annotations

import gc
import sys
from contextlib import ExitStack, closing
from dataclasses import replace
from typing import TYPE_CHECKING, Literal

import pytest
import trustme
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable
from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.model import OtlpTarget
from tests.fakes.faulty_otlp import FaultyServer, free_port
from tests.fakes.otlp_receiver import Certificates, OtlpReceiver

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.faulty_otlp import Fault

Protocol = Literal["grpc", "http/protobuf"]

BOTH = pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])

REQUEST = ExportMetricsServiceRequest()
REQUEST.resource_metrics.add().scope_metrics.add().metrics.add(name="m" * 5000)
BODY = REQUEST.SerializeToString()


def target(receiver: OtlpReceiver, protocol: Protocol) -> OtlpTarget:
    """What the settings make of the receiver's base endpoint."""
    path = "/v1/metrics" if protocol == "http/protobuf" else ""
    return OtlpTarget(protocol, f"{receiver.endpoint}{path}".replace("127.0.0.1", "localhost"))


@pytest.fixture
def certificates(tmp_path: Path) -> dict[str, Path]:
    """Files of a CA, of a server's certificate and of a client's."""
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    for name, host in (("server", "localhost"), ("client", "client.example")):
        issued = ca.issue_cert(host)
        issued.private_key_pem.write_to_path(str(tmp_path / f"{name}.key"))
        issued.cert_chain_pems[0].write_to_path(str(tmp_path / f"{name}.pem"))
    return {path.name: path for path in tmp_path.iterdir()}


@BOTH
def test_a_request_arrives_as_it_was_made(protocol: Protocol) -> None:
    """The bytes are the request; the user's headers are with it."""
    with OtlpReceiver(protocol) as receiver:
        transport = open_transport(replace(target(receiver, protocol), headers=(("authorization", "Bearer x"),)))
        assert transport.send(BODY).rejected_points == 0
        transport.close()
        (received,) = receiver.requests
    assert received.message == REQUEST
    assert received.headers["authorization"] == "Bearer x"
    assert received.headers["user-agent"].startswith("otel-k8s-cgroup/")


@BOTH
def test_gzip(protocol: Protocol) -> None:
    """It is applied, and said."""
    with OtlpReceiver(protocol) as receiver:
        transport = open_transport(replace(target(receiver, protocol), compression="gzip"))
        transport.send(BODY)
        transport.close()
        (received,) = receiver.requests
    assert received.message == REQUEST
    if protocol == "http/protobuf":
        assert received.headers["content-encoding"] == "gzip"
        assert received.body_bytes < len(BODY) // 10


@BOTH
def test_tls_with_the_ca_that_is_named(protocol: Protocol, certificates: dict[str, Path]) -> None:
    """The receiver's certificate is verified with it, and with it alone."""
    server = Certificates(certificates["server.pem"], certificates["server.key"])
    with OtlpReceiver(protocol, tls=server) as receiver:
        transport = open_transport(replace(target(receiver, protocol), certificate_file=str(certificates["ca.pem"])))
        transport.send(BODY)
        transport.close()
        assert receiver.messages == [REQUEST]


@BOTH
def test_a_receiver_of_an_unknown_ca_gets_nothing(protocol: Protocol, certificates: dict[str, Path]) -> None:
    """TLS is never switched off: it may be mended while the exporter runs, so it is tried again."""
    server = Certificates(certificates["server.pem"], certificates["server.key"])
    with OtlpReceiver(protocol, tls=server) as receiver:
        transport = open_transport(replace(target(receiver, protocol), timeout_seconds=5.0))
        with pytest.raises(ExportRetryable):
            transport.send(BODY)
        transport.close()
        assert not receiver.requests


@BOTH
def test_a_key_of_another_certificate_is_named(protocol: Protocol, certificates: dict[str, Path]) -> None:
    """Both are PEM files; that the one does not belong to the other is what is wrong."""
    mismatched = OtlpTarget(
        protocol,
        "https://localhost:1",
        client_certificate_file=str(certificates["client.pem"]),
        client_key_file=str(certificates["server.key"]),
    )
    with pytest.raises(ExportRejected, match=r"server\.key is not the key of the certificate in .*client\.pem"):
        open_transport(mismatched)


@BOTH
def test_a_client_certificate_opens_a_receiver_that_asks_for_one(
    protocol: Protocol, certificates: dict[str, Path]
) -> None:
    """mTLS: without it there is no answer but an error, with it there is."""
    server = Certificates(certificates["server.pem"], certificates["server.key"], certificates["ca.pem"])
    with OtlpReceiver(protocol, tls=server) as receiver:
        without = replace(target(receiver, protocol), certificate_file=str(certificates["ca.pem"]), timeout_seconds=5.0)
        transport = open_transport(without)
        with pytest.raises(ExportError):
            transport.send(BODY)
        transport.close()
        transport = open_transport(
            replace(
                without,
                client_certificate_file=str(certificates["client.pem"]),
                client_key_file=str(certificates["client.key"]),
            )
        )
        transport.send(BODY)
        transport.close()
        assert receiver.messages == [REQUEST]


@pytest.mark.parametrize("fault", ["refused", "closed at once", "reset mid-body", "black hole"])
@BOTH
def test_a_request_that_failed_holds_no_memory(fault: Fault | Literal["refused"], protocol: Protocol) -> None:
    """Its body is free at once: the next collection of the garbage is hundreds of bodies away."""
    body = bytes(100_000)
    references = sys.getrefcount(body)
    with ExitStack() as stack:
        port = free_port() if fault == "refused" else stack.enter_context(FaultyServer(fault)).port
        path = "/v1/metrics" if protocol == "http/protobuf" else ""
        target = OtlpTarget(protocol, f"http://127.0.0.1:{port}{path}", timeout_seconds=0.2)
        transport = stack.enter_context(closing(open_transport(target)))
        gc.disable()
        stack.callback(gc.enable)
        for _ in range(3):
            with pytest.raises(ExportRetryable):
                transport.send(body)
    assert sys.getrefcount(body) == references
