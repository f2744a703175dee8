"""Where the cgroups are: version, controllers, and what a directory's name means.

Layouts: the kubelet names a pod's cgroup after its QoS class and uid, in the style of the cgroup driver
(https://pkg.go.dev/k8s.io/kubernetes/pkg/kubelet/cm#CgroupName.ToSystemd). What is around that differs by where one
looks from (a node, a kind node seen from its host, …); ``PARENTS`` is the table of it.
"""

from __future__ import annotations

import errno
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.figures import DEFAULT_FIGURES, v1_controllers

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

# What systemd allows in a unit's name (systemd.unit(5)), so that a path never has anything else.
_UNIT = r"[A-Za-z0-9:_.\\@-]+"

# A directory that holds pods: below the hierarchy's root or below a nest (see NESTS).
PARENTS = re.compile(
    rf"""
      kubepods                                            # cgroupfs driver
    | (?:{_UNIT}-)?kubepods\.slice                        # systemd driver; `kubelet-kubepods.slice` on a kind node
    """,
    re.VERBOSE,
)

# A directory that may have pods' parents somewhere below it. Nothing else is walked: not the other services' slices,
# and not the pods themselves (a container may run a systemd, or a whole cluster, of its own).
NESTS = re.compile(
    r"""
      kubelet                                             # kind, cgroupfs driver
    | kubelet\.slice                                      # kind, systemd driver
    | docker                                              # kind or minikube in Docker with the cgroupfs driver …
    | system\.slice | machine\.slice                      # … with the systemd driver, or in podman
    | user\.slice | user-[0-9]+\.slice | user@[0-9]+\.service   # rootless kind
    | app\.slice
    | docker-[0-9a-f]{64}\.scope | libpod-[0-9a-f]{64}\.scope | [0-9a-f]{64}
    | container                                           # podman's inner level
    | k3s\.service | containerd\.service                  # k3s and nested containerd
    """,
    re.VERBOSE,
)

# The deepest known: /user.slice/user-1000.slice/user@1000.service/user.slice/libpod-….scope/container/kubelet.slice/…
_MAX_NEST_DEPTH = 7

QOS = re.compile(rf"(?:(?:{_UNIT}-)?kubepods-)?(?:burstable|besteffort)(?:\.slice)?")

_HEX = "[0-9a-f]"
POD = re.compile(
    rf"""
    (?:{_UNIT}-)?pod                                      # systemd: the slice's own name repeats its parents'
    (?P<uid>
        {_HEX}{{8}}(?P<dash>[-_])(?:{_HEX}{{4}}(?P=dash)){{3}}{_HEX}{{12}}   # `_` for `-` in a slice's name
      | {_HEX}{{32}}                                      # a static pod: the hash of its manifest
    )
    (?:\.slice)?
    """,
    re.VERBOSE,
)


# A container is a direct child of its pod's directory: its id, and with the systemd driver the runtime before it. Which
# runtime that is does not matter: what the API does not list, as a sandbox, is no container. A monitor of CRI-O's or
# podman's has the id of what it monitors.
CONTAINER = re.compile(
    rf"""
    (?: (?!libpod-|(?:{_UNIT}-)?conmon-) {_UNIT}- )?           # cri-containerd-, crio-, docker-
    (?P<id>{_HEX}{{64}})
    (?:\.scope)?
    """,
    re.VERBOSE,
)


def container_id(name: str) -> str | None:
    """The container's id that the name of a directory in a pod's has; None where it is no container's."""
    match = CONTAINER.fullmatch(name)
    return match["id"] if match else None


def pod_uid(name: str) -> str | None:
    """The uid that a pod directory's name has, with dashes; None where it is no pod's."""
    match = POD.fullmatch(name)
    return match["uid"].replace("_", "-") if match else None


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """The mounted hierarchy. ``directories`` has one for each controller, None where that is not mounted.

    On v2 the one hierarchy is that of the controller ``""``.
    """

    version: Literal[1, 2]
    directories: Mapping[str, str | None]

    @property
    def listed(self) -> str:
        """The hierarchy in which pods are looked for: the first that is mounted."""
        return next(directory for directory in self.directories.values() if directory is not None)


def detect(root: str, controllers: Sequence[str] = v1_controllers(DEFAULT_FIGURES)) -> Hierarchy:
    """What ``root`` is. The hybrid layout (v1 controllers, and a ``unified`` mount that holds none) is v1.

    Args:
        root: the mount of the hierarchy (v2), or the directory of the controllers' mounts (v1).
        controllers: those that are wanted of v1, the one to look for pods in first.

    Raises:
        CgroupRootError: it is no cgroup root.
    """
    try:
        names = sorted(os.listdir(root))
    except OSError as error:
        raise CgroupRootError(
            root,
            f"cannot be read ({error.strerror}); cgroup_root must be the node's /sys/fs/cgroup, as mounted",
        ) from None
    if "cgroup.controllers" in names:
        return Hierarchy(2, {"": root})

    def mount(controller: str) -> str | None:
        # Mounted together they are one directory (`cpu,cpuacct`), often with a link for each.
        for name in sorted(names, key=len, reverse=True):
            if controller in name.split(",") and _is_mounted(f"{root}/{name}"):
                return f"{root}/{name}"
        return None

    directories = {controller: mount(controller) for controller in controllers}
    if not any(directories.values()):
        found = ", ".join(map(repr, names[:8])) or "nothing"
        raise CgroupRootError(
            root,
            f"is no cgroup root: neither cgroup.controllers (v2) nor a mounted {' or '.join(controllers)} (v1) is "
            f"there, but {found}; cgroup_root must be the node's /sys/fs/cgroup, as mounted",
        )
    return Hierarchy(1, directories)


def _is_mounted(directory: str) -> bool:
    """Whether a controller's hierarchy is there: no cgroup is an empty directory, and a bare mount point is."""
    try:
        with os.scandir(directory) as entries:
            return next(entries, None) is not None
    except OSError:
        return False


def find_parents(list_below: Callable[[str], Sequence[str]], failed: Callable[[str, OSError], None]) -> list[str]:
    """The directories that hold pods, as paths below the root with their leading ``/``; the shallowest first.

    Args:
        list_below: the names of the cgroups below such a path (``""`` is the root), as ``subdirectories`` gives them.
        failed: is given each directory that could not be looked into, and why; not those that are gone.

    Raises:
        OSError: the root itself cannot be listed.
    """
    parents: list[str] = []
    level = [""]
    for _ in range(_MAX_NEST_DEPTH + 1):
        below: list[str] = []
        for directory in level:
            try:
                names = list_below(directory)
            except OSError as error:
                if not directory:
                    raise
                if error.errno != errno.ENOENT:
                    failed(directory, error)
                continue
            for name in sorted(names):
                if PARENTS.fullmatch(name):
                    parents.append(f"{directory}/{name}")
                elif NESTS.fullmatch(name):
                    below.append(f"{directory}/{name}")
        level = below
    return parents


def subdirectories(directory: str) -> list[str]:
    """The names of the cgroups below a cgroup."""
    with os.scandir(directory) as entries:
        # A link could lead round in a circle; no cgroup file system has one below its mount.
        return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
