"""The tick: its grid, and the pods that it knows."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import LeftOut, Pod
from otel_k8s_cgroup.schemas import ALUMET
from tests.fakes.cgroup_tree import CgroupTree, Figures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_k8s_cgroup.export.transport import Receipt
    from otel_k8s_cgroup.model import Entity

MS = 1_000_000


def pod(uid: str) -> Pod:
    return Pod(uid, f"name-{uid}", "ns", "node", "2026-01-01T00:00:00Z", uid)


@dataclass
class Clock:
    """A monotonic clock that the test moves."""

    now_ns: int = 10**12

    def __call__(self) -> int:
        return self.now_ns


class NoReceiver:
    """A transport that nobody asks for anything: the exporter's thread is not started."""

    def send(self, body: bytes) -> Receipt:
        raise AssertionError(body)

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Run:
    """Runs an agent's loop on a clock of its own; each tick takes as long as ``durations_ms`` says."""

    root: Path
    durations_ms: list[int]
    clock: Clock = field(default_factory=Clock)
    ticks_ns: list[int] = field(default_factory=list)
    flushes_ns: list[int] = field(default_factory=list)

    def __call__(self, *, poll_interval_ns: int, ticks_per_export: int = 1) -> None:
        clock = self.clock
        start_ns = clock.now_ns
        durations = iter(self.durations_ms)
        run = self

        class Timed(Agent):
            def tick(self, *, is_last: bool = False) -> None:
                super().tick(is_last=is_last)
                run.ticks_ns.append(clock.now_ns - start_ns)
                clock.now_ns += next(durations, 0) * MS

        class Flushed(Exporter):
            is_alive = True

            def flush(self) -> None:
                run.flushes_ns.append(clock.now_ns - start_ns)

        def stop(seconds: float) -> bool:
            clock.now_ns += round(seconds * 1e9)
            return len(run.ticks_ns) >= len(run.durations_ms)

        agent = Timed(
            cgroups=NodeCgroups(str(self.root), open_files=OpenFiles(100), clock=clock),
            pods=tuple,
            exporter=Flushed(NoReceiver(), Instruments(ALUMET), queue_bytes=1 << 20),
            instruments=Instruments(ALUMET),
            describe=Describe(),
            mono_clock=clock,
            wall_clock=clock,
        )
        agent.run(stop, poll_interval_ns=poll_interval_ns, ticks_per_export=ticks_per_export)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpu memory\n")
    return tmp_path


def test_ticks_stay_on_their_grid_whatever_they_take(root: Path) -> None:
    """A tick of 30, then of 250 ms: the next ones are at multiples of 100 ms all the same, and none is made up for."""
    run = Run(root, [30, 250, 0, 99, 100, 0])
    run(poll_interval_ns=100 * MS)
    assert run.ticks_ns == [at * MS for at in (0, 100, 400, 500, 600, 800, 900)]


def test_the_last_tick_is_at_the_stop(root: Path) -> None:
    """What was used between the last tick of the grid and the stop is read once more."""
    run = Run(root, [0])
    run(poll_interval_ns=100 * MS)
    assert len(run.ticks_ns) == 2


def test_several_ticks_go_into_one_export(root: Path) -> None:
    """With an export interval of three poll intervals the sender is woken at every third tick."""
    run = Run(root, [0] * 7)
    run(poll_interval_ns=100 * MS, ticks_per_export=3)
    assert run.flushes_ns == [200 * MS, 500 * MS]


def test_a_root_that_is_none_is_waited_for(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said once, each tick tries again, and that it is back is said once."""
    (root / "cgroup.controllers").unlink()
    agent = Agent(
        cgroups=NodeCgroups(str(root), open_files=OpenFiles(100), clock=Clock()),
        pods=tuple,
        exporter=Exporter(NoReceiver(), Instruments(ALUMET), queue_bytes=1 << 20),
        instruments=Instruments(ALUMET),
        describe=Describe(),
    )
    with caplog.at_level("INFO"):
        agent.tick()
        agent.tick()
        (root / "cgroup.controllers").write_text("cpu memory\n")
        agent.tick()
        agent.tick()
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"]
    assert str(root) in caplog.records[0].getMessage()
    assert agent.read_errors.by_cause == {"root": 2}


def test_time_that_passes_between_the_clocks_is_no_step_of_the_wall_clock(root: Path) -> None:
    """A machine that is busy for 200 ms between reading the one and the other: the offset is right all the same."""
    clock = Clock()
    offsets: list[int] = []
    busy = iter([200 * MS, 150 * MS])

    class Offsets(Exporter):
        def put(self, entities: object, readings: object, collected: object, wall_offset_ns: int) -> None:  # noqa: ARG002
            offsets.append(wall_offset_ns)

    def wall() -> int:
        clock.now_ns += next(busy, 0)
        return clock.now_ns + 10**18

    agent = Agent(
        cgroups=NodeCgroups(str(root), open_files=OpenFiles(100), clock=clock),
        pods=tuple,
        exporter=Offsets(NoReceiver(), Instruments(ALUMET), queue_bytes=1 << 20),
        instruments=Instruments(ALUMET),
        describe=Describe(),
        mono_clock=clock,
        wall_clock=wall,
    )
    agent.tick()
    assert offsets == [10**18]


def test_pods_without_cgroups_are_reported_within_two_ticks(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A wrong host mount: the second tick names the pods, the root and the way out."""
    pods = (pod("a"), pod("b"))
    agent = Agent(
        cgroups=NodeCgroups(str(root), open_files=OpenFiles(100), clock=Clock()),
        pods=lambda: pods,
        exporter=Exporter(NoReceiver(), Instruments(ALUMET), queue_bytes=1 << 20),
        instruments=Instruments(ALUMET),
        describe=Describe(),
        source="the kubelet",
    )
    agent.tick()
    assert caplog.records == []
    agent.tick()
    [record] = caplog.records
    assert f"none of the pods that the kubelet lists (2) has a cgroup below {root}: mount" in record.getMessage()


def test_a_pod_that_is_left_out_before_it_is_named_is_not_sent_at_its_end(tmp_path: Path) -> None:
    """Its last reading would else be sent once its cgroup is gone."""
    uid = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
    tree = CgroupTree(tmp_path / "cgroup")
    tree.write(uid, Figures())
    early = replace(pod(uid), start_time=None)
    listed: list[tuple[Pod, ...]] = [(early,)]
    left_out = [LeftOut()]
    put: list[str] = []

    class Noted(Exporter):
        def put(self, entities: Sequence[Entity], *_rest: object) -> None:
            put.extend(entity.key for entity in entities)

    agent = Agent(
        cgroups=NodeCgroups(str(tree.root), open_files=OpenFiles(100), clock=Clock()),
        pods=lambda: listed[-1],
        left_out=lambda: left_out[-1],
        exporter=Noted(NoReceiver(), Instruments(ALUMET), queue_bytes=1 << 20),
        instruments=Instruments(ALUMET),
        describe=Describe(),
    )
    agent.tick()
    agent.tick()
    listed.append(())
    left_out.append(LeftOut((early,)))
    agent.tick()
    tree.remove(uid)
    agent.tick()
    agent.tick()
    assert put == []
