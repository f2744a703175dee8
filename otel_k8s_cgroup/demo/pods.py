"""The demo's pods: a table, and what Kubernetes makes of a row (uid, cgroup path, API object)."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from otel_k8s_cgroup.demo.worker import Workload

NODE = "demo-node"

Qos = Literal["Guaranteed", "Burstable", "BestEffort"]
PodObject = dict[str, Any]
"""A ``v1.Pod`` as JSON."""

_RESOURCES: dict[Qos, dict[str, dict[str, str]]] = {
    "Guaranteed": {"requests": {"cpu": "500m", "memory": "128Mi"}, "limits": {"cpu": "500m", "memory": "128Mi"}},
    "Burstable": {"requests": {"cpu": "100m", "memory": "32Mi"}, "limits": {"memory": "256Mi"}},
    "BestEffort": {},
}


@dataclass(frozen=True, slots=True)
class DemoPod:
    """One pod with one container.

    ``born_at`` and ``ended_at`` are fractions of the duration; None: it is there before, or still there after it.
    """

    namespace: str
    name: str
    container: str
    qos: Qos
    workload: Workload
    static: bool = False
    born_at: float | None = None
    ended_at: float | None = None

    @property
    def label(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def uid(self) -> str:
        return str(uuid.uuid5(uuid.NAMESPACE_DNS, self.label))

    @property
    def cgroup_uid(self) -> str:
        """The uid in the cgroup path: of a static pod the hash of its manifest, not its mirror's uid in the API."""
        return _hash(self.label)[:32] if self.static else self.uid

    @property
    def container_id(self) -> str:
        return _hash(f"{self.label}/{self.container}")

    @property
    def levels(self) -> tuple[str, ...]:
        """The pod's directories, as the kubelet with the systemd driver names them, from the hierarchy's root on."""
        level = {"Guaranteed": "", "Burstable": "-burstable", "BestEffort": "-besteffort"}[self.qos]
        pod = f"kubepods{level}-pod{self.cgroup_uid.replace('-', '_')}.slice"
        return ("kubepods.slice", f"kubepods{level}.slice", pod) if level else ("kubepods.slice", pod)

    @property
    def container_level(self) -> str:
        """The container's directory in the pod's."""
        return f"cri-containerd-{self.container_id}.scope"

    def as_object(self, *, now: str, running: bool, ending: bool = False) -> PodObject:
        """The pod as the API tells it; ``now`` (RFC 3339) stamps what has just happened to it."""
        metadata: dict[str, Any] = {
            "name": self.name,
            "namespace": self.namespace,
            "uid": self.uid,
            "creationTimestamp": now,
            "labels": {"app.kubernetes.io/name": self.container},
        }
        if self.static:
            metadata["annotations"] = {
                "kubernetes.io/config.hash": self.cgroup_uid,
                "kubernetes.io/config.mirror": self.cgroup_uid,
                "kubernetes.io/config.seen": now,
                "kubernetes.io/config.source": "file",
            }
            metadata["ownerReferences"] = [
                {"apiVersion": "v1", "kind": "Node", "name": NODE, "uid": _hash(NODE)[:32], "controller": True}
            ]
        if ending:
            metadata |= {"deletionTimestamp": now, "deletionGracePeriodSeconds": 0}
        status: dict[str, Any] = {"phase": "Running" if running else "Pending", "qosClass": self.qos}
        if running:
            status |= {
                "startTime": now,
                "containerStatuses": [
                    {
                        "name": self.container,
                        "containerID": f"containerd://{self.container_id}",
                        "image": f"{self.container}:1.0",
                        "imageID": f"sha256:{_hash(self.container)}",
                        "ready": True,
                        "restartCount": 0,
                        "state": {"running": {"startedAt": now}},
                    }
                ],
            }
        container = {
            "name": self.container,
            "image": f"{self.container}:1.0",
            "resources": _RESOURCES[self.qos],
        }
        return {"metadata": metadata, "spec": {"nodeName": NODE, "containers": [container]}, "status": status}


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


# Together they use about one core, so that a small machine shows what the plan says.
PODS: tuple[DemoPod, ...] = (
    DemoPod("shop", "checkout-7d4b9c6f5d-x2x8k", "checkout", "Guaranteed", Workload(((1, 0.25),), 48, 48)),
    DemoPod("shop", "cart-5c8f7b9d6c-q9w2z", "cart", "Burstable", Workload(((3, 0.45), (4, 0.03)), 24, 24)),
    DemoPod(
        "ml",
        "trainer-0",
        "trainer",
        "Burstable",
        Workload(((3, 0.08), (3, 0.16), (3, 0.24), (3, 0.16)), 16, 64, growth_mib_per_second=2, system_fraction=0.3),
    ),
    DemoPod(
        "kube-system",
        f"etcd-{NODE}",
        "etcd",
        "Burstable",
        Workload(((1, 0.05),), 12, 12, system_fraction=0.7, file_mib=16),
        static=True,
    ),
    DemoPod("web", "preview-6b6f9d7c8-m4t7p", "preview", "BestEffort", Workload(((1, 0.01),), 10, 10), ended_at=2 / 3),
    DemoPod("batch", "report-29184015-k7j4m", "report", "BestEffort", Workload(((1, 0.2),), 20, 20), born_at=1 / 3),
)
