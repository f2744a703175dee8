"""Real cgroups with real processes for the demo's pods, below directories of the demo's own.

They are made as ``<controller>/otel-k8s-cgroup-demo-<pid>`` (v1) or ``otel-k8s-cgroup-demo-<pid>`` (v2) below the
mount, so that a real node's pods are never touched, and the exporter is given a root at which that is all there is.
On v2 only the memory controller is asked for: the times in ``cpu.stat`` are there without the cpu controller
(https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup.demo import launch, worker
from otel_k8s_cgroup.demo.claims import leftovers, make_claimed, own_name
from otel_k8s_cgroup.errors import CgroupRootError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.demo.pods import DemoPod

# Controllers mounted together are one directory, mostly with a link for each.
_V1_NAMES = {"cpuacct": ("cpuacct", "cpu,cpuacct", "cpuacct,cpu"), "memory": ("memory",)}
_REMOVE_ATTEMPTS = 250
_ENTER_ATTEMPTS = 1000
_PAUSE_SECONDS = 0.02
_ENTER_PAUSE_SECONDS = 0.005


class CgroupTree:
    """The demo's pods as cgroups of this machine. To be used by one thread.

    Args:
        mount: where the machine's cgroups are mounted.
        work_dir: an existing directory of the demo's own, for the workers' files and v1's links.

    Raises:
        CgroupRootError: cgroups cannot be made here; the message says why.
    """

    reason: str | None = None
    """Why the cgroups are simulated; these are not."""

    def __init__(self, mount: Path, work_dir: Path) -> None:
        self._work_dir = work_dir
        self._bases: dict[str, Path] = {}
        """controller (v1; "" on v2) → the demo's directory there."""
        self._claims: list[int] = []
        self._enabled_at: Path | None = None
        """v2: the mount, where the memory controller was not on for its children before."""
        self._workers: dict[str, subprocess.Popen[bytes]] = {}
        hierarchies = _hierarchies(mount)
        try:
            for controller, directory in hierarchies.items():
                remove_leftover_cgroups(directory)
                base = directory / own_name(os.getpid())
                self._claims.append(_make_base(base))
                self._bases[controller] = base
            if "" in hierarchies:
                self.cgroup_root = self._bases[""]
                if _enable_memory(mount):
                    self._enabled_at = mount
                _enable_memory(self.cgroup_root)
            else:
                self.cgroup_root = work_dir / "cgroup"
                self.cgroup_root.mkdir()
                for controller, base in self._bases.items():
                    (self.cgroup_root / controller).symlink_to(base)
        except CgroupRootError:
            self.close()
            raise
        except OSError as error:
            self.close()
            raise _refused(error, mount) from None
        self.description = f"real cgroups ({'v2' if '' in hierarchies else 'v1'}) with real processes"

    def start(self, pod: DemoPod) -> None:
        """Makes the pod's cgroup and runs its workload in it: inside from its first instruction.

        Raises:
            CgroupRootError: the kernel refuses the cgroup or the process in it.
        """
        try:
            procs_files = [self._make_pod(base, pod) / "cgroup.procs" for base in self._bases.values()]
        except OSError as error:
            raise _refused(error, self.cgroup_root) from None
        self._workers[pod.uid] = process = _start_worker(pod, procs_files, self._work_dir)
        for _ in range(_ENTER_ATTEMPTS):
            status = process.poll()
            if status is not None:
                raise CgroupRootError(str(procs_files[0]), f"the kernel lets no process in: {os.strerror(status)}")
            if all(process.pid in _processes(file.parent) for file in procs_files):
                return
            time.sleep(_ENTER_PAUSE_SECONDS)
        raise CgroupRootError(str(procs_files[0]), "the process did not come into its cgroup")

    def stop(self, pod: DemoPod) -> None:
        """Ends the pod's processes; its cgroup stays, with the counters as they are."""
        process = self._workers.pop(pod.uid, None)
        if process is not None:
            process.kill()
            process.wait()

    def remove(self, pod: DemoPod) -> None:
        """Ends the pod: its processes, then its cgroup. The QoS level above stays, as the kubelet's does."""
        self.stop(pod)
        for base in self._bases.values():
            remove_cgroups(base.joinpath(*pod.levels))

    def cpu_usage_ns(self, pod: DemoPod) -> int | None:
        """The kernel's counter of the pod's CPU time; None where this machine has none."""
        if (base := self._bases.get("")) is not None:
            usage = base.joinpath(*pod.levels, "cpu.stat").read_text().split("\n", 1)[0]
            return int(usage.removeprefix("usage_usec ")) * 1000
        if (base := self._bases.get("cpuacct")) is not None:
            return int(base.joinpath(*pod.levels, "cpuacct.usage").read_text())
        return None

    def close(self) -> None:
        """Ends every process and removes every cgroup of the demo. Can be called again.

        Raises:
            OSError: a cgroup could not be removed; the others were.
        """
        failed: OSError | None = None
        for process in self._workers.values():
            process.kill()
            process.wait()
        self._workers.clear()
        for base in self._bases.values():
            try:
                remove_cgroups(base)
            except OSError as error:
                failed = error
        if self._enabled_at is not None:
            # The kernel refuses it while another cgroup has come to use the controller: then it stays on.
            with contextlib.suppress(OSError):
                (self._enabled_at / "cgroup.subtree_control").write_text("-memory")
            self._enabled_at = None
        for descriptor in self._claims:
            os.close(descriptor)
        self._claims.clear()
        if failed is not None:
            raise failed

    def _make_pod(self, base: Path, pod: DemoPod) -> Path:
        directory = base
        for level in pod.levels:
            directory /= level
            directory.mkdir(exist_ok=True)
            if base == self._bases.get(""):
                _enable_memory(directory)
        directory /= pod.container_level
        directory.mkdir()
        return directory


