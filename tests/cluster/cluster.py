"""The node as a test uses it: pods, accounts and rights, daemons that fail."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import requests

from tests.cluster import control, kernel
from tests.cluster.api import Api, ApiError, Object, eventually
from tests.cluster.background import Background
from tests.cluster.bootstrap import make_namespace
from tests.cluster.layout import ADMIN_KUBECONFIG, KUBELET_CERTIFICATE, KUBELET_URL, NODE, STATIC_PODS
from tests.cluster.pods import OWNED
from tests.programs import clean_environ

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

PODS = "/api/v1/pods"


class Cluster:
    """Its API, and what is done with it."""

    def __init__(self) -> None:
        self.api = Api()
        self.kubelet = Api(KUBELET_URL, KUBELET_CERTIFICATE)

    def clear(self) -> None:
        """No pod is left of tests that ran before, in a node that was left up."""
        for file in STATIC_PODS.iterdir():
            file.unlink()

        def is_empty() -> bool:
            for each in self.api.get(PODS)["items"]:
                with suppress(ApiError):
                    self.delete(each["metadata"]["name"], each["metadata"]["namespace"], grace_seconds=0)
            return not kernel.pod_directories()

        eventually(is_empty)

    def create(self, pod: Object) -> Object:
        metadata = pod["metadata"]
        return self.api.post(f"/api/v1/namespaces/{metadata['namespace']}/pods", pod)

    def run(self, pod: Object) -> Object:
        """Creates it, and returns it once it runs."""
        self.create(pod)
        return self.wait_for_phase(pod["metadata"]["name"], "Running", namespace=pod["metadata"]["namespace"])

    def pod(self, name: str, namespace: str = "default") -> Object:
        return self.api.get(f"/api/v1/namespaces/{namespace}/pods/{name}")

    def wait_for_phase(self, name: str, *phases: str, namespace: str = "default", seconds: float = 60.0) -> Object:
        def pod() -> Object | None:
            found = self.pod(name, namespace)
            return found if found["status"]["phase"] in phases else None

        return eventually(pod, seconds)

    def delete(self, name: str, namespace: str = "default", grace_seconds: int | None = None) -> None:
        self.api.delete(f"/api/v1/namespaces/{namespace}/pods/{name}", grace_seconds)

    def namespace(self, name: str) -> str:
        make_namespace(self.api, name)
        return name

    def token(self, account: str, namespace: str) -> str:
        """A new one, by TokenRequest."""
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"
        answer = self.api.post(path, {"spec": {"expirationSeconds": 3600}})
        return str(answer["status"]["token"])

    def set_role(self, objects: Sequence[Object]) -> None:
        """The rights of the exporter are those of the manifest's ``objects``."""
        (role,) = (each for each in objects if each["kind"] == "ClusterRole")
        name = role["metadata"]["name"]
        self.api.patch(f"/apis/rbac.authorization.k8s.io/v1/clusterroles/{name}", {"rules": role["rules"]})

    def summary(self) -> Object:
        """https://kubernetes.io/docs/reference/instrumentation/node-metrics/"""
        return self.kubelet.get("/stats/summary")

    def stop(self, daemon: str, signal_number: int = signal.SIGKILL) -> None:
        control.ask("stop", daemon, signal_number)

    def start(self, daemon: str) -> None:
        """Returns once it is ready."""
        control.ask("start", daemon)

    @contextmanager
    def without(self, daemon: str, signal_number: int = signal.SIGKILL) -> Iterator[None]:
        """It does not run meanwhile."""
        self.stop(daemon, signal_number)
        try:
            yield
        finally:
            self.start(daemon)

    @contextmanager
    def slow(self, daemon: str, *, paused_seconds: float, running_seconds: float) -> Iterator[None]:
        """It stands still most of the time, so that each of its answers takes a while."""
        ended = threading.Event()

        def pulse() -> None:
            while not ended.is_set():
                control.ask("stop", daemon, signal.SIGSTOP)
                ended.wait(paused_seconds)
                control.ask("stop", daemon, signal.SIGCONT)
                ended.wait(running_seconds)

        thread = threading.Thread(target=pulse)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()

    def kubectl(self, *arguments: str) -> str:
        """What it prints; with what it complains of, where it fails."""
        environ = clean_environ(KUBECONFIG=str(ADMIN_KUBECONFIG))
        done = subprocess.run(["kubectl", *arguments], env=environ, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise AssertionError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout


class Listed(Background):
    """Each pod that the API has listed since the start, as it was when it was listed last; a context manager.

    The API is asked all the time, also while tests break it.
    """

    def __init__(self) -> None:
        super().__init__("listed")
        self.pods: dict[str, Object] = {}
        """By the uid in the cgroup's name."""
        self.first: dict[str, tuple[str, str]] = {}
        """The API's uid and start time of each, as they were when it had both for the first time."""
        self.first_ns: dict[str, int] = {}
        """When that was, by the wall clock."""
        self.uids: dict[str, set[str]] = {}
        """The uids that the API gave a pod: of a static one, that of each of its mirrors."""
        self._api = Api()

    def resource(self, uid: str, path: str, source: str = "api", *, anew: bool = False) -> Object:
        """What the Resource of the pod with that cgroup must be; KeyError where the API has not listed it.

        A mirror that is made anew, or a kubelet that restarts, gives a static pod another uid or start time: for an
        exporter that was there, those of the first one stay; for one that began ``anew``, those of now hold.
        """
        pod = self.pods[uid]
        metadata = pod["metadata"]
        own_uid, started = (metadata["uid"], pod["status"]["startTime"]) if anew else self.first[uid]
        resource = {
            "k8s.pod.uid": own_uid,
            "k8s.pod.name": metadata["name"],
            "k8s.namespace.name": metadata["namespace"],
            "k8s.node.name": NODE,
            "k8s.pod.start_time": started,
            "cgroup.path": path,
            **(OWNED[metadata["name"]][2] if metadata["name"] in OWNED else {}),
        }
        if own_uid != uid:
            resource["k8s.pod.annotation.kubernetes.io/config.hash"] = uid
            if source == "kubelet":  # it has no mirrors
                resource["k8s.pod.uid"] = uid
        return resource

    def _run(self) -> None:
        while not self._stop.wait(0.4):
            try:
                items = self._api.get(PODS)["items"]
            except (ApiError, requests.RequestException):
                continue
            for pod in items:
                uid = cgroup_uid(pod)
                self.pods[uid] = pod
                self.uids.setdefault(uid, set()).add(pod["metadata"]["uid"])
                if started := pod["status"].get("startTime"):
                    self.first.setdefault(uid, (pod["metadata"]["uid"], started))
                    self.first_ns.setdefault(uid, time.time_ns())


def cgroup_uid(pod: Object) -> str:
    """The uid in the pod's cgroup: of a static pod it is what its manifest was hashed to."""
    annotations: dict[str, Any] = pod["metadata"].get("annotations", {})
    return str(annotations.get("kubernetes.io/config.mirror") or pod["metadata"]["uid"])


def pause(seconds: float) -> None:
    """Lets real programs go on: nothing tells that they have not done something."""
    time.sleep(seconds)
