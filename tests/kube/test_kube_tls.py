"""TLS of the API client: whom it trusts, and what it says of whom it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import requests
import trustme

from otel_k8s_cgroup.connections import Adapter, OpenSockets, tls_context
from otel_k8s_cgroup.errors import ApiUnreachable
from otel_k8s_cgroup.kube import LIST, PODS
from tests.fakes.kube_api import KubeApi

from .support import client, get, refused, server_tls

if TYPE_CHECKING:
    from pathlib import Path


def test_the_clusters_ca_is_trusted(tls_api: KubeApi, token_file: Path, ca_file: Path) -> None:
    """k8s_ca_file is what the server's certificate is held to."""
    assert get(client(tls_api.url, token_file=token_file, ca_file=str(ca_file))) is not None


def test_a_certificate_of_an_unknown_ca_is_refused(tls_api: KubeApi, token_file: Path, tmp_path: Path) -> None:
    """With the wrong CA and with the system's: nothing is sent; the message names the CA in force and k8s_ca_file."""
    wrong = tmp_path / "wrong.crt"
    trustme.CA().cert_pem.write_to_path(str(wrong))
    message = refused(client(tls_api.url, token_file=token_file, ca_file=str(wrong)))
    assert f"k8s_ca_file {str(wrong)!r}" in message
    assert "CA of the cluster" in message
    assert "the system's CAs" in refused(client(tls_api.url, token_file=token_file))
    assert tls_api.requests == []


def test_a_certificate_for_another_name_is_refused(ca: trustme.CA, ca_file: Path) -> None:
    """The right CA, but the certificate of another server."""
    with KubeApi(tls=server_tls(ca, "other.example")) as server:
        message = refused(client(server.url, ca_file=str(ca_file)))
    assert "for another name" in message
    assert "k8s_api_url" in message


def test_a_replaced_ca_file_is_taken_up(tls_api: KubeApi, token_file: Path, ca_file: Path, tmp_path: Path) -> None:
    """A cluster whose CA was renewed: the client goes on once the mounted file has the new one."""
    good = ca_file.read_bytes()
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    mine = client(tls_api.url, token_file=token_file, ca_file=str(ca_file))
    with pytest.raises(ApiUnreachable):
        mine.get_json(PODS, {}, LIST)
    replacement = tmp_path / "new"
    replacement.write_bytes(good)
    replacement.replace(ca_file)
    assert get(mine) is not None


def test_no_public_ca_is_trusted_beside_the_clusters(tls_api: KubeApi, token_file: Path, ca_file: Path) -> None:
    """requests brings a bundle of public CAs; with a k8s_ca_file none of them may vouch for an API server."""
    tls = tls_context(ca_file.read_text())
    with requests.Session() as session:
        session.mount("https://", Adapter(tls, OpenSockets()))
        headers = {"Authorization": f"Bearer {token_file.read_text()}"}
        assert session.get(tls_api.url + PODS, headers=headers, timeout=10).ok
    assert len(tls.get_ca_certs()) == 1


@pytest.mark.parametrize(
    "content", [None, b"", b"no certificate", b"\xff\x00"], ids=["missing", "empty", "text", "binary"]
)
def test_a_ca_file_that_is_none_is_named(tmp_path: Path, content: bytes | None) -> None:
    """The setting, the path and what the file must be; and it is never taken for "trust anything"."""
    path = tmp_path / "ca.crt"
    if content is not None:
        path.write_bytes(content)
    message = refused(client("https://127.0.0.1:1", ca_file=str(path)))
    assert f"k8s_ca_file {str(path)!r}" in message
    assert "PEM" in message


def test_https_to_a_plain_port_says_so(api: KubeApi) -> None:
    """A wrong scheme is a common slip: the message asks about it."""
    assert "does not speak TLS" in refused(client(api.url.replace("http:", "https:")))
