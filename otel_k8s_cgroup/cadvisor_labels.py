"""Who a cgroup is of, as cAdvisor's labels say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_k8s_cgroup.model import Attributes, Container, Pod

LABELS = ("container", "id", "image", "name", "namespace", "pod")
"""What the kubelet has on each of its series, empty where there is nothing to say."""


def cadvisor_points(node: str, path: str, pod: Pod | None = None, container: Container | None = None) -> Attributes:
    """The labels by which cAdvisor, in a kubelet, tells cgroups apart: they are on each point of its schema.

    What it writes as an empty label is not there: for Prometheus the two are the same.

    Args:
        node: that it runs on. The kubelet does not say it; a scrape's configuration usually adds it.
        path: of the cgroup.
        pod: whose it is; None for a level of the node.
        container: whose it is, if it is not the pod's own.

    Source: https://github.com/kubernetes/kubernetes/blob/v1.35.4/pkg/kubelet/server/server.go
    (``containerPrometheusLabelsFunc``)
    """
    labels: list[tuple[str, str | None]] = [("id", path), ("node", (pod and pod.node) or node)]
    if pod is not None:
        labels += [("namespace", pod.namespace), ("pod", pod.name)]
    if pod is not None and container is not None:
        labels += [
            ("container", container.name),
            ("image", _cadvisor_image(container)),
            ("name", _cadvisor_name(pod, container)),
        ]
    return tuple((label, value) for label, value in labels if value)


def _cadvisor_name(pod: Pod, container: Container) -> str | None:
    """The runtime's name of it. containerd has none beside the id.

    Source: https://github.com/cri-o/cri-o/blob/main/internal/factory/container/container.go (``SetNameAndID``)
    """
    if container.runtime not in ("cri-o", "docker"):
        return container.id
    parts = ("k8s", container.name, pod.name, pod.namespace, pod.config_hash or pod.uid, container.restart_count)
    return "_".join(map(str, parts))


def _cadvisor_image(container: Container) -> str | None:
    """Its image with its tag, or else its digest, and with the registry that a short name leaves out."""
    name = container.image_name
    if not name:
        return next(iter(container.image_repo_digests), None)
    registry, slash, _ = name.partition("/")
    if not slash:
        name = f"docker.io/library/{name}"
    elif registry != "localhost" and not {".", ":"} & set(registry):
        name = f"docker.io/{name}"
    tag = next(iter(container.image_tags), None)
    digest = next((each.rpartition("@")[2] for each in container.image_repo_digests), None)
    return f"{name}:{tag}" if tag else f"{name}@{digest}" if digest else name
