"""Real cgroups with real processes, of whichever version this machine has."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import detect
from otel_k8s_cgroup.demo.cgroups import CgroupTree
from otel_k8s_cgroup.demo.pods import PODS
from otel_k8s_cgroup.errors import CgroupRootError
from tests.demo.conftest import CGROUPS, demo_cgroups, read_as_the_exporter

if TYPE_CHECKING:
    from collections.abc import Iterator

GUARANTEED, BURSTABLE, *_ = PODS
STATIC = next(pod for pod in PODS if pod.static)


def _processes(top: Path) -> Iterator[int]:
    for file in top.rglob("cgroup.procs"):
        yield from map(int, file.read_text().split())


def _wait_for_cpu_time(tree: CgroupTree) -> int:
    """The counter, once it counts: the burner needs some milliseconds to begin."""
    while not (counted := tree.cpu_usage_ns(GUARANTEED)):
        os.sched_yield()
    return counted


def test_the_exporter_finds_the_pods_and_a_process_in_each(real_tree: CgroupTree) -> None:
    """The root that the exporter is given shows the demo's pods and no others, each with a process of its own."""
    for pod in (GUARANTEED, BURSTABLE, STATIC):
        real_tree.start(pod)
    read = read_as_the_exporter(real_tree.cgroup_root)
    assert read.keys() == {pod.cgroup_uid for pod in (GUARANTEED, BURSTABLE, STATIC)}
    hierarchy = detect(str(real_tree.cgroup_root))
    for path in (reading.path for reading in read.values()):
        processes = {frozenset(_processes(Path(f"{root}{path}"))) for root in hierarchy.directories.values()}
        assert [len(each) for each in processes] == [1]


def test_a_stopped_pod_keeps_its_counter_and_a_removed_one_is_gone(real_tree: CgroupTree) -> None:
    """What the proof at the demo's end rests on: no process, no more CPU time."""
    real_tree.start(GUARANTEED)
    _wait_for_cpu_time(real_tree)
    real_tree.stop(GUARANTEED)
    counted = real_tree.cpu_usage_ns(GUARANTEED)
    assert counted == real_tree.cpu_usage_ns(GUARANTEED)
    real_tree.remove(GUARANTEED)
    with pytest.raises(FileNotFoundError):
        real_tree.cpu_usage_ns(GUARANTEED)


def test_closing_leaves_nothing(real_tree: CgroupTree) -> None:
    """Neither cgroups nor processes, and twice is no error."""
    real_tree.start(GUARANTEED)
    pids = list(_processes(Path(detect(str(real_tree.cgroup_root)).listed)))
    real_tree.close()
    real_tree.close()
    assert demo_cgroups(os.getpid()) == []
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_process_that_came_in_later_is_ended_too(real_tree: CgroupTree) -> None:
    """A cgroup can be removed only once it is empty: whatever runs in the demo's own is killed, worker or not."""
    real_tree.start(GUARANTEED)
    container = Path(detect(str(real_tree.cgroup_root)).listed, *GUARANTEED.levels, GUARANTEED.container_level)
    with _killed_at_the_end([sys.executable, "-c", "import time; time.sleep(600)"]) as visitor:
        (container / "cgroup.procs").write_text(str(visitor.pid))
        real_tree.close()
        assert visitor.wait(10) == -signal.SIGKILL
    assert demo_cgroups(os.getpid()) == []


def test_what_a_killed_demo_left_is_removed_by_the_next(real_tree: CgroupTree, tmp_path: Path) -> None:
    """SIGKILL leaves cgroups; the next tree removes them, but nothing of a demo that runs."""
    with _another_demo(tmp_path / "killed") as killed:
        left = demo_cgroups(killed)
    assert left
    with _another_demo(tmp_path / "next") as following:
        assert [path for path in left if path.exists()] == []
        assert demo_cgroups(os.getpid())  # the fixture's
    real_tree.close()
    (tmp_path / "last").mkdir()
    CgroupTree(CGROUPS, tmp_path / "last").close()
    assert demo_cgroups(following) == []


@contextlib.contextmanager
def _another_demo(work_dir: Path) -> Iterator[int]:
    """The process id of a program that has made cgroups as a demo does, and that is killed at the end."""
    work_dir.mkdir()
    command = [sys.executable, "-m", "tests.demo.leave_cgroups", str(CGROUPS), str(work_dir)]
    with _killed_at_the_end(command) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == b"ready\n"
        yield program.pid


@contextlib.contextmanager
def _killed_at_the_end(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as program:
        try:
            yield program
        finally:
            program.kill()


def test_a_directory_without_cgroups_is_named(tmp_path: Path) -> None:
    """The reason that the simulated tree will show."""
    with pytest.raises(CgroupRootError, match="no cgroups are mounted here") as caught:
        CgroupTree(tmp_path, tmp_path)
    assert caught.value.path == str(tmp_path)


def test_v2_without_the_memory_controller_is_refused(tmp_path: Path) -> None:
    """Half of the figures would be missing."""
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io\n")
    with pytest.raises(CgroupRootError, match="memory controller"):
        CgroupTree(tmp_path, tmp_path)


def test_a_mount_where_nothing_can_be_made_is_named_and_left_clean(tmp_path: Path) -> None:
    """As on a read-only mount: the first write that fails is the reason, and what was made before is removed."""
    mount, work = tmp_path / "mount", tmp_path / "work"
    mount.mkdir()
    work.mkdir()
    # Directories that are made here get no cgroup.subtree_control, so turning the controller on fails.
    (mount / "cgroup.controllers").write_text("cpu memory\n")
    (mount / "cgroup.subtree_control").write_text("memory\n")
    with pytest.raises(CgroupRootError, match=r"cgroups cannot be made here \(No such file"):
        CgroupTree(mount, work)
    assert sorted(path.name for path in mount.iterdir()) == ["cgroup.controllers", "cgroup.subtree_control"]
