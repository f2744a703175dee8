"""cgroup v1: the files of a pod's directories, one a controller → Stats.

Source: https://docs.kernel.org/admin-guide/cgroup-v1/cpuacct.html and
https://docs.kernel.org/admin-guide/cgroup-v1/memory.html (5.2 stat file).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.files import CHUNK_BYTES, COUNT_BYTES, INT64_MAX, StatFile, parse_flat_keyed
from otel_k8s_cgroup.errors import CgroupError, CgroupGone, MalformedFile
from otel_k8s_cgroup.model import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.cgroup.files import OpenFiles

# ``cpuacct.stat`` counts in USER_HZ; the C library knows it (100 on every platform that Linux runs on today).
_NS_PER_TICK = 10**9 // os.sysconf("SC_CLK_TCK")
_CPU_KEYS = (b"system", b"user")

# As in v2: the kernel's order, in one search; the general parser decides where it does not match. What is found is the
# first line that begins with `total_`, so that no such key can stand before these two.
_MEMORY_STAT = re.compile(rb"\ntotal_(?:cache (\d{1,18})\ntotal_rss (\d{1,18})\n)?")
_COUNTS = re.compile(rb"/".join([rb"(\d{1,18})\n"] * 4))
_HIERARCHICAL_KEYS = (b"total_rss", b"total_cache")
_PLAIN_KEYS = (b"rss", b"cache")


class V1Cgroup:
    """The files of one pod's cgroups; a directory is None where its controller is not mounted (not both)."""

    __slots__ = (
        "_cpu_usage",
        "_memory_stat",
        "_memory_usage",
        "_ticks",
        "_total_keys",
        "_usage_system",
        "_usage_user",
        "_use_hierarchy",
        "_usual_fds",
    )

    def __init__(self, cpu_directory: str | None, memory_directory: str | None, open_files: OpenFiles) -> None:
        def file(directory: str | None, name: str) -> StatFile | None:
            return None if directory is None else StatFile(f"{directory}/{name}", open_files)

        self._cpu_usage = file(cpu_directory, "cpuacct.usage")
        self._usage_system = file(cpu_directory, "cpuacct.usage_sys")
        self._usage_user = file(cpu_directory, "cpuacct.usage_user")
        self._ticks = file(cpu_directory, "cpuacct.stat")
        self._memory_usage = file(memory_directory, "memory.usage_in_bytes")
        self._memory_stat = file(memory_directory, "memory.stat")
        self._use_hierarchy = file(memory_directory, "memory.use_hierarchy")
        self._total_keys: bool | None = None
        self._usual_fds: tuple[int, int, int, int, int] | None = None
        """The descriptors of the last reading's files, where all stayed open and had all of their figures."""

    def read(self, report: Callable[[CgroupError], None]) -> Stats:
        """One reading. A figure that cannot be had is None, and why is given to ``report``.

        Raises:
            CgroupGone: the cgroup was removed.
        """
        if self._usual_fds and (stats := _read_usual(*self._usual_fds)):
            return stats
        self._usual_fds = None
        usage, system, user = self._read_cpu(report)
        try:
            current = None if self._memory_usage is None else self._memory_usage.read_count(report)
            anon, file = self._read_memory(report)
        except CgroupGone:
            # Each hierarchy has its own directory; a pod that lacks one still has the other's figures.
            if self._cpu_usage is None:
                raise
            current = anon = file = None
        stats = Stats(usage, system, user, current, anon, file)
        if self._total_keys and None not in stats[:6]:
            self._usual_fds = self._descriptors()
        return stats

    def _read_cpu(self, report: Callable[[CgroupError], None]) -> tuple[int | None, int | None, int | None]:
        if self._cpu_usage is None or self._usage_system is None or self._usage_user is None:
            return None, None, None
        usage = self._cpu_usage.read_count(report)
        system = self._usage_system.read_count(report)
        user = self._usage_user.read_count(report)
        if system is None and user is None and self._ticks is not None and (data := self._ticks.read(report)):
            # Kernels before 4.7 tell the kinds in ticks only.
            in_ticks = parse_flat_keyed(data, _CPU_KEYS, self._ticks.path, report)
            system, user = (_nanoseconds(ticks, self._ticks.path, report) for ticks in in_ticks)
        return usage, system, user

    def _read_memory(self, report: Callable[[CgroupError], None]) -> tuple[int | None, int | None]:
        if self._memory_stat is None or (data := self._memory_stat.read(report)) is None:
            return None, None
        if self._total_keys is None:
            self._total_keys = self._is_hierarchical()
        if self._total_keys and (match := _MEMORY_STAT.search(data)) and not data.startswith(b"total_"):
            cache, rss = match.groups()
            if rss is not None:
                return int(rss), int(cache)
        keys = _HIERARCHICAL_KEYS if self._total_keys else _PLAIN_KEYS
        rss_bytes, cache_bytes = parse_flat_keyed(data, keys, self._memory_stat.path, report)
        return rss_bytes, cache_bytes

    def _is_hierarchical(self) -> bool:
        """With ``use_hierarchy`` = 0 the plain keys are what the kernel documents; where the file is no more, there is
        only hierarchical accounting left.
        """
        if self._use_hierarchy is None:
            return True
        try:
            # What is wrong with it shows in the files that are read each tick.
            return self._use_hierarchy.read_count(lambda _error: None) != 0
        finally:
            self._use_hierarchy.close()

    def _descriptors(self) -> tuple[int, int, int, int, int] | None:
        """Of the files that ``_read_usual`` reads; None where one of them is not open."""
        if not (
            self._cpu_usage and self._usage_system and self._usage_user and self._memory_usage and self._memory_stat
        ):
            return None
        fds = (
            self._cpu_usage.fd,
            self._usage_system.fd,
            self._usage_user.fd,
            self._memory_usage.fd,
            self._memory_stat.fd,
        )
        return fds if min(fds) >= 0 else None

    @property
    def is_open(self) -> bool:
        """Whether the last reading's descriptor is held, and with it the cgroup that was read then."""
        first = self._cpu_usage or self._memory_usage
        return first is not None and first.fd >= 0

    def close(self) -> None:
        """Closes the files; the next reading opens them again."""
        self._usual_fds = None
        for file in (
            self._cpu_usage,
            self._usage_system,
            self._usage_user,
            self._ticks,
            self._memory_usage,
            self._memory_stat,
        ):
            if file is not None:
                file.close()


