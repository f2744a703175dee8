"""The state file itself: locked, read, replaced as a whole, and never left to be believed where it is out of date."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.export.state import (
    HEAD,
    MAX_BYTES,
    STALE_HEAD,
    NotOursError,
    Remembered,
    decoded,
    encode_state,
    is_ours,
    parse_state,
)

if TYPE_CHECKING:
    from collections.abc import Callable


_log = logging.getLogger(__name__)

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"

_IN_USE = "another exporter uses it"
_FROM_FIRST_READING = "after a restart pods count from their first reading"


class StateFile:
    """The file at ``path``, with ``….lock`` beside it. Not for several threads; every call may wait for the disk.

    Args:
        path: in a directory that may be written to: a new file replaces the old one.
        boot_id_file: the kernel's (``random(4)``): another boot has other counters.
        mono_clock: nanoseconds since the boot.
    """

    def __init__(
        self, path: str, *, boot_id_file: str = BOOT_ID_FILE, mono_clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.path = Path(path)
        self._boot_id_file = Path(boot_id_file)
        self._mono_clock = mono_clock
        self._boot_id: str | None = None
        """None: the file is of no use, and is left alone."""
        self._lock: int | None = None
        self._trouble: str | None = None
        """Why it cannot be written now, as it was logged."""

    def load(self) -> Remembered | None:
        """What the file holds; None where it is of no use: then it is set aside as ``….bad``.

        Raises:
            SettingsError: the path holds something that is not ours, which is never moved or replaced.
        """
        try:
            boot_id = self._boot_id_file.read_text().strip()
        except (OSError, ValueError) as error:
            _log.warning(
                "state_file %s is not used: %s, which tells one boot from another, cannot be read (%s)",
                self.path,
                self._boot_id_file,
                error,
            )
            return None
        try:
            if not is_ours(self._read(len(HEAD))):
                decoded(self._read(MAX_BYTES + 1))  # else it is ours, as another program has written it
            self._boot_id = boot_id
            if (reason := self._take_lock() or self._why_not_writable()) is not None:
                self._fail(reason)
                return None
            return self._read_as(boot_id)
        except FileNotFoundError:
            self._boot_id = boot_id
            if (reason := self._take_lock()) is not None:
                self._fail(reason)
            return None
        except NotOursError as error:
            raise self._refused(str(error)) from None
        except OSError as error:
            if isinstance(error, PermissionError):
                raise self._refused("it cannot be read (permission denied)") from None
            self._boot_id = None
            _log.warning("state_file %s is not used: it cannot be read: %s", self.path, error.strerror or error)
            return None
        except ValueError as error:
            self._set_aside(str(error))
            return None

    def save(self, remembered: Remembered) -> None:
        """Replaces the file: who reads it, whenever, finds the old or the new whole.

        A file that cannot be replaced is marked as out of date, or removed: a restart must not go on from it.
        """
        if self._boot_id is None:
            return
        if (reason := self._take_lock()) is not None:
            self._fail(reason)
            return
        content = encode_state(remembered, boot_id=self._boot_id)
        if len(content) > MAX_BYTES:
            self._fail(f"it would have {len(content)} bytes, and may have {MAX_BYTES}")
            return
        try:
            self._replace(content)
        except OSError as error:
            reason = error.strerror or str(error)
            if error.filename and str(error.filename) != str(self.path):
                reason += f" ({error.filename})"
            self._fail(f"it cannot be written: {reason}")
        else:
            if self._trouble is not None:
                self._trouble = None
                _log.info("state_file %s is written again", self.path)

    def close(self) -> None:
        """Lets another exporter have the file."""
        self._boot_id = None
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _refused(self, reason: str) -> SettingsError:
        return SettingsError(
            "state_file", f"found {str(self.path)!r}: {reason}; allowed is a path where nothing is yet"
        )

    def _read(self, most_bytes: int) -> bytes:
        # A pipe would be waited for.
        descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise NotOursError("it is no plain file")
        with os.fdopen(descriptor, "rb") as file:
            return file.read(most_bytes)

    def _read_as(self, boot_id: str) -> Remembered | None:
        content = self._read(MAX_BYTES + 1)
        if not content.strip(b"\0"):
            return None  # made by hand, or all that a loss of power has left
        return parse_state(content, boot_id=boot_id, now_ns=self._mono_clock())

    def _take_lock(self) -> str | None:
        """None once the file is ours alone, else why not. The system lets go of it when the process ends."""
        if self._lock is not None:
            return None
        path = f"{self.path}.lock"
        try:
            # Also where it is there already on a file system that is read-only.
            flags = os.O_RDONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            return f"{path} cannot be made: {error.strerror}"
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                os.close(descriptor)
                return f"{path} is no plain file"
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return _IN_USE
        except OSError:
            pass  # a file system without locks
        self._lock = descriptor
        return None

    def _why_not_writable(self) -> str | None:
        directory = self.path.parent
        # Else it would be believed at each start, and what is delivered meanwhile counted at each.
        return None if os.access(directory, os.W_OK | os.X_OK) else f"{directory} cannot be written to"

    def _replace(self, content: bytes) -> None:
        temporary = self.path.with_name(self.path.name + ".tmp")
        with suppress(FileNotFoundError):
            temporary.unlink()
        # Whatever is put there meanwhile (a link, a pipe) is neither followed nor waited for.
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                os.fchmod(descriptor, 0o600)  # whatever the umask
                file.write(content)
            # No fsync, which may take as long as the disk likes: after a loss of power it is another boot, whose
            # counters are others, and the end of a process alone loses nothing that was written.
            temporary.replace(self.path)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise

    def _distrust(self) -> str:
        """Sees to it that the old file is not believed; what a restart does then."""
        try:
            if not is_ours(self._read(len(HEAD))):
                return _FROM_FIRST_READING  # somebody else's by now: the next start refuses it
            try:
                # First: a file that is removed leaves room on a full disk for the next one, and none for that after it.
                self._mark()
            except OSError:
                self.path.unlink()
        except FileNotFoundError:
            return _FROM_FIRST_READING
        except (OSError, NotOursError):
            return "remove it before the next start, which else counts twice what is delivered from here on"
        return f"it is out of date, and {_FROM_FIRST_READING}"

    def _mark(self) -> None:
        """In place, over bytes that are there: also on a full disk, and in a directory that may not be changed."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.pwrite(descriptor, STALE_HEAD, 0)
        finally:
            os.close(descriptor)

    def _fail(self, reason: str) -> None:
        # What another exporter saves is as good as it was.
        consequence = _FROM_FIRST_READING if reason == _IN_USE else self._distrust()
        if self._trouble is None or (reason == _IN_USE) != (self._trouble == _IN_USE):
            self._trouble = reason
            _log.warning("state_file %s is not used: %s; %s", self.path, reason, consequence)

    def _set_aside(self, reason: str) -> None:
        aside = self.path.with_name(self.path.name + ".bad")
        left = "left where it is"
        with suppress(OSError):
            self.path.replace(aside)
            left = f"set aside as {aside}"
        _log.warning("state_file %s is not used: %s; %s", self.path, reason, left)
