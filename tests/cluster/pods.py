"""Manifests of the pods that the tests make."""

from __future__ import annotations

from typing import Any

from tests.cluster.layout import NODE, WORKLOAD_IMAGE

Object = dict[str, Any]


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
