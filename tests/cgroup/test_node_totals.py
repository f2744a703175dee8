"""``kubepods`` and its QoS levels as entities: found by path, born and made anew as pods are."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.model import EntityKind

from .layouts import BEST_EFFORT, BURSTABLE, GUARANTEED
from .support import Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from .kernel_tree import KernelTree

TOP, LEVEL = "/kubepods", "/kubepods/burstable"
POD = f"{LEVEL}/pod{BURSTABLE}"
OTHER = f"{TOP}/pod{GUARANTEED}"


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    version: Version = request.param
    made = Tree(tmp_path / "cgroup", version)
    made.make(TOP, usage_us=900_000)
    made.make(LEVEL, usage_us=600_000)
    made.make_all([POD, OTHER])
    return made


def test_they_are_read_whatever_is_wanted(tree: Tree) -> None:
    """By path, each with its own figures; what was there before counts from its first reading."""
    node = Node(tree.root, node_totals=True)
    readings = node.read_well(())
    assert {key: (each.kind, each.path, each.stats.cpu_usage_ns) for key, each in readings.items()} == {
        TOP: (EntityKind.NODE, TOP, 900_000_000),
        LEVEL: (EntityKind.QOS, LEVEL, 600_000_000),
    }
    assert not any(reading.origin.born for reading in readings.values())
    assert node.read_well(()).keys() == {TOP, LEVEL}
    assert node.read_well({BURSTABLE}).keys() == {TOP, LEVEL, BURSTABLE}


def test_without_them_there_are_pods_only(tree: Tree) -> None:
    """None is read, or counted as found."""
    node = Node(tree.root)
    assert node.read_well().keys() == {BURSTABLE, GUARANTEED}
    assert node.cgroups.found.keys() == {BURSTABLE, GUARANTEED}


def test_the_look_says_what_was_looked_for(tmp_path: Path) -> None:
    """An entity of another kind may have been there unseen: after a restart it is not taken for a new one."""
    everything = NodeCgroups(str(tmp_path), open_files=OpenFiles(0), clock=lambda: 1, containers=True, node_totals=True)
    assert everything.discovery.kinds == frozenset(EntityKind)
    assert Node(tmp_path, node_totals=True).cgroups.discovery.kinds == {EntityKind.POD, EntityKind.QOS, EntityKind.NODE}


def test_a_level_that_is_born_and_one_that_ends(tree: Tree) -> None:
    """The kubelet makes its levels when it starts, and makes them anew when it must."""
    node = Node(tree.root, node_totals=True)
    before = node.read_well()[TOP].mono_ns
    level = f"{TOP}/besteffort"
    tree.make_all([level, f"{level}/pod{BEST_EFFORT}"])
    readings = node.read_well()
    for key in (level, BEST_EFFORT):
        assert (readings[key].origin.born, readings[key].origin.mono_ns) == (True, before)
    tree.remove(level)
    assert node.read_well().keys() == {TOP, LEVEL, BURSTABLE, GUARANTEED}
    tree.remove(TOP)
    assert node.read_well() == {}
    assert node.open_files.count == 0


def test_several_nodes_on_one_host(tree: Tree) -> None:
    """Kind nodes seen from their host: each has a total of its own; one that starts later counts from zero."""
    node = Node(tree.root, node_totals=True)
    before = node.read_well()[TOP].mono_ns
    other = "/kubelet/kubepods"
    tree.make_all([other, f"{other}/besteffort", f"{other}/besteffort/pod{BEST_EFFORT}"])
    readings = node.read_well(after_seconds=10)
    assert {key for key, each in readings.items() if each.kind is EntityKind.NODE} == {TOP, other}
    for key in (other, f"{other}/besteffort", BEST_EFFORT):
        assert (readings[key].origin.born, readings[key].origin.mono_ns) == (True, before)
    assert not readings[TOP].origin.born


def test_what_a_root_that_comes_back_had(tree: Tree, tmp_path: Path) -> None:
    """The totals go on from where they were."""
    node = Node(tree.root, node_totals=True)
    first = node.read_well()
    tree.root.rename(tmp_path / "elsewhere")
    with pytest.raises(Exception, match="cannot be read"):
        node.read()
    (tmp_path / "elsewhere").rename(tree.root)
    second = node.read_well()
    assert {key: each.origin for key, each in second.items()} == {key: each.origin for key, each in first.items()}


def test_real_levels_that_are_made_anew_between_two_readings(kernel_tree: KernelTree) -> None:
    """The listing is the same, but the open files answer ENODEV: all count from zero, from the last reading on."""
    kernel_tree.make(POD)
    node = Node(kernel_tree.root, node_totals=True)
    first = node.read_well()
    for path in (POD, LEVEL, TOP):
        kernel_tree.remove(path)
    kernel_tree.make(POD)
    second = node.read_well()
    assert second.keys() == {TOP, LEVEL, BURSTABLE}
    for key, reading in second.items():
        assert (reading.origin.born, reading.origin.mono_ns) == (True, first[key].mono_ns)
    third = node.read_well()
    assert {key: each.origin for key, each in third.items()} == {key: each.origin for key, each in second.items()}


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_real_levels_that_end_between_listing_and_reading(kernel_tree: KernelTree, step: int) -> None:
    """Silently gone; and where they come back, before or after the next listing, they are new ones."""
    node = Node(kernel_tree.root, node_totals=True)

    def end() -> None:
        for path in (POD, LEVEL, TOP):
            kernel_tree.remove(path)

    for is_listed_without in (True, False):
        kernel_tree.make(POD)
        node.read_well()
        # The clock is asked when the cgroups are listed, and then before each one is read.
        node.clock.at_call(step, end)
        node.read_well()
        gone_ns = node.clock.now_ns
        if is_listed_without:
            assert node.read_well() == {}
            gone_ns = node.clock.now_ns
        kernel_tree.make(POD)
        readings = node.read_well()
        assert readings.keys() == {TOP, LEVEL, BURSTABLE}
        for reading in readings.values():
            assert reading.origin.born
            assert gone_ns - 10**9 <= reading.origin.mono_ns <= gone_ns
        end()
        node.read_well()


def test_real_levels_that_are_gone_at_a_look_and_back_at_once(kernel_tree: KernelTree) -> None:
    """Parents are looked for again where one is gone: what is there then was born since, whatever was there before."""
    kernel_tree.make(POD)
    none_of_ours = f"{TOP}/system"  # where one is, the parent is listed at each look
    kernel_tree.make(none_of_ours)
    node = Node(kernel_tree.root, node_totals=True)
    before = node.read_well()[TOP].mono_ns
    listdir: Callable[[str], list[str]] = os.listdir

    def make_anew_and_list(directory: str) -> list[str]:
        if not directory.endswith(TOP):
            return listdir(directory)
        patch.undo()
        for path in (POD, LEVEL, none_of_ours, TOP):
            kernel_tree.remove(path)
        try:
            return listdir(directory)
        finally:
            kernel_tree.make(OTHER)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "listdir", make_anew_and_list)
        readings = node.read_well()
    origins = {key: (reading.origin.born, reading.origin.mono_ns) for key, reading in readings.items()}
    assert origins == {TOP: (True, before), GUARANTEED: (True, node.clock.now_ns)}
