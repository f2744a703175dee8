"""Containers: born, restarted and ended, each an entity beside its pod."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup.locate import container_id
from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.model import EntityKind, container_key

from .layouts import BURSTABLE, GUARANTEED, HEX, OTHER_HEX
from .support import Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .kernel_tree import KernelTree

POD = f"/kubepods/burstable/pod{BURSTABLE}"
OTHER_POD = f"/kubepods/pod{GUARANTEED}"
SANDBOX_ID, NEXT_ID = "a" * 64, "b" * 64
FIRST, SECOND, NEXT = (container_key(BURSTABLE, each) for each in (HEX, OTHER_HEX, NEXT_ID))
SANDBOX = container_key(BURSTABLE, SANDBOX_ID)
IN_OTHER = container_key(GUARANTEED, HEX)
WANTED = {BURSTABLE, FIRST, SECOND, NEXT}


def path(key: str) -> str:
    return f"{POD}/{key.rpartition('/')[2]}"


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    """A pod with its sandbox and one container."""
    version: Version = request.param
    made = Tree(tmp_path / "cgroup", version)
    made.make_all([POD, path(SANDBOX), path(FIRST)])
    return made


@pytest.fixture
def node(tree: Tree) -> Node:
    return Node(tree.root, containers=True)


@pytest.fixture
def kernel_node(kernel_tree: KernelTree) -> Node:
    for each in (POD, path(SANDBOX), path(FIRST)):
        kernel_tree.make(each)
    return Node(kernel_tree.root, containers=True)


def test_what_names_a_container() -> None:
    """Whatever the runtime; monitors have a container's id and are none."""
    for name in (HEX, f"{HEX}.scope", *(f"{runtime}-{HEX}.scope" for runtime in ("cri-containerd", "crio", "docker"))):
        assert container_id(name) == HEX
    for name in ("", f"crio-conmon-{HEX}.scope", f"libpod-{HEX}", f"-{HEX}", f"{HEX}0", f"{HEX}\n", f"a b-{HEX}"):
        assert container_id(name) is None


def test_a_container_that_was_there_before_counts_from_its_first_reading(node: Node) -> None:
    """As its pod does. The sandbox, which the API does not list, is not read."""
    readings = node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, FIRST}
    first = readings[FIRST]
    assert (first.kind, first.path, first.origin.born) == (EntityKind.CONTAINER, path(FIRST), False)
    assert node.read_well(WANTED)[FIRST].origin is first.origin


def test_without_containers_there_are_none(tree: Tree) -> None:
    """Only pods are found, and their directories are not looked into."""
    node = Node(tree.root)
    assert node.read_well().keys() == {BURSTABLE}
    assert node.cgroups.found.keys() == {BURSTABLE}
    assert node.cgroups.discovery.kinds == {EntityKind.POD}


def test_a_container_that_is_born_counts_from_zero(tree: Tree, node: Node) -> None:
    """From the last look that was without it."""
    before = node.read_well(WANTED)[FIRST].mono_ns
    tree.make(path(SECOND), usage_us=250_000)
    reading = node.read_well(WANTED)[SECOND]
    assert (reading.origin.born, reading.origin.mono_ns, reading.origin.stats) == (True, before, Stats(0, 0, 0))
    assert reading.stats.cpu_usage_ns == 250_000_000
    assert node.read_well(WANTED)[SECOND].origin is reading.origin


def test_the_containers_of_a_pod_that_is_born(tree: Tree, node: Node) -> None:
    """They are found with it, and are no older than it is; those that come later, no older than that."""
    before = node.read_well(WANTED)[FIRST].mono_ns
    tree.make_all([OTHER_POD, f"{OTHER_POD}/{HEX}"])
    readings = node.read_well()
    for key in (GUARANTEED, IN_OTHER):
        assert (readings[key].origin.born, readings[key].origin.mono_ns) == (True, before)
    tree.make(f"{OTHER_POD}/{OTHER_HEX}")
    later = node.read_well()[container_key(GUARANTEED, OTHER_HEX)]
    assert (later.origin.born, later.origin.mono_ns) == (True, readings[IN_OTHER].mono_ns)


