"""Cgroup files, kept open and read with one call each."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import CgroupError, CgroupGone, CgroupReadError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

# A number and its newline have 20; what fills this is no number.
COUNT_BYTES = 64
# cpu.stat, memory.events and their like; what fills this is longer than it was when it was learned.
SMALL_BYTES = 448
# memory.stat has 1–4 kB; a file that fills this is read on to its end, up to the bound.
CHUNK_BYTES = 8192
_MAX_FILE_BYTES = 1 << 20


class OpenFiles:
    """Counts the descriptors that stay open, so that the process keeps some for its sockets.

    Files beyond ``limit`` are opened, read and closed at each reading: slower (about 10 µs a file), but never wrong.
    One descriptor is held back for the time when there is none left at all.
    """

    __slots__ = ("_spare_fd", "count", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.count = 0
        self._spare_fd = -1
        self._keep_spare()

    @contextmanager
    def spare(self) -> Iterator[None]:
        """Room for one descriptor where the system has refused another; from then on no more stay open than now.

        (What gets free is for the process's sockets.)
        """
        self.limit = min(self.limit, self.count)
        if self._spare_fd >= 0:
            os.close(self._spare_fd)
            self._spare_fd = -1
        try:
            yield
        finally:
            self._keep_spare()

    def __del__(self) -> None:
        if self._spare_fd >= 0:
            os.close(self._spare_fd)

    def _keep_spare(self) -> None:
        with suppress(OSError):
            self._spare_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def is_exhausted(error: OSError) -> bool:
    """Whether the process or the system has no descriptor left."""
    return error.errno in (errno.EMFILE, errno.ENFILE)


def refused(path: str, error: OSError) -> CgroupReadError:
    """What the kernel answered about ``path``."""
    name = errno.errorcode.get(error.errno or 0, str(error.errno))
    return CgroupReadError(path, name, f"{error.strerror} ({name})")


class StatFile:
    """One file of a cgroup, read with a single ``pread`` through a descriptor that stays open."""

    __slots__ = ("_open_files", "fd", "is_absent", "path", "was_there")

    def __init__(self, path: str, open_files: OpenFiles) -> None:
        self.path = path
        self._open_files = open_files
        self.fd = -1
        """The descriptor; -1 while it is closed."""
        self.is_absent = False
        """Whether the cgroup had no such file at the last reading: its controller is off, or the kernel is older or was
        started without what it tells."""
        self.was_there = False
        """Whether it was read at all."""

    def read(self, report: Callable[[CgroupError], None]) -> bytes | None:
        """The whole content, up to 1 MiB; None where the file is absent, or where the kernel refuses, which is given to
        ``report``.

        Raises:
            CgroupGone: the cgroup was removed.
        """
        self.is_absent = False
        try:
            data = _whole(self.fd) if self.fd >= 0 else self._open_and_read()
        except OSError as error:
            self._failed(error, report)
            return None
        self.was_there = True
        return data

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._open_files.count -= 1
            os.close(fd)

    def __del__(self) -> None:
        # A descriptor is a bare number here: nobody else closes it.
        self.close()

    def _open_and_read(self) -> bytes:
        files = self._open_files
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if not is_exhausted(error):
                raise
            with files.spare():
                return _whole_and_close(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC))
        if files.count >= files.limit:
            return _whole_and_close(fd)
        self.fd = fd
        files.count += 1
        return _whole(fd)

    def _failed(self, error: OSError, report: Callable[[CgroupError], None]) -> None:
        self.close()
        # EOPNOTSUPP: pressure, where the kernel was started without it (psi=0).
        if error.errno == errno.EOPNOTSUPP or (
            error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(self.path))
        ):
            self.is_absent = True
            return
        # An open file of a removed cgroup answers ENODEV; an open() there ENOENT, as for a file that never was.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
            raise CgroupGone(self.path) from None
        report(refused(self.path, error))


def _whole_and_close(fd: int) -> bytes:
    try:
        return _whole(fd)
    finally:
        os.close(fd)


def _whole(fd: int) -> bytes:
    data = os.pread(fd, CHUNK_BYTES, 0)
    if len(data) == CHUNK_BYTES:
        parts = [data]
        size = CHUNK_BYTES
        while size < _MAX_FILE_BYTES and (more := os.pread(fd, CHUNK_BYTES, size)):
            parts.append(more)
            size += len(more)
        data = b"".join(parts)
    return data
