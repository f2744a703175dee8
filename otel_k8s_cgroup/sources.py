"""Where pods and their figures are from, as the settings name it."""

from __future__ import annotations

import logging
import resource
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.kube import API_SERVER, KUBELET, ApiClient, Credentials, PodWatcher, open_pods

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.model import RunSettings

_log = logging.getLogger(__name__)

LISTED_BY = {"api": "the API", "kubelet": "the kubelet", "file": "the file of pods"}
"""Who lists the pods, for messages."""

# For sockets, the interpreter's own files, kubectl's pipes.
_DESCRIPTORS_FOR_OTHERS = 64


def watch_pods(settings: RunSettings, hide_token: Callable[[str], None]) -> PodWatcher:
    """The watcher that the settings ask for, not yet started. ``hide_token`` gets each token that it has.

    Raises:
        KubeError: the settings cannot be used so.
    """
    source = settings.pod_source
    client = None
    if source.method == "api":
        url = settings.k8s_api_url
        client = ApiClient(
            url,
            credentials=Credentials(settings.token_retrieval, url, on_token=hide_token),
            ca_file=settings.k8s_ca_file,
            server=API_SERVER,
        )
    elif source.method == "kubelet":
        url = settings.kubelet_url
        if settings.kubelet_insecure:
            _log.warning(
                "kubelet_insecure: the certificate of %s is not verified; whoever answers there gets the token", url
            )
        client = ApiClient(
            url,
            credentials=Credentials(settings.token_retrieval, url, on_token=hide_token),
            ca_file=settings.kubelet_ca_file or settings.k8s_ca_file,
            tls_server_name=settings.kubelet_tls_server_name,
            verify=not settings.kubelet_insecure,
            server=KUBELET if settings.kubelet_ca_file else KUBELET._replace(ca_setting="k8s_ca_file"),
        )
    return open_pods(source, node=settings.k8s_node, client=client, wanted=settings.wanted, choice=settings.choice)


def open_cgroups(settings: RunSettings) -> NodeCgroups:
    """The node's cgroups, with as many open files as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):  # macOS refuses some values; then it stays at the soft limit
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    limit = (1 << 20 if soft == resource.RLIM_INFINITY else soft) - _DESCRIPTORS_FOR_OTHERS
    return NodeCgroups(settings.cgroup_root, open_files=OpenFiles(max(0, limit)), clock=time.monotonic_ns)