def test_a_container_that_is_listed_late_counts_from_its_birth(tree: Tree, node: Node) -> None:
    """The API may list it ticks after its cgroup is there."""
    before = node.read_well({BURSTABLE, FIRST})[FIRST].mono_ns
    tree.make(path(SECOND), usage_us=250_000)
    for _ in range(3):
        assert node.read_well({BURSTABLE, FIRST}).keys() == {BURSTABLE, FIRST}
    reading = node.read_well(WANTED)[SECOND]
    assert (reading.origin.born, reading.origin.mono_ns) == (True, before)


def test_a_container_that_restarts_is_a_new_one(tree: Tree, node: Node) -> None:
    """It has a new id, and with it a new key; the pod goes on."""
    first = node.read_well(WANTED)
    tree.remove(path(FIRST))
    gone = node.read_well(WANTED)
    assert gone.keys() == {BURSTABLE}
    assert gone[BURSTABLE].origin is first[BURSTABLE].origin
    tree.make(path(NEXT), usage_us=500)
    reading = node.read_well(WANTED)[NEXT]
    assert (reading.origin.born, reading.origin.mono_ns) == (True, gone[BURSTABLE].mono_ns)


def test_a_pod_that_ends_takes_its_containers_with_it(tree: Tree, node: Node) -> None:
    """Silently, with all files closed."""
    node.read_well()
    tree.remove(POD)
    assert node.read_well() == {}
    assert node.open_files.count == 0
    assert node.cgroups.found == {}


def test_a_sandbox_costs_no_reading(tree: Tree, node: Node) -> None:
    """It is read once, for the case that it is a container that the API lists later; none of its files stays open."""
    node.read_well(WANTED)
    open_files = node.open_files.count
    assert node.cgroups.found[SANDBOX][1] is not None
    for each in tree.hierarchies.values():
        for file in (each / path(SANDBOX)[1:]).iterdir():
            file.unlink()
            file.symlink_to(file)  # ELOOP
    node.read_well(WANTED)
    assert node.open_files.count == open_files
    assert node.read()[SANDBOX].stats == Stats()
    assert {error.cause for error in node.errors} == {"ELOOP"}


