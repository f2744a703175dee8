"""Where pods and their figures are from, as the settings name it."""

from __future__ import annotations

import logging
import os
import resource
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.figures import figures_named
from otel_k8s_cgroup.kube import API_SERVER, KUBELET, ApiClient, Credentials, PodWatcher, open_pods
from otel_k8s_cgroup.model import ApiAccess, Pem, TokenRetrieval, ticks_of
from otel_k8s_cgroup.schemas import select

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import timedelta

    from otel_k8s_cgroup.figures import Figure
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import RunSettings

    Part = tuple[Sequence[Figure], int]

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
    client = open_client(settings, hide_token)
    return open_pods(
        settings.pod_source,
        node=settings.k8s_node,
        client=client,
        wanted=settings.wanted,
        choice=settings.choice,
    )


def open_client(
    settings: RunSettings, hide_token: Callable[[str], None], *, idle_seconds: float = 30.0
) -> ApiClient | None:
    """The client of the API server, or of the kubelet, as ``pod_source`` asks; None: a file needs none.

    Raises:
        KubeError: the settings cannot be used so.
    """
    match settings.pod_source.method:
        case "api":
            url, server, ca_file = settings.k8s_api_url, API_SERVER, settings.k8s_ca_file
            server_name, insecure = settings.k8s_access.tls_server_name, settings.k8s_access.insecure
            why = f"insecure-skip-tls-verify of k8s_kubeconfig {settings.k8s_kubeconfig}"
        case "kubelet":
            url, server, ca_file = settings.kubelet_url, KUBELET, settings.kubelet_ca_file or settings.k8s_ca_file
            server_name, insecure, why = settings.kubelet_tls_server_name, settings.kubelet_insecure, "kubelet_insecure"
            server = server if settings.kubelet_ca_file else server._replace(ca_setting="k8s_ca_file")
        case _:
            return None
    ca = Pem(ca_file) if ca_file else settings.k8s_access.ca
    if ca is not None and not ca_file:
        server = server._replace(ca_setting="k8s_kubeconfig")
    if insecure and url.startswith("https:"):
        _log.warning("%s: the certificate of %s is not verified; whoever answers there gets the token", why, url)
    return ApiClient(
        url,
        credentials=open_credentials(settings, url, hide_token),
        ca=ca,
        client_certificate=_kubeconfig_user(settings).client_certificate,
        tls_server_name=server_name,
        verify=not insecure,
        server=server,
        idle_seconds=idle_seconds,
    )


def _kubeconfig_user(settings: RunSettings) -> ApiAccess:
    """Nobody where the token is from somewhere else: a client certificate beside it would be another user's."""
    return settings.k8s_access if settings.token_retrieval.method == "kubeconfig" else ApiAccess()


def open_credentials(settings: RunSettings, url: str, hide_token: Callable[[str], None]) -> Credentials:
    """Who has the token for ``url``. ``hide_token`` gets each that it has."""
    user = _kubeconfig_user(settings)
    retrieval = settings.token_retrieval
    if user.token_file is not None:
        retrieval = TokenRetrieval("file", file=user.token_file)
    flags: list[str] = []
    if settings.k8s_kubeconfig is not None:
        flags = [f"--kubeconfig={settings.k8s_kubeconfig}", f"--context={settings.k8s_access.context}"]
    return Credentials(retrieval, url, on_token=hide_token, kubeconfig_token=user.token, kubectl_flags=flags)


def parts_of(metrics: Iterable[Metric], intervals: Mapping[str, timedelta], poll: timedelta) -> list[Part]:
    """What is read, and at which of the readings: groups of one interval are a part (``NodeCgroups``), and what is read
    of no cgroup is one of its own.
    """
    by_every: dict[tuple[int, bool], list[str]] = {}
    for metric in metrics:
        every = ticks_of(intervals.get(metric.group, poll), poll)
        is_network = metric.group == "network"
        by_every.setdefault((every, is_network), []).extend(point.figure for point in metric.points)
    parts: list[Part] = []
    there: set[Figure] = set()
    for every, is_network in sorted(by_every):
        figures = [figure for figure in figures_named(by_every[every, is_network]) if figure not in there]
        there.update(figures)
        if figures:
            parts.append((figures, every))
    # Rates are of the readings of the first part.
    return sorted(parts, key=lambda part: not any(figure.name.startswith("cpu_usage") for figure in part[0]))


def parts_as_set(settings: RunSettings, metrics: Iterable[Metric]) -> list[Part]:
    """As ``parts_of``, at the intervals of ``settings``."""
    return parts_of(metrics, dict(settings.intervals), settings.poll_interval)


def seldom_of(metrics: Iterable[Metric], parts: Iterable[Part]) -> frozenset[str]:
    """The figures, of which metrics are made, that are not read at each reading."""
    seldom = {figure.name for figures, every in parts if every > 1 for figure in figures}
    named = {point.figure for metric in metrics for point in metric.points}
    return frozenset(name for name in named if not seldom.isdisjoint(each.name for each in figures_named([name])))


def metrics_of(settings: RunSettings) -> tuple[Metric, ...]:
    """What is sent."""
    return select(
        settings.schemas,
        settings.metrics,
        are_deltas=settings.are_deltas,
        cpu_percent_of=settings.cpu_percent_of,
        cpus=os.cpu_count() or 1,
    )


def boot_unix_ns(stat_file: str = "/proc/stat") -> int:
    """When the kernel booted, to the second; 0 where it does not say.

    Source: https://docs.kernel.org/filesystems/proc.html (1.7 Miscellaneous kernel statistics in /proc/stat)
    """
    with suppress(OSError, ValueError), Path(stat_file).open() as file:
        for line in file:
            key, _, value = line.partition(" ")
            if key == "btime":
                return int(value) * 10**9
    return 0


def device_name(device: str, directory: str = "/sys/dev/block") -> str | None:
    """The name of the block device ``major:minor``, such as ``sda``; None where there is none."""
    try:
        return Path(directory, device).readlink().name
    except (OSError, ValueError):
        return None


def open_cgroups(
    settings: RunSettings, metrics: Iterable[Metric] | None = None, *, is_guest: bool = False
) -> NodeCgroups:
    """The node's cgroups, read for ``metrics`` or else what is sent, with as many open files as the system allows.

    ``is_guest``: the process is another program's: its limit stays as it is, and half of it is left to that program.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if not is_guest:
        with suppress(ValueError, OSError):  # macOS refuses some values; then it stays at the soft limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
    limit = 1 << 20 if soft == resource.RLIM_INFINITY else soft
    limit = limit // 2 if is_guest else limit - _DESCRIPTORS_FOR_OTHERS
    return NodeCgroups(
        settings.cgroup_root,
        open_files=OpenFiles(max(0, limit)),
        clock=time.monotonic_ns,
        parts=parts_as_set(settings, metrics_of(settings) if metrics is None else metrics),
        containers=settings.containers,
        node_totals=settings.node_totals,
    )
