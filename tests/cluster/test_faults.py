"""What breaks around the exporter: pods that are known go on, others are named once what is broken is mended.

The exporter is the one that observes all of the tests, so that its books hold over all of these too.
"""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.cluster import pki
from tests.cluster.api import eventually
from tests.cluster.cluster import cgroup_uid, pause
from tests.cluster.conftest import ACCOUNT, NAMESPACE, POLL_SECONDS, apply_account, write_token
from tests.cluster.exported import longest_gap_seconds
from tests.cluster.layout import NODE, STATIC_PODS
from tests.cluster.pods import container, pod, shell
from tests.deploy.files import manifest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.cluster.api import Object
    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

ROLE = f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{ACCOUNT}"
SERVICE_ACCOUNT = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{ACCOUNT}"
BORN_IN_OUTAGE = "born-in-outage"
RECOVERY_SECONDS = 30.0
"""The README's: a pod that is born in an outage is named so long after its end."""


@pytest.fixture(scope="module")
def steady(cluster: Cluster, observer: Observer) -> str:
    """The uid of a pod that runs, and is known, through all of the faults."""
    uid = cgroup_uid(cluster.run(pod("steady", container("busy", resources={"limits": {"cpu": "50m"}}))))
    observer.exported.wait_for_pod(uid)
    return uid


@contextmanager
def nothing_is_missed(observer: Observer, steady: str) -> Iterator[None]:
    """The steady pod's points come all the time."""
    number = observer.exported.count
    yield
    pause(2 * POLL_SECONDS)
    points = observer.exported.pods(number)[steady].of("cpu_time_delta", "total")
    assert longest_gap_seconds(points) < 3 * POLL_SECONDS


def new_pod_is_named(cluster: Cluster, observer: Observer, name: str, seconds: float = RECOVERY_SECONDS) -> None:
    running = cluster.run(pod(name, container("burn", "50", "pause")))
    observer.exported.wait_for_pod(cgroup_uid(running), seconds=seconds)


def drop_the_watch(cluster: Cluster) -> None:
    """Rights and tokens count when a watch begins: the running one ends with its server."""
    cluster.stop("kube-apiserver")
    cluster.start("kube-apiserver")


def test_the_api_server_is_killed(cluster: Cluster, observer: Observer, steady: str) -> None:
    """A pod that is made after it is named; see the last test for the static pod that is born in the outage."""
    with nothing_is_missed(observer, steady):
        with cluster.without("kube-apiserver", signal.SIGKILL):
            born = pod(BORN_IN_OUTAGE, container("burn", "100", "pause"), namespace="kube-system")
            (STATIC_PODS / f"{BORN_IN_OUTAGE}.json").write_text(json.dumps(born))
            pause(5.0)
        new_pod_is_named(cluster, observer, "after-the-kill")


def test_a_node_full_of_pods(cluster: Cluster, observer: Observer) -> None:
    """A hundred at once, each with its name and its CPU time since birth; all of them end while the next test runs."""
    names = [f"full-{number}" for number in range(100)]
    made: list[Object] = [cluster.create(pod(name, container("burn", "100", "pause"))) for name in names]
    uids = {cgroup_uid(each) for each in made}
    for name in names:
        cluster.wait_for_phase(name, "Running", seconds=120)
    pods = observer.exported.wait_for(
        lambda pods: pods.keys() >= uids and all(pods[uid].cpu_time_ns > 100 * 10**6 for uid in uids)
    )
    assert {pods[uid].resources[-1]["k8s.pod.name"] for uid in uids} == set(names)
    for name in names:
        cluster.delete(name, grace_seconds=1)


def test_the_api_server_is_restarted(cluster: Cluster, observer: Observer, steady: str) -> None:
    """In order, and twice: its first answers may be 403, before it knows its roles; that passes within seconds."""
    with nothing_is_missed(observer, steady):
        for number in range(2):
            drop_the_watch(cluster)
            new_pod_is_named(cluster, observer, f"after-restart-{number}")


def test_the_api_server_is_slow(cluster: Cluster, observer: Observer, steady: str) -> None:
    """Each answer takes a second: pods are named all the same."""
    with (
        nothing_is_missed(observer, steady),
        cluster.slow("kube-apiserver", paused_seconds=0.9, running_seconds=0.1),
    ):
        new_pod_is_named(cluster, observer, "while-slow", seconds=60)


def test_the_kubelet_is_restarted(cluster: Cluster, observer: Observer, steady: str) -> None:
    """Containers go on without it; static pods too, which it then takes for new."""
    with nothing_is_missed(observer, steady):
        with cluster.without("kubelet", signal.SIGKILL):
            pause(2.0)
        new_pod_is_named(cluster, observer, "after-the-kubelet")


