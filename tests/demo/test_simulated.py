"""The simulated tree is one that the exporter can read, and its files behave as the kernel's."""

from __future__ import annotations

import itertools
import os
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import detect
from otel_k8s_cgroup.demo.pods import PODS
from otel_k8s_cgroup.demo.simulated import SimulatedTree
from tests.demo.conftest import read_as_the_exporter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

STEADY = next(pod for pod in PODS if len(pod.workload.steps) == 1)
GROWING = next(pod for pod in PODS if pod.workload.growth_mib_per_second)


class Clock:
    """Seconds that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def tree(tmp_path: Path, clock: Clock) -> Iterator[SimulatedTree]:
    simulated = SimulatedTree(tmp_path / "simulated", clock=clock, reason="a test")
    yield simulated
    simulated.close()


def _numbers(path: Path) -> dict[str, int]:
    return {key: int(value) for key, value in (line.split(" ") for line in path.read_text().splitlines())}


def test_the_exporter_reads_every_figure_of_every_pod(tree: SimulatedTree) -> None:
    """The layout is one of the real ones: version 2, each pod by its cgroup uid."""
    for pod in PODS:
        tree.start(pod)
    assert detect(str(tree.cgroup_root)).version == 2
    read = read_as_the_exporter(tree.cgroup_root)
    assert read.keys() == {pod.cgroup_uid for pod in PODS}
    assert all(None not in reading.stats for reading in read.values())


def test_counters_follow_the_plan(tree: SimulatedTree, clock: Clock) -> None:
    """Ten seconds at a steady share: the counter tells their product, split into user and system time."""
    tree.start(STEADY)
    clock.now += 10
    tree.advance()
    told = _numbers(tree.cgroup_root.joinpath(*STEADY.levels, "cpu.stat"))
    share = STEADY.workload.steps[0][1]
    assert told["usage_usec"] == pytest.approx(10 * share * 1e6, abs=2)
    assert told["user_usec"] + told["system_usec"] == told["usage_usec"]
    assert tree.cpu_usage_ns(STEADY) == told["usage_usec"] * 1000


def test_an_open_file_goes_on_telling_the_present_and_never_shrinks(tree: SimulatedTree, clock: Clock) -> None:
    """Readers keep descriptors open: each advance is seen through them, as a whole file that ends in a newline."""
    tree.start(GROWING)
    directory = tree.cgroup_root.joinpath(*GROWING.levels)
    descriptors = [os.open(directory / name, os.O_RDONLY) for name in ("cpu.stat", "memory.stat", "memory.current")]
    seen: list[list[bytes]] = []
    for _ in range(200):
        clock.now += 0.37
        tree.advance()
        seen.append([os.pread(descriptor, 4096, 0) for descriptor in descriptors])
    for descriptor in descriptors:
        os.close(descriptor)
    for before, after in itertools.pairwise(seen):
        assert all(len(a) >= len(b) and a.endswith(b"\n") for b, a in zip(before, after, strict=True))
    assert seen[0][0] != seen[-1][0]
    assert int(seen[-1][2]) > int(seen[0][2])


def test_a_stopped_pod_keeps_its_figures(tree: SimulatedTree, clock: Clock) -> None:
    """Its processes are gone, its cgroup is not."""
    tree.start(STEADY)
    clock.now += 1
    tree.advance()
    tree.stop(STEADY)
    before = tree.cpu_usage_ns(STEADY)
    clock.now += 1
    tree.advance()
    assert tree.cpu_usage_ns(STEADY) == before > 0


def test_a_removed_pod_leaves_nothing(tree: SimulatedTree) -> None:
    """Its directory is gone; its level of the hierarchy stays, as on a node."""
    tree.start(STEADY)
    tree.remove(STEADY)
    directory = tree.cgroup_root.joinpath(*STEADY.levels)
    assert not directory.exists()
    assert directory.parent.is_dir()
    assert list((tree.cgroup_root.parent / "building").iterdir()) == []


def test_it_says_that_it_is_simulated_and_why(tree: SimulatedTree) -> None:
    """Nobody may take its figures for real ones."""
    assert "SIMULATED" in tree.description
    assert tree.reason == "a test"
