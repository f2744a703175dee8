"""Each source of pods and each way to a token: the same pods with the same Resources and the kernel's figures."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster.conftest import ACCOUNT, NAMESPACE, POLL_SECONDS, api_flags, bind, words, write_token
from tests.cluster.exported import Exported
from tests.cluster.layout import ADMIN_KUBECONFIG, API_URL, CA, KUBELET_CERTIFICATE, KUBELET_URL, NODE
from tests.cluster.pki import write_token_kubeconfig
from tests.cluster.pods import container, pod
from tests.deploy.files import REPOSITORY
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import clean_environ, exporter, started

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

PODS = ("source-a", "source-b")


@pytest.fixture(scope="module", autouse=True)
def running(cluster: Cluster, observer: Observer) -> None:
    """Some that burn, so that there is something to be wrong about."""
    for name in PODS:
        cluster.create(pod(name, container("burn", "20000", "pause")))
    for name in PODS:
        cluster.wait_for_phase(name, "Running")


@contextmanager
def another(flags: dict[str, str], **environ: str) -> Iterator[Exported]:
    """A second exporter, beside the one that observes."""
    with OtlpReceiver("http/protobuf") as receiver:
        flags = flags | {
            "--k8s-node": NODE,
            "--poll-interval": f"{POLL_SECONDS:g}s",
            "--otlp-endpoint": receiver.endpoint,
            "--otlp-protocol": "http/protobuf",
        }
        with exporter(*words(flags), environ=clean_environ(**environ)) as program:
            yield Exported(receiver)
            assert program.stop() == 0


def agrees(cluster: Cluster, observer: Observer, flags: dict[str, str], source: str = "api", **environ: str) -> None:
    """An exporter with these flags sends every pod as the API has it, with the kernel's CPU time."""
    for name in PODS:
        observer.exported.wait_for_pod(cluster.pod(name)["metadata"]["uid"])
    with another(flags, **environ) as exported:
        pods = exported.wait_for(
            lambda pods: all(uid in pods and len(pods[uid].of("cpu_time_delta", "total")) > 1 for uid in here(observer))
        )
    for uid in here(observer):
        life = observer.kernel.lives[uid]
        assert pods[uid].resources == [observer.listed.resource(uid, life.path, source, anew=True)]
        assert pods[uid].disagreements(life, counted_from_zero=False) == []


def here(observer: Observer) -> set[str]:
    """The pods that run now, and are known to the exporter that observes."""
    return observer.kernel.running & observer.exported.pods().keys()


def test_a_token_file(cluster: Cluster, observer: Observer, tmp_path: Path) -> None:
    """As it is mounted into pods."""
    agrees(cluster, observer, api_flags(write_token(cluster, tmp_path / "token")))


def test_a_token_of_kubectl(cluster: Cluster, observer: Observer) -> None:
    """`kubectl create token` for an account that may read pods, by a kubeconfig that may ask for tokens."""
    namespace = cluster.namespace("alumet")
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    cluster.api.apply(account, {"metadata": {"name": "pod-reader"}})
    bind(cluster, "pod-reader", NAMESPACE, namespace, "pod-reader")
    flags = {
        "--k8s-api-url": API_URL,
        "--k8s-ca-file": str(CA),
        "--token-retrieval": '{ kubectl = { service_account = "pod-reader", namespace = "alumet" } }',
    }
    agrees(cluster, observer, flags, KUBECONFIG=str(ADMIN_KUBECONFIG))


@pytest.mark.parametrize("credentials", ["certificate", "token"])
def test_beside_kubectl_proxy(cluster: Cluster, observer: Observer, credentials: str, tmp_path: Path) -> None:
    """The README's steps for minikube, with Alumet's own file: the proxy's credentials are those that count, whether
    its kubeconfig has a certificate or a token; the account `alumet-reader` is there, and has no rights.
    """
    namespace = cluster.namespace("alumet")
    cluster.api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "alumet-reader"}})
    kubeconfig = ADMIN_KUBECONFIG
    if credentials == "token":
        kubeconfig = tmp_path / "kubeconfig"
        # May read pods, and make tokens for alumet-reader.
        rule = {"apiGroups": [""], "resources": ["serviceaccounts/token"], "verbs": ["create"]}
        cluster.api.apply(
            "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "token-maker"}, "rules": [rule]}
        )
        bind(cluster, "token-maker", "token-maker", NAMESPACE, ACCOUNT)
        write_token_kubeconfig(kubeconfig, cluster.token(ACCOUNT, NAMESPACE))
    environ = clean_environ(KUBECONFIG=str(kubeconfig))
    with ExitStack() as stack:
        proxy = stack.enter_context(started(["kubectl", "proxy", "--port=8080"], environ))
        proxy.wait_for_line(lambda line: "Starting to serve" in line)
        flags = {"--config": str(REPOSITORY / "examples/alumet-minikube.toml")}
        agrees(cluster, observer, flags, KUBECONFIG=str(kubeconfig))


def test_the_kubelet(cluster: Cluster, observer: Observer, tmp_path: Path) -> None:
    """Asked itself, with a token that may read its pods, and trusted by the certificate that it has made."""
    rule = {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}
    cluster.api.apply(
        "/apis/rbac.authorization.k8s.io/v1/clusterroles", {"metadata": {"name": "kubelet-pods"}, "rules": [rule]}
    )
    bind(cluster, "kubelet-pods", "kubelet-pods", NAMESPACE, ACCOUNT)
    flags = {
        "--pod-source": "kubelet",
        "--kubelet-url": KUBELET_URL,
        "--kubelet-ca-file": str(KUBELET_CERTIFICATE),
        "--token-retrieval": f'{{ file = "{write_token(cluster, tmp_path / "token")}" }}',
    }
    agrees(cluster, observer, flags, source="kubelet")


def test_a_file_of_kubectl(cluster: Cluster, observer: Observer, tmp_path: Path) -> None:
    """What `kubectl get pods -A -o json` prints."""
    file = tmp_path / "pods.json"
    file.write_text(cluster.kubectl("get", "pods", "-A", "-o", "json"))
    agrees(cluster, observer, {"--pod-source": f'{{ file = "{file}" }}'})


@pytest.mark.parametrize("credentials", ["certificate", "token"])
def test_a_kubeconfig(cluster: Cluster, observer: Observer, credentials: str, tmp_path: Path) -> None:
    """The admin's own, with its client certificate, and one with a token of an account that may read pods."""
    kubeconfig = ADMIN_KUBECONFIG
    if credentials == "token":
        kubeconfig = tmp_path / "kubeconfig"
        write_token_kubeconfig(kubeconfig, cluster.token(ACCOUNT, NAMESPACE))
    agrees(cluster, observer, {"--k8s-kubeconfig": str(kubeconfig)})
