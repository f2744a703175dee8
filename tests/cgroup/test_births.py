"""Who is there, and since when: births, ends, and what each means for the counters."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import CgroupReadError, CgroupRootError
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.table import Table

from .layouts import BURSTABLE, GUARANTEED, STATIC
from .support import SECOND, Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from pathlib import Path

    from otel_k8s_cgroup.model import Reading

FIRST, SECOND_POD, THIRD = GUARANTEED, BURSTABLE, STATIC
BURSTABLE_LEVEL = "/kubepods/burstable"


def path(uid: str) -> str:
    return f"{BURSTABLE_LEVEL}/pod{uid}"


def percents(reading: Reading) -> tuple[float | None, float | None, float | None]:
    usage, system, user = (Table([reading]).column(f"cpu_{kind}_percent")[0] for kind in ("usage", "system", "user"))
    return usage, system, user


@pytest.fixture(params=[1, 2])
def tree(tmp_path: Path, request: pytest.FixtureRequest) -> Tree:
    version: Version = request.param
    made = Tree(tmp_path / "cgroup", version)
    made.make(path(FIRST))
    return made


def test_a_pod_that_was_there_before_counts_from_its_first_reading(tree: Tree) -> None:
    """The baseline: its origin is that reading itself, and there is no percentage."""
    node = Node(tree.root)
    first = node.read_well()[FIRST]
    assert not first.origin.born
    assert (first.origin.mono_ns, first.origin.stats) == (first.mono_ns, first.stats)
    assert percents(first) == (None, None, None)
    assert node.read_well()[FIRST].origin is first.origin


def test_percentages(tree: Tree) -> None:
    """100 × CPU time ÷ time since the reading before, each kind by itself: 0.5 s of CPU time in 2 s is 25 %."""
    node = Node(tree.root)
    node.read_well()
    tree.make(path(FIRST), usage_us=300 + 500_000)
    assert percents(node.read_well(after_seconds=2)[FIRST]) == (25.0, 0.0, 25.0)
    assert percents(node.read_well(after_seconds=2)[FIRST]) == (0.0, 0.0, 0.0)


def test_a_counter_that_went_down_gives_no_percentage(tree: Tree) -> None:
    """Nor does what follows suffer: the lower value is what it is compared with."""
    tree.make(path(FIRST), usage_us=5_000_000)
    node = Node(tree.root)
    node.read_well()
    tree.make(path(FIRST), usage_us=1_000_000)
    assert percents(node.read_well()[FIRST]) == (None, 0.0, None)
    tree.make(path(FIRST), usage_us=1_500_000)
    assert percents(node.read_well()[FIRST]) == (50.0, 0.0, 50.0)


def test_two_readings_at_the_same_time(tree: Tree) -> None:
    """No division by zero."""
    node = Node(tree.root)
    node.read_well()
    assert percents(node.read_well(after_seconds=0)[FIRST]) == (None, None, None)


def test_a_pod_that_is_born_counts_from_zero(tree: Tree) -> None:
    """Noticed by the next reading; since the one before, in which it was not there, all its CPU time is its growth."""
    node = Node(tree.root)
    before = node.read_well()[FIRST].mono_ns
    tree.make(path(SECOND_POD), usage_us=250_000)
    reading = node.read_well()[SECOND_POD]
    assert (reading.origin.born, reading.origin.mono_ns, reading.origin.stats) == (True, before, Stats(0, 0, 0))
    assert percents(reading)[0] == 25.0
    assert node.read_well()[SECOND_POD].origin is reading.origin


def test_a_pod_that_ended_is_gone_from_the_next_reading(tree: Tree) -> None:
    """Silently, its files closed."""
    tree.make(path(SECOND_POD))
    node = Node(tree.root)
    node.read_well()
    tree.remove(path(SECOND_POD))
    assert node.read_well().keys() == {FIRST}
    tree.remove(path(FIRST))
    assert node.read_well() == {}
    assert node.open_files.count == 0


def test_a_pod_that_comes_back_is_another_one(tree: Tree) -> None:
    """The same uid with a new cgroup after a reading without it: from zero."""
    node = Node(tree.root)
    node.read_well()
    tree.remove(path(FIRST))
    without = node.clock.now_ns + SECOND
    node.read_well()
    tree.make(path(FIRST), usage_us=100)
    origin = node.read_well()[FIRST].origin
    assert (origin.born, origin.mono_ns) == (True, without)


def test_a_pod_that_the_api_tells_later_counts_from_its_birth(tree: Tree) -> None:
    """Nobody wanted it for three readings: all its CPU time is there, over the time that it took."""
    node = Node(tree.root)
    before = node.read_well({FIRST})[FIRST].mono_ns
    tree.make(path(SECOND_POD), usage_us=1_000_000)
    for _ in range(3):
        assert node.read_well({FIRST}).keys() == {FIRST}
    reading = node.read_well({FIRST, SECOND_POD})[SECOND_POD]
    assert (reading.origin.born, reading.origin.mono_ns) == (True, before)
    assert percents(reading)[0] == 25.0


def test_an_old_pod_that_the_api_tells_later_counts_from_when_it_was_found(tree: Tree) -> None:
    """Its baseline is taken although nobody wants it yet."""
    tree.make(path(SECOND_POD), usage_us=7_000_000)
    node = Node(tree.root)
    found = node.read_well({FIRST})[FIRST].mono_ns
    tree.make(path(SECOND_POD), usage_us=8_000_000)
    node.read_well({FIRST})
    reading = node.read_well()[SECOND_POD]
    assert (reading.origin.born, reading.origin.mono_ns) == (False, found)
    assert reading.origin.stats.cpu_usage_ns == 7 * SECOND
    assert percents(reading)[0] == 50.0


def test_a_qos_level_that_appears_brings_its_pods_at_once(tree: Tree) -> None:
    """And they were born since the last reading."""
    node = Node(tree.root)
    before = node.read_well()[FIRST].mono_ns
    tree.make(f"/kubepods/besteffort/pod{SECOND_POD}")
    origin = node.read_well()[SECOND_POD].origin
    assert (origin.born, origin.mono_ns) == (True, before)
    tree.remove("/kubepods/besteffort")
    assert node.read_well().keys() == {FIRST}


def test_the_kubelet_starts_after_us(tmp_path: Path) -> None:
    """While there is no parent of pods, each reading looks for one; the first pods are born."""
    tree = Tree(tmp_path / "cgroup")
    node = Node(tree.root)
    assert node.read_well() == {}
    before = node.clock.now_ns
    tree.make(path(FIRST))
    origin = node.read_well()[FIRST].origin
    assert (origin.born, origin.mono_ns) == (True, before)


def test_another_parent_of_pods_is_found_within_ten_seconds(tree: Tree) -> None:
    """A kind node that starts beside: its pods were born since the last time that parents were looked for."""
    node = Node(tree.root)
    looked = node.read_well()[FIRST].mono_ns
    tree.make(f"/kubelet/kubepods/pod{SECOND_POD}")
    for _ in range(9):
        assert node.read_well().keys() == {FIRST}
    origin = node.read_well()[SECOND_POD].origin
    assert (origin.born, origin.mono_ns) == (True, looked)


def test_a_parent_that_ends_and_another_that_comes(tree: Tree) -> None:
    """The cgroup driver was changed: what is new is found at once."""
    node = Node(tree.root)
    node.read_well()
    tree.remove("/kubepods")
    tree.make(f"/kubepods.slice/kubepods-pod{SECOND_POD.replace('-', '_')}.slice")
    assert node.read_well().keys() == {SECOND_POD}


def test_a_root_that_vanishes_and_comes_back_goes_on(tree: Tree, tmp_path: Path) -> None:
    """Each reading says so and tries again. What is there then was not born meanwhile: no lifetime is a delta."""
    node = Node(tree.root)
    node.read_well()
    tree.root.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(CgroupRootError, match="cannot be read"):
            node.read()
        assert node.open_files.count == 0
    (tmp_path / "elsewhere").rename(tree.root)
    back = node.read_well()[FIRST]
    assert not back.origin.born
    assert percents(back) == (None, None, None)
    assert percents(node.read_well()[FIRST]) == (0.0, 0.0, 0.0)


def test_a_root_that_comes_back_keeps_where_a_pod_began_that_nobody_knew(tree: Tree, tmp_path: Path) -> None:
    """One that was born before the root vanished and one that was there before us; the API tells both only later."""
    tree.make(path(SECOND_POD), usage_us=300)
    node = Node(tree.root)
    found = node.read_well({FIRST})[FIRST].mono_ns
    tree.make(path(THIRD), usage_us=1_000_000)
    node.read_well({FIRST})
    tree.root.rename(tmp_path / "elsewhere")
    for _ in range(2):
        with pytest.raises(CgroupRootError):
            node.read()
    (tmp_path / "elsewhere").rename(tree.root)
    node.read_well({FIRST})
    readings = node.read_well()
    origin = readings[SECOND_POD].origin
    assert (origin.born, origin.mono_ns, origin.stats.cpu_usage_ns) == (False, found, 300_000)
    origin = readings[THIRD].origin
    assert (origin.born, origin.mono_ns) == (True, found)
    # What comes after that is new all the same.
    tree.remove(path(THIRD))
    node.read_well()
    tree.make(path(THIRD), usage_us=700)
    origin = node.read_well()[THIRD].origin
    assert origin.born
    assert origin.mono_ns > found


def test_a_hierarchy_that_is_unmounted_and_mounted_again_goes_on(tmp_path: Path) -> None:
    """On v1 the mount point stays, empty: that is not the end of all pods, nor their birth when it comes back."""
    tree = Tree(tmp_path / "cgroup", 1)
    tree.make(path(FIRST))
    node = Node(tree.root)
    node.read_well()
    mounted = {name: directory.rename(tmp_path / name) for name, directory in tree.hierarchies.items()}
    for directory in tree.hierarchies.values():
        directory.mkdir()
    with pytest.raises(CgroupRootError):
        node.read()
    for name, directory in mounted.items():
        tree.hierarchies[name].rmdir()
        directory.rename(tree.hierarchies[name])
    assert not node.read_well()[FIRST].origin.born


def test_something_mounted_over_the_root(tmp_path: Path) -> None:
    """Another tree under the same path is read as what it is, and its pods were not born since."""
    tree = Tree(tmp_path / "cgroup")
    tree.make(path(FIRST))
    node = Node(tree.root)
    node.read_well()
    tree.root.rename(tmp_path / "below")
    other = Tree(tmp_path / "cgroup", 1)
    other.make(path(FIRST), usage_us=900)
    reading = node.read_well()[FIRST]
    assert (reading.origin.born, reading.stats.cpu_usage_ns) == (False, 900_000)


def test_a_level_that_cannot_be_listed_holds_what_it_last_did(tree: Tree, tmp_path: Path) -> None:
    """Its pods are read on through their open files, the others' anyhow; what came meanwhile is found, and was born."""
    tree.make(f"/kubepods/pod{SECOND_POD}")
    node = Node(tree.root)
    before = node.read_well()[FIRST].mono_ns
    level = tree.directory(BURSTABLE_LEVEL)
    level.rename(tmp_path / "aside")
    level.symlink_to(level)  # ELOOP
    assert node.read().keys() == {FIRST, SECOND_POD}
    assert [(type(error), error.path, error.cause) for error in node.errors] == [(CgroupReadError, str(level), "ELOOP")]
    level.unlink()
    (tmp_path / "aside").rename(level)
    tree.make(path(THIRD))
    readings = node.read()
    assert (readings[THIRD].origin.born, readings[THIRD].origin.mono_ns) == (True, before)
    assert not readings[FIRST].origin.born


