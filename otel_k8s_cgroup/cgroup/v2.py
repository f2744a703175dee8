"""cgroup v2: the files of a pod's directory → Stats.

Source: https://docs.kernel.org/admin-guide/cgroup-v2.html (``cpu.stat``, ``memory.current``, ``memory.stat``).
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.files import CHUNK_BYTES, COUNT_BYTES, INT64_MAX, StatFile, parse_flat_keyed
from otel_k8s_cgroup.errors import CgroupError, MalformedFile
from otel_k8s_cgroup.model import Stats

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.cgroup.files import OpenFiles

# The kernel prints these keys in this order (cpu.stat since v4.15, memory.stat since v4.5): one match instead of a dict
# of 40 lines. Where it does not match, the general parser decides, and reports. 18 digits always fit an int64, as do 15
# in µs × 1000.
_CPU_STAT = re.compile(rb"usage_usec (\d{1,15})\nuser_usec (\d{1,15})\nsystem_usec (\d{1,15})\n")
_COUNT = re.compile(rb"(\d{1,18})\n")
_CPU_KEYS = (b"usage_usec", b"user_usec", b"system_usec")
_MEMORY_STAT = re.compile(
    rb"anon (\d{1,18})\nfile (\d{1,18})\n(?:kernel \d+\n)?kernel_stack (\d{1,18})\npagetables (\d{1,18})\n"
)
_MEMORY_KEYS = (b"anon", b"file", b"kernel_stack", b"pagetables")


class V2Cgroup:
    """The files of one pod's cgroup."""

    __slots__ = ("_cpu_stat", "_memory_current", "_memory_stat")

    def __init__(self, directory: str, open_files: OpenFiles) -> None:
        self._cpu_stat = StatFile(f"{directory}/cpu.stat", open_files)
        self._memory_current = StatFile(f"{directory}/memory.current", open_files)
        self._memory_stat = StatFile(f"{directory}/memory.stat", open_files)

    def read(self, report: Callable[[CgroupError], None]) -> Stats:
        """One reading. A figure that cannot be had is None, and why is given to ``report``.

        Raises:
            CgroupGone: the cgroup was removed.
        """
        if stats := self._read_usual():
            return stats
        usage, user, system = self._read_cpu(report)
        current = self._memory_current.read_count(report)
        anon, file, kernel_stack, pagetables = self._read_memory(report)
        return Stats(usage, system, user, current, anon, file, kernel_stack, pagetables)

    def _read_usual(self) -> Stats | None:
        """What the files nearly always say, with no call but the kernel's; None where it takes a closer look."""
        if self._cpu_stat.fd < 0:
            return None
        pread = os.pread
        try:
            cpu = _CPU_STAT.match(pread(self._cpu_stat.fd, CHUNK_BYTES, 0))
            current = _COUNT.fullmatch(pread(self._memory_current.fd, COUNT_BYTES, 0))
            memory = _MEMORY_STAT.match(pread(self._memory_stat.fd, CHUNK_BYTES, 0))
        except OSError:
            return None
        if not cpu or not current or not memory:
            return None
        usage, user, system = map(int, cpu.groups())
        return Stats._make((usage * 1000, system * 1000, user * 1000, int(current[1]), *map(int, memory.groups())))

    def _read_cpu(self, report: Callable[[CgroupError], None]) -> tuple[int | None, ...]:
        if (data := self._cpu_stat.read(report)) is None:
            return None, None, None
        if match := _CPU_STAT.match(data):
            usage, user, system = match.groups()
            return int(usage) * 1000, int(user) * 1000, int(system) * 1000
        path = self._cpu_stat.path
        return tuple(
            _nanoseconds(usec, key, path, report)
            for key, usec in zip(_CPU_KEYS, parse_flat_keyed(data, _CPU_KEYS, path, report), strict=True)
        )

    def _read_memory(self, report: Callable[[CgroupError], None]) -> tuple[int | None, ...]:
        if (data := self._memory_stat.read(report)) is None:
            return None, None, None, None
        if match := _MEMORY_STAT.match(data):
            anon, file, kernel_stack, pagetables = match.groups()
            return int(anon), int(file), int(kernel_stack), int(pagetables)
        return tuple(parse_flat_keyed(data, _MEMORY_KEYS, self._memory_stat.path, report))

    @property
    def is_open(self) -> bool:
        """Whether the last reading's descriptor is held, and with it the cgroup that was read then."""
        return self._cpu_stat.fd >= 0

    def close(self) -> None:
        """Closes the files; the next reading opens them again."""
        self._cpu_stat.close()
        self._memory_current.close()
        self._memory_stat.close()


def _nanoseconds(usec: int | None, key: bytes, path: str, report: Callable[[CgroupError], None]) -> int | None:
    if usec is None:
        return None
    if usec > INT64_MAX // 1000:
        report(MalformedFile(path, f"{key.decode()} {usec}", f"at most {INT64_MAX // 1000} µs are expected"))
        return None
    return usec * 1000