def test_etcd_is_stopped(cluster: Cluster, observer: Observer, steady: str) -> None:
    """The API server answers errors, and nothing new: until etcd is there again."""
    with nothing_is_missed(observer, steady):
        with cluster.without("etcd", signal.SIGTERM):
            pause(8.0)
        eventually(lambda: cluster.api.text("/readyz") == "ok")
        new_pod_is_named(cluster, observer, "after-etcd")


def set_verbs(cluster: Cluster, *verbs: str) -> None:
    rules = [{"apiGroups": [""], "resources": ["pods"], "verbs": list(verbs)}] if verbs else []
    cluster.api.patch(ROLE, {"rules": rules})


@contextmanager
def given_back(cluster: Cluster) -> Iterator[None]:
    """The manifest's role, at the end."""
    try:
        yield
    finally:
        cluster.set_role(manifest())


def test_watch_is_not_allowed_any_more(cluster: Cluster, observer: Observer, steady: str) -> None:
    """Pods are listed now and then instead; the watch is taken up again when it is allowed."""
    with nothing_is_missed(observer, steady):
        with given_back(cluster):
            set_verbs(cluster, "get", "list")
            drop_the_watch(cluster)
            new_pod_is_named(cluster, observer, "without-watch")
        new_pod_is_named(cluster, observer, "with-watch")


def test_nothing_is_allowed_any_more(cluster: Cluster, observer: Observer, steady: str) -> None:
    """Known pods go on, and are named as they were; pods that are born meanwhile are named once the rights are back."""
    with nothing_is_missed(observer, steady):
        with given_back(cluster):
            set_verbs(cluster)
            drop_the_watch(cluster)
            uid = cgroup_uid(cluster.run(pod("without-rights", container("burn", "50", "pause"))))
            pause(3.0)
            assert uid not in observer.exported.pods()
        sent = observer.exported.wait_for_pod(uid, seconds=RECOVERY_SECONDS)
        assert sent.of("cpu_time_delta", "total")[0].value > 50 * 10**6


def test_the_service_account_is_deleted(cluster: Cluster, observer: Observer, steady: str) -> None:
    """Its tokens are refused (401): a new account's token in the file is taken."""
    with nothing_is_missed(observer, steady):
        cluster.api.delete(SERVICE_ACCOUNT)
        drop_the_watch(cluster)
        uid = cgroup_uid(cluster.run(pod("without-account")))
        pause(3.0)
        assert uid not in observer.exported.pods()
        apply_account(cluster)
        write_token(cluster)
        observer.exported.wait_for_pod(uid, seconds=RECOVERY_SECONDS)


def test_the_signing_key_is_rotated(cluster: Cluster, observer: Observer, steady: str) -> None:
    """All tokens of before are refused: one of the new key in the file is taken."""
    with nothing_is_missed(observer, steady):
        pki.new_signing_key()
        drop_the_watch(cluster)
        uid = cgroup_uid(cluster.run(pod("other-key")))
        pause(3.0)
        assert uid not in observer.exported.pods()
        write_token(cluster)
        observer.exported.wait_for_pod(uid, seconds=RECOVERY_SECONDS)


def test_a_pod_is_deleted_by_force(cluster: Cluster, observer: Observer) -> None:
    """It is gone from the API before its processes, which take no notice of SIGTERM: it is measured until its end."""
    stubborn = pod("stubborn", shell("trap '' TERM; while :; do :; done"), terminationGracePeriodSeconds=6)
    uid = cgroup_uid(cluster.run(stubborn))
    observer.exported.wait_for_pod(uid)
    cluster.delete("stubborn", grace_seconds=0)
    number = observer.exported.count
    eventually(lambda: uid not in observer.kernel.running)
    pause(2 * POLL_SECONDS)
    ran_on = observer.kernel.lives[uid].samples[-1].after_ns
    last = observer.exported.pods(number)[uid].of("cpu_time_delta", "total")[-1].time_ns
    assert (ran_on - last) / 1e9 < 3 * POLL_SECONDS


def test_a_static_pod_that_was_born_in_an_outage(cluster: Cluster, observer: Observer) -> None:
    """The kubelet makes its mirror up to 90 s later: its first point has the CPU time since its birth."""
    if not (STATIC_PODS / f"{BORN_IN_OUTAGE}.json").exists():
        pytest.skip("test_the_api_server_is_killed makes it, and was not chosen")
    mirror = cluster.wait_for_phase(f"{BORN_IN_OUTAGE}-{NODE}", "Running", namespace="kube-system", seconds=120)
    sent = observer.exported.wait_for_pod(cgroup_uid(mirror))
    assert sent.of("cpu_time_delta", "total")[0].value > 100 * 10**6
