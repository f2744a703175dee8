"""A cgroup v2 hierarchy of plain files whose figures the test sets: exact, and on any system."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

BURSTABLE = "kubepods.slice/kubepods-burstable.slice"


@dataclass(slots=True)
class Figures:
    """What a pod's files say, in the kernel's units."""

    user_usec: int = 0
    system_usec: int = 0
    anon: int = 0
    file: int = 0
    kernel_stack: int = 0
    pagetables: int = 0

    @property
    def cpu_time_ns(self) -> dict[str, int]:
        """kind → the counter."""
        user, system = self.user_usec * 1000, self.system_usec * 1000
        return {"total": user + system, "user": user, "system": system}

    @property
    def memory_current(self) -> int:
        return self.anon + self.file + self.kernel_stack + self.pagetables


class CgroupTree:
    """``root`` is made to look like a mounted hierarchy, with the parents that the kubelet makes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._held: list[int] = []
        (root / BURSTABLE).mkdir(parents=True)
        (root / "cgroup.controllers").write_text("cpu memory\n")

    def path(self, uid: str) -> str:
        """Below the root, with its leading ``/``."""
        return f"/{BURSTABLE}/kubepods-burstable-pod{uid.replace('-', '_')}.slice"

    def write(self, uid: str, figures: Figures) -> None:
        """Makes the pod's cgroup where it is not there yet; a file that a reader has open stays the same file."""
        directory = self.root / self.path(uid)[1:]
        # Made in full, then put in its place: no reader sees half of it.
        target = directory if directory.exists() else self.root / f"new-{uid}"
        target.mkdir(exist_ok=True)
        usage_usec = figures.user_usec + figures.system_usec
        files = {
            "cpu.stat": {
                "usage_usec": usage_usec,
                "user_usec": figures.user_usec,
                "system_usec": figures.system_usec,
            },
            "memory.stat": {
                "anon": figures.anon,
                "file": figures.file,
                "kernel": figures.kernel_stack + figures.pagetables,
                "kernel_stack": figures.kernel_stack,
                "pagetables": figures.pagetables,
            },
        }
        for name, lines in files.items():
            _overwrite(target / name, "".join(f"{key} {value}\n" for key, value in lines.items()))
        _overwrite(target / "memory.current", f"{figures.memory_current}\n")
        if target != directory:
            target.rename(directory)

    def remove(self, uid: str) -> None:
        directory = self.root / self.path(uid)[1:]
        # While it is open, its inode is nobody else's (the kernel's cgroups never use one again).
        self._held.append(os.open(directory, os.O_RDONLY))
        if len(self._held) > 100:
            os.close(self._held.pop(0))
        shutil.rmtree(directory)


def _overwrite(path: Path, text: str) -> None:
    # In one write and without a moment in which it is empty, as the kernel's files never are.
    with path.open("r+b" if path.exists() else "wb", buffering=0) as file:
        file.write(text.encode())
        file.truncate()
