"""How many files stay open, how often each is read, and what happens where the system has no descriptor left."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.model import container_key

from .layouts import BEST_EFFORT, BURSTABLE, GUARANTEED, HEX, OTHER_HEX
from .support import Every, Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from collections.abc import Container
    from types import FrameType

pytestmark = pytest.mark.usefixtures("preads_are_seen")

PODS = {
    GUARANTEED: f"/kubepods/pod{GUARANTEED}",
    BURSTABLE: f"/kubepods/burstable/pod{BURSTABLE}",
    BEST_EFFORT: f"/kubepods/besteffort/pod{BEST_EFFORT}",
}
READ = {
    1: {"cpuacct.usage", "cpuacct.usage_sys", "cpuacct.usage_user", "memory.usage_in_bytes", "memory.stat"},
    2: {"cpu.stat", "memory.current", "memory.stat"},
}

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc/self/fd")


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    version: Version = request.param
    made = Tree(tmp_path / "cgroup", version)
    for path in PODS.values():
        made.make(path)
        made.make(f"{path}/{HEX}")
    # What a careless walk would meet: figures of a level, of a parent, and of the root.
    for path in ("/kubepods", "/kubepods/burstable", "/"):
        made.make(path)
    return made


def system_calls(node: Node, wanted: Container[str] = Every()) -> Counter[str]:
    """The calls of a reading that end in the kernel, by their name in ``os``."""
    calls: Counter[str] = Counter()

    def count(_frame: FrameType, event: str, called: object) -> None:
        if event == "c_call" and getattr(called, "__module__", None) == "posix":
            calls[getattr(called, "__name__", "")] += 1

    sys.setprofile(count)
    try:
        node.read_well(wanted)
    finally:
        sys.setprofile(None)
    return calls


def open_paths(below: Path) -> list[Path]:
    paths = [link.readlink() for link in list(Path("/proc/self/fd").iterdir()) if link.is_symlink()]
    return [path for path in paths if path.is_relative_to(below)]


@needs_proc
def test_only_files_of_pods_are_open_each_once(tree: Tree) -> None:
    """Of every pod the files of the table, of nothing else any."""
    node = Node(tree.root)
    node.read_well()
    names = READ[tree.version]
    expected = {
        hierarchy / path.lstrip("/") / name
        for path in PODS.values()
        for hierarchy in tree.hierarchies.values()
        for name in names
        if (hierarchy / path.lstrip("/") / name).exists()
    }
    found = open_paths(tree.root)
    assert sorted(found) == sorted(expected)
    assert node.open_files.count == len(found) == len(PODS) * len(names)


def test_each_file_is_read_once_a_tick(tree: Tree) -> None:
    """One pread a file, a stat of the root, of the parent and of each level; nothing is opened or listed."""
    node = Node(tree.root)
    node.read_well()
    preads = len(PODS) * len(READ[tree.version])
    assert system_calls(node) == {"pread": preads, "stat": 4}


def test_pods_that_are_not_read_are_listed(tree: Tree) -> None:
    """They do not prove by being read that they are there; nor does a directory that is none of ours."""
    node = Node(tree.root)
    node.read_well()
    wanted = PODS.keys() - {BURSTABLE}
    node.read_well(wanted)
    preads = len(wanted) * len(READ[tree.version])
    assert system_calls(node, wanted) == {"pread": preads, "listdir": 1, "stat": 4}
    tree.make("/kubepods/system")
    node.read_well()
    assert system_calls(node)["listdir"] == 1


def test_containers_cost_a_look_at_their_pod(tree: Tree) -> None:
    """A stat of each pod's directory, which is not listed, and the containers' own files; of what is in a pod and not
    wanted, as sandboxes are, whether it is there. What is not asked for costs nothing.
    """
    for path in PODS.values():
        tree.make(f"{path}/{OTHER_HEX}")
    wanted = {*PODS, *(container_key(uid, HEX) for uid in PODS)}
    files = len(READ[tree.version])
    node = Node(tree.root, containers=True)
    node.read_well(wanted)
    assert system_calls(node, wanted) == {
        "pread": 2 * len(PODS) * files,
        "stat": 4 + len(PODS),
        "access": len(PODS),
    }
    assert node.open_files.count == 2 * len(PODS) * files
    node = Node(tree.root)
    node.read_well(wanted)
    assert system_calls(node, wanted) == {"pread": len(PODS) * files, "stat": 4}


def test_totals_cost_their_own_files(tree: Tree) -> None:
    """Nothing is listed or looked for that is not anyhow."""
    tree.make("/kubepods/besteffort")
    node = Node(tree.root, node_totals=True)
    node.read_well()
    totals = ["/kubepods", "/kubepods/burstable", "/kubepods/besteffort"]
    preads = len([*PODS, *totals]) * len(READ[tree.version])
    assert system_calls(node) == {"pread": preads, "stat": 4}


def test_a_new_pod_costs_its_own_files(tree: Tree) -> None:
    """Those that are open stay so, and no other directory is listed. (v1: use_hierarchy is looked at once.)"""
    node = Node(tree.root)
    node.read_well()
    tree.make(f"/kubepods/burstable/pod{uuid.UUID(int=1)}")
    calls = system_calls(node)
    once = 1 if tree.version == 1 else 0
    assert calls["open"] == len(READ[tree.version]) + once
    assert calls["pread"] == (len(PODS) + 1) * len(READ[tree.version]) + once
    assert calls["listdir"] == 1


@needs_proc
@pytest.mark.parametrize("born", [False, True])
def test_a_pod_that_is_not_wanted_keeps_no_file_open(tree: Tree, born: bool) -> None:
    """Its origin is read, then its files are closed, also where it was wanted before."""
    node = Node(tree.root)
    if born:
        tree.remove(PODS[BURSTABLE])
        node.read_well()
        tree.make(PODS[BURSTABLE])
    for wanted in (PODS.keys() - {BURSTABLE}, PODS.keys(), PODS.keys() - {BURSTABLE}):
        assert node.read_well(wanted).keys() == wanted
        assert node.open_files.count == len(wanted) * len(READ[tree.version])


def test_what_is_made_anew_while_nothing_is_open_counts_from_zero(tree: Tree) -> None:
    """A static pod's cgroup that is made anew at the same path between two listings, while no file of it is open: its
    inode tells it from the one before, though its counter is higher.
    """
    node = Node(tree.root)
    before = node.read_well(set())
    assert before == {}
    seconds = node.clock.now_ns
    for number, hierarchy in enumerate(tree.hierarchies.values()):
        # Not removed: its inode would be free for the new one, as it never is in a cgroup file system.
        (hierarchy / PODS[BURSTABLE].lstrip("/")).rename(tree.root.parent / f"aside {number}")
    tree.make(PODS[BURSTABLE], usage_us=10_000_000)
    again = node.read_well()[BURSTABLE]
    assert again.origin.born
    assert again.origin.stats.cpu_usage_ns == 0
    assert again.origin.mono_ns == seconds


@needs_proc
@pytest.mark.parametrize("limit", [0, 4])
def test_beyond_the_limit_files_are_opened_each_time(tree: Tree, limit: int) -> None:
    """All pods are read, the same as ever; no more than so many files stay open."""
    expected = {uid: reading.stats for uid, reading in Node(tree.root).read_well().items()}
    node = Node(tree.root, limit=limit)
    for _ in range(3):
        assert {uid: reading.stats for uid, reading in node.read_well().items()} == expected
        assert node.open_files.count == limit


@needs_proc
def test_a_limit_that_is_free_again_is_used(tree: Tree) -> None:
    """Files of a pod that ended make room for those of another."""
    files = len(READ[tree.version])
    node = Node(tree.root, limit=files * len(PODS))
    node.read_well()
    tree.remove(PODS[BURSTABLE])
    tree.make(f"/kubepods/pod{uuid.UUID(int=1)}")
    node.read_well()
    assert node.open_files.count == files * len(PODS)


@needs_proc
def test_thousands_of_pods_leave_no_descriptor(tmp_path: Path) -> None:
    """3,000 pods come and go, three at a time."""
    tree = Tree(tmp_path / "cgroup")
    tree.make_all(PODS.values())
    node = Node(tree.root)
    living = [tree.directory(path) for path in PODS.values()]
    for number in range(1000):
        # A directory under another name is another pod's, and its own has ended.
        living = [pod.rename(pod.with_name(f"pod{uuid.UUID(int=number * 3 + one)}")) for one, pod in enumerate(living)]
        assert len(node.read_well()) == 3
        assert node.open_files.count == 9
    assert len(open_paths(tree.root)) == 9


EXHAUSTED = """
import json, os, resource, sys
from pathlib import Path
from tests.cgroup.support import Node
from tests.cgroup.trees import Tree

