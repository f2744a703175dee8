"""Which Kubernetes the tier runs: the one place that names it."""

from __future__ import annotations

KUBERNETES = "1.34.4"
"""kube-apiserver, kubelet and kubectl. The newest line whose kubelet takes cgroup v1 as it comes: from 1.35 on it
refuses v1 unless told otherwise (https://kubernetes.io/docs/concepts/architecture/cgroups/)."""