def remove_cgroups(top: Path) -> None:
    """Kills what runs in the cgroup and below, and removes it bottom up; it may be gone already.

    Raises:
        OSError: it is still there after some seconds, or must not be removed.
    """
    for attempt in range(_REMOVE_ATTEMPTS):
        directories = [Path(path) for path, _, _ in os.walk(top, topdown=False)]
        for directory in directories:
            for pid in _processes(directory) - {os.getpid()}:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        try:
            for directory in directories:
                with contextlib.suppress(FileNotFoundError):
                    directory.rmdir()
        except OSError as error:
            # EBUSY until the kernel is done with the last of the killed.
            if error.errno != errno.EBUSY or attempt == _REMOVE_ATTEMPTS - 1:
                raise
            time.sleep(_PAUSE_SECONDS)
        else:
            return


def remove_leftover_cgroups(hierarchy: Path) -> None:
    """Removes what demos that were killed left in ``hierarchy``; what cannot be removed is left to the next."""
    for path in leftovers(hierarchy):
        with contextlib.suppress(OSError):
            remove_cgroups(path)


def _hierarchies(mount: Path) -> dict[str, Path]:
    """controller → directory for v1 (the hybrid layout is v1), ``""`` → the mount for v2."""
    found: dict[str, Path] = {}
    for controller, names in _V1_NAMES.items():
        for name in names:
            if (mount / name / "cgroup.procs").is_file():
                found.setdefault(controller, mount / name)
    if found:
        return found
    if not (mount / "cgroup.controllers").is_file():
        raise CgroupRootError(str(mount), "no cgroups are mounted here")
    if "memory" not in (mount / "cgroup.controllers").read_text().split():
        raise CgroupRootError(str(mount), "its cgroup.controllers does not have the memory controller")
    return {"": mount}


def _make_base(base: Path) -> int:
    try:
        return make_claimed(base)
    except OSError as error:
        raise _refused(error, base) from None


def _refused(error: OSError, path: Path) -> CgroupRootError:
    way_out = "; run the demo as root for real ones" if os.geteuid() != 0 else ""
    return CgroupRootError(str(error.filename or path), f"cgroups cannot be made here ({error.strerror}){way_out}")


def _enable_memory(directory: Path) -> bool:
    """Turns the memory controller on for the children of a v2 cgroup; false where it was on already."""
    control = directory / "cgroup.subtree_control"
    if "memory" in control.read_text().split():
        return False
    control.write_text("+memory")
    return True


def _processes(directory: Path) -> set[int]:
    try:
        # 0 is a process of another pid namespace.
        return {int(pid) for pid in (directory / "cgroup.procs").read_text().split()} - {0}
    except OSError:
        return set()  # it has just been removed


def _start_worker(pod: DemoPod, procs_files: Sequence[Path], work_dir: Path) -> subprocess.Popen[bytes]:
    python = [sys.executable, "-I", "-S"]
    return subprocess.Popen(  # noqa: S603 - our own program with our own arguments
        [
            *python,
            launch.__file__,
            str(os.getpid()),
            str(int(signal.SIGKILL)),
            *map(str, procs_files),
            "--",
            *python,
            worker.__file__,
            json.dumps(pod.workload._asdict()),
            str(work_dir / f"{pod.uid}.data"),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # a Ctrl-C is the demo's alone to answer
    )
