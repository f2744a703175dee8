"""A tree of the shape of cgroup v2, for machines where the demo may make no cgroups: no processes, figures by the plan.

Readers keep the files open, as the kernel's allow it: so a file is never replaced, but written in place, whole and with
one ``pwrite``. No figure ever shrinks, so neither does a file, and what a reader sees is a whole file.
"""

from __future__ import annotations

import os
import shutil
import threading
from typing import TYPE_CHECKING

from otel_k8s_cgroup.demo.worker import MIB, cpu_share, memory_mib

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.demo.pods import DemoPod

_TICK_SECONDS = 0.1
_USEC_PER_SECOND = 1_000_000


class SimulatedTree:
    """The demo's pods as plain files.

    Args:
        directory: is made; the tree's root is in it.
        clock: monotonic seconds.
        reason: why it is not real cgroups.
    """

    def __init__(self, directory: Path, *, clock: Callable[[], float], reason: str) -> None:
        self.description = "SIMULATED cgroups (v2), no processes"
        self.reason: str | None = reason
        self.cgroup_root = directory / "root"
        self._building = directory / "building"
        for made in (directory, self.cgroup_root, self._building):
            made.mkdir()
        (self.cgroup_root / "cgroup.controllers").write_text("cpu memory\n")
        self._clock = clock
        self._lock = threading.Lock()
        self._pods: dict[str, _SimulatedPod] = {}
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-simulated-cgroups", daemon=True)

    def start(self, pod: DemoPod) -> None:
        """Adds the pod's directory, at once with its files, as the kernel does."""
        built = self._building / pod.levels[-1]
        built.mkdir()
        (built / pod.container_level).mkdir()
        simulated = _SimulatedPod(pod, (built, built / pod.container_level), self._clock())
        parent = self.cgroup_root.joinpath(*pod.levels[:-1])
        parent.mkdir(parents=True, exist_ok=True)
        built.rename(parent / pod.levels[-1])
        with self._lock:
            self._pods[pod.uid] = simulated
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self, pod: DemoPod) -> None:
        """Ends the pod's processes: its figures stay as they are."""
        with self._lock:
            self._pods[pod.uid].stopped = True

    def remove(self, pod: DemoPod) -> None:
        """Ends the pod."""
        with self._lock:
            self._pods.pop(pod.uid).close()
        trash = self._building / f"{pod.uid}.removed"
        self.cgroup_root.joinpath(*pod.levels).rename(trash)  # gone at once for whoever lists, files and all
        shutil.rmtree(trash)

    def cpu_usage_ns(self, pod: DemoPod) -> int:
        """The simulated counter of the pod's CPU time."""
        with self._lock:
            return self._pods[pod.uid].usage_usec * 1000

    def advance(self) -> None:
        """Brings every file to the present. The tree's own thread calls it."""
        with self._lock:
            now = self._clock()
            for simulated in self._pods.values():
                simulated.advance(now)

    def close(self) -> None:
        """Ends the thread and closes the files. Can be called again."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()
        with self._lock:
            for simulated in self._pods.values():
                simulated.close()
            self._pods.clear()

    def _run(self) -> None:
        while not self._closing.wait(_TICK_SECONDS):
            self.advance()


class _SimulatedPod:
    """One pod's figures and its open files."""

    def __init__(self, pod: DemoPod, directories: tuple[Path, ...], now: float) -> None:
        self.stopped = False
        self.usage_usec = 0
        self._workload = pod.workload
        self._born = self._advanced = now
        self._system_usec = 0
        self._files = {
            name: [
                os.open(directory / name, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644) for directory in directories
            ]
            for name in ("cpu.stat", "memory.current", "memory.stat")
        }
        self._write(now)

    def advance(self, now: float) -> None:
        elapsed, self._advanced = now - self._advanced, now
        if self.stopped or elapsed <= 0:
            return
        used_usec = int(cpu_share(self._workload, now - self._born) * elapsed * _USEC_PER_SECOND)
        self.usage_usec += used_usec
        self._system_usec += int(used_usec * self._workload.system_fraction)
        self._write(now)

    def close(self) -> None:
        for descriptors in self._files.values():
            for descriptor in descriptors:
                os.close(descriptor)

    def _write(self, now: float) -> None:
        anon = int(memory_mib(self._workload, now - self._born) * MIB)
        file = self._workload.file_mib * MIB
        kernel_stack, pagetables = 16 * 1024, 128 * 1024
        kernel = kernel_stack + pagetables
        contents = {
            "cpu.stat": {
                "usage_usec": self.usage_usec,
                "user_usec": self.usage_usec - self._system_usec,
                "system_usec": self._system_usec,
            },
            "memory.stat": {
                "anon": anon,
                "file": file,
                "kernel": kernel,
                "kernel_stack": kernel_stack,
                "pagetables": pagetables,
            },
        }
        text = {name: "".join(f"{key} {value}\n" for key, value in lines.items()) for name, lines in contents.items()}
        text["memory.current"] = f"{anon + file + kernel}\n"
        for name, descriptors in self._files.items():
            for descriptor in descriptors:
                os.pwrite(descriptor, text[name].encode(), 0)
