"""One exporter watches the node through all of the tests; its books are balanced by the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.cluster import Cluster, Listed
from tests.cluster.exported import Exported
from tests.cluster.kernel import Sampler
from tests.cluster.layout import API_URL, CA, NODE, STATE, is_inside
from tests.cluster.pods import pod
from tests.deploy.files import of_kind
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import Program, exporter

if TYPE_CHECKING:
    from collections.abc import Iterator

ACCOUNT = "otel-k8s-cgroup"
NAMESPACE = "otel-k8s-cgroup"
TOKEN_FILE = STATE / "token"
POLL_SECONDS = 0.5
_WHY_NOT = "needs a real Kubernetes node"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    ours = [item for item in items if item.path.parent == Path(__file__).parent]
    # What all of the others leave behind is what it checks.
    items.sort(key=lambda item: item in ours and item.path.name == "test_books.py")
    if not is_inside():
        for item in ours:
            item.add_marker(pytest.mark.skip(reason=f"{_WHY_NOT}: `make cluster` runs it in one of its own"))


@dataclass(frozen=True, slots=True)
class Observer:
    """The exporter that runs all the time, with what it can be held against."""

    program: Program
    exported: Exported
    kernel: Sampler
    listed: Listed
    there_before: frozenset[str]
    """The cgroups that are older than it: their CPU time counts from its first reading."""
    idle: str
    """The uid of a pod that does nothing from the start on."""


@pytest.fixture(scope="session")
def cluster() -> Cluster:
    cluster = Cluster()
    cluster.clear()
    return cluster


@pytest.fixture(scope="session")
def account(cluster: Cluster) -> str:
    """The manifest's service account, with the manifest's rights, and its ConfigMap beside it."""
    cluster.namespace(NAMESPACE)
    apply_account(cluster)
    cluster.api.apply(f"/api/v1/namespaces/{NAMESPACE}/configmaps", of_kind("ConfigMap"))
    return ACCOUNT


def apply_account(cluster: Cluster) -> None:
    cluster.api.apply(f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts", of_kind("ServiceAccount"))
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    cluster.api.apply(f"{rbac}/clusterroles", of_kind("ClusterRole"))
    cluster.api.apply(f"{rbac}/clusterrolebindings", of_kind("ClusterRoleBinding"))


def bind(cluster: Cluster, name: str, role: str, namespace: str, account: str) -> None:
    """Gives an account the rights of a ClusterRole."""
    cluster.api.apply(
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        {
            "metadata": {"name": name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        },
    )


def write_token(cluster: Cluster, path: Path = TOKEN_FILE) -> Path:
    new = path.with_name(f".{path.name}.new")
    new.write_text(cluster.token(ACCOUNT, NAMESPACE))
    return new.rename(path)


def api_flags(token: Path = TOKEN_FILE) -> dict[str, str]:
    return {
        "--k8s-node": NODE,
        "--k8s-api-url": API_URL,
        "--k8s-ca-file": str(CA),
        "--token-retrieval": f'{{ file = "{token}" }}',
    }


def words(flags: dict[str, str]) -> list[str]:
    return [word for flag in flags.items() for word in flag]


@pytest.fixture(scope="session")
def observer(cluster: Cluster, account: str) -> Iterator[Observer]:
    write_token(cluster)
    with OtlpReceiver("grpc") as receiver, Sampler() as kernel, Listed() as listed:
        there_before = frozenset(kernel.running)
        flags = {
            **api_flags(),
            "--poll-interval": f"{POLL_SECONDS:g}s",
            "--otlp-endpoint": receiver.endpoint,
            "--otlp-protocol": "grpc",
        }
        with exporter(*words(flags)) as program:
            # Its first reading comes with its first export.
            receiver.wait_for(bool)
            idle = cluster.run(pod("idle"))["metadata"]["uid"]
            yield Observer(program, Exported(receiver), kernel, listed, there_before, idle)
            assert program.stop() == 0
