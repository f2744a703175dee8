"""What the tests of the cgroup side share."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import DEFAULT_FIGURES, v1_controllers

if TYPE_CHECKING:
    from collections.abc import Callable, Container
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.model import Reading

SECOND = 10**9


PLANS = {1: Plan(DEFAULT_FIGURES, 1), 2: Plan(DEFAULT_FIGURES, 2)}


def reader(version: int, directory: str) -> CgroupReader:
    """Of the files in one directory, all controllers' of v1."""
    controllers = [""] if version == 2 else v1_controllers(DEFAULT_FIGURES)
    directories: dict[str, str | None] = dict.fromkeys(controllers, directory)
    return CgroupReader(PLANS[version], directories, OpenFiles(100))


class Clock:
    """Nanoseconds that pass when the test says so; and a place to step in while something asks for the time."""

    def __init__(self) -> None:
        self.now_ns = 1_000 * SECOND
        self._steps: dict[int, Callable[[], None]] = {}
        self._calls = 0

    def __call__(self) -> int:
        self._calls += 1
        if step := self._steps.pop(self._calls, None):
            step()
        return self.now_ns

    def at_call(self, number: int, step: Callable[[], None]) -> None:
        """``step`` is done at the so manieth call from now, the first being 1."""
        self._steps[self._calls + number] = step


class Every:
    """Contains every key."""

    def __contains__(self, key: object) -> bool:
        return True


class Node:
    """A node's entities, read one second after the other, with all that was reported."""

    def __init__(self, root: Path, *, limit: int = 10_000, containers: bool = False, node_totals: bool = False) -> None:
        self.clock = Clock()
        self.open_files = OpenFiles(limit)
        self.cgroups = NodeCgroups(
            str(root),
            open_files=self.open_files,
            clock=self.clock,
            containers=containers,
            node_totals=node_totals,
        )
        self.errors: list[CgroupError] = []

    def read(self, wanted: Container[str] = Every(), *, after_seconds: float = 1) -> dict[str, Reading]:
        """Key → its reading, ``after_seconds`` after the one before."""
        self.clock.now_ns += round(after_seconds * SECOND)
        readings = self.cgroups.read(wanted, self.errors.append)
        found = {reading.key: reading for reading in readings}
        assert len(found) == len(readings), "an entity was read twice"
        return found

    def read_well(self, wanted: Container[str] = Every(), *, after_seconds: float = 1) -> dict[str, Reading]:
        """As ``read``, where nothing may have gone wrong so far."""
        found = self.read(wanted, after_seconds=after_seconds)
        assert self.errors == []
        return found
