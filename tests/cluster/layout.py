"""Names, addresses and places inside of the node's namespaces."""

from __future__ import annotations

from pathlib import Path

NODE = "node-1"
NODE_ADDRESS = "10.99.0.1"
SERVICE_ADDRESS = "10.96.0.1"
"""Of the Service ``kubernetes``: an address of the node's own on ``lo``, where the API server listens."""
SERVICE_RANGE = "10.96.0.0/24"
POD_RANGE = "10.88.0.0/16"
API_URL = f"https://{NODE_ADDRESS}"
KUBELET_URL = f"https://{NODE}:10250"
ISSUER = "https://kubernetes.default.svc.cluster.local"

STATE = Path("/run/otel-k8s-cgroup-node")
"""A tmpfs, as all of /run in there: nothing of the node's is on the machine's disk but its logs."""
CONTROL = STATE / "control"
"""The socket of ``control.py``. Where it is there, this process is inside of a node."""
PKI = STATE / "pki"
CA = PKI / "ca.crt"
SIGNING_KEY = PKI / "sa.key"
VERIFYING_KEY = PKI / "sa.pub"
ADMIN_KUBECONFIG = STATE / "admin.kubeconfig"
KUBELET_KUBECONFIG = STATE / "kubelet.kubeconfig"
STATIC_PODS = STATE / "static-pods"
KUBELET_CERTIFICATE = Path("/var/lib/kubelet/pki/kubelet.crt")
"""The kubelet's own, which no CA of the cluster has signed: its default."""
CONTAINERD_SOCKET = STATE / "containerd.sock"

WORKLOAD_IMAGE = "node.test/workload:1"
EXPORTER_IMAGE = "node.test/otel-k8s-cgroup:1"


def is_inside() -> bool:
    """Whether this process runs in a node's namespaces."""
    return CONTROL.exists()
