"""No line of a real process shows a secret: echoed by a server, given in a URL, or put where it does not belong."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

import grpc
import pytest
from google.rpc.status_pb2 import Status

from tests.fakes.cgroup_tree import CgroupTree
from tests.fakes.faulty_otlp import FaultyServer
from tests.fakes.kube_api import KubeApi
from tests.fakes.otlp_receiver import Answer, OtlpReceiver
from tests.programs import clean_environ, started

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.faulty_otlp import Connection
    from tests.fakes.kube_api import Exchange
    from tests.fakes.otlp_receiver import Received

RUN = (sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--log-level", "debug")
OPAQUE = "kubeconfig-u-abcde:wxyz0123456789"
HEADER = "ingest-key/of+this=test"


def echo_token(exchange: Exchange) -> None:
    """A server, or a gateway before it, that shows what it was sent; now and then where it sends us."""
    sent = exchange.request.headers["authorization"]
    if len(exchange.api.seen("list")) <= 2:  # the second one is asked with the token had anew
        exchange.status(401, f"{'x' * 270} token {sent!r} is not good")
    else:
        exchange.answer(302, b"", Location=f"https://login.example/{sent.removeprefix('Bearer ')}?token={sent[7:30]}")


@pytest.mark.parametrize("token", ["s3cret-token-of-this-test", OPAQUE])
def test_an_api_server_that_echoes_the_token(tmp_path: Path, token: str) -> None:
    """In the body of a 401, cut in the token's middle, and in a Location: it is in no line."""
    (tmp_path / "token").write_text(token)
    with KubeApi() as api:
        api.always("list", echo_token)
        argv = [
            *(*RUN, "--k8s-api-url", api.url, "--token-retrieval", f'{{ file = "{tmp_path / "token"}" }}'),
            *("--cgroup-root", str(CgroupTree(tmp_path / "cgroup").root), "--otlp-endpoint", "http://127.0.0.1:9"),
        ]
        with started(argv) as program:
            program.wait_for_line(lambda line: "401" in line)
            program.wait_for_line(lambda line: "redirects" in line)
            assert program.stop() == 0
    assert not any(token[at : at + 12] in program.output for at in range(len(token) - 11))


def echo_headers(request: Received) -> Answer:
    said = "; ".join(f"{name}={value}" for name, value in request.headers.items() if name in ("x-key", "authorization"))
    return Answer(403, code=grpc.StatusCode.PERMISSION_DENIED, details=said, body=Status(message=said))


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_a_receiver_that_echoes_headers(tmp_path: Path, protocol: Literal["grpc", "http/protobuf"]) -> None:
    """And an endpoint with a key in its query: neither is in any line, nor is the key alone."""
    query = "?api_key=query%2Fsecret" if protocol == "http/protobuf" else ""
    with OtlpReceiver(protocol, respond=echo_headers) as receiver:
        argv = [
            *(
                *RUN,
                "--pod-source",
                '{ file = "/nowhere.json" }',
                "--cgroup-root",
                str(CgroupTree(tmp_path / "c").root),
            ),
            *("--otlp-endpoint", f"{receiver.endpoint}{query}", "--otlp-protocol", protocol),
        ]
        environ = clean_environ(OTEL_EXPORTER_OTLP_HEADERS=f"x-key={quote(HEADER)},authorization=Bearer%20{OPAQUE}")
        with started(argv, environ) as program:
            line = program.wait_for_line(
                lambda line: "WARNING" in line and ("403" in line or "PERMISSION_DENIED" in line)
            )
            assert program.stop() == 0
    assert "x-key=***" in line
    assert "authorization=Bearer ***" in line
    for secret in (HEADER, quote(HEADER, safe=""), OPAQUE, "query/secret", "query%2Fsecret"):
        assert secret not in program.output


# An HTTP/2 server's SETTINGS, then GOAWAY with ENHANCE_YOUR_CALM (RFC 9113, 6.8) and the words that gRPC knows.
GOES_AWAY = b"\0\0\0\4\0\0\0\0\0" + b"\0\0\x16\7\0\0\0\0\0\0\0\0\0\0\0\0\x0btoo_many_pings"


def test_a_library_writes_nothing_past_the_log(tmp_path: Path) -> None:
    """gRPC's own threads would write of such a receiver, in no bounded queue and past all that hides secrets."""

    def goes_away(connection: Connection) -> None:
        connection.read_some()
        connection.send(GOES_AWAY)

    with FaultyServer(goes_away) as receiver:
        argv = [
            *(*RUN, "--pod-source", '{ file = "/nowhere.json" }', "--otlp-timeout", "1s"),
            *("--cgroup-root", str(CgroupTree(tmp_path / "c").root)),
            *("--otlp-endpoint", f"http://127.0.0.1:{receiver.port}", "--otlp-protocol", "grpc"),
        ]
        with started(argv) as program:
            program.wait_for_line(lambda line: "WARNING" in line and "gRPC" in line)
            assert program.stop() == 0
    assert not [line for line in program.lines if "too_many_pings" in line and "WARNING" not in line]


PEM = "-----BEGIN PRIVATE KEY-----\nMIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n"
JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJ4In0.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("arguments", "secret"),
    [
        (["--otlp-client-key", PEM], "MIIEvQIBADANBgkqhk"),
        (["--otlp-client-key", PEM.replace("\n", " ")], "MIIEvQIBADANBgkqhk"),
        (["--otlp-certificate", PEM.split("\n")[1]], "MIIEvQIBADANBgkqhk"),
        (["--token-retrieval", OPAQUE], "wxyz0123"),
        (["--token-retrieval", f'{{ file = ["{OPAQUE}"] }}'], "wxyz0123"),
        (["--otlp-headers", "authorization=Bearer", OPAQUE], "wxyz0123"),
        (["--otlp-endpoint", "ftp://host/?api_key=query-secret"], "query-secret"),
        (["--otlp-endpoint", f"https://user:{'x' * 200}-secret@host:1/"], "xxxx"),
        (["--k8s-api-url", "https://host:1/?token=query-secret"], "query-secret"),
        (["--k8s-ca-file", JWT], "c2lnbmF0"),
        (["--config", JWT], "c2lnbmF0"),
    ],
)
def test_a_secret_in_the_wrong_place_is_not_shown(arguments: list[str], secret: str) -> None:
    """What is refused is named in one line, without what was pasted there."""
    with started([*RUN, *arguments]) as program:
        assert program.wait() == 2
    assert secret not in program.output
    assert len(program.lines) == 1


def test_a_token_in_the_place_of_its_files_path(tmp_path: Path) -> None:
    """It is the name of no file, and is not shown as one."""
    argv = [
        *(*RUN, "--k8s-api-url", "https://127.0.0.1:9", "--token-retrieval", f'{{ file = "{OPAQUE}" }}'),
        *("--cgroup-root", str(CgroupTree(tmp_path / "c").root)),
    ]
    with started(argv) as program:
        program.wait_for_line(lambda line: "token file '***'" in line)
        assert program.stop() == 0
    assert OPAQUE not in program.output
