"""What a pod's network has carried: no cgroup knows it, so one of the pod's processes is asked.

All containers of a pod share a network namespace, and ``/proc/PID/net/dev`` is that of the process. The process that
began first is nearly always the sandbox, which lives as long as the pod. It is held by a descriptor of its directory:
whatever process has its PID after it, the kernel answers ESRCH there.

Needs the host's PID namespace (``hostPID``), and no privilege.

Source: https://docs.kernel.org/filesystems/proc.html (1.4 Networking info in /proc/net)
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.files import refused
from otel_k8s_cgroup.cgroup.locate import subdirectories
from otel_k8s_cgroup.errors import MalformedFile, ProcessesHidden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.figures import Figure

PROC = "/proc"

_HEAD_LINES = 2
_NUMBERS = 16
_MOST_BYTES = 1 << 16
_MOST_INTERFACES = 8
"""Of a pod: whoever may make interfaces in it could else make series without end."""
_MOST_DIGITS = 18
"""Of a number that is an int64 in any case."""
_LOOPBACK = b"lo"
_MOST_PROCESSES = 64
"""That are compared: a fork bomb must not cost us anything."""

# After a pod had no process that can be asked; and after its processes were hidden, or on the host's network.
_LOOK_AGAIN_NS = 10**9
_LOOK_AGAIN_LATER_NS = 60 * 10**9


class NetworkReader:
    """Reads the network of one pod. It has what a ``CgroupReader`` has.

    Args:
        figures: those of a row, all of ``net_dev``.
        directory: of the pod's cgroup; None where the entity is no pod, and has nothing of this.
        open_files: the bound on descriptors that stay open.
        proc: where the kernel shows processes.
    """

    usual = None
    look_again_ns: int | None = None
    is_open = False
    """A process does not prove that the pod's cgroup is the one that was there before."""

    def __init__(
        self, figures: Sequence[Figure], directory: str | None, open_files: OpenFiles, proc: str = PROC
    ) -> None:
        self._numbers = [figure.net_dev or 0 for figure in figures]
        self._directory = directory or ""
        self._open_files = open_files
        self._proc = proc
        self._process_fd = -1
        self._stays = True
        """Whether it is kept, and counted, until the next reading."""
        self._not_before_ns = 0
        self._namespace = 0
        self._seen: dict[str, tuple[int, ...]] = {}
        """Interface → its numbers at the last reading …"""
        self._before: dict[str, tuple[int, ...]] = {}
        """… and what ones of that name that are gone had, which are counted on from."""

    @property
    def nothing(self) -> tuple[None, ...]:
        """A row where nothing is read."""
        return (None,) * len(self._numbers)

    def read(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[Mapping[str, int] | None, ...]:
        """A row: of each figure interface → value since the pod's network was made. None where it cannot be had, and
        where it is the host's.
        """
        if not self._directory:
            return self.nothing
        found = self._ask()
        if found is None and now_ns >= self._not_before_ns:
            self.close()
            self._not_before_ns = now_ns + _LOOK_AGAIN_NS
            if self._choose(now_ns, report):
                self._not_before_ns = now_ns
                found = self._ask()
        if not self._stays:
            self.close()
        if found is None:
            return self.nothing
        data, namespace = found
        if namespace != self._namespace and not self._is_of_pods(namespace, now_ns, report):
            self.close()
            return self.nothing
        self._take(self._interfaces(data, report), namespace)
        totals = {
            name: tuple(map(sum, zip(seen, self._before[name], strict=True))) if name in self._before else seen
            for name, seen in self._seen.items()
        }
        return tuple({name: numbers[number] for name, numbers in totals.items()} for number in self._numbers)

    def close(self) -> None:
        """Lets go of the process; the next reading chooses one."""
        if self._process_fd >= 0:
            os.close(self._process_fd)
            self._process_fd = -1
            self._open_files.count -= self._stays

    def __del__(self) -> None:
        self.close()

    def _ask(self) -> tuple[bytes, int] | None:
        """What the process has of its network, and of which namespace that is; None where it has ended."""
        if self._process_fd < 0:
            return None
        try:
            # Not kept open: that would keep the namespace of a pod that has ended.
            fd = os.open("net/dev", os.O_RDONLY | os.O_CLOEXEC, dir_fd=self._process_fd)
        except OSError:
            return None
        try:
            # The file is one a namespace: no right to look at the link ns/net is needed.
            return os.pread(fd, _MOST_BYTES, 0), os.fstat(fd).st_ino
        except OSError:
            return None
        finally:
            os.close(fd)

    def _is_of_pods(self, namespace: int, now_ns: int, report: Callable[[CgroupError], None]) -> bool:
        """Whether it is another network than the host's, which is not for a pod to count."""
        of_host = _namespace(f"{self._proc}/1/net/dev")
        if of_host == 0:
            report(ProcessesHidden(f"{self._proc}/1"))
        if of_host in (0, namespace):
            self._not_before_ns = now_ns + _LOOK_AGAIN_LATER_NS
            return False
        return True

    def _choose(self, now_ns: int, report: Callable[[CgroupError], None]) -> bool:
        """Takes the process of the pod that began first, of those directly in its containers' cgroups."""
        by_start: list[tuple[int, int, str]] = []
        is_hidden = False
        try:
            for file, pid in self._processes():
                if pid == 0:
                    is_hidden = True
                elif (start := _start(f"{self._proc}/{pid}/stat")) is not None and len(by_start) < _MOST_PROCESSES:
                    by_start.append((start, pid, file))
        except FileNotFoundError:
            return False  # it ends
        except OSError as error:
            report(refused(self._directory, error))
            return False
        for _, pid, file in sorted(by_start):
            if self._hold(pid, file):
                return True
        if is_hidden:
            report(ProcessesHidden(self._directory))
            self._not_before_ns = now_ns + _LOOK_AGAIN_LATER_NS
        return False

    def _hold(self, pid: int, file: str) -> bool:
        try:
            self._process_fd = os.open(f"{self._proc}/{pid}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            return False
        self._stays = self._open_files.count < self._open_files.limit
        self._open_files.count += self._stays
        # Between the list and that, the PID may have become another pod's. Where it is in this one's list now, the
        # directory is that process's, or that of one that has ended and answers nothing.
        with suppress(OSError):
            if pid in _pids(file):
                return True
        self.close()
        return False

    def _processes(self) -> Iterator[tuple[str, int]]:
        """(``cgroup.procs``, PID) of the pod's containers: 0 is one that is in another PID namespace. What is deeper,
        as of a container that runs containers, may have a network of its own.
        """
        for name in subdirectories(self._directory):
            file = f"{self._directory}/{name}/cgroup.procs"
            with suppress(FileNotFoundError, NotADirectoryError):  # a container that ends
                for pid in _pids(file):
                    yield file, pid

    def _interfaces(self, data: bytes, report: Callable[[CgroupError], None]) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}
        for line in data.split(b"\n")[_HEAD_LINES:-1]:
            name, _, rest = line.strip().partition(b":")
            words = rest.split()
            if name == _LOOPBACK or len(found) >= _MOST_INTERFACES:
                continue
            if len(words) != _NUMBERS or not all(word.isdigit() and len(word) <= _MOST_DIGITS for word in words):
                text = line.decode(errors="replace")
                report(
                    MalformedFile(f"{self._directory}: net/dev", text, f"a name and {_NUMBERS} numbers are expected")
                )
                continue
            found[name.decode(errors="replace")] = tuple(map(int, words))
        return found

    def _take(self, interfaces: dict[str, tuple[int, ...]], namespace: int) -> None:
        """Counts on where an interface, or all of the network, was made anew: the pod's counters only grow."""
        is_anew = namespace != self._namespace
        for name, last in self._seen.items():
            now = interfaces.get(name)
            if is_anew or now is None or any(new < old for new, old in zip(now, last, strict=True)):
                before = self._before.get(name, (0,) * _NUMBERS)
                self._before[name] = tuple(map(sum, zip(before, last, strict=True)))
        self._seen, self._namespace = interfaces, namespace


def _pids(file: str) -> list[int]:
    with open(file, "rb") as procs:
        return [int(line) for line in procs.read(_MOST_BYTES).split() if line.isdigit()]


def _start(stat: str) -> int | None:
    """When a process began, in ticks since the boot; None where it has ended.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (22 starttime; the name, 2, may hold anything)
    """
    try:
        with open(stat, "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except (OSError, IndexError, ValueError):
        return None


def _namespace(net_dev: str) -> int:
    """Of which network a ``net/dev`` is; 0 where that cannot be seen."""
    try:
        return os.stat(net_dev).st_ino
    except OSError:
        return 0
