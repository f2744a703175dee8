"""Pods' cgroups, v1 and v2: found, read, and handed on as plain figures."""

from otel_k8s_cgroup.cgroup.files import OpenFiles
from otel_k8s_cgroup.cgroup.locate import Hierarchy, detect
from otel_k8s_cgroup.cgroup.node import NodeCgroups

__all__ = ["Hierarchy", "NodeCgroups", "OpenFiles", "detect"]