def _read_usual(usage: int, system: int, user: int, current: int, memory_stat: int) -> Stats | None:
    """What files nearly always say, with no call but the kernel's; None where it takes a closer look."""
    pread = os.pread
    try:
        counts = _COUNTS.fullmatch(
            b"/".join(
                (
                    pread(usage, COUNT_BYTES, 0),
                    pread(system, COUNT_BYTES, 0),
                    pread(user, COUNT_BYTES, 0),
                    pread(current, COUNT_BYTES, 0),
                )
            )
        )
        data = pread(memory_stat, CHUNK_BYTES, 0)
    except OSError:
        return None
    memory = _MEMORY_STAT.search(data)
    if not counts or not memory or len(data) == CHUNK_BYTES or data.startswith(b"total_"):
        return None
    cache, rss = memory.groups()
    if rss is None:
        return None
    usage_ns, system_ns, user_ns, usage_bytes = counts.groups()
    return Stats._make(
        (int(usage_ns), int(system_ns), int(user_ns), int(usage_bytes), int(rss), int(cache), None, None)
    )


def _nanoseconds(ticks: int | None, path: str, report: Callable[[CgroupError], None]) -> int | None:
    if ticks is None:
        return None
    if ticks > INT64_MAX // _NS_PER_TICK:
        report(MalformedFile(path, str(ticks), f"at most {INT64_MAX // _NS_PER_TICK} ticks are expected"))
        return None
    return ticks * _NS_PER_TICK
