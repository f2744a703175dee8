"""Pods of every kind that a node has."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.cluster.api import STRATEGIC_PATCH, eventually
from tests.cluster.cluster import cgroup_uid, pause
from tests.cluster.conftest import POLL_SECONDS
from tests.cluster.exported import longest_gap_seconds
from tests.cluster.kernel import frozen, memory
from tests.cluster.layout import NODE, STATIC_PODS
from tests.cluster.pods import OWNED, OWNER_UID, container, pod, resources

if TYPE_CHECKING:
    from tests.cluster.api import Object
    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer
    from tests.cluster.exported import PodPoints

MIB = 1 << 20
SECOND = 10**9
QOS = {
    "guaranteed": resources(limits={"cpu": "200m", "memory": "64Mi"}),
    "burstable": resources(requests={"cpu": "50m", "memory": "16Mi"}),
    "besteffort": resources(),
}
WHERE = {
    "guaranteed": "/kubepods/pod",
    "burstable": "/kubepods/burstable/pod",
    "besteffort": "/kubepods/besteffort/pod",
}
STATIC_KINDS = {"hash-uid": None, "own-uid": "c0ffee00-0000-4000-8000-000000000001"}


def kinds() -> list[Object]:
    """All of those that only have to be there; started together."""
    return [
        *(pod(qos, container("burn", "50", "pause", resources=wanted)) for qos, wanted in QOS.items()),
        pod(
            "several",
            container("burn", "100", "pause", name="first"),
            container("burn", "200", "pause", name="second"),
            initContainers=[
                container("burn", "150", name="init"),
                container("burn", "50", "pause", name="sidecar", restartPolicy="Always"),
            ],
        ),
        pod("host-network", hostNetwork=True),
        *map(owned, OWNED),
        pod("job", container("sleep", "1500", "burn", "1000", "sleep", "1500"), restartPolicy="Never"),
        pod("holds-memory", container("hold", "64", "pause")),
        pod("throttled", container("busy", resources=resources(limits={"cpu": "100m"}))),
        pod("oom", container("hold", "100", "pause", resources=resources(limits={"memory": "40Mi"}))),
        pod("crash", container("burn", "50", "sleep", "200", "exit", "3")),
        pod(
            "resized",
            container(
                "busy",
                resources=resources(requests={"cpu": "100m"}, limits={"cpu": "100m"}),
                resizePolicy=[{"resourceName": "cpu", "restartPolicy": "NotRequired"}],
            ),
        ),
    ]


def owned(name: str) -> Object:
    """As a controller makes it, of which none runs here."""
    kind, owner, _ = OWNED[name]
    api_version, _, kind = kind.partition(" ")
    found = pod(name)
    found["metadata"]["labels"] = {"pod-template-hash": "7d4b9c6f5d"}
    found["metadata"]["ownerReferences"] = [
        {"apiVersion": api_version, "kind": kind, "name": owner, "uid": OWNER_UID, "controller": True}
    ]
    return found


@pytest.fixture(scope="module", autouse=True)
def started(cluster: Cluster, observer: Observer) -> None:
    for each in kinds():
        cluster.create(each)


def running(cluster: Cluster, name: str) -> Object:
    return cluster.wait_for_phase(name, "Running")


def sent(observer: Observer, of: Object) -> PodPoints:
    """What the exporter has sent of it, once there is CPU time too. Its Resource is checked whole."""
    uid = cgroup_uid(of)
    found = observer.exported.wait_for(lambda pods: uid in pods and bool(pods[uid].of("cpu_time_delta")))[uid]
    assert found.resource == resource_of(of)
    return found


def resource_of(found: Object) -> dict[str, str]:
    """Every attribute of a pod's Resource, of what the API server has of the pod."""
    metadata, uid = found["metadata"], cgroup_uid(found)
    is_static = uid != metadata["uid"]
    return {
        "k8s.pod.uid": metadata["uid"],
        "k8s.pod.name": metadata["name"],
        "k8s.namespace.name": metadata["namespace"],
        "k8s.node.name": NODE,
        "k8s.pod.start_time": found["status"]["startTime"],
        **({"k8s.pod.annotation.kubernetes.io/config.hash": uid} if is_static else {}),
        **(OWNED[metadata["name"]][2] if metadata["name"] in OWNED else {}),
        "cgroup.path": f"{WHERE[found['status']['qosClass'].lower()]}{uid}",
    }


