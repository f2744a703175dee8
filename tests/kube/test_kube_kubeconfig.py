"""A kubeconfig's credentials before a real server: a client certificate, a token, no verification."""

from __future__ import annotations

import base64
import ssl
from typing import TYPE_CHECKING, Any

import pytest
import trustme
import yaml

from otel_k8s_cgroup import sources
from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.settings import load
from tests.fakes.kube_api import KubeApi

from .support import SECRET, get, listed, refused, server_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from otel_k8s_cgroup.kube import ApiClient


@pytest.fixture
def mtls_api(ca: trustme.CA) -> Iterator[KubeApi]:
    """Takes only those whose certificate is of its CA."""
    context = server_tls(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    ca.configure_trust(context)
    with KubeApi(tls=context) as server:
        yield server


def b64(pem: trustme.Blob) -> str:
    return base64.b64encode(pem.bytes()).decode()


def client(path: Path, url: str, user: dict[str, Any], /, **cluster: Any) -> ApiClient:
    """As `run` opens it for a kubeconfig with these."""
    path.write_text(
        yaml.safe_dump(
            {
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "clusters": [{"name": "c", "cluster": {"server": url, **cluster}}],
                "users": [{"name": "u", "user": user}],
            }
        )
    )
    settings = load(flags={"k8s_kubeconfig": str(path)}, environ={}, config_file=None).plain()
    found = sources.open_client(settings, lambda _token: None)
    assert found is not None
    return found


def test_a_client_certificate_of_data(mtls_api: KubeApi, ca: trustme.CA, tmp_path: Path) -> None:
    """As kubeadm and kind write it; nothing is left of the key on the disk."""
    mine = ca.issue_cert("me")
    user = {"client-certificate-data": b64(mine.cert_chain_pems[0]), "client-key-data": b64(mine.private_key_pem)}
    path = tmp_path / "kubeconfig"
    api = client(path, mtls_api.url, user, **{"certificate-authority-data": b64(ca.cert_pem)})
    assert get(api) is not None
    assert "authorization" not in mtls_api.requests[0].headers
    assert list(tmp_path.iterdir()) == [path]


def test_client_certificate_files_that_are_replaced(mtls_api: KubeApi, ca: trustme.CA, tmp_path: Path) -> None:
    """As a kubelet replaces its own: the new one is taken up; one that does not go with its key is named."""
    mine = ca.issue_cert("me")
    mine.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    mine.cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    user = {"client-certificate": "me.crt", "client-key": "me.key"}
    api = client(tmp_path / "kubeconfig", mtls_api.url, user, **{"certificate-authority": "ca.crt"})
    assert listed(api) == []
    other = ca.issue_cert("me")
    other.cert_chain_pems[0].write_to_path(str(tmp_path / "me.crt"))
    assert api.files_changed()
    with pytest.raises(KubeError) as caught:
        listed(api)
    assert f"client certificate {str(tmp_path / 'me.crt')!r} with key" in str(caught.value)
    assert "belong together" in str(caught.value)
    other.private_key_pem.write_to_path(str(tmp_path / "me.key"))
    assert get(api) == []


def test_a_token_is_sent(tls_api: KubeApi, ca: trustme.CA, tmp_path: Path) -> None:
    """And where it is refused, the message says where it is from."""
    cluster = {"certificate-authority-data": b64(ca.cert_pem)}
    assert get(client(tmp_path / "k", tls_api.url, {"token": SECRET}, **cluster)) == []
    assert "the token in k8s_kubeconfig" in refused(client(tmp_path / "k", tls_api.url, {"token": "old"}, **cluster))


def test_a_token_file_is_read_again(tls_api: KubeApi, ca: trustme.CA, tmp_path: Path) -> None:
    """As of any token file."""
    (tmp_path / "token").write_text(SECRET)
    cluster = {"certificate-authority-data": b64(ca.cert_pem)}
    api = client(tmp_path / "k", tls_api.url, {"tokenFile": "token"}, **cluster)
    assert listed(api) == []
    tls_api.token = "the-next-one"
    (tmp_path / "token").write_text("the-next-one")
    assert get(api) == []


def test_a_ca_that_is_none_or_another_is_named(tls_api: KubeApi, tmp_path: Path) -> None:
    """By the kubeconfig's key."""
    data = {"certificate-authority-data": base64.b64encode(b"none").decode()}
    with pytest.raises(KubeError) as caught:
        client(tmp_path / "k", tls_api.url, {}, **data)
    assert "k8s_kubeconfig" in str(caught.value)
    assert "certificate-authority-data of cluster c" in str(caught.value)
    data = {"certificate-authority-data": b64(trustme.CA().cert_pem)}
    assert "certificate-authority-data of cluster c" in refused(client(tmp_path / "k", tls_api.url, {}, **data))


def test_no_verification_is_warned_of(tls_api: KubeApi, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is what the file says, and it works; nobody should find that out by chance."""
    api = client(tmp_path / "k", tls_api.url, {"token": SECRET}, **{"insecure-skip-tls-verify": True})
    assert get(api) == []
    assert "insecure-skip-tls-verify" in caplog.text
    assert "whoever answers there gets the token" in caplog.text
