"""A kubelet as the source of pods, by the settings that name it, over TLS as kubelets have it."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup import settings, sources
from tests.fakes.kube_api import KubeApi, pod
from tests.programs import clean_environ

from .support import SECRET, comes_to, server_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import trustme

    from otel_k8s_cgroup.kube import PodWatcher


@pytest.fixture
def kubelet(ca: trustme.CA) -> Iterator[KubeApi]:
    """Its certificate is for the node's name, and signed by itself."""
    with KubeApi(tls=server_tls(ca, "node-1"), token=SECRET) as server:
        server.add(pod("a"))
        yield server


def _watch(kubelet: KubeApi, token_file: Path, **flags: str) -> PodWatcher:
    given = {
        "k8s_node": "node-1",
        "pod_source": "kubelet",
        "kubelet_url": kubelet.url,
        "token_retrieval": f'{{ file = "{token_file}" }}',
    }
    loaded = settings.load(flags=given | flags, environ={}, config_file=None)
    watcher = sources.watch_pods(loaded.plain(), lambda _token: None)
    watcher.start()
    return watcher


def test_its_own_certificate_by_the_nodes_name(kubelet: KubeApi, ca: trustme.CA, token_file: Path) -> None:
    """As on a node without serverTLSBootstrap, asked by its address: kubelet.crt has the certificate and its signer."""
    crt = token_file.with_name("kubelet.crt")
    crt.write_bytes(ca.issue_cert("node-1").cert_chain_pems[0].bytes() + ca.cert_pem.bytes())
    watcher = _watch(kubelet, token_file, kubelet_ca_file=str(crt), kubelet_tls_server_name="node-1")
    try:
        comes_to(watcher, "a")
    finally:
        assert watcher.stop(10)


def test_the_clusters_ca_where_no_other_is_named(kubelet: KubeApi, ca_file: Path, token_file: Path) -> None:
    """With serverTLSBootstrap the cluster's CA has signed it."""
    watcher = _watch(kubelet, token_file, k8s_ca_file=str(ca_file), kubelet_tls_server_name="node-1")
    try:
        comes_to(watcher, "a")
    finally:
        assert watcher.stop(10)


def test_insecure_is_said(kubelet: KubeApi, token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It works with any certificate, and a warning says what that means; by default nothing is sent."""
    watcher = _watch(kubelet, token_file, kubelet_insecure="true")
    try:
        comes_to(watcher, "a")
    finally:
        assert watcher.stop(10)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        f"kubelet_insecure: the certificate of {kubelet.url} is not verified; whoever answers there gets the token"
    ]


def _program(*flags: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", *flags]
    return subprocess.run(command, env=clean_environ(), capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("key", "flags"),
    [
        ("k8s_ca_file", ["--k8s-api-url", "https://127.0.0.1:1"]),
        ("k8s_ca_file", ["--pod-source", "kubelet", "--kubelet-url", "https://127.0.0.1:1"]),
        ("kubelet_ca_file", ["--pod-source", "kubelet", "--kubelet-url", "https://127.0.0.1:1"]),
    ],
)
def test_a_ca_file_that_is_none_ends_the_start(key: str, flags: list[str], tmp_path: Path) -> None:
    """It can never work, so it is not tried for ever: one line that names the setting, and exit code 1."""
    file = tmp_path / "ca.crt"
    file.write_text("no certificate")
    ended = _program(f"--{key.replace('_', '-')}", str(file), *flags)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{key} {str(file)!r}: " in line
    assert "PEM" in line
    assert len(line) < 350
