"""The exporter's tick: pods and cgroups → readings → what is observed of them → the exporter."""

from __future__ import annotations

import logging
import time
from types import MappingProxyType
from typing import TYPE_CHECKING

from otel_k8s_cgroup.coverage import Coverage
from otel_k8s_cgroup.entities import Entities
from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.known import START_TIME_WAIT_NS, KnownPods
from otel_k8s_cgroup.model import EntityKind, LeftOut
from otel_k8s_cgroup.readings import ReadErrors

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence, Set

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.export import Exporter, NoExporter
    from otel_k8s_cgroup.identity import Describe
    from otel_k8s_cgroup.instruments import Instruments
    from otel_k8s_cgroup.metrics import Row, Rows
    from otel_k8s_cgroup.model import Entity, Pod, Reading
    from otel_k8s_cgroup.scrape import Latest

_log = logging.getLogger(__name__)

_CLOCK_TRIES = 4
_CLOCKS_APART_NS = 1_000_000

_NOTHING_REPORTED: Mapping[str, int | float] = MappingProxyType({})
_LEVELS = frozenset([EntityKind.QOS, EntityKind.NODE])


class _Everything:
    def __contains__(self, _uid: object) -> bool:
        return True


class Agent:
    """Reads, collects and queues at each tick.

    Args:
        cgroups: the node's.
        pods: those that are known now.
        left_out: those that the settings leave out.
        exporter: takes the readings.
        instruments: of what is sent.
        describe: makes the entities.
        source: who lists the pods, for messages.
        start_time_wait_ns: see ``KnownPods``.
        latest: keeps the last tick's values for who scrapes.
        mono_clock: nanoseconds; measures all that elapses.
        wall_clock: nanoseconds since the epoch; only stamps.
    """

    def __init__(
        self,
        *,
        cgroups: NodeCgroups,
        pods: Callable[[], Sequence[Pod]],
        left_out: Callable[[], LeftOut] = LeftOut,
        exporter: Exporter | NoExporter,
        instruments: Instruments,
        describe: Describe,
        source: str = "the API",
        start_time_wait_ns: int = START_TIME_WAIT_NS,
        latest: Latest | None = None,
        mono_clock: Callable[[], int] = time.monotonic_ns,
        wall_clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self.read_errors = ReadErrors()
        self.coverage = Coverage(root=cgroups.root, source=source)
        self.ticks = 0
        self.missed = 0
        """Points of the grid that passed while a tick took too long."""
        self.tick_ns = 0
        """What all ticks took."""
        self.pods = 0
        """How many the last tick read."""
        self._cgroups = cgroups
        self._listed_pods = pods
        self._left_out = left_out
        self._exporter = exporter
        self._instruments = instruments
        self._entities = Entities(describe)
        self._latest = latest
        self._mono_clock = mono_clock
        self._wall_clock = wall_clock
        self.known = KnownPods(start_time_wait_ns)
        self._running: Collection[str] = ()
        self._measured: set[str] = set()
        self._unnamed: dict[str, tuple[Pod, Reading, Row]] = {}
        """The last reading of each pod that waits for its name."""
        self._restarts = exporter.remembers
        """Until the first reading, where a process before this one has left its state."""

    def tick(self, *, is_last: bool = False) -> None:
        """One reading of every entity, handed to the exporter; the last one has every figure."""
        discovered_ns, wall_offset_ns = self._clocks()
        readings = self._read(discovered_ns, wall_offset_ns, is_last=is_last)
        whose = [*map(self._entities.of, readings)]
        reported = [entity.reported if entity is not None else _NOTHING_REPORTED for entity in whose]
        collected = self._instruments.collect(readings, reported, wall_offset_ns)
        entities = [entity for entity in whose if entity is not None]
        if len(entities) < len(whose) or self._unnamed:
            entities, readings, collected = self._named(whose, readings, collected)
        self.pods = sum(reading.kind is EntityKind.POD for reading in readings)
        self._exporter.put(entities, readings, collected, wall_offset_ns)
        if self._latest is not None:
            self._latest.put(discovered_ns, entities, readings, collected, self._cgroups.due)
        self.ticks += 1
        self.tick_ns += self._mono_clock() - discovered_ns

    def _named(
        self, whose: Sequence[Entity | None], readings: Sequence[Reading], collected: Rows
    ) -> tuple[list[Entity], list[Reading], Rows]:
        """Without the readings of pods that wait for their names, with those of pods that have ended meanwhile."""
        last, self._unnamed = self._unnamed, {}
        named: list[tuple[Entity, Reading, Row]] = []
        for entity, reading, row in zip(whose, readings, collected.rows, strict=True):
            if entity is not None:
                named.append((entity, reading, row))
            elif reading.key in self.known.waiting:
                self._unnamed[reading.key] = self.known.waiting[reading.key], reading, row
        left_out = self.known.left_out if last else ()
        for uid, (pod, reading, row) in last.items():
            if uid in left_out:
                continue
            row += (None,) * (len(collected.columns) - len(row))  # noqa: PLW2901 devices that were found since
            if uid not in self._running:
                # It has ended before its start time was known: that is left out.
                entity = self._entities.of_pod(self.known.by_cgroup_uid.get(uid, pod), reading.path)
                named.append((entity, reading, row))
            elif uid not in self.known.by_cgroup_uid:
                self._unnamed.setdefault(uid, (pod, reading, row))
        return (
            [entity for entity, _, _ in named],
            [reading for _, reading, _ in named],
            collected._replace(rows=[row for _, _, row in named]),
        )

    def _clocks(self) -> tuple[int, int]:
        """The time now on the monotonic clock, and the wall clock less it.

        Where a busy machine lets time pass between reading the one and the other, the wall clock would seem to have
        been set: of a few tries the one in which least has passed counts.
        """
        tries: list[tuple[int, int, int]] = []
        while len(tries) < _CLOCK_TRIES and (not tries or tries[-1][0] > _CLOCKS_APART_NS):
            before_ns = self._mono_clock()
            offset_ns = self._wall_clock() - before_ns
            tries.append((self._mono_clock() - before_ns, before_ns, offset_ns))
        return tries[-1][1], min(tries)[2]

    def _wanted(self) -> Set[str]:
        return self._entities.keys | self.known.waiting.keys()

    def _read(self, discovered_ns: int, wall_offset_ns: int, *, is_last: bool) -> list[Reading]:
        self.known.update(self._listed_pods(), self._running, discovered_ns, self._left_out())
        # Who held a cgroup before a restart holds it on; which are there, and the same, shows only this reading.
        self._entities.update(self.known.by_cgroup_uid, self._running)
        wanted: Container[str] = _Everything() if self._restarts else self._wanted()
        try:
            readings = self._cgroups.read(
                wanted, self.read_errors.figure, is_last=is_last, on_host_network=self.known.on_host_network
            )
        except CgroupRootError as error:
            self.read_errors.root(error)
            return []
        self.read_errors.read()
        found = self._cgroups.found
        self._running = found.keys()
        if self._restarts:
            self._restarts = False
            self.known.hold(self._exporter.holders(found, self._cgroups.discovery), aside=self._left_out().unknown)
            self.known.update(self._listed_pods(), self._running, discovered_ns, self._left_out())
            self._entities.update(self.known.by_cgroup_uid, self._running)
            wanted = self._wanted()
            readings = [reading for reading in readings if reading.key in wanted or reading.kind in _LEVELS]
        if _log.isEnabledFor(logging.DEBUG):
            self._log_changes({reading.key for reading in readings} & self.known.by_cgroup_uid.keys())
        self._exporter.discovered(discovered_ns, wall_offset_ns, found, self._cgroups.discovery)
        self.coverage.update(
            discovered_ns,
            self.known.expected(found),
            self._cgroups.found_pods,
            excluded=self.known.left_out,
            hides_others=self._left_out().hides_others,
            containers_without_cgroup=self._entities.running_containers - found.keys(),
        )
        # While its cgroup is there, what was delivered of it may be needed: who is left out may be taken in again.
        self._exporter.forget_all_but(self._entities.keys | self.known.set_aside.keys() | found.keys())
        return readings

    def _log_changes(self, measured: set[str]) -> None:
        for uids, change in (
            (measured - self._measured, "measured from now on"),
            (self._measured - measured, "its cgroup has ended"),
        ):
            for uid in sorted(uids):
                if pod := self.known.by_cgroup_uid.get(uid):
                    _log.debug("pod %s/%s (%s): %s", pod.namespace, pod.name, pod.uid, change)
        self._measured = measured

    def run(self, stop: Callable[[float], bool], *, poll_interval_ns: int, ticks_per_export: int) -> None:
        """Ticks on a fixed grid until ``stop``, which waits that many seconds and returns whether to end.

        A tick that takes longer than the interval costs the grid's points that it covers, and shifts none.
        """
        start_ns = self._mono_clock()
        point = 0
        while True:
            self.tick()
            if self.ticks % ticks_per_export == 0:
                self._exporter.flush()
            elapsed_ns = self._mono_clock() - start_ns
            self.missed += elapsed_ns // poll_interval_ns - point
            point = elapsed_ns // poll_interval_ns + 1
            if stop((poll_interval_ns - elapsed_ns % poll_interval_ns) / 1e9):
                # What was used since the last tick.
                self.tick(is_last=True)
                return
            if not self._exporter.is_alive:
                # Better to be started again by the kubelet than to go on without a word.
                raise RuntimeError("the sender's thread has ended")
