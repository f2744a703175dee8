"""A small file system of its own, which can be full: where the exporter keeps its state."""

from __future__ import annotations

import errno
import os
import subprocess
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_SIZE = "256k"


class SmallDisk:
    """A tmpfs at ``directory``, which is made, from now on until ``close``.

    Raises:
        OSError: it cannot be mounted; why is in it.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self._filler = directory / "filler"
        mounted = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={_SIZE},mode=700", "soak", directory],
            capture_output=True,
            text=True,
            check=False,
        )
        if mounted.returncode != 0:
            raise OSError(errno.EPERM, mounted.stderr.strip())

    def fill(self) -> None:
        """Leaves no room for another byte."""
        descriptor = os.open(self._filler, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC)
        try:
            while True:
                os.write(descriptor, bytes(4096))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
        finally:
            os.close(descriptor)

    def empty(self) -> None:
        """There is room again."""
        self._filler.unlink(missing_ok=True)

    def close(self) -> None:
        """Unmounts it, also where a process that is on its way out still has a file of it open."""
        subprocess.run(["umount", "--lazy", self._directory], check=False)
