"""Directories that belong to one running demo, and those that a killed one left behind.

A demo holds a lock (flock) on each directory it makes, cgroups included; the kernel drops it however the demo ends. So
a directory with our name that nobody holds is a leftover, and no process id, which may have been given to another
process since, has to be trusted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NAME = re.compile(r"otel-k8s-cgroup-demo-\d+")


def own_name(pid: int) -> str:
    """The name of the directories of the demo with this process id."""
    return f"otel-k8s-cgroup-demo-{pid}"


def make_claimed(path: Path) -> int:
    """Makes the directory, for its owner only, and returns the descriptor that holds it until it is closed.

    Raises:
        OSError: it cannot be made, or is there already.
    """
    for _ in range(3):
        path.mkdir(mode=0o700)
        # Another demo that looks for leftovers may find it before it is locked: then it is gone once that one lets go.
        with contextlib.suppress(FileNotFoundError):
            descriptor = _open(path)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if path.exists():
                return descriptor
            os.close(descriptor)
    raise FileNotFoundError(errno.ENOENT, "other demos keep removing it", str(path))


def leftovers(parent: Path) -> Iterator[Path]:
    """The directories of demos that are no more; each is held while the caller works on it."""
    try:
        found = sorted(path for path in parent.iterdir() if _NAME.fullmatch(path.name))
    except OSError:
        return
    for path in found:
        try:
            # Only our own: the parent may be /tmp, where everyone may make such a name.
            if path.lstat().st_uid != os.geteuid():
                continue
            descriptor = _lock(path)
        except OSError:
            continue
        if descriptor is not None:
            try:
                yield path
            finally:
                os.close(descriptor)


@contextlib.contextmanager
def claimed_work_dir(parent: Path) -> Iterator[Path]:
    """An empty directory of this demo's own in ``parent``, removed at the end; leftovers there are removed now.

    Raises:
        OSError: it cannot be made.
    """
    for path in leftovers(parent):
        shutil.rmtree(path, ignore_errors=True)
    path = parent / own_name(os.getpid())
    claim = make_claimed(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(claim)


def _lock(path: Path) -> int | None:
    """None where another process holds it."""
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            return None
        raise
    return descriptor


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
