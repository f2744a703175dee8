"""The chart on a real node: an API server takes each of its values files; what state on a node promises holds."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from deploy import helm
from tests.cluster.api import eventually
from tests.cluster.cluster import cgroup_uid
from tests.cluster.exported import PodPoints
from tests.cluster.layout import ADMIN_KUBECONFIG
from tests.cluster.pods import container, pod
from tests.cluster.test_in_cluster import deployed
from tests.collectors.programs import why_not
from tests.deploy.files import objects_in
from tests.programs import clean_environ

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

pytestmark = pytest.mark.skipif(not helm.helm().exists(), reason="Helm is not built: `make helm` does so (it needs Go)")


def run_helm(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = clean_environ(KUBECONFIG=str(ADMIN_KUBECONFIG))
    return subprocess.run([str(helm.helm()), *arguments], env=environ, capture_output=True, text=True, check=False)


def installed(namespace: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run_helm("install", "metrics", str(helm.CHART), "--namespace", namespace, *arguments)


@pytest.mark.parametrize("name", [path.name for path in sorted((helm.CHART / "ci").iterdir())])
def test_an_api_server_takes_each_values_file(cluster: Cluster, name: str) -> None:
    """By `helm install`, as a user runs it; `helm uninstall` leaves nothing."""
    namespace = cluster.namespace("chart")
    arguments = ["-f", str(helm.CHART / "ci" / name)]
    if name.startswith("namespace"):
        done = installed("chart-not-there", *arguments)
        assert "Helm needs namespace chart-not-there before it installs anything" in done.stderr
        return
    done = installed(namespace, *arguments)
    if name.startswith("pod-monitor"):  # a kind of the Prometheus Operator's, which is not here
        assert "PodMonitor" in done.stderr
        return
    assert done.returncode == 0, done.stderr
    assert cluster.kubectl("get", "-n", namespace, "-o", "name", "daemonset").startswith("daemonset.apps/metrics")
    done = run_helm("uninstall", "metrics", "--namespace", namespace)
    assert done.returncode == 0, done.stderr
    kinds = "daemonset,configmap,secret,serviceaccount,networkpolicy,clusterrole,clusterrolebinding"
    eventually(lambda: "metrics" not in cluster.kubectl("get", "-n", namespace, "-o", "name", kinds))


def test_a_namespace_that_refuses_the_pods_is_refused(cluster: Cluster) -> None:
    """With the label that allows them, before anything is installed."""
    namespace = cluster.namespace("chart-restricted")
    cluster.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    done = installed(namespace)
    assert "enforces the Pod Security level restricted" in done.stderr
    command = done.stderr.partition("kubectl ")[2].split()
    cluster.kubectl(*command)
    assert installed(namespace).returncode == 0
    assert run_helm("uninstall", "metrics", "--namespace", namespace).returncode == 0


@pytest.mark.skipif(why_not("otelcol") is not None, reason=str(why_not("otelcol")))
def test_state_on_the_node_outlives_the_pod(cluster: Cluster, account: str, observer: Observer, tmp_path: Path) -> None:
    """With state.kind hostPath a pod that is replaced, as by an upgrade, goes on from what the one before it delivered:
    what a pod of the node uses is counted once over both of them.
    """
    steady = cgroup_uid(cluster.run(pod("outlives-an-upgrade", container("burn", "60000", "pause"))))
    state = tmp_path / "state"
    objects = objects_in(helm.template("--set", f"state.kind=hostPath,state.hostPath={state}"))
    found = []
    for name in ("before", "after"):
        directory = tmp_path / name
        directory.mkdir()
        with deployed(cluster, directory, objects, OTEL_K8S_CGROUP_POLL_INTERVAL="1s") as exported:
            exported.wait_for(lambda pods: len(pods[steady].of("cpu_time_delta", "total")) > 2)
            assert (state / "state.json").stat().st_uid == 65532
        found.append(exported.pods()[steady])
    before, after = found
    assert after.of("cpu_time_delta", "total")[0].start_ns == before.of("cpu_time_delta", "total")[-1].time_ns
    over_both = PodPoints(points=before.points + after.points)
    assert over_both.disagreements(observer.kernel.lives[steady], counted_from_zero=False) == []
