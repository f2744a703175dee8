"""One bad pod never costs another pod a point: whatever its files hold, refuse, or vanish at."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.model import container_key
from tests.fakes.node import DirectReceiver
from tests.fakes.node import Node as WholeNode

from .layouts import BEST_EFFORT, BURSTABLE, GUARANTEED, HEX, OTHER_HEX
from .support import Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from collections.abc import Callable

    from .kernel_tree import KernelTree

pytestmark = pytest.mark.usefixtures("preads_are_seen")

BAD = f"/kubepods/burstable/pod{BURSTABLE}"
# One is listed and read before it, one after it.
GOOD = {BEST_EFFORT: f"/kubepods/besteffort/pod{BEST_EFFORT}", GUARANTEED: f"/kubepods/pod{GUARANTEED}"}

WHOLE = {2: Stats(300_000, 100_000, 200_000, 4096, 11, 22, 33, 44), 1: Stats(300_000, 100_000, 200_000, 4096, 11, 22)}
FIGURES: dict[int, dict[str, list[int]]] = {
    2: {"cpu.stat": [0, 1, 2], "memory.current": [3], "memory.stat": [4, 5, 6, 7]},
    1: {
        "cpuacct.usage": [0],
        "cpuacct.usage_sys": [1],
        "cpuacct.usage_user": [2],
        "memory.usage_in_bytes": [3],
        "memory.stat": [4, 5],
    },
}
"""File → places of its figures in Stats."""

CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda _whole: b"",
    "truncated": lambda whole: whole[: len(whole) // 2],
    "not UTF-8": lambda whole: b"\xff\xfe" + whole.replace(b" ", b"\xa0"),
    "negative": lambda whole: (
        b"\n".join(line[: -len(line.split()[-1])] + b"-" + line.split()[-1] for line in whole.splitlines()) + b"\n"
    ),
    "huge": lambda whole: b"\n".join(line + b"0" * 5000 for line in whole.splitlines()) + b"\n",
    "no figures": lambda _whole: b"\0" * 5000,
    "no end of line": lambda _whole: b"9" * (2 << 20),
}
SAME_CONTENTS: dict[str, Callable[[bytes], bytes]] = {
    "a key twice": lambda whole: whole + (whole.replace(b"1", b"7") if b" " in whole else b""),
    "thousands of lines": lambda whole: (
        whole + (b"".join(b"k%d 1\n" % n for n in range(9000)) if b" " in whole else b"")
    ),
}


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    version: Version = request.param
    made = Tree(tmp_path / "cgroup", version)
    made.make_all([BAD, *GOOD.values()])
    return made


def controller_of(file: str) -> str:
    return "memory" if file.startswith("memory") else "cpuacct"


@pytest.mark.parametrize("limit", [0, 100], ids=["opened each time", "kept open"])
@pytest.mark.parametrize("what", [*CONTENTS, *SAME_CONTENTS])
def test_what_a_file_holds(tree: Tree, what: str, limit: int) -> None:
    """It costs the figures of that file at most, for as long as it lasts; and none of any other pod ever."""
    whole = WHOLE[tree.version]
    for file, places in FIGURES[tree.version].items():
        node = Node(tree.root, limit=limit)
        path = tree.directory(BAD, controller_of(file)) / file
        well = path.read_bytes()
        readings = [node.read()]
        path.write_bytes((CONTENTS | SAME_CONTENTS)[what](well))
        readings.append(node.read())
        path.write_bytes(well)
        readings.append(node.read())
        for reading in readings:
            assert {uid: reading[uid].stats for uid in GOOD} == dict.fromkeys(GOOD, whole)
        bad = [reading[BURSTABLE].stats for reading in readings]
        assert bad[0] == bad[2] == whole
        if what in SAME_CONTENTS:
            assert bad[1] == whole
            assert node.errors == []
        else:
            for place, figure in enumerate(bad[1]):
                assert figure in ((None, whole[place]) if place in places else (whole[place],))
            # A truncated one may end behind what is wanted; and a file without any of the keys is as of another kernel.
            assert {error.cause for error in node.errors} <= {"malformed"}
            assert all("\n" not in str(error) and len(str(error)) < 1000 for error in node.errors)


@pytest.mark.skipif(not Path("/proc/self/mem").exists(), reason="this system has no /proc/self/mem, which answers EIO")
def test_a_file_that_cannot_be_read(tree: Tree) -> None:
    """EIO, at each reading: that figure is left out and reported, and is there again when it can be read."""
    whole = WHOLE[tree.version]
    for file, places in FIGURES[tree.version].items():
        node = Node(tree.root)
        path = tree.directory(BAD, controller_of(file)) / file
        path.rename(path.with_suffix(".kept"))
        path.symlink_to("/proc/self/mem")
        for times in (1, 2):
            reading = node.read()
            assert {uid: reading[uid].stats for uid in GOOD} == dict.fromkeys(GOOD, whole)
            found = reading[BURSTABLE].stats
            assert [place for place, figure in enumerate(found) if figure != whole[place]] == places
            assert [error.cause for error in node.errors] == ["EIO"] * times
        path.unlink()
        path.with_suffix(".kept").rename(path)
        assert node.read()[BURSTABLE].stats == whole
        node.cgroups.close()


class Before:
    """Does something before the so manieth call of the system that follows."""

    def __init__(self, number: int, change: Callable[[], None]) -> None:
        self.left = number
        self._change = change

    def __enter__(self) -> Before:
        # Held: where it is let go of while it is called, CPython 3.11 goes on to call what took its place in memory.
        self._profile = self._count
        sys.setprofile(self._profile)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _count(self, _frame: object, event: str, called: object) -> None:
        if event == "c_call" and getattr(called, "__module__", None) == "posix":
            self.left -= 1
            if self.left == 0:
                sys.setprofile(None)
                self._change()


def vanish_at_each_step(
    root: Path, good: list[str], *, make: Callable[[], None], remove: Callable[[], None], **options: bool
) -> int:
    """The bad pod ends before each call of a first and of a later reading; how many calls there were."""
    steps = 0
    for first in (True, False):
        for limit in (0, 100):
            for step in range(1, 200):
                make()
                node = Node(root, limit=limit, **options)
                before = {} if first else node.read_well()
                with Before(step, remove) as counted:
                    readings = node.read_well()
                if counted.left > 0:  # it had fewer calls
                    remove()
                    break
                assert set(good) <= readings.keys()
                after = node.read_well()
                assert after.keys() == set(good)
                for uid in good:
                    assert readings[uid].stats.cpu_usage_ns is not None
                    if not first:
                        assert after[uid].origin is readings[uid].origin is before[uid].origin
                make()
                again = node.read_well()[BURSTABLE]
                assert again.origin.born
                remove()
                node.cgroups.close()
                steps += 1
    return steps


@pytest.mark.parametrize("what", [BAD, "/kubepods/burstable"], ids=["the pod", "its QoS level"])
def test_what_vanishes_at_any_step(tree: Tree, what: str) -> None:
    """Before each call that asks the system anything. It is silent, the others are read, and what comes back is new."""
    steps = vanish_at_each_step(tree.root, list(GOOD), make=lambda: tree.make(BAD), remove=lambda: tree.remove(what))
    assert steps > 40


@pytest.mark.parametrize("controller", ["cpuacct", "memory"])
def test_a_pod_that_vanishes_from_one_hierarchy_first(tmp_path: Path, controller: str) -> None:
    """v1: what is left of it in the other one may still be read, and costs nobody else anything."""
    tree = Tree(tmp_path / "cgroup", 1)
    tree.make_all(GOOD.values())
    for step in range(1, 60):
        tree.make(BAD)
        node = Node(tree.root)
        with Before(step, lambda: shutil.rmtree(tree.directory(BAD, controller))) as counted:
            first = node.read_well()
        second = node.read_well()
        for readings in (first, second):
            assert {uid: readings[uid].stats for uid in GOOD} == dict.fromkeys(GOOD, WHOLE[1])
        node.cgroups.close()
        if counted.left > 0:
            break
    assert step > 20


def test_a_real_cgroup_that_vanishes_at_any_step(kernel_tree: KernelTree) -> None:
    """As above, by the kernel, whose open files answer ENODEV then."""
    for path in GOOD.values():
        kernel_tree.make(path)
    steps = vanish_at_each_step(
        kernel_tree.root, list(GOOD), make=lambda: kernel_tree.make(BAD), remove=lambda: kernel_tree.remove(BAD)
    )
    assert steps > 40


def test_a_real_pod_with_containers_that_vanishes_at_any_step(kernel_tree: KernelTree) -> None:
    """With all that is in it, at each step of reading that, too; containers of others are read as ever."""
    good = [*GOOD, *(container_key(uid, HEX) for uid in GOOD)]
    for path in GOOD.values():
        kernel_tree.make(f"{path}/{HEX}")

    def make() -> None:
        for container in (HEX, OTHER_HEX):
            kernel_tree.make(f"{BAD}/{container}")

    def remove() -> None:
        for path in (f"{BAD}/{HEX}", f"{BAD}/{OTHER_HEX}", BAD):
            kernel_tree.remove(path)

    assert vanish_at_each_step(kernel_tree.root, good, make=make, remove=remove, containers=True) > 100


def test_a_root_that_is_really_unmounted(tmp_path: Path) -> None:
    """Something is mounted over it, and unmounted again: what is there then goes on from where it was."""
    tree = Tree(tmp_path / "cgroup")
    tree.make_all(GOOD.values())
    node = Node(tree.root)
    first = node.read_well()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "none", tree.root], capture_output=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {mounted.stderr.decode().strip()}")
    try:
        for _ in range(3):
            with pytest.raises(CgroupRootError):
                node.read()
    finally:
        subprocess.run(["umount", tree.root], check=True)
    again = node.read_well()
    assert again.keys() == first.keys()
    assert not any(reading.origin.born for reading in again.values())


def test_the_points_of_the_others_arrive(tmp_path: Path) -> None:
    """From the files to the receiver: each other pod has a point at each tick; the bad one's CPU time comes later."""
    receiver = DirectReceiver()
    node = WholeNode(tmp_path, receiver)
    node.read()
    uids = [node.start(number) for number in range(5)]
    bad = tmp_path / "kubepods" / f"pod{uids[2]}" / "cpu.stat"
    for tick in range(20):
        for uid in uids:
            node.use(uid, 1000)
        content = bad.read_bytes()
        if 5 <= tick < 15:
            bad.write_bytes([b"", b"usage_usec x\n", b"usage_usec -5\nuser_usec 1", b"\xff" * 100][tick % 4])
        node.tick()
        bad.write_bytes(content)
    received = node.assert_conserved(receiver.requests)
    assert set(node.agent.read_errors.by_cause) == {"malformed"}
    totals = [p for p in received if p.metric == "cpu_time_delta" and p.attributes["kind"] == "total"]
    assert [sum(point.pod == uid for point in totals) for uid in uids] == [20, 20, 10, 20, 20]
    node.close()
