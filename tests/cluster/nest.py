"""The node's own cgroup in each hierarchy of the machine: made, joined, and removed with all that runs in it."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
DAEMONS = "node"
"""The cgroup below the nest that the node's own processes are in: in v2 one that has children may hold none."""
_CLONE_NEWCGROUP = 0x02000000  # <linux/sched.h>
_KILL_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """A mounted hierarchy. ``kind`` is its file system, ``options`` what it is mounted with."""

    kind: str
    options: str
    mounted_at: Path


def hierarchies() -> list[Hierarchy]:
    """The machine's: the one of v2 where that has the controllers, else those of v1."""
    found = []
    # https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html: the optional fields end with a dash.
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        mounted_at = Path(before.split()[4])
        kind, _source, options = after.split(maxsplit=2)
        if kind in ("cgroup", "cgroup2") and mounted_at.is_relative_to(ROOT):
            words = [word for word in options.split(",") if word not in ("rw", "ro")]
            if kind == "cgroup" and any(word.startswith("name=") for word in words):
                words.insert(0, "none")
            found.append(Hierarchy(kind, ",".join(words), mounted_at))
    v2 = [each for each in found if each.kind == "cgroup2"]
    if v2 and "memory" in (v2[0].mounted_at / "cgroup.controllers").read_text().split():
        return v2[:1]
    return [each for each in found if each.kind == "cgroup"]


def version() -> int:
    """Of this machine's cgroups."""
    return 2 if hierarchies()[0].kind == "cgroup2" else 1


class Nest:
    """The cgroups ``name``, at the top of each hierarchy."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._tops = [each.mounted_at / name for each in hierarchies()]

    @property
    def is_there(self) -> bool:
        return any(top.is_dir() for top in self._tops)

    def make(self) -> None:
        for top in self._tops:
            make_cgroup(top)
            make_cgroup(top / DAEMONS)

    def join(self, child: str) -> None:
        """Moves the calling process there."""
        for top in self._tops:
            (top / child / "cgroup.procs").write_text("0")

    def become_root(self) -> None:
        """The calling process gets a cgroup namespace of which these are the roots, and runs in ``DAEMONS``."""
        self.join("")
        # os.unshare is there from Python 3.12 on.
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWCGROUP) != 0:
            raise OSError(ctypes.get_errno(), "no cgroup namespace can be made")
        self.join(DAEMONS)

    def kill(self) -> None:
        """Ends every process in it. Raises TimeoutError where one is left."""
        deadline = time.monotonic() + _KILL_SECONDS
        while pids := set(self._pids()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"cgroup {self.name}: processes {sorted(pids)} do not end")
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def remove(self) -> None:
        """Ends what runs there, and removes the cgroups."""
        self._thaw()
        self.kill()
        for directory in reversed(list(self._directories())):
            for _ in range(100):
                try:
                    directory.rmdir()
                except FileNotFoundError:
                    break
                except OSError:  # busy for a moment after its last process
                    time.sleep(0.02)
                else:
                    break
            else:
                directory.rmdir()

    def _thaw(self) -> None:
        """A process that a killed test has frozen cannot end."""
        for directory in self._directories():
            for name, value in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                with suppress(OSError):
                    if (directory / name).exists():
                        (directory / name).write_text(value)

    def _pids(self) -> Iterator[int]:
        for directory in self._directories():
            with suppress(OSError):
                for line in (directory / "cgroup.procs").read_text().splitlines():
                    if line != "0":  # of a pid namespace that this process does not see into
                        yield int(line)

    def _directories(self) -> Iterator[Path]:
        """Each before those below it."""
        for top in self._tops:
            if top.is_dir():
                for directory, _, _ in os.walk(top):
                    yield Path(directory)


def make_cgroup(directory: Path) -> None:
    """One that processes can join: v1's cpuset begins with no processor and no memory node."""
    directory.mkdir(exist_ok=True)
    for name in ("cpuset.cpus", "cpuset.mems"):
        file = directory / name
        if (directory / "tasks").exists() and file.exists() and not file.read_text().strip():
            file.write_text((directory.parent / name).read_text())