def percent_of_a_core(observer: Observer, uid: str, seconds: float) -> float:
    """CPU time per time, over that many seconds from now on."""
    since = observer.exported.count
    pause(seconds)
    deltas = observer.exported.pods(since)[uid].of("cpu_time_delta", "total")
    return 100 * sum(delta.value for delta in deltas) / (deltas[-1].time_ns - deltas[0].start_ns)


@pytest.mark.parametrize("qos", QOS)
def test_each_quality_of_service(cluster: Cluster, observer: Observer, qos: str) -> None:
    """Guaranteed, Burstable and BestEffort pods have their cgroups in three places; each is found."""
    found = running(cluster, qos)
    assert found["status"]["qosClass"].lower() == qos
    assert sent(observer, found).resource["k8s.pod.name"] == qos


@pytest.mark.parametrize("name", OWNED)
def test_a_pod_of_each_workload(cluster: Cluster, observer: Observer, name: str) -> None:
    """Its Resource has its owner, by the reference alone: the API server has no object of that name."""
    assert OWNED[name][2].items() <= sent(observer, running(cluster, name)).resource.items()


def test_several_containers_are_one_pod(cluster: Cluster, observer: Observer) -> None:
    """Init container, native sidecar, two containers and an ephemeral one: the pod's CPU time is that of all."""
    found = running(cluster, "several")
    path = "/api/v1/namespaces/default/pods/several/ephemeralcontainers"
    ephemeral = container("burn", "300", "pause", name="debug")
    cluster.api.patch(path, {"spec": {"ephemeralContainers": [ephemeral]}}, STRATEGIC_PATCH)
    burnt_ns = (100 + 200 + 150 + 50 + 300) * 10**6
    uid = cgroup_uid(found)
    observer.exported.wait_for(lambda pods: uid in pods and pods[uid].cpu_time_ns >= burnt_ns)


@pytest.mark.parametrize("kind", STATIC_KINDS)
def test_a_static_pod(cluster: Cluster, observer: Observer, kind: str) -> None:
    """Its cgroup bears the hash of its manifest, or the uid that this names; its name is that of its mirror."""
    manifest = pod(f"static-{kind}", container("burn", "50", "pause"), namespace="kube-system")
    if uid := STATIC_KINDS[kind]:
        manifest["metadata"]["uid"] = uid
    (STATIC_PODS / f"{kind}.json").write_text(json.dumps(manifest))
    found = cluster.wait_for_phase(f"static-{kind}-{NODE}", "Running", namespace="kube-system", seconds=120)
    resource, in_cgroup = sent(observer, found).resource, cgroup_uid(found)
    assert in_cgroup != found["metadata"]["uid"]
    assert resource["k8s.pod.name"] == f"static-{kind}-{NODE}"
    assert resource["k8s.pod.uid"] == found["metadata"]["uid"]
    assert resource["k8s.pod.annotation.kubernetes.io/config.hash"] == in_cgroup
    assert resource["cgroup.path"] == f"/kubepods/besteffort/pod{in_cgroup}"


def test_a_pod_in_the_nodes_network(cluster: Cluster, observer: Observer) -> None:
    """Its cgroup is as any other's."""
    found = running(cluster, "host-network")
    assert sent(observer, found).resource["k8s.pod.name"] == "host-network"


def test_a_job_that_ends(cluster: Cluster, observer: Observer) -> None:
    """All of the CPU time of a pod that burns one second of it and ends was sent, and nothing after its end."""
    uid = cgroup_uid(cluster.wait_for_phase("job", "Succeeded"))
    eventually(lambda: uid not in observer.kernel.running)
    pause(3 * POLL_SECONDS)
    of_job = observer.exported.pods()[uid]
    counted_ns = observer.kernel.lives[uid].samples[-1].usage_ns
    assert SECOND < of_job.cpu_time_ns <= counted_ns
    # Between the last reading and the end its sandbox ends.
    assert counted_ns - of_job.cpu_time_ns < SECOND / 50
    number = observer.exported.count
    pause(3 * POLL_SECONDS)
    assert uid not in observer.exported.pods(number)


