"""Trees of files in the shape of a cgroup file system, for one node."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

Version = Literal[1, 2]


def v2_files(usage_us: int = 300, memory: int = 4096) -> dict[str, str]:
    """The files that are read, as kernel 6.12 prints them, shortened."""
    return {
        "cpu.stat": f"usage_usec {usage_us}\nuser_usec {usage_us - 100}\nsystem_usec 100\nnice_usec 0\n"
        "core_sched.force_idle_usec 0\nnr_periods 0\nnr_throttled 0\nthrottled_usec 0\n",
        "memory.current": f"{memory}\n",
        "memory.stat": "anon 11\nfile 22\nkernel 99\nkernel_stack 33\npagetables 44\nsec_pagetables 0\npercpu 55\n"
        "sock 66\nanon_thp 77\nfile_thp 88\n",
    }


def v1_files(usage_us: int = 300, memory: int = 4096) -> dict[str, dict[str, str]]:
    """The same figures, by controller."""
    usage_ns = usage_us * 1000
    return {
        "cpuacct": {
            "cpuacct.usage": f"{usage_ns}\n",
            "cpuacct.usage_sys": "100000\n",
            "cpuacct.usage_user": f"{usage_ns - 100_000}\n",
            "cpuacct.stat": "user 7\nsystem 3\n",
        },
        "memory": {
            "memory.usage_in_bytes": f"{memory}\n",
            "memory.use_hierarchy": "1\n",
            "memory.stat": "cache 1\nrss 2\nrss_huge 0\nhierarchical_memory_limit 9223372036854771712\n"
            "total_cache 22\ntotal_rss 11\ntotal_rss_huge 0\n",
        },
    }


class Tree:
    """A node's cgroups below ``root``, with every hierarchy a directory of it."""

    def __init__(self, root: Path, version: Version = 2, *, cpu: str = "cpuacct", memory: str = "memory") -> None:
        self.root = root
        self.version = version
        root.mkdir(exist_ok=True)
        self.hierarchies = {"": root} if version == 2 else {"cpuacct": root / cpu, "memory": root / memory}
        for directory in self.hierarchies.values():
            directory.mkdir(exist_ok=True)
            (directory / "cgroup.procs").write_text("")
        if version == 2:
            (root / "cgroup.controllers").write_text("cpu memory\n")

    def make(self, path: str, usage_us: int = 300, memory: int = 4096) -> None:
        """A cgroup in each hierarchy, or new figures of one that is there. (The same files: they may be open.)"""
        for controller, hierarchy in self.hierarchies.items():
            directory = hierarchy / path.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            files = v2_files(usage_us, memory) if self.version == 2 else v1_files(usage_us, memory)[controller]
            for name, content in files.items():
                (directory / name).write_text(content)

    def make_all(self, paths: Iterable[str]) -> None:
        for path in paths:
            self.make(path)

    def directory(self, path: str, controller: str = "cpuacct") -> Path:
        return self.hierarchies["" if self.version == 2 else controller] / path.lstrip("/")

    def remove(self, path: str) -> None:
        for hierarchy in self.hierarchies.values():
            shutil.rmtree(hierarchy / path.lstrip("/"), ignore_errors=True)
