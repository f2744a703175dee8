"""The fake receiver does what the tests that lean on it believe of it."""

from __future__ import annotations

import gzip
from typing import TYPE_CHECKING, Literal

import grpc
import pytest
import requests
import trustme
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from tests.fakes.otlp_receiver import Answer, Certificates, OtlpReceiver

if TYPE_CHECKING:
    from pathlib import Path

Protocol = Literal["grpc", "http/protobuf"]


def a_request(name: str) -> ExportMetricsServiceRequest:
    request = ExportMetricsServiceRequest()
    request.resource_metrics.add().scope_metrics.add().metrics.add().name = name
    return request


def metric_names(messages: list[ExportMetricsServiceRequest]) -> list[str]:
    return [message.resource_metrics[0].scope_metrics[0].metrics[0].name for message in messages]


@pytest.fixture
def mtls(tmp_path: Path) -> tuple[Certificates, Path, Path]:
    """The receiver's certificates, the CA's file, and a client's certificate with its key, in one file."""
    ca = trustme.CA()
    leaf, client = ca.issue_cert("127.0.0.1"), ca.issue_cert("client@example.com")
    ca.cert_pem.write_to_path(tmp_path / "ca.pem")
    leaf.cert_chain_pems[0].write_to_path(tmp_path / "server.pem")
    leaf.private_key_pem.write_to_path(tmp_path / "server.key")
    client.private_key_and_cert_chain_pem.write_to_path(tmp_path / "client.pem")
    certificates = Certificates(tmp_path / "server.pem", tmp_path / "server.key", tmp_path / "ca.pem")
    return certificates, tmp_path / "ca.pem", tmp_path / "client.pem"


def test_http_requests_are_decoded_and_kept() -> None:
    """A gzipped request over HTTP comes out as the message that was sent, with its headers and path."""
    with OtlpReceiver("http/protobuf") as receiver:
        body = gzip.compress(a_request("one").SerializeToString())
        answer = requests.post(
            f"{receiver.endpoint}/v1/metrics",
            data=body,
            headers={"Content-Encoding": "gzip", "X-Tenant": "t"},
            timeout=10,
        )
        assert answer.status_code == 200
        assert metric_names(receiver.wait_for(lambda messages: len(messages) == 1)) == ["one"]
        (request,) = receiver.requests
        assert (request.path, request.headers["x-tenant"], request.body_bytes) == ("/v1/metrics", "t", len(body))


def test_grpc_requests_are_decoded_and_kept() -> None:
    """The same over gRPC, with its metadata."""
    with OtlpReceiver("grpc") as receiver, grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel:
        stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        stub.Export(a_request("one"), metadata=[("x-tenant", "t")], timeout=10)
        assert metric_names(receiver.messages) == ["one"]
        assert receiver.requests[0].headers["x-tenant"] == "t"


def test_a_refused_request_is_not_kept() -> None:
    """``respond`` decides on each request; what it refuses does not count as received."""
    answers = iter([Answer(status=503, headers={"Retry-After": "1"}), Answer()])
    with OtlpReceiver("http/protobuf", respond=lambda _request: next(answers)) as receiver:
        url = f"{receiver.endpoint}/v1/metrics"
        first = requests.post(url, data=a_request("one").SerializeToString(), timeout=10)
        assert (first.status_code, first.headers["Retry-After"], receiver.messages) == (503, "1", [])
        assert requests.post(url, data=a_request("two").SerializeToString(), timeout=10).status_code == 200
        assert metric_names(receiver.messages) == ["two"]


def test_a_refused_grpc_request_is_not_kept() -> None:
    """The same over gRPC: the client sees the code and the words."""
    refuse = Answer(code=grpc.StatusCode.INVALID_ARGUMENT, details="no thanks")
    with (
        OtlpReceiver("grpc", respond=lambda _request: refuse) as receiver,
        grpc.insecure_channel(f"127.0.0.1:{receiver.port}") as channel,
    ):
        stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
        with pytest.raises(grpc.RpcError) as refused:
            stub.Export(a_request("one"), timeout=10)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert refused.value.details() == "no thanks"
        assert receiver.messages == []


def test_an_exception_in_respond_resets_the_connection() -> None:
    """A receiver that breaks while it answers: the client gets no answer at all."""

    def break_off(_request: object) -> Answer:
        raise ConnectionError

    with (
        OtlpReceiver("http/protobuf", respond=break_off) as receiver,
        pytest.raises(requests.ConnectionError),
    ):
        requests.post(f"{receiver.endpoint}/v1/metrics", data=b"", timeout=10)


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_closed_receiver_can_be_replaced_on_its_port(protocol: Protocol) -> None:
    """An outage: nobody listens after close(), kept-alive connections included, and a new one takes the same port."""
    with OtlpReceiver(protocol) as first, requests.Session() as session:
        if protocol == "http/protobuf":
            session.post(f"{first.endpoint}/v1/metrics", data=b"", timeout=10)
        first.close()
        with pytest.raises(requests.ConnectionError):
            session.post(f"{first.endpoint}/v1/metrics", data=b"", timeout=10)
        with OtlpReceiver(protocol, port=first.port) as second:
            assert second.endpoint == first.endpoint


def test_waiting_in_vain_says_what_was_received() -> None:
    """``wait_for`` ends with an error that tells how many requests there were."""
    with OtlpReceiver("grpc") as receiver, pytest.raises(TimeoutError, match="0 requests received"):
        receiver.wait_for(bool, timeout=0)


def test_mtls_over_http_needs_the_clients_certificate(mtls: tuple[Certificates, Path, Path]) -> None:
    """With a client CA the receiver takes a client that has a certificate of it, and no other."""
    certificates, ca, client = mtls
    with OtlpReceiver("http/protobuf", tls=certificates) as receiver:
        url = f"{receiver.endpoint}/v1/metrics"
        assert url.startswith("https://")
        with requests.Session() as session:
            session.trust_env = False
            session.verify = str(ca)
            with pytest.raises(requests.ConnectionError):
                session.post(url, data=b"", timeout=10)
            assert session.post(url, data=b"", cert=str(client), timeout=10).status_code == 200
        assert len(receiver.messages) == 1


def test_mtls_over_grpc_needs_the_clients_certificate(mtls: tuple[Certificates, Path, Path]) -> None:
    """The same over gRPC."""
    certificates, ca, client = mtls
    with OtlpReceiver("grpc", tls=certificates) as receiver:
        target = f"127.0.0.1:{receiver.port}"
        without = grpc.ssl_channel_credentials(ca.read_bytes())
        pem = client.read_bytes()
        with_certificate = grpc.ssl_channel_credentials(ca.read_bytes(), pem, pem)
        with grpc.secure_channel(target, without) as channel:
            stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
            with pytest.raises(grpc.RpcError):
                stub.Export(a_request("one"), timeout=10)
        with grpc.secure_channel(target, with_certificate) as channel:
            stub = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code
            stub.Export(a_request("one"), timeout=10)
        assert metric_names(receiver.messages) == ["one"]