def test_memory_that_a_pod_holds(cluster: Cluster, observer: Observer) -> None:
    """64 MiB of anonymous memory, to the byte what the kernel has of a pod that stands still."""
    uid = cgroup_uid(running(cluster, "holds-memory"))
    observer.exported.wait_for(
        lambda pods: uid in pods and pods[uid].of("cgroup_memory_anonymous")[-1].value > 64 * MIB
    )
    with frozen(uid):
        number = observer.exported.count
        pause(2 * POLL_SECONDS)
        of_pod = observer.exported.wait_for_pod(uid, since=number)
        last = {metric: of_pod.of(metric)[-1].value for metric in memory(uid)}
        assert last == memory(uid)
    assert 64 * MIB < last["cgroup_memory_anonymous"] < 66 * MIB


def test_a_limit_throttles(cluster: Cluster, observer: Observer) -> None:
    """A container that takes what it gets has 10 % of a core under a limit of 100m."""
    uid = cgroup_uid(running(cluster, "throttled"))
    sent(observer, cluster.pod("throttled"))
    assert percent_of_a_core(observer, uid, 5.0) == pytest.approx(10, abs=1)


def test_a_container_that_is_killed_for_its_memory(cluster: Cluster, observer: Observer) -> None:
    """The pod lives on, its container does not: the counter goes on, and the pod's Resource is the same."""

    def killed() -> bool:
        (status,) = cluster.pod("oom")["status"]["containerStatuses"]
        ended = status["lastState"].get("terminated") or status["state"].get("terminated") or {}
        return status["restartCount"] >= 1 and ended.get("reason") == "OOMKilled"

    eventually(killed)
    of_pod = sent(observer, cluster.pod("oom"))
    assert max(point.value for point in of_pod.of("memory_usage")) <= 40 * MIB + 4 * MIB


def test_a_container_that_crashes_again_and_again(cluster: Cluster, observer: Observer) -> None:
    """Each run's CPU time is counted once: the pod's counter does not begin anew with its containers."""

    def restarts() -> bool:
        (status,) = cluster.pod("crash")["status"]["containerStatuses"]
        return bool(status["restartCount"] >= 2)

    eventually(restarts, 90)
    uid = cgroup_uid(cluster.pod("crash"))
    observer.exported.wait_for(lambda pods: pods[uid].cpu_time_ns > 3 * 50 * 10**6)


def test_a_pod_that_is_resized_in_place(cluster: Cluster, observer: Observer) -> None:
    """A higher limit takes effect in the same cgroup: more CPU time, one series."""
    found = running(cluster, "resized")
    sent(observer, found)
    more = resources(requests={"cpu": "300m"}, limits={"cpu": "300m"})
    containers = {"spec": {"containers": [{"name": "main", "resources": more}]}}
    cluster.api.patch("/api/v1/namespaces/default/pods/resized/resize", containers, STRATEGIC_PATCH)
    uid = cgroup_uid(found)
    eventually(lambda: percent_of_a_core(observer, uid, 2.0) > 25)
    (status,) = cluster.pod("resized")["status"]["containerStatuses"]
    assert status["restartCount"] == 0


def test_pods_that_live_six_seconds(cluster: Cluster, observer: Observer) -> None:
    """One after another: each is there with the CPU time that it had when it was read last."""
    uids = []
    for number in range(3):
        short = pod(f"short-{number}", container("burn", "200", "sleep", "5800"), restartPolicy="Never")
        uids.append(cluster.create(short)["metadata"]["uid"])
        pause(2.0)
    for number in range(3):
        cluster.wait_for_phase(f"short-{number}", "Succeeded")
    pods = observer.exported.pods()
    for uid in uids:
        assert pods[uid].cpu_time_ns > 200 * 10**6
        assert longest_gap_seconds(pods[uid].points) < 4 * POLL_SECONDS
