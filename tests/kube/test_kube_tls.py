"""TLS of the API client: whom it trusts, and what it says of whom it does not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import requests
import trustme

from otel_k8s_cgroup.connections import Adapter, OpenSockets, tls_context
from otel_k8s_cgroup.errors import ApiUnreachable, KubeError
from otel_k8s_cgroup.kube import KUBELET, PODS
from tests.fakes.kube_api import KubeApi, pod

from .support import SECRET, client, comes_to, get, listed, refused, server_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .conftest import Watch


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
        listed(mine)
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
    with pytest.raises(KubeError) as caught:
        client("https://127.0.0.1:1", ca_file=str(path))
    assert f"k8s_ca_file {str(path)!r}" in str(caught.value)
    assert "PEM" in str(caught.value)
    assert str(caught.value).isprintable()
    client("http://127.0.0.1:1", ca_file=str(path)).close()  # where nothing is verified, it is nobody's fault


def test_a_ca_file_that_breaks_while_running_is_waited_for(tls_api: KubeApi, token_file: Path, ca_file: Path) -> None:
    """Caught half-written: nothing is sent until it is whole, and then the client goes on."""
    mine = client(tls_api.url, token_file=token_file, ca_file=str(ca_file))
    good = ca_file.read_bytes()
    ca_file.write_bytes(good[:-100])
    assert mine.files_changed()
    for _ in range(2):
        with pytest.raises(KubeError, match="k8s_ca_file"):
            listed(mine)
    assert tls_api.requests == []
    assert not mine.files_changed()
    ca_file.write_bytes(good)
    assert mine.files_changed()
    assert get(mine) is not None


def test_https_to_a_plain_port_says_so(api: KubeApi) -> None:
    """A wrong scheme is a common slip: the message asks about it."""
    message = refused(client(api.url.replace("http:", "https:")))
    assert "does not speak TLS there; does k8s_api_url mean http://" in message


def test_a_replaced_ca_ends_the_wait(tls_api: KubeApi, watch: Watch, token_file: Path, ca_file: Path) -> None:
    """Of a retry: looked at each second, as the token is."""
    good = ca_file.read_bytes()
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    passed: list[float] = []

    def wait(seconds: float) -> None:
        passed.append(seconds)
        if sum(passed) >= 40:
            ca_file.write_bytes(good)

    tls_api.add(pod("a"))
    mine = client(tls_api.url, token_file=token_file, ca_file=str(ca_file))
    comes_to(watch(client=mine, wait=wait), "a")
    tls_api.wait_for("watch", 1)  # a stop in the midst of its TLS handshake leaves a socket that ssl does not close
    assert sum(passed) == 40.5  # of the 61.5 that six waits would have taken
    assert max(passed) == 1


# --- a kubelet, whose certificate is its own and for its node's name ---


@pytest.fixture
def kubelet(ca: trustme.CA) -> Iterator[KubeApi]:
    with KubeApi(tls=server_tls(ca, "worker-1"), token=SECRET) as server:
        yield server


def test_a_kubelet_is_verified_by_the_name_that_its_certificate_bears(
    kubelet: KubeApi, token_file: Path, ca_file: Path
) -> None:
    """Asked by its address; a name that it does not bear is refused."""
    named: dict[str, Any] = {"token_file": token_file, "ca_file": str(ca_file), "server": KUBELET}
    assert get(client(kubelet.url, tls_server_name="worker-1", **named)) is not None
    assert "for another name" in refused(client(kubelet.url, tls_server_name="worker-2", **named))
    message = refused(client(kubelet.url, **named))
    assert "set kubelet_tls_server_name to the name in it, by default the node's" in message
    assert len(kubelet.requests) == 1


def test_a_kubelets_own_certificate_is_named_with_its_file(kubelet: KubeApi, token_file: Path, ca_file: Path) -> None:
    """The usual case without serverTLSBootstrap: which file it is, and the setting for it."""
    trustme.CA().cert_pem.write_to_path(str(ca_file))
    message = refused(client(kubelet.url, token_file=token_file, ca_file=str(ca_file), server=KUBELET))
    assert "a kubelet's own is /var/lib/kubelet/pki/kubelet.crt on its node: set kubelet_ca_file" in message
    assert kubelet.requests == []


def test_a_kubelet_that_takes_no_tokens(kubelet: KubeApi, token_file: Path) -> None:
    """It does so only where it asks the API server about them."""
    kubelet.token = "another"
    message = refused(client(kubelet.url, token_file=token_file, verify=False, server=KUBELET))
    assert "authentication.webhook.enabled" in message


def test_insecure_takes_any_certificate(kubelet: KubeApi, token_file: Path) -> None:
    """Of whatever CA and name, and with no warning of urllib3's; the token is sent."""
    assert get(client(kubelet.url, token_file=token_file, verify=False, server=KUBELET)) is not None


def test_a_kubelet_that_is_not_there_is_named(kubelet: KubeApi) -> None:
    """Refused, a node's name that does not resolve, plain http: each names kubelet_url."""
    kubelet.down()
    assert "is kubelet_url right, and does the kubelet run there?" in refused(client(kubelet.url, server=KUBELET))
    message = refused(client("https://no-such-node.invalid:10250", server=KUBELET))
    assert "its name does not resolve" in message
    assert "is kubelet_url right?" in message
