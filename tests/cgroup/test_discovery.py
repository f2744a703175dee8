"""What a look at the cgroups was of, and what it could not see."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles, directories
from otel_k8s_cgroup.cgroup.locate import subdirectories
from otel_k8s_cgroup.model import CgroupRoot, Discovery

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError

POD = "podd75d892c-9bb2-4b9c-8ce2-7868eb91e665"


def ignore(_error: CgroupError) -> None:
    """What cannot be listed is told by the look."""


def test_it_tells_the_root_by_device_inode_and_version(tmp_path: Path) -> None:
    """Another directory in its place is another root."""
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "kubepods").mkdir()
    cgroups = NodeCgroups(str(tmp_path), open_files=OpenFiles(10), clock=lambda: 1)
    cgroups.read((), ignore)
    status = tmp_path.stat()
    assert cgroups.discovery == Discovery(CgroupRoot(status.st_dev, status.st_ino, 2))
    cgroups.close()


@pytest.mark.parametrize("level", ["/kubepods/burstable", "/kubepods", "/system.slice"])
def test_it_names_what_could_not_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str) -> None:
    """For as long as that is so. (Root may list everything, so the refusal is the test's.)"""
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    (tmp_path / "kubepods" / "burstable" / POD).mkdir(parents=True)
    (tmp_path / "system.slice").mkdir()
    refuses = True
    real_listdir: Callable[[str], list[str]] = os.listdir

    def refusing(list_names: Callable[[str], list[str]]) -> Callable[[str], list[str]]:
        def names(directory: str) -> list[str]:
            if refuses and directory == f"{tmp_path}{level}":
                raise PermissionError(13, "Permission denied")
            return list_names(directory)

        return names

    monkeypatch.setattr(os, "listdir", refusing(real_listdir))
    monkeypatch.setattr(directories, "subdirectories", refusing(subdirectories))
    now_ns = 10**9
    cgroups = NodeCgroups(str(tmp_path), open_files=OpenFiles(10), clock=lambda: now_ns)
    cgroups.read((), ignore)
    assert list(cgroups.discovery.unlisted) == [f"{level}/"]
    refuses = False
    now_ns += 60 * 10**9
    cgroups.read((), ignore)
    assert not cgroups.discovery.unlisted
    cgroups.close()
