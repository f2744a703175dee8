"""Which Kubernetes the tier runs (API server, kubelet and kubectl), by cgroup version: the one place that names it."""

from __future__ import annotations

KUBERNETES = {
    # The newest line whose kubelet takes v1 as it comes: from 1.35 on it refuses it unless told otherwise.
    # https://kubernetes.io/docs/concepts/architecture/cgroups/
    1: "1.34.4",
    # The newest line that takes Debian 12's containerd, 1.6: from 1.36 on a kubelet asks for 2.0.
    # https://kubernetes.io/blog/2025/09/12/kubernetes-v1-34-cri-cgroup-driver-lookup-now-ga/
    2: "1.35.4",
}
