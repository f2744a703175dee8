"""Bytes of cgroup files → values, one function a file format, and the files themselves, kept open.

Formats: https://docs.kernel.org/admin-guide/cgroup-v2.html#format — "single value" (``123\\n`` or ``max\\n``) and "flat
keyed" (``KEY VALUE\\n`` a line), which cgroup v1 shares.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import CgroupError, CgroupGone, CgroupReadError, MalformedFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

INT64_MAX = 2**63 - 1
"""OTLP's integer points are signed 64-bit; a kernel counter beyond it cannot be sent, so it is malformed here."""

# A number and its newline have 20; what fills this is no number.
COUNT_BYTES = 64
# memory.stat has 1–4 kB; a file that fills this is read on to its end, up to the bound.
CHUNK_BYTES = 8192
_MAX_FILE_BYTES = 1 << 20


def _parse_count(digits: bytes, path: str, line: bytes) -> int:
    # int() alone takes b"1_0", b"+1" and b" 1"; the kernel writes none of them.
    if not digits.isdigit():
        raise MalformedFile(path, _shown(line), "a whole number is expected")
    # The length first: int() of a megabyte of digits is a denial of service.
    if len(digits) > 19 or (value := int(digits)) > INT64_MAX:
        raise MalformedFile(path, _shown(line), f"a number of at most {INT64_MAX} is expected")
    return value


def _shown(line: bytes) -> str:
    return line[:80].rstrip().decode("utf-8", "backslashreplace")


def parse_single(data: bytes, path: str) -> int | None:
    """The number of a single-value file; None for ``max`` (there is no limit, so there is no number).

    Raises:
        MalformedFile: it is neither.
    """
    if not data.endswith(b"\n"):
        raise MalformedFile(path, _shown(data), "the line does not end (truncated?)" if data else "the file is empty")
    value = data[:-1]
    return None if value == b"max" else _parse_count(value, path, data)


def parse_flat_keyed(
    data: bytes, keys: tuple[bytes, ...], path: str, report: Callable[[CgroupError], None]
) -> list[int | None]:
    """The values of ``keys``, in their order: None where the key is absent or its line malformed (which is reported).

    A key that stands twice counts as it stands first.
    """
    found: dict[bytes, int | None] = {}
    # Not splitlines(), for which a carriage return ends a line too.
    *lines, unended = data.split(b"\n")
    for line in lines:
        key, _, value = line.partition(b" ")
        if key in keys and key not in found:
            found[key] = None
            try:
                found[key] = _parse_count(value, path, line)
            except MalformedFile as error:
                report(error)
    if unended and (key := unended.partition(b" ")[0]) in keys and key not in found:
        report(MalformedFile(path, _shown(unended), "the line does not end (truncated?)"))
    return [found.get(key) for key in keys]


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
    """One file of a cgroup, read with a single ``pread`` through a descriptor that stays open.

    Both ways to read it return None where the cgroup has no such file (its controller is off, or the kernel is older),
    or where the kernel refuses, which is given to ``report``; and raise ``CgroupGone`` where the cgroup was removed.
    """

    __slots__ = ("_open_files", "fd", "path")

    def __init__(self, path: str, open_files: OpenFiles) -> None:
        self.path = path
        self._open_files = open_files
        self.fd = -1
        """The descriptor; -1 while it is closed."""

    def read(self, report: Callable[[CgroupError], None]) -> bytes | None:
        """The whole content, up to 1 MiB."""
        try:
            return _whole(self.fd) if self.fd >= 0 else self._open_and(_whole)
        except OSError as error:
            self._failed(error, report)
            return None

    def read_count(self, report: Callable[[CgroupError], None]) -> int | None:
        """The number of a single-value file; None also where it is ``max``, or malformed (which is reported)."""
        try:
            data = os.pread(self.fd, COUNT_BYTES, 0) if self.fd >= 0 else self._open_and(_start)
        except OSError as error:
            self._failed(error, report)
            return None
        # What it nearly always is; parse_single() says the same of it, slower.
        if len(data) <= 19 and data[:-1].isdigit() and data[-1] == 10:
            return int(data)
        try:
            return parse_single(data, self.path)
        except MalformedFile as error:
            report(error)
            return None

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            self._open_files.count -= 1
            os.close(fd)

    def __del__(self) -> None:
        # A descriptor is a bare number here: nobody else closes it.
        self.close()

    def _open_and(self, read: Callable[[int], bytes]) -> bytes:
        files = self._open_files
        try:
            fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            if not is_exhausted(error):
                raise
            with files.spare():
                return _and_close(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC), read)
        if files.count >= files.limit:
            return _and_close(fd, read)
        self.fd = fd
        files.count += 1
        return read(fd)

    def _failed(self, error: OSError, report: Callable[[CgroupError], None]) -> None:
        self.close()
        if error.errno == errno.ENOENT and os.path.isdir(os.path.dirname(self.path)):
            return
        # An open file of a removed cgroup answers ENODEV; an open() there ENOENT, as for a file that never was.
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.ENOTDIR):
            raise CgroupGone(self.path) from None
        report(refused(self.path, error))


def _and_close(fd: int, read: Callable[[int], bytes]) -> bytes:
    try:
        return read(fd)
    finally:
        os.close(fd)


def _start(fd: int) -> bytes:
    return os.pread(fd, COUNT_BYTES, 0)


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
