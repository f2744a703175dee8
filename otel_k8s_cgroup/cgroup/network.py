"""What a pod's network has carried: no cgroup knows it, so one of the pod's processes is asked.

All containers of a pod share a network namespace, and ``/proc/PID/net/dev`` is that of the process. The process that
began first is nearly always the sandbox, which lives as long as the pod. It is held by a descriptor of its directory:
whatever process has its PID after it, the kernel answers ESRCH there.

Needs the host's PID namespace (``hostPID``), and no privilege.

Source: https://docs.kernel.org/filesystems/proc.html (1.4 Networking info in /proc/net)
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from itertools import islice, zip_longest
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.files import is_exhausted, refused
from otel_k8s_cgroup.cgroup.interfaces import MOST_BYTES, Interfaces
from otel_k8s_cgroup.cgroup.locate import subdirectories
from otel_k8s_cgroup.errors import ProcessesHidden

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.figures import Figure

PROC = "/proc"

_HAS_ENDED = (errno.ENOENT, errno.ENOTDIR, errno.ENODEV, errno.ESRCH)
"""What the kernel answers of a process or a cgroup that has."""
_MOST_PROCESSES = 64
"""That are compared: a fork bomb must not cost us anything, nor hide the sandbox."""

# After a pod had no process that can be asked; and after its processes were hidden, or on the host's network.
_RETRY_NS = 10**9
_RETRY_LATER_NS = 60 * 10**9


@dataclass(slots=True)
class Sight:
    """What is known of the PID namespace; the readers of a node share it."""

    is_clear: bool = False
    """Whether a process of some pod was seen. In that of the exporter itself they always are."""


class NetworkReader:
    """Reads the network of one pod. It has what a ``CgroupReader`` has.

    Args:
        figures: those of a row, all of ``net_dev``.
        directory: of the pod's cgroup; None where the entity is no pod, and has nothing of this.
        open_files: the bound on descriptors that stay open.
        proc: where the kernel shows processes.
        sight: of the node.
        is_on_host: whether the API says that the pod is on its node's network. Seen from a machine that runs nodes
            (kind, minikube), that is not the machine's own.
        interfaces: what an earlier reader of the pod knows of its interfaces.
    """

    usual = None
    retry_ns: int | None = None
    is_open = False
    """A process does not prove that the pod's cgroup is the one that was there before."""

    def __init__(
        self,
        figures: Sequence[Figure],
        directory: str | None,
        open_files: OpenFiles,
        proc: str = PROC,
        *,
        sight: Sight | None = None,
        is_on_host: Callable[[], bool] = lambda: False,
        interfaces: Interfaces | None = None,
    ) -> None:
        self._numbers = [figure.net_dev or 0 for figure in figures]
        self._directory = directory or ""
        self._open_files = open_files
        self._proc = proc
        self._sight = sight or Sight()
        self._is_on_host = is_on_host
        self._unseen_ns: int | None = None
        """Since when its containers have been there without a process that can be seen."""
        self._process_fd = -1
        self._not_before_ns = 0
        self._namespace = 0
        self._interfaces = interfaces or Interfaces(f"{self._directory}: net/dev")

    @property
    def nothing(self) -> tuple[None, ...]:
        """A row where nothing is read."""
        return (None,) * len(self._numbers)

    def read(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[Mapping[str, int] | None, ...]:
        """A row: of each figure interface → value since the pod's network was made. None where it cannot be had, and
        where it is the host's.
        """
        if not self._directory or self._is_on_host():
            self.close()
            return self.nothing
        found = self._ask(now_ns, report)
        if found is None and now_ns >= self._not_before_ns:
            self.close()
            self._not_before_ns = now_ns + _RETRY_NS
            found = self._choose(now_ns, report)
        if found is None:
            return self.nothing
        data, namespace = found
        if namespace != self._namespace and not self._is_of_pods(namespace, now_ns, report):
            self.close()
            return self.nothing
        self._namespace = namespace
        return self._interfaces.read(data, namespace, self._numbers, report)

    def close(self) -> None:
        """Lets go of the process; the next reading chooses one."""
        if self._process_fd >= 0:
            os.close(self._process_fd)
            self._process_fd = -1
            self._open_files.count -= 1

    def __del__(self) -> None:
        self.close()

    def _ask(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[bytes, int] | None:
        """What the process has of its network, and of which namespace that is; None where it has ended, and where the
        kernel refuses, which is reported.
        """
        if self._process_fd < 0:
            return None
        try:
            try:
                return _net_dev("net/dev", self._process_fd)
            except OSError as error:
                if not is_exhausted(error):
                    raise
                with self._open_files.spare():
                    return _net_dev("net/dev", self._process_fd)
        except OSError as error:
            if error.errno not in _HAS_ENDED:
                self._refused(error, now_ns, report)
            return None

    def _refused(self, error: OSError, now_ns: int, report: Callable[[CgroupError], None]) -> None:
        self.close()
        self._not_before_ns = now_ns + _RETRY_LATER_NS
        report(refused(f"{self._directory}: net/dev", error))

    def _is_of_pods(self, namespace: int, now_ns: int, report: Callable[[CgroupError], None]) -> bool:
        """Whether it is another network than the host's, which is not for a pod to count."""
        of_host = _namespace(f"{self._proc}/1/net/dev")
        if of_host == 0:
            report(ProcessesHidden(f"{self._proc}/1"))
        if of_host in (0, namespace):
            self._not_before_ns = now_ns + _RETRY_LATER_NS
            return False
        return True

    def _choose(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[bytes, int] | None:
        """As ``_ask``, of the process that began first, of those directly in the cgroups of the pod's containers; that
        is held from then on, where there is a descriptor for it.
        """
        try:
            try:
                return self._ask_first(now_ns, report)
            except OSError as error:
                if not is_exhausted(error):
                    raise
                self.close()
                with self._open_files.spare():
                    return self._ask_first(now_ns, report)
        except FileNotFoundError:
            return None  # it ends
        except OSError as error:
            report(refused(self._directory, error))
            return None

    def _ask_first(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[bytes, int] | None:
        containers = self._processes()
        # One of each first: the sandbox has just one.
        pids = (each for one_each in zip_longest(*containers) for each in one_each if each is not None and each[0] > 0)
        by_start = sorted(
            (start, pid, file)
            for pid, file in islice(pids, _MOST_PROCESSES)
            if (start := _start(f"{self._proc}/{pid}/stat")) is not None
        )
        listed = {pid for container in containers for pid, _ in container}
        self._sight.is_clear = self._sight.is_clear or (bool(by_start) and os.getpid() not in listed)
        for start, pid, file in by_start:
            try:
                found = self._ask_one(start, pid, file)
            except OSError as error:
                if is_exhausted(error):
                    raise
                self._refused(error, now_ns, report)
                return None
            if found is not None:
                self._unseen_ns, self._not_before_ns = None, now_ns
                return found
        if by_start or not containers:
            self._unseen_ns = None
        elif self._unseen_ns is None:
            self._unseen_ns = now_ns
        # v1 does not list a process of another PID namespace at all; and a container may have none for a moment.
        is_unseen = self._unseen_ns is not None and now_ns - self._unseen_ns >= _RETRY_LATER_NS
        if 0 in listed or (is_unseen and not self._sight.is_clear):
            report(ProcessesHidden(self._directory))
            self._not_before_ns = now_ns + _RETRY_LATER_NS
        return None

    def _ask_one(self, start: int, pid: int, file: str) -> tuple[bytes, int] | None:
        """As ``_ask``, of a process that was in the list ``file``; no more than one descriptor is open beside it."""
        directory = f"{self._proc}/{pid}"
        try:
            if self._open_files.count < self._open_files.limit:
                self._process_fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                self._open_files.count += 1
            found = _net_dev(f"{directory}/net/dev")
            # Meanwhile the PID may have become another's. Where it is in the pod's list now, and since when it was, it
            # is the one that was asked, and that is held.
            if _start(f"{directory}/stat") == start and pid in _pids(file):
                return found
        except OSError as error:
            if error.errno not in _HAS_ENDED:
                raise
        self.close()
        return None

    def _processes(self) -> list[list[tuple[int, str]]]:
        """Of each of the pod's containers, (PID, ``cgroup.procs``): 0 is one that is in another PID namespace. What is
        deeper, as of a container that runs containers, may have a network of its own.
        """
        found: list[list[tuple[int, str]]] = []
        for name in subdirectories(self._directory):
            file = f"{self._directory}/{name}/cgroup.procs"
            try:
                found.append([(pid, file) for pid in _pids(file)])
            except OSError as error:
                if error.errno not in _HAS_ENDED:
                    raise
        return found


def _net_dev(path: str, process_fd: int | None = None) -> tuple[bytes, int]:
    """A process's ``net/dev``, and of which namespace that is: the file is one a namespace, and no right to look at
    the link ``ns/net`` is needed.
    """
    # Not kept open: that would keep the namespace of a pod that has ended.
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=process_fd)
    try:
        data = b""
        # The kernel gives a page at a time.
        while len(data) < MOST_BYTES and (more := os.pread(fd, MOST_BYTES - len(data), len(data))):
            data += more
        return data, os.fstat(fd).st_ino
    finally:
        os.close(fd)


def _pids(file: str) -> list[int]:
    with open(file, "rb") as procs:
        return [int(line) for line in procs.read(MOST_BYTES).split() if line.isdigit()]


def _start(stat: str) -> int | None:
    """When a process began, in ticks since the boot; None where it has ended.

    Raises:
        OSError: there is no descriptor left.

    Source: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html (22 starttime; the name, 2, may hold anything)
    """
    try:
        with open(stat, "rb") as file:
            return int(file.read(4096).rpartition(b")")[2].split()[19])
    except OSError as error:
        if is_exhausted(error):
            raise
        return None
    except (IndexError, ValueError):
        return None


def _namespace(net_dev: str) -> int:
    """Of which network a ``net/dev`` is; 0 where that cannot be seen."""
    try:
        return os.stat(net_dev).st_ino
    except OSError:
        return 0