def test_pods_are_listed_only_where_something_changed(tree: Tree, node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand ticks, and not one listing of a pod's directory; a container more, and there is one."""
    node.read_well(WANTED)
    listed: list[str] = []
    scandir: Callable[[str], object] = os.scandir

    def counting(directory: str) -> object:
        listed.append(directory)
        return scandir(directory)

    monkeypatch.setattr(os, "scandir", counting)
    for _ in range(1000):
        node.read_well(WANTED, after_seconds=0.001)
    assert listed == []
    tree.make(path(SECOND))
    assert SECOND in node.read_well(WANTED, after_seconds=0.001)
    assert listed == [str(tree.directory(POD))]


def test_a_root_that_comes_back_keeps_where_containers_began(tree: Tree, node: Node, tmp_path: Path) -> None:
    """Those that were there go on; one that came meanwhile may be older than that, and begins at its first reading."""
    first = node.read_well(WANTED)[FIRST]
    tree.make(path(SECOND))
    second = node.read_well(WANTED)[SECOND]
    tree.root.rename(tmp_path / "elsewhere")
    with pytest.raises(CgroupRootError):
        node.read()
    assert node.open_files.count == 0
    (tmp_path / "elsewhere").rename(tree.root)
    tree.make(path(NEXT))
    readings = node.read_well(WANTED)
    assert readings[FIRST].origin is first.origin
    assert readings[SECOND].origin is second.origin
    assert not readings[NEXT].origin.born


def test_a_pod_that_cannot_be_listed_holds_what_it_last_did(unprivileged: Path) -> None:
    """It is read on; what comes meanwhile is found later, and was born."""
    tree = Tree(unprivileged / "cgroup")
    tree.make_all([POD, path(FIRST), OTHER_POD])
    node = Node(tree.root, containers=True)
    before = node.read_well()[FIRST].mono_ns
    directory = tree.directory(POD)
    tree.make(path(SECOND))
    directory.chmod(0o300)
    readings = node.read()
    assert readings.keys() == {BURSTABLE, FIRST, GUARANTEED}
    assert {(error.path, error.cause) for error in node.errors} == {(str(directory), "EACCES")}
    assert [*node.cgroups.discovery.unlisted] == [f"{POD}/"]
    directory.chmod(0o700)
    readings = node.read()
    assert (readings[SECOND].origin.born, readings[SECOND].origin.mono_ns) == (True, before)
    assert not node.cgroups.discovery.unlisted


@pytest.mark.parametrize("came", ["while we ran", "before us"])
def test_a_pod_that_could_never_be_listed_before(unprivileged: Path, came: str) -> None:
    """What is found in it later is no older than it is; where that may be older than we are, it may be, too."""
    tree = Tree(unprivileged / "cgroup")
    tree.make(OTHER_POD)
    node = Node(tree.root, containers=True)
    before = None
    if came == "while we ran":
        before = node.read_well()[GUARANTEED].mono_ns
    tree.make_all([POD, path(FIRST)])
    tree.directory(POD).chmod(0o300)
    assert node.read().keys() == {BURSTABLE, GUARANTEED}
    tree.directory(POD).chmod(0o700)
    origin = node.read()[FIRST].origin
    assert origin.born is (before is not None)
    if before is not None:
        assert origin.mono_ns == before


def test_containers_of_a_pod_under_two_roots(tmp_path: Path) -> None:
    """Those of the one that counts; once the other is the pod, its containers are other ones at other paths."""
    tree = Tree(tmp_path / "cgroup")
    behind = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{BURSTABLE.replace('-', '_')}.slice"
    tree.make_all([POD, path(FIRST), behind])
    node = Node(tree.root, containers=True)
    assert {key: reading.path for key, reading in node.read_well().items()} == {BURSTABLE: POD, FIRST: path(FIRST)}
    without = node.clock.now_ns
    tree.remove(POD)
    tree.make(f"{behind}/cri-containerd-{HEX}.scope")
    readings = node.read_well()
    assert readings.keys() == {BURSTABLE, FIRST}
    assert readings[FIRST].path == f"{behind}/cri-containerd-{HEX}.scope"
    assert (readings[FIRST].origin.born, readings[FIRST].origin.mono_ns) == (True, without)


def test_a_container_that_is_replaced_in_a_tree_of_plain_files(tree: Tree, node: Node) -> None:
    """What is open can be read on after its end there; the directory's own time says that it was changed."""
    os.utime(tree.directory(POD), (0, 0))  # file systems may keep it in steps of milliseconds
    before = node.read_well(WANTED)[FIRST].mono_ns
    tree.remove(path(FIRST))
    tree.make(path(NEXT))
    readings = node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, NEXT}
    assert (readings[NEXT].origin.born, readings[NEXT].origin.mono_ns) == (True, before)


def test_a_container_of_what_was_left_behind_is_replaced(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """The reading of the container of the same id in the pod that counts says nothing about it."""
    behind = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{BURSTABLE.replace('-', '_')}.slice"
    kernel_tree.make(f"{behind}/{HEX}")
    first = kernel_node.read_well(WANTED)[BURSTABLE]
    assert first.path == POD
    kernel_tree.remove(f"{behind}/{HEX}")
    kernel_tree.make(f"{behind}/{NEXT_ID}")
    for _ in range(2):
        kernel_node.read_well(WANTED)
    for each in (path(SANDBOX), path(FIRST), POD):
        kernel_tree.remove(each)
    readings = kernel_node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, NEXT}
    assert (readings[NEXT].origin.born, readings[NEXT].origin.mono_ns) == (True, first.mono_ns)


