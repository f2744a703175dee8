"""Cgroups of this machine's kernel, without processes, below directories of the test's own."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

MOUNT = Path("/sys/fs/cgroup")


class KernelTree:
    """``root`` is a cgroup root that holds nothing but what the test makes.

    Args:
        home: an existing directory of the test's own.

    Raises:
        OSError: cgroups cannot be made here.
    """

    def __init__(self, home: Path) -> None:
        name = f"otel-k8s-cgroup-test-{os.getpid()}"
        self._made: list[Path] = []
        self.version = 2 if (MOUNT / "cgroup.controllers").exists() else 1
        if self.version == 2:
            self.hierarchies = [MOUNT / name]
            self.root = MOUNT / name
        else:
            self.hierarchies = [MOUNT / "cpuacct" / name, MOUNT / "memory" / name]
            self.root = home / "cgroup"
            self.root.mkdir()
        for hierarchy in self.hierarchies:
            hierarchy.mkdir()
            self._made.append(hierarchy)
            if self.version == 1:
                (self.root / hierarchy.parent.name).symlink_to(hierarchy)

    def make(self, path: str) -> None:
        """A cgroup in each hierarchy, with those above it."""
        for hierarchy in self.hierarchies:
            directory = hierarchy
            for name in path.strip("/").split("/"):
                if self.version == 2:
                    (directory / "cgroup.subtree_control").write_text("+cpu +memory")
                directory /= name
                with suppress(FileExistsError):
                    directory.mkdir()
                    self._made.append(directory)

    def remove(self, path: str) -> None:
        """The cgroup in each hierarchy; it must have none below it."""
        for hierarchy in self.hierarchies:
            (hierarchy / path.lstrip("/")).rmdir()

    def close(self) -> None:
        """Removes what is still there."""
        for directory in reversed(self._made):
            with suppress(FileNotFoundError):
                directory.rmdir()
