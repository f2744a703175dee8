"""A node to measure: pods with real cgroups where this machine may have them, else a tree of files."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Kind = Literal["v1", "v2", "tree"]

_MOUNT = Path("/sys/fs/cgroup")

# What a kernel 6.12 prints, shortened to the keys' number and the digits' usual length.
_MEMORY_STAT = "anon 104857600\nfile 52428800\nkernel 4194304\nkernel_stack 147456\npagetables 1048576\n" + "".join(
    f"other_key_{number} {number * 4096}\n" for number in range(45)
)
_FILES = {
    "cpu.stat": "usage_usec 123456789\nuser_usec 100000000\nsystem_usec 23456789\nnr_periods 0\nnr_throttled 0\n",
    "memory.current": "162529280\n",
    "memory.stat": _MEMORY_STAT,
}


@dataclass(frozen=True, slots=True)
class Node:
    """``root`` is the exporter's ``cgroup_root``, ``pods_file`` its PodList, ``uids`` the pods'."""

    kind: Kind
    root: Path
    pods_file: Path
    uids: tuple[str, ...]


DEFAULT_CONTROLLERS = ("cpuacct", "memory")
ALL_CONTROLLERS = ("cpuacct", "memory", "cpu", "cpuset", "blkio", "pids", "hugetlb")
"""Of v1; on v2 all that the kernel has are switched on where more than the default is wanted."""


@contextmanager
def made(pods: int, controllers: Sequence[str] = DEFAULT_CONTROLLERS, *, containers: int = 0) -> Iterator[Node]:
    """A node of so many pods, each of so many containers (and a sandbox, if of any); gone again afterwards."""
    uids = tuple(str(uuid.UUID(int=(number << 96) | 0x1234)) for number in range(1, pods + 1))
    with tempfile.TemporaryDirectory(prefix="otel-k8s-cgroup-bench-", dir=_memory_directory()) as directory:
        home = Path(directory)
        pods_file = home / "pods.json"
        pods_file.write_text(json.dumps(_pod_list(uids, containers)))
        kind, root, real, switched_on = _roots(home, controllers)
        created: list[Path] = []
        try:
            for base in real or [root]:
                for path in _paths(base, uids, containers):
                    path.mkdir()
                    created.append(path)
                    if kind == "v2" and path.suffix == ".slice" and (containers or "-pod" not in path.name):
                        (path / "cgroup.subtree_control").write_text(switched_on)
            if not real:
                (root / "cgroup.controllers").write_text("cpu memory\n")
                for uid_directory in created:
                    if "-pod" in uid_directory.name or uid_directory.suffix == ".scope":
                        for name, content in _FILES.items():
                            (uid_directory / name).write_text(content)
            yield Node(kind, root, pods_file, uids)
        finally:
            if real:
                for path in reversed(created):
                    path.rmdir()
                for base in real:
                    base.rmdir()
            else:
                shutil.rmtree(root, ignore_errors=True)


def _memory_directory() -> str | None:
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _roots(home: Path, controllers: Sequence[str]) -> tuple[Kind, Path, list[Path], str]:
    """What the node is made in: its kind, its root, the directories to make it in, and what v2 has to switch on."""
    name = f"otel-k8s-cgroup-bench-{os.getpid()}"
    root = home / "cgroup"
    root.mkdir()
    real: list[Path] = []
    try:
        if (_MOUNT / "cgroup.controllers").exists():
            base = _MOUNT / name
            base.mkdir()
            available = (_MOUNT / "cgroup.subtree_control").read_text().split()
            wanted = ("cpu", "memory") if controllers is DEFAULT_CONTROLLERS else available
            switched_on = " ".join(f"+{controller}" for controller in wanted)
            (base / "cgroup.subtree_control").write_text(switched_on)
            return "v2", base, [base], switched_on
        for controller in controllers:
            base = _MOUNT / controller / name
            if not base.parent.is_dir() and controller not in DEFAULT_CONTROLLERS:
                continue
            base.mkdir()
            real.append(base)
            (root / controller).symlink_to(base)
    except OSError:
        for base in real:
            base.rmdir()
        return "tree", root, [], ""
    return ("v1", root, real, "") if real else ("tree", root, [], "")


def _paths(base: Path, uids: tuple[str, ...], containers: int) -> Iterator[Path]:
    parent = base / "kubepods.slice"
    yield parent
    for level in ("burstable", "besteffort"):
        yield parent / f"kubepods-{level}.slice"
    for number, uid in enumerate(uids):
        level = ("", "burstable", "besteffort")[number % 3]
        dashed = f"-{level}" if level else ""
        where = parent / f"kubepods{dashed}.slice" if level else parent
        pod = where / f"kubepods{dashed}-pod{uid.replace('-', '_')}.slice"
        yield pod
        for name in [_SANDBOX, *_containers(containers)] if containers else []:
            yield pod / f"cri-containerd-{_container_id(uid, name)}.scope"


_SANDBOX = "sandbox"


def _containers(number: int) -> list[str]:
    return [f"container-{each}" for each in range(number)]


def _container_id(uid: str, name: str) -> str:
    return hashlib.sha256(f"{uid} {name}".encode()).hexdigest()


def _pod_list(uids: tuple[str, ...], containers: int) -> dict[str, object]:
    return {
        "kind": "PodList",
        "apiVersion": "v1",
        "items": [
            {
                "metadata": {"uid": uid, "name": f"checkout-7d9c5b6f4-{number:05d}", "namespace": "shop"},
                "spec": {"nodeName": "bench-node", "containers": [{"name": each} for each in _containers(containers)]},
                "status": {
                    "startTime": "2026-01-01T00:00:00Z",
                    "containerStatuses": [
                        {
                            "name": each,
                            "containerID": f"containerd://{_container_id(uid, each)}",
                            "ready": True,
                            "restartCount": 0,
                            "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                        }
                        for each in _containers(containers)
                    ],
                },
            }
            for number, uid in enumerate(uids)
        ],
    }
