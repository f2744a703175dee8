"""Per-pod CPU and memory from the kernel's cgroups to any OpenTelemetry backend.

What ``__all__`` names is public; every other name and module of the package may change in any version.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from otel_k8s_cgroup.errors import CgroupRootError, ExporterError, KubeError, SettingsError
    from otel_k8s_cgroup.library import PodReader, PodReading, read_pods
    from otel_k8s_cgroup.observe import ObservedPods, observe_pods, pod_view

__version__ = "0.1.0"

__all__ = [
    "CgroupRootError",
    "ExporterError",
    "KubeError",
    "ObservedPods",
    "PodReader",
    "PodReading",
    "SettingsError",
    "__version__",
    "observe_pods",
    "pod_view",
    "read_pods",
]

_HOMES = {
    "errors": ("CgroupRootError", "ExporterError", "KubeError", "SettingsError"),
    "library": ("PodReader", "PodReading", "read_pods"),
    "observe": ("ObservedPods", "observe_pods", "pod_view"),
}


def __getattr__(name: str) -> object:
    # Imported once they are used: `run` has no use for them, and they would be memory for good.
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
