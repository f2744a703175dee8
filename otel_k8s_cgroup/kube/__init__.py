"""The Kubernetes side: tokens, the API's HTTP, and which pods the node has."""

from __future__ import annotations

from .client import ApiClient
from .complaints import API_SERVER, KUBELET, Permission, Server
from .credentials import Credentials
from .pods import KUBELET_PODS, PodStats, PodWatcher, kubelet_url, open_pods
from .store import claim_refused
from .watch import LIST, PODS, WATCH, WatchTimes

__all__ = [
    "API_SERVER",
    "KUBELET",
    "KUBELET_PODS",
    "LIST",
    "PODS",
    "WATCH",
    "ApiClient",
    "Credentials",
    "Permission",
    "PodStats",
    "PodWatcher",
    "Server",
    "WatchTimes",
    "claim_refused",
    "kubelet_url",
    "open_pods",
]
