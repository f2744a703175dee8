"""Manifests of the pods that the tests make."""

from __future__ import annotations

from typing import Any

from tests.cluster.layout import NODE, WORKLOAD_IMAGE

Object = dict[str, Any]

OWNER_UID = "c0ffee00-0000-4000-8000-00000000aaaa"
OWNED: dict[str, tuple[str, str, dict[str, str]]] = {
    "of-deployment": (
        "apps/v1 ReplicaSet",
        "shop-7d4b9c6f5d",
        {
            "k8s.deployment.name": "shop",
            "k8s.replicaset.name": "shop-7d4b9c6f5d",
            "k8s.replicaset.uid": OWNER_UID,
        },
    ),
    "of-stateful-set": (
        "apps/v1 StatefulSet",
        "db",
        {"k8s.statefulset.name": "db", "k8s.statefulset.uid": OWNER_UID},
    ),
    "of-daemon-set": (
        "apps/v1 DaemonSet",
        "agent",
        {"k8s.daemonset.name": "agent", "k8s.daemonset.uid": OWNER_UID},
    ),
    "of-job": ("batch/v1 Job", "load", {"k8s.job.name": "load", "k8s.job.uid": OWNER_UID}),
    "of-cron-job": (
        "batch/v1 Job",
        "nightly-29345760",
        {"k8s.cronjob.name": "nightly", "k8s.job.name": "nightly-29345760", "k8s.job.uid": OWNER_UID},
    ),
    "of-another-kind": (
        "example.com/v1 Train",
        "express",
        {
            "otel_k8s_cgroup.workload.kind": "Train",
            "otel_k8s_cgroup.workload.name": "express",
            "otel_k8s_cgroup.workload.uid": OWNER_UID,
        },
    ),
}
"""Pod → its owner's kind and name, and what its Resource says of that."""


def container(*args: str, name: str = "main", **more: Any) -> Object:
    """One that runs ``workload.c`` with ``args``."""
    return {"name": name, "image": WORKLOAD_IMAGE, "imagePullPolicy": "Never", "args": list(args), **more}


def shell(script: str, name: str = "main", **more: Any) -> Object:
    """One that runs a script in busybox."""
    return {**container(name=name, **more), "command": ["/bin/busybox", "sh", "-c", script]}


def resources(requests: dict[str, str] | None = None, limits: dict[str, str] | None = None) -> Object:
    return {"requests": requests or {}, "limits": limits or {}}


def pod(name: str, *containers: Object, namespace: str = "default", **spec: Any) -> Object:
    """A pod on the node. There is no scheduler, so it says so itself."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "nodeName": NODE,
            "dnsPolicy": "Default",
            "terminationGracePeriodSeconds": 3,
            "containers": list(containers) or [container("pause")],
            # There is no controller that would take it away from a node that is not ready for a moment.
            "tolerations": [{"operator": "Exists"}],
            **spec,
        },
    }