root, version, when, new_pod = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
tree = Tree(root, version)
node = Node(root)
node.cgroups.hierarchy
if when == "later":
    node.read()
    tree.make(new_pod)
resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
taken = []
try:
    while True:
        taken.append(os.dup(0))
except OSError:
    pass
told = []
for _ in range(12):  # over the time at which parents are looked for again
    readings = node.read()
    told.append({uid: list(reading.stats) for uid, reading in readings.items()})
kept = node.open_files.count
freed = taken.pop()
os.close(freed)
node.read()
try:
    os.close(os.dup(0))
    free = True
except OSError:
    free = False
print(json.dumps({"told": told, "errors": list(map(str, node.errors)), "kept": kept, "free": free}))
"""


@pytest.mark.parametrize("when", ["at the start", "later"])
def test_no_descriptor_is_left(tree: Tree, when: str) -> None:
    """RLIMIT_NOFILE is used up by others: pods are listed, found and read all the same, new ones too, by the one
    descriptor that was held back; and one that gets free is left to the others.
    """
    new_pod = f"/kubepods/burstable/pod{uuid.UUID(int=1)}"
    if when == "at the start":
        tree.make(new_pod)
    done = subprocess.run(
        [sys.executable, "-c", EXHAUSTED, tree.root, str(tree.version), when, new_pod],
        check=True,
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )
    result = json.loads(done.stdout)
    stats = [300_000, 100_000, 200_000, 4096, 11, 22, *((33, 44) if tree.version == 2 else (None, None))]
    assert result["errors"] == []
    assert result["told"] == [dict.fromkeys([*PODS, str(uuid.UUID(int=1))], stats)] * 12
    assert result["kept"] == (0 if when == "at the start" else len(PODS) * len(READ[tree.version]))
    assert result["free"]