def test_a_level_that_could_never_be_listed_before(tree: Tree, tmp_path: Path) -> None:
    """Its pods may be older than we are: a baseline, however late."""
    tree.make(f"/kubepods/pod{SECOND_POD}")
    level = tree.directory(BURSTABLE_LEVEL)
    level.rename(tmp_path / "aside")
    level.symlink_to(level)
    node = Node(tree.root)
    assert node.read().keys() == {SECOND_POD}
    level.unlink()
    (tmp_path / "aside").rename(level)
    assert not node.read()[FIRST].origin.born


def test_a_nest_that_cannot_be_looked_into_hides_no_pod(unprivileged: Path) -> None:
    """A kind node's directory is refused for a while: its pods are read on, and count on when it is open again."""
    tree = Tree(unprivileged / "cgroup")
    tree.make_all([path(FIRST), f"/kubelet/kubepods/pod{SECOND_POD}"])
    node = Node(tree.root)
    origin = node.read_well()[SECOND_POD].origin
    nest = tree.directory("/kubelet")
    nest.chmod(0)
    assert node.read(after_seconds=20)[SECOND_POD].origin is origin
    assert {error.cause for error in node.errors} == {"EACCES"}
    nest.chmod(0o700)
    node.errors.clear()
    readings = node.read_well(after_seconds=20)
    assert readings.keys() == {FIRST, SECOND_POD}
    assert readings[SECOND_POD].origin is origin


def test_a_nest_that_could_never_be_looked_into_before(unprivileged: Path) -> None:
    """What is found there once it can be may be older than we are."""
    tree = Tree(unprivileged / "cgroup")
    tree.make_all([path(FIRST), f"/kubelet/kubepods/pod{SECOND_POD}"])
    nest = tree.directory("/kubelet")
    nest.chmod(0)
    node = Node(tree.root)
    assert node.read().keys() == {FIRST}
    nest.chmod(0o700)
    assert not node.read(after_seconds=20)[SECOND_POD].origin.born


def test_closed_and_read_again(tree: Tree) -> None:
    """All descriptors are given back, and a reading after that starts anew."""
    node = Node(tree.root)
    node.read_well()
    node.cgroups.close()
    assert node.open_files.count == 0
    assert not node.read_well()[FIRST].origin.born
