"""Small files that somebody else replaces while we run: a token, a CA, a list of pods."""

from __future__ import annotations

import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator


_CHUNK_BYTES = 64 * 1024


class Signature(NamedTuple):
    """What differs once a file was rewritten, or replaced (``..data`` of a mounted secret leads elsewhere then)."""

    device: int
    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


def signature(path: str) -> Signature:
    """Of what ``path`` leads to now, symbolic links followed. Raises OSError."""
    return _signature(Path(path).stat())


def read_bounded(path: str, limit: int) -> tuple[bytes, Signature]:
    """The first ``limit`` + 1 bytes, and the signature of the very file they were read from. Raises OSError."""
    with Path(path).open("rb") as file:
        return file.read(limit + 1), _signature(os.fstat(file.fileno()))


@contextmanager
def read_in_chunks(path: str) -> Iterator[tuple[Iterator[bytes], Signature]]:
    """The file's bytes, as they are asked for, and its signature before the first of them. Raises OSError."""
    with Path(path).open("rb", buffering=0) as file:
        read = _signature(os.fstat(file.fileno()))
        yield iter(lambda: file.read(_CHUNK_BYTES), b""), read


def _signature(stat: os.stat_result) -> Signature:
    return Signature(stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