def test_two_directories_of_one_container(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """One of them is read; what comes in the place of the other is found all the same."""
    other = f"{POD}/crio-{HEX}.scope"
    kernel_tree.make(other)
    assert kernel_node.read_well(WANTED).keys() == {BURSTABLE, FIRST}
    kernel_tree.remove(other)
    kernel_tree.make(path(NEXT))
    assert kernel_node.read_well(WANTED).keys() == {BURSTABLE, FIRST, NEXT}


def test_a_container_that_is_replaced_during_the_first_look(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """That look was without the new one, so it was born."""

    def replace() -> None:
        kernel_tree.remove(path(FIRST))
        kernel_tree.make(path(NEXT))

    kernel_node.clock.at_call(2, replace)
    readings = kernel_node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, NEXT}
    assert (readings[NEXT].origin.born, readings[NEXT].origin.mono_ns) == (True, kernel_node.clock.now_ns)


def test_a_real_container_that_comes_and_goes(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """The number of a real directory's links tells it."""
    before = kernel_node.read_well(WANTED)[FIRST].mono_ns
    kernel_tree.make(path(SECOND))
    readings = kernel_node.read_well(WANTED)
    assert (readings[SECOND].origin.born, readings[SECOND].origin.mono_ns) == (True, before)
    kernel_tree.remove(path(SECOND))
    assert kernel_node.read_well(WANTED).keys() == {BURSTABLE, FIRST}
    assert kernel_node.cgroups.found.keys() == {BURSTABLE, FIRST, SANDBOX}


def test_a_real_container_that_is_replaced_between_two_readings(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """The directory has as many links as before: the old one's reading shows it, and the new one is looked for then."""
    before = kernel_node.read_well(WANTED)[FIRST].mono_ns
    kernel_tree.remove(path(FIRST))
    kernel_tree.make(path(NEXT))
    readings = kernel_node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, NEXT}
    assert (readings[NEXT].origin.born, readings[NEXT].origin.mono_ns) == (True, before)


def test_a_real_container_that_is_replaced_after_it_was_read(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """Before its pod is looked into once more, since another one has ended: that it was read proves nothing then."""
    kernel_tree.make(path(SECOND))
    before = kernel_node.read_well(WANTED)[FIRST].mono_ns

    def replace() -> None:
        kernel_tree.remove(path(SECOND))
        kernel_tree.make(path(NEXT))

    # The clock is asked for the look, the pod, the first container (twice: it might have been made anew), the second.
    kernel_node.clock.at_call(2, lambda: kernel_tree.remove(path(FIRST)))
    kernel_node.clock.at_call(6, replace)
    readings = kernel_node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, SECOND, NEXT}
    assert readings[NEXT].origin.born
    assert before <= readings[NEXT].origin.mono_ns <= kernel_node.clock.now_ns
    assert kernel_node.read_well(WANTED).keys() == {BURSTABLE, NEXT}


def test_a_real_container_that_nobody_wants_is_replaced(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """A sandbox, or an init container that ended before the API listed it: what comes in its place is found at once."""
    before = kernel_node.read_well({BURSTABLE, FIRST})[FIRST].mono_ns
    kernel_tree.remove(path(SANDBOX))
    kernel_tree.make(path(NEXT))
    readings = kernel_node.read_well(WANTED)
    assert readings.keys() == {BURSTABLE, FIRST, NEXT}
    assert (readings[NEXT].origin.born, readings[NEXT].origin.mono_ns) == (True, before)


def test_a_real_pod_that_is_made_anew_between_two_readings(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """The same pod with the same containers by name: all of them count from zero, from the last reading on."""
    first = kernel_node.read_well(WANTED)
    for each in (path(SANDBOX), path(FIRST), POD):
        kernel_tree.remove(each)
    for each in (POD, path(SANDBOX), path(FIRST)):
        kernel_tree.make(each)
    second = kernel_node.read_well(WANTED)
    assert second.keys() == {BURSTABLE, FIRST}
    for key in (BURSTABLE, FIRST):
        assert (second[key].origin.born, second[key].origin.mono_ns) == (True, first[key].mono_ns)
    assert kernel_node.read_well(WANTED)[FIRST].origin is second[FIRST].origin


def test_a_real_pod_that_is_gone_at_a_look_and_back_at_its_reading(kernel_tree: KernelTree, kernel_node: Node) -> None:
    """What is in it then was born since that look, although the pod itself was there before us."""
    kernel_node.read_well(WANTED)
    stat: Callable[..., os.stat_result] = os.stat

    def remove_and_stat(which: str) -> os.stat_result:
        if which.endswith(POD):
            patch.undo()
            for each in (path(SANDBOX), path(FIRST), POD):
                kernel_tree.remove(each)
        return stat(which)

    def make_anew() -> None:
        for each in (POD, path(NEXT)):
            kernel_tree.make(each)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "stat", remove_and_stat)
        # The clock is asked when the cgroups are listed, and then before each one is read.
        kernel_node.clock.at_call(2, make_anew)
        assert kernel_node.read_well(WANTED).keys() == {BURSTABLE}
    discovered_ns = kernel_node.clock.now_ns
    reading = kernel_node.read_well(WANTED)[NEXT]
    assert (reading.origin.born, reading.origin.mono_ns) == (True, discovered_ns)
