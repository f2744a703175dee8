"""The manifest as it is, with the image that its Dockerfile makes, on a real node, into a real collector."""

from __future__ import annotations

import copy
import os
import signal
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster.api import eventually
from tests.cluster.cluster import cgroup_uid
from tests.cluster.conftest import NAMESPACE
from tests.cluster.exported import Exported
from tests.cluster.layout import EXPORTER_IMAGE, NODE, NODE_ADDRESS
from tests.cluster.pods import container, pod
from tests.collectors.programs import collector, why_not
from tests.deploy.files import asking_the_kubelet, manifest
from tests.fakes.otlp_receiver import OtlpReceiver

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cluster.api import Object
    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

NAME = "otel-k8s-cgroup-node-1"


def daemon_pod(objects: Sequence[Object], endpoint: str, **environ: str) -> Object:
    """The pod that the manifest's DaemonSet's controller would make for the node; none runs here."""
    (daemon_set,) = (each for each in objects if each["kind"] == "DaemonSet")
    template = copy.deepcopy(daemon_set["spec"]["template"])
    spec = template["spec"]
    for each in spec.get("initContainers", []) + spec["containers"]:
        assert each["image"].partition(":")[0] == "otel-k8s-cgroup"
        each["image"], each["imagePullPolicy"] = EXPORTER_IMAGE, "Never"
    (exporter,) = spec["containers"]
    changed = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint} | environ
    kept = [each for each in exporter["env"] if each["name"] not in changed]
    exporter["env"] = kept + [{"name": name, "value": value} for name, value in changed.items()]
    metadata = template["metadata"] | {"name": NAME, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec | {"nodeName": NODE}}


@contextmanager
def deployed(cluster: Cluster, directory: Path, objects: Sequence[Object], **environ: str) -> Iterator[Exported]:
    """The exporter's pod runs, by the manifest's ``objects``, and sends through the Collector."""
    with (
        OtlpReceiver("grpc") as receiver,
        collector("otelcol", directory, receiver.endpoint, address=NODE_ADDRESS) as listening,
    ):
        cluster.run(daemon_pod(objects, listening.grpc, **environ))
        try:
            yield Exported(receiver)
        finally:
            log = cluster.kubectl("logs", "-n", NAMESPACE, NAME)
            print(log)  # noqa: T201 with a test's failure
            cluster.delete(NAME, NAMESPACE)
            eventually(lambda: NAME not in cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "name"))


pytestmark = pytest.mark.skipif(why_not("otelcol") is not None, reason=str(why_not("otelcol")))


@pytest.mark.parametrize("source", ["api", "kubelet"])
def test_the_manifests_own_pod(cluster: Cluster, account: str, observer: Observer, source: str, tmp_path: Path) -> None:
    """Confined as it is written there, it names and measures every pod of the node, its own too; it ends in order. Also
    with the component that makes it ask the kubelet.
    """
    objects = manifest() if source == "api" else asking_the_kubelet(tmp_path)
    cluster.set_role(objects)
    with deployed(cluster, tmp_path, objects, OTEL_K8S_CGROUP_POLL_INTERVAL="1s") as exported:
        exported.wait_for(bool)  # its first reading: what is there then does not count from zero
        running = cluster.run(pod(f"beside-{source}", container("burn", "300", "pause")))
        born, own = cgroup_uid(running), cgroup_uid(cluster.pod(NAME, NAMESPACE))
        here = (observer.kernel.running & observer.exported.pods().keys()) | {born, own}
        exported.wait_for(
            lambda pods: all(uid in pods and len(pods[uid].of("cpu_time_delta", "total")) > 2 for uid in here)
        )
        eventually(lambda: is_ready(cluster.pod(NAME, NAMESPACE)))  # by the kubelet's own probes
        check_confinement(Path("/proc", str(exporter_pid(cluster))))
        # A command beside it has its settings: the node, and the mounted cgroups.
        assert born in cluster.kubectl("exec", "-n", NAMESPACE, NAME, "--", "otel-k8s-cgroup", "snapshot", "--json")
    cluster.set_role(manifest())
    pods = exported.pods()
    for uid in here:
        life = observer.kernel.lives[uid]
        assert pods[uid].resources == [observer.listed.resource(uid, life.path, source, anew=True)]
        assert pods[uid].disagreements(life, counted_from_zero=uid == born) == []


def is_ready(pod: Object) -> bool:
    return any(each["type"] == "Ready" and each["status"] == "True" for each in pod["status"]["conditions"])


def check_confinement(process: Path) -> None:
    """By what the kernel says of it."""
    lines = (process / "status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {"65532"}
    assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    fields = [line.split() for line in (process / "mountinfo").read_text().splitlines()]
    mounts = {each[4]: each[5].split(",") for each in fields}
    assert "ro" in mounts["/"]
    assert "ro" in mounts["/host/sys/fs/cgroup"]


def exporter_pid(cluster: Cluster) -> int:
    """Of the container's first process, as it is seen from the node."""
    (status,) = cluster.pod(NAME, NAMESPACE)["status"]["containerStatuses"]
    container_id = status["containerID"].removeprefix("containerd://")
    return min(int(process.name) for process in Path("/proc").glob("[0-9]*") if runs_in(process, container_id))


def runs_in(process: Path, container_id: str) -> bool:
    try:
        return container_id in (process / "cgroup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_its_container_is_killed(cluster: Cluster, account: str, observer: Observer, tmp_path: Path) -> None:
    """The next one goes on from the state file: what a pod uses is counted once over both of them."""
    steady = cgroup_uid(cluster.run(pod("outlives-it", container("burn", "60000", "pause"))))
    with deployed(cluster, tmp_path, manifest(), OTEL_K8S_CGROUP_POLL_INTERVAL="1s") as exported:
        exported.wait_for(lambda pods: len(pods[steady].of("cpu_time_delta", "total")) > 2)
        os.kill(exporter_pid(cluster), signal.SIGKILL)
        number = exported.count

        def restarted() -> bool:
            (status,) = cluster.pod(NAME, NAMESPACE)["status"]["containerStatuses"]
            return bool(status["restartCount"] == 1 and status["state"].get("running"))

        eventually(restarted)
        exported.wait_for(lambda pods: len(pods[steady].of("cpu_time_delta", "total")) > 2, since=number)
    of_pod, life = exported.pods()[steady], observer.kernel.lives[steady]
    assert of_pod.disagreements(life, counted_from_zero=False) == []
    assert of_pod.resources == [observer.listed.resource(steady, life.path, anew=True)]
