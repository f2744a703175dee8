"""What was delivered, remembered over a restart: a small file, replaced as a whole.

It is JSON: the format's name and version, the boot's id (the monotonic clock and the counters begin anew with each
boot), the time of a look at the cgroups, and, of each pod's cgroup that was there then, where its next delta begins. A
cgroup that is not in the file was not there yet, so all of its CPU time came after that look; so did that of one whose
directory has another inode now.
"""

from __future__ import annotations

import json
import logging
import os
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.export.ledger import Base, Bases

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_log = logging.getLogger(__name__)

BOOT_ID_FILE = "/proc/sys/kernel/random/boot_id"

_FORMAT = "otel-k8s-cgroup state"
_VERSION = 2

# 10,000 pods of three counters have 2 MB.
_MAX_BYTES = 16 << 20

_INT64_MAX = 2**63 - 1


class Remnant(NamedTuple):
    """What is left of a cgroup whose exporter has ended."""

    path: str
    inode: int
    """Of its directory; 0 where that is not known."""
    bases: Bases

    def is_another(self, path: str, inode: int) -> bool:
        """Whether what is at ``path`` now was made anew since."""
        return path == self.path and 0 not in (inode, self.inode) and inode != self.inode


@dataclass(frozen=True, slots=True)
class Remembered:
    """What the file holds."""

    mono_ns: int
    """When the cgroups were looked at."""
    unix_ns: int
    pods: dict[str, Remnant | None]
    """By their cgroup's uid, all that were there; None where nothing was read of it."""


class _NoPlainFile(Exception):
    """A directory, a pipe or a device is there."""


class StateFile:
    """The file at ``path``; no error of its is one of the exporter's.

    Args:
        path: in a directory that may be written to: a new file replaces the old one.
        boot_id_file: the kernel's (``random(4)``): another boot has other counters.
        mono_clock: nanoseconds since the boot.
    """

    def __init__(
        self, path: str, *, boot_id_file: str = BOOT_ID_FILE, mono_clock: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._path = Path(path)
        self._boot_id_file = Path(boot_id_file)
        self._mono_clock = mono_clock
        self._counters: tuple[str, ...] = ()
        self._boot_id: str | None = None
        self._failed = False

    def load(self, counters: Sequence[str]) -> Remembered | None:
        """What the file holds of ``counters``, whose order each pod's bases will have; None where it is of no use.

        What is of no use is set aside as ``….bad``, and said in one line.
        """
        self._counters = tuple(counters)
        try:
            self._boot_id = self._boot_id_file.read_text().strip()
        except (OSError, ValueError) as error:
            _log.warning(
                "state_file %s is not used: %s, which tells one boot from another, cannot be read (%s)",
                self._path,
                self._boot_id_file,
                error,
            )
            return None
        try:
            return parse_state(self._read(), self._counters, boot_id=self._boot_id, now_ns=self._mono_clock())
        except FileNotFoundError:
            return None
        except _NoPlainFile:
            # A directory or a device is somebody else's: it is neither moved nor replaced.
            self._boot_id = None
            _log.warning(
                "state_file %s is not used: it is no plain file; name one, or a path where nothing is", self._path
            )
            return None
        except (OSError, ValueError) as error:
            self._set_aside(error.strerror or str(error) if isinstance(error, OSError) else str(error))
            return None

    def save(self, remembered: Remembered) -> None:
        """Replaces the file: whoever reads it, whenever, even after a loss of power, finds the old or the new whole."""
        if self._boot_id is None:
            return
        try:
            self._replace(encode_state(remembered, self._counters, boot_id=self._boot_id))
        except OSError as error:
            if not self._failed:
                self._failed = True
                _log.warning(
                    "state_file %s cannot be written: %s; a restart will not go on from here until it can",
                    self._path,
                    error.strerror or error,
                )
        else:
            if self._failed:
                self._failed = False
                _log.info("state_file %s is written again", self._path)

    def _read(self) -> bytes:
        # A pipe would be waited for.
        descriptor = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            raise _NoPlainFile
        with os.fdopen(descriptor, "rb") as file:
            return file.read(_MAX_BYTES + 1)

    def _replace(self, content: bytes) -> None:
        temporary = self._path.with_name(self._path.name + ".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # one that was left behind may have any mode
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(self._path)
        directory = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    def _set_aside(self, reason: str) -> None:
        aside = self._path.with_name(self._path.name + ".bad")
        left = "left where it is"
        with suppress(OSError):
            self._path.replace(aside)
            left = f"set aside as {aside}"
        _log.warning("state_file %s is not used: %s; %s", self._path, reason, left)


def encode_state(remembered: Remembered, counters: Sequence[str], *, boot_id: str) -> bytes:
    """The file's content."""
    return json.dumps(
        {
            "format": _FORMAT,
            "version": _VERSION,
            "boot_id": boot_id,
            "mono_ns": remembered.mono_ns,
            "unix_ns": remembered.unix_ns,
            "counters": list(counters),
            # A base is [mono_ns, unix_ns, value].
            "pods": {
                uid: None if remnant is None else {"path": remnant.path, "inode": remnant.inode, "bases": remnant.bases}
                for uid, remnant in remembered.pods.items()
            },
        },
        separators=(",", ":"),
    ).encode()


def parse_state(content: bytes, counters: Sequence[str], *, boot_id: str, now_ns: int) -> Remembered:
    """The reverse of ``encode_state``; a counter that the file does not have has no base.

    Raises:
        ValueError: the content is not ours, not whole, of another version or of another boot; tells which.
    """
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it has more than {_MAX_BYTES} bytes")
    try:
        state = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("it is not whole, or no state file") from None
    if not isinstance(state, dict) or state.get("format") != _FORMAT:
        raise ValueError("it is no state file of this exporter")
    if state.get("version") != _VERSION:
        raise ValueError(f"its version is {str(state.get('version'))[:20]!r}, not {_VERSION}")
    if state.get("boot_id") != boot_id:
        raise ValueError("it is of another boot")
    names = state.get("counters")
    pods = state.get("pods")
    if not isinstance(names, list) or not isinstance(pods, dict):
        raise ValueError("its counters or pods are missing")  # noqa: TRY004 the caller knows one error
    places = [names.index(counter) if counter in names else None for counter in counters]
    mono_ns = _number(state.get("mono_ns"))
    if mono_ns > now_ns:
        raise ValueError("it is of a time that has not come yet")
    return Remembered(
        mono_ns,
        _number(state.get("unix_ns")),
        {uid: None if remnant is None else _remnant(remnant, places, now_ns) for uid, remnant in pods.items()},
    )


def _remnant(remnant: object, places: Sequence[int | None], now_ns: int) -> Remnant:
    if isinstance(remnant, dict):
        path, bases = remnant.get("path"), remnant.get("bases")
        if isinstance(path, str) and isinstance(bases, list):
            return Remnant(path, _number(remnant.get("inode")), tuple(_base(bases, place, now_ns) for place in places))
    raise ValueError("a pod of it is not as it should be")


def _base(bases: list[object], place: int | None, now_ns: int) -> Base | None:
    if place is None:
        return None
    match bases[place] if place < len(bases) else None:
        case None:
            return None
        case [mono_ns, unix_ns, value] if (base := Base(*map(_number, (mono_ns, unix_ns, value)))).mono_ns <= now_ns:
            return base
        case other:
            raise ValueError(f"a base of it is {str(other)[:60]!r}")


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value <= _INT64_MAX:
        raise ValueError(f"a number of it is {str(value)[:40]!r}")
    return value
