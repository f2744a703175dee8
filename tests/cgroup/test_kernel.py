"""What only a real kernel does: files of a removed cgroup that are still open, and its own directories."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import detect
from otel_k8s_cgroup.figures import Stats

from .layouts import BURSTABLE, GUARANTEED
from .support import Node

if TYPE_CHECKING:
    from .kernel_tree import KernelTree

POD = f"/kubepods/burstable/pod{BURSTABLE}"
OTHER = f"/kubepods/pod{GUARANTEED}"


def test_what_the_kernel_has_is_read(kernel_tree: KernelTree) -> None:
    """Each figure of this version is a number in an empty cgroup already; nothing is complained of."""
    kernel_tree.make(POD)
    stats = Node(kernel_tree.root).read_well()[BURSTABLE].stats
    missing = () if detect(str(kernel_tree.root)).version == 2 else ("kernel_stack_bytes", "pagetables_bytes")
    assert {name for name, value in stats._asdict().items() if value is None} == set(missing)


def test_a_cgroup_that_was_made_anew_between_two_readings(kernel_tree: KernelTree) -> None:
    """The listing is the same, but the open files answer ENODEV: it counts from zero, from the last reading on."""
    for path in (POD, OTHER):
        kernel_tree.make(path)
    node = Node(kernel_tree.root)
    first = node.read_well()
    kernel_tree.remove(POD)
    kernel_tree.make(POD)
    second = node.read_well()
    origin = second[BURSTABLE].origin
    assert (origin.born, origin.mono_ns, origin.stats) == (True, first[BURSTABLE].mono_ns, Stats(0, 0, 0))
    assert second[GUARANTEED].origin is first[GUARANTEED].origin
    inodes = [reading[BURSTABLE].origin.inode for reading in (first, second)]
    assert len({0, None, *inodes}) == 4, "the state file could not tell them apart after a restart"
    assert node.read_well()[BURSTABLE].origin is origin


def test_a_cgroup_that_was_made_anew_while_nobody_wanted_it(kernel_tree: KernelTree) -> None:
    """What it used is spread over all the time since the old one was last read, not over the last second alone."""
    kernel_tree.make(POD)
    node = Node(kernel_tree.root)
    last_read = node.read_well()[BURSTABLE].mono_ns
    kernel_tree.remove(POD)
    kernel_tree.make(POD)
    for _ in range(3):
        assert node.read_well(()) == {}
    origin = node.read_well()[BURSTABLE].origin
    assert (origin.born, origin.mono_ns) == (True, last_read)


def test_a_cgroup_that_ends_between_listing_and_reading(kernel_tree: KernelTree) -> None:
    """At each step: silently gone, at no cost to the other; and where it comes back, it is a new one."""
    for path in (POD, OTHER):
        kernel_tree.make(path)
    node = Node(kernel_tree.root)
    node.read_well()
    # The clock is asked when the pods are listed, and then before each one is read.
    for step in (1, 2, 3):
        node.clock.at_call(step, lambda: kernel_tree.remove(POD))
        readings = node.read_well()
        assert GUARANTEED in readings
        ended_ns = node.clock.now_ns
        gone = node.read_well()
        assert gone.keys() == {GUARANTEED}
        kernel_tree.make(POD)
        origin = node.read_well()[BURSTABLE].origin
        assert origin.born
        assert origin.mono_ns > ended_ns


def test_a_cgroup_that_comes_back_before_the_next_listing(kernel_tree: KernelTree) -> None:
    """It ended after it was listed and is listed again, so that no listing was without it: all the same a new one."""
    kernel_tree.make(POD)
    node = Node(kernel_tree.root)
    node.read_well()
    node.clock.at_call(2, lambda: kernel_tree.remove(POD))
    assert node.read_well() == {}
    listed_ns = node.clock.now_ns
    kernel_tree.make(POD)
    origin = node.read_well()[BURSTABLE].origin
    assert (origin.born, origin.mono_ns) == (True, listed_ns)


def test_a_cgroup_that_ended_before_its_first_reading(kernel_tree: KernelTree) -> None:
    """Found by the first listing, gone when it is to be read."""
    for path in (POD, OTHER):
        kernel_tree.make(path)
    node = Node(kernel_tree.root)
    node.clock.at_call(2, lambda: kernel_tree.remove(POD))
    assert node.read_well().keys() <= {GUARANTEED, BURSTABLE}
    assert node.read_well().keys() == {GUARANTEED}


def test_one_of_two_roots_whose_pod_ends_between_listing_and_reading(kernel_tree: KernelTree) -> None:
    """The other, which was left behind, is what there is then, at once."""
    behind = f"/kubepods/besteffort/pod{BURSTABLE}"
    kernel_tree.make(f"{POD}/container")
    kernel_tree.make(behind)
    node = Node(kernel_tree.root)
    assert node.read_well()[BURSTABLE].path == POD
    kernel_tree.remove(f"{POD}/container")
    node.clock.at_call(2, lambda: kernel_tree.remove(POD))
    for _ in range(2):
        reading = node.read_well()[BURSTABLE]
        assert (reading.path, reading.origin.born) == (behind, False)


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_pod_in_whose_place_another_one_is(kernel_tree: KernelTree, step: int) -> None:
    """As many directories as before, and no time of a change that the kernel would keep: the end of the one is noticed
    by reading it, and the other is then looked for. It is read in the same tick, or at the latest in the next.
    """
    for path in (POD, OTHER):
        kernel_tree.make(path)
    node = Node(kernel_tree.root)
    before = node.read_well()
    new = str(uuid.UUID(int=1))

    def replace() -> None:
        kernel_tree.remove(POD)
        kernel_tree.make(f"/kubepods/burstable/pod{new}")

    node.clock.at_call(step, replace)
    node.read_well()
    again = node.read_well()
    assert again.keys() == {GUARANTEED, new}
    assert again[GUARANTEED].origin == before[GUARANTEED].origin
    assert again[new].origin.born
    assert again[new].origin.mono_ns >= before[BURSTABLE].mono_ns


def test_no_descriptor_stays_behind(kernel_tree: KernelTree) -> None:
    """Of 300 pods that came and went, half of them between two readings."""
    node = Node(kernel_tree.root)
    kernel_tree.make(OTHER)
    node.read_well()
    open_before = node.open_files.count
    for number in range(300):
        kernel_tree.make(POD)
        node.read_well()
        kernel_tree.remove(POD)
        if number % 2:
            assert node.read_well().keys() == {GUARANTEED}
    node.read_well()
    assert node.open_files.count == open_before
