"""A pod's cgroup with one container's, in each hierarchy that this machine has, and what the package reads of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from otel_k8s_cgroup.cgroup import OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import FIGURES, row_type, v1_controllers, with_descendants
from tests.kernel.sandbox import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Literal

    from otel_k8s_cgroup.errors import CgroupError

_TASK = Path(__file__).with_name("task.py")
# No cpuset of v1: without CPUs that someone assigns, no process may be in one.
_CONTROLLERS = [controller for controller in v1_controllers(FIGURES) if controller != "cpuset"]


class Box:
    """``pod`` and ``container`` are paths below the hierarchies' roots."""

    def __init__(self, version: Literal[1, 2], mounts: dict[str, Path]) -> None:
        self.version = version
        self.mounts = mounts
        self.pod = f"/otel-k8s-cgroup-box-{os.getpid()}"
        self.container = f"{self.pod}/container"
        self.errors: list[CgroupError] = []
        self._tasks: list[subprocess.Popen[str]] = []
        self._readers: dict[str, CgroupReader] = {}

    def make(self) -> None:
        for mount in self.mounts.values():
            for path in (self.pod, self.container):
                parent = (mount / path.lstrip("/")).parent
                if self.version == 2:
                    available = (parent / "cgroup.controllers").read_text().split()
                    (parent / "cgroup.subtree_control").write_text(" ".join(f"+{name}" for name in available))
                (mount / path.lstrip("/")).mkdir()

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
        for mount in self.mounts.values():
            for path in (self.container, self.pod):
                directory = mount / path.lstrip("/")
                while True:
                    for process in (directory / "cgroup.procs").read_text().split():
                        with suppress(ProcessLookupError):
                            os.kill(int(process), signal.SIGKILL)
                    try:
                        directory.rmdir()
                    except OSError:
                        time.sleep(0.01)  # until the kernel has let go of them
                    else:
                        break
        for task in self._tasks:
            task.communicate()

    def limit(self, controller: str, name: str, value: object) -> None:
        """Of the container; the controller is v1's."""
        directory = self.mounts["" if self.version == 2 else controller] / self.container.lstrip("/")
        (directory / name).write_text(str(value))

    def do(self, what: str, argument: object) -> dict[str, Any] | None:
        """Lets a process of the container do it (see ``task.py``) and stay; None where it was killed."""
        task = subprocess.Popen(
            [
                *(sys.executable, "-I", _TASK, json.dumps([what, argument])),
                *(mount / self.container.lstrip("/") / "cgroup.procs" for mount in self.mounts.values()),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._tasks.append(task)
        assert task.stdout is not None
        answer = task.stdout.readline()
        if answer:
            done: dict[str, Any] = json.loads(answer)
            return done
        assert task.wait() == -signal.SIGKILL
        return None

    def read(self, path: str) -> Any:
        """All figures, as of the pod or the container."""
        figures = with_descendants(FIGURES) if path == self.pod else FIGURES
        if path not in self._readers:
            directories = {controller: f"{mount}{path}" for controller, mount in self.mounts.items()}
            absent: dict[str, str | None] = {} if self.version == 2 else dict.fromkeys(v1_controllers(figures))
            self._readers[path] = CgroupReader(Plan(figures, self.version), absent | directories, OpenFiles(200))
        row = row_type(figures)._make(self._readers[path].read(0, self.errors.append))
        assert self.errors == []
        return row


@contextmanager
def box() -> Iterator[Box]:
    if (ROOT / "cgroup.controllers").exists():
        made = Box(2, {"": ROOT})
    else:
        made = Box(1, {name: ROOT / name for name in _CONTROLLERS if (ROOT / name).is_dir()})
    made.make()
    try:
        yield made
    finally:
        made.close()
