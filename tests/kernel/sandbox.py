"""Pods made of real cgroups and real processes, laid out as a kubelet does; v1 and v2."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import threading
import uuid
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path("/sys/fs/cgroup")
_WORKER = Path(__file__).with_name("worker.py")

Driver = Literal["systemd", "cgroupfs"]


class CpuSeconds(NamedTuple):
    """What a process has used since it joined its cgroup, by its own ``getrusage``."""

    user: float
    system: float


@dataclass(frozen=True, slots=True)
class SandboxPod:
    """A pod's cgroup, with one container in which one worker runs."""

    uid: str
    path: str
    """Below the hierarchy's root, with its leading ``/``."""
    cpu_directory: Path
    version: Literal[1, 2]
    container: str
    """Its directory's name."""
    worker: subprocess.Popen[str]

    @property
    def container_id(self) -> str:
        return self.container.removesuffix(".scope").rpartition("-")[2]

    def order(self, **what: float | bool) -> CpuSeconds:
        """Lets the worker do it (see ``worker.py``), and returns what it has used so far. It sleeps again then."""
        return _order(self.worker, **what)

    def cpu_time_ns(self) -> dict[str, int]:
        """kind → the kernel's own counter, read here without the package, once the worker has gone to sleep."""
        before: dict[str, int] = {}
        now = self._counters()
        while now != before:
            threading.Event().wait(0.01)
            before, now = now, self._counters()
        return now

    def _counters(self) -> dict[str, int]:
        if self.version == 1:
            files = {"total": "cpuacct.usage", "system": "cpuacct.usage_sys", "user": "cpuacct.usage_user"}
            return {kind: int((self.cpu_directory / name).read_text()) for kind, name in files.items()}
        lines = dict(line.split() for line in (self.cpu_directory / "cpu.stat").read_text().splitlines())
        keys = {"total": "usage_usec", "system": "system_usec", "user": "user_usec"}
        return {kind: int(lines[key]) * 1000 for kind, key in keys.items()}


def why_not() -> str | None:
    """Why no cgroup can be made on this machine; None where they can."""
    if sys.platform != "linux":
        return "cgroups are Linux's"
    version = _version()
    if version is None:
        return f"{ROOT} has neither cgroup v2 nor v1's cpuacct and memory"
    for hierarchy in _hierarchies(version):
        probe = hierarchy / f"otel-k8s-cgroup-probe-{os.getpid()}"
        try:
            probe.mkdir()
        except OSError as error:
            return f"no cgroup can be made in {hierarchy} ({error.strerror}): this needs root, and a writable mount"
        probe.rmdir()
    return None


@contextmanager
def sandbox() -> Iterator[Sandbox]:
    """Removes all it has made at the end."""
    version = _version()
    if version is None:
        raise AssertionError(why_not())
    made = Sandbox(version)
    try:
        yield made
    finally:
        made.close()


class Sandbox:
    def __init__(self, version: Literal[1, 2]) -> None:
        self.version = version
        self._hierarchies = _hierarchies(version)
        self._cleanup = ExitStack()

    def close(self) -> None:
        self._cleanup.close()

    def pod(self, driver: Driver = "systemd") -> SandboxPod:
        """A new Burstable pod with one container and its worker."""
        uid = str(uuid.uuid4())
        if driver == "systemd":
            burstable = "kubepods.slice/kubepods-burstable.slice"
            path = f"{burstable}/kubepods-burstable-pod{uid.replace('-', '_')}.slice"
            container = "cri-containerd-{}.scope"
        else:
            path = f"kubepods/burstable/pod{uid}"
            container = "{}"
        container = container.format(uuid.uuid4().hex * 2)
        worker = self._start(path, container)
        return SandboxPod(uid, f"/{path}", self._hierarchies[0] / path, self.version, container, worker)

    def restart(self, pod: SandboxPod) -> SandboxPod:
        """Ends the pod's container, and starts another one of a new id in its place."""
        _end(pod.worker)
        for hierarchy in self._hierarchies:
            (hierarchy / pod.path.lstrip("/") / pod.container).rmdir()
        container = pod.container.replace(pod.container_id, uuid.uuid4().hex * 2)
        return replace(pod, container=container, worker=self._start(pod.path.lstrip("/"), container))

    def file(self, pod: SandboxPod, name: str) -> Path:
        """The pod's file of that name, in whichever hierarchy has it."""
        return next(
            file for hierarchy in self._hierarchies if (file := hierarchy / pod.path.lstrip("/") / name).exists()
        )

    def _start(self, path: str, container: str) -> subprocess.Popen[str]:
        """A worker that has joined the container's cgroup."""
        for hierarchy in self._hierarchies:
            self._make(hierarchy, Path(path) / container)
        worker = subprocess.Popen(
            [
                sys.executable,
                "-I",
                _WORKER,
                *(hierarchy / path / container / "cgroup.procs" for hierarchy in self._hierarchies),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._cleanup.callback(_end, worker)
        _order(worker)  # it has joined
        return worker

    def remove(self, pod: SandboxPod) -> None:
        """Ends the pod as a kubelet does: its processes, then its cgroups."""
        _end(pod.worker)
        for hierarchy in self._hierarchies:
            directory = hierarchy / pod.path.lstrip("/")
            for child in directory.iterdir():
                if child.is_dir():
                    child.rmdir()
            directory.rmdir()

    def _make(self, hierarchy: Path, path: Path) -> None:
        directory = hierarchy
        for name in path.parts:
            if self.version == 2:
                # A controller has files in a cgroup only where its parent hands it on.
                (directory / "cgroup.subtree_control").write_text("+cpu +memory")
            directory /= name
            with suppress(FileExistsError):
                directory.mkdir()
                self._cleanup.callback(_remove, directory)


def _version() -> Literal[1, 2] | None:
    if (ROOT / "cgroup.controllers").exists():
        return 2
    return 1 if all(hierarchy.is_dir() for hierarchy in _hierarchies(1)) else None


def _hierarchies(version: Literal[1, 2]) -> list[Path]:
    return [ROOT] if version == 2 else [ROOT / "cpuacct", ROOT / "memory"]


def _order(worker: subprocess.Popen[str], **what: float | bool) -> CpuSeconds:
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(json.dumps(what) + "\n")
    worker.stdin.flush()
    answer = worker.stdout.readline()
    if not answer:
        raise AssertionError(f"the worker has ended: exit code {worker.wait()}")
    return CpuSeconds(**json.loads(answer))


def _end(worker: subprocess.Popen[str]) -> None:
    worker.kill()
    worker.communicate()


def _remove(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError as error:
        # Gone by `remove`, or a parent that another test's pods are in.
        if error.errno not in {errno.ENOENT, errno.EBUSY, errno.ENOTEMPTY}:
            raise
