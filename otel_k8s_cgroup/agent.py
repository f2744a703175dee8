"""The exporter itself: its tick, and what it is made of."""

from __future__ import annotations

import gc
import logging
import time
from contextlib import ExitStack
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.coverage import Coverage
from otel_k8s_cgroup.entities import Entities
from otel_k8s_cgroup.errors import CgroupRootError, ExporterError
from otel_k8s_cgroup.export import Exporter, NoExporter, StateFile, StateSaver, open_transport
from otel_k8s_cgroup.health import Status, serving, stalled_seconds
from otel_k8s_cgroup.identity import Describe, shared_attributes
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.known import START_TIME_WAIT_NS, KnownPods
from otel_k8s_cgroup.model import EntityKind, LeftOut
from otel_k8s_cgroup.readings import ReadErrors
from otel_k8s_cgroup.scrape import NO_LIBRARY, Latest, Pods, is_library_there
from otel_k8s_cgroup.sources import LISTED_BY, boot_unix_ns, device_name, metrics_of, open_cgroups, parts_of, watch_pods
from otel_k8s_cgroup.telemetry import OwnMetric, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence, Set

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.kube import PodWatcher
    from otel_k8s_cgroup.metrics import Row, Rows
    from otel_k8s_cgroup.model import Entity, Pod, Reading, RunSettings

_log = logging.getLogger(__name__)

# Of the 5 s within which SIGTERM must have ended it: the last reading and the end of the process come out of the rest.
_LAST_EXPORT_SECONDS = 3.5
_LEAST_EXPORT_SECONDS = 1.0


_CLOCK_TRIES = 4
_CLOCKS_APART_NS = 1_000_000


class Stop(Protocol):
    """What ends the exporter."""

    def __call__(self, seconds: float) -> bool:
        """Waits so long at most; whether to end."""

    def seconds_since(self) -> float:
        """Since it was asked to end."""


_NOTHING_SAID: Mapping[str, int | float] = MappingProxyType({})
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
        self._told = pods
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
        looked_ns, wall_offset_ns = self._clocks()
        readings = self._read(looked_ns, wall_offset_ns, is_last=is_last)
        whose = [*map(self._entities.of, readings)]
        said = [entity.said if entity is not None else _NOTHING_SAID for entity in whose]
        collected = self._instruments.collect(readings, said, wall_offset_ns)
        entities = [entity for entity in whose if entity is not None]
        if len(entities) < len(whose) or self._unnamed:
            entities, readings, collected = self._named(whose, readings, collected)
        self.pods = sum(reading.kind is EntityKind.POD for reading in readings)
        self._exporter.put(entities, readings, collected, wall_offset_ns)
        if self._latest is not None:
            self._latest.put(looked_ns, entities, readings, collected, self._cgroups.due)
        self.ticks += 1
        self.tick_ns += self._mono_clock() - looked_ns

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

        Where a busy machine lets time pass between reading the one and the other, that would look as if the wall clock
        had been set: of a few tries the one in which least has passed counts.
        """
        tries: list[tuple[int, int, int]] = []
        while len(tries) < _CLOCK_TRIES and (not tries or tries[-1][0] > _CLOCKS_APART_NS):
            before_ns = self._mono_clock()
            offset_ns = self._wall_clock() - before_ns
            tries.append((self._mono_clock() - before_ns, before_ns, offset_ns))
        return tries[-1][1], min(tries)[2]

    def _wanted(self) -> Set[str]:
        return self._entities.keys | self.known.waiting.keys()

    def _read(self, looked_ns: int, wall_offset_ns: int, *, is_last: bool) -> list[Reading]:
        self.known.update(self._told(), self._running, looked_ns, self._left_out())
        # Who held a cgroup before a restart holds it on; which are there, and the same, shows only this reading.
        self._entities.update(self.known.by_cgroup_uid, self._running)
        wanted: Container[str] = _Everything() if self._restarts else self._wanted()
        try:
            readings = self._cgroups.read(wanted, self.read_errors.figure, is_last=is_last)
        except CgroupRootError as error:
            self.read_errors.root(error)
            return []
        self.read_errors.read()
        found = self._cgroups.found
        self._running = found.keys()
        if self._restarts:
            self._restarts = False
            self.known.hold(self._exporter.holders(found, self._cgroups.look), aside=self._left_out().unknown)
            self.known.update(self._told(), self._running, looked_ns, self._left_out())
            self._entities.update(self.known.by_cgroup_uid, self._running)
            wanted = self._wanted()
            readings = [reading for reading in readings if reading.key in wanted or reading.kind in _LEVELS]
        if _log.isEnabledFor(logging.DEBUG):
            self._log_changes({reading.key for reading in readings} & self.known.by_cgroup_uid.keys())
        self._exporter.saw(looked_ns, wall_offset_ns, found, self._cgroups.look)
        self.coverage.update(
            looked_ns,
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
        """Ticks on a fixed grid until ``stop``, which waits that many seconds and tells whether to end.

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


def own_rows(
    agent: Agent, exporter: Exporter | NoExporter, watcher: PodWatcher, dropped_log_lines: Callable[[], int]
) -> list[OwnMetric]:
    """What the exporter tells of itself; the README's table has these rows."""
    stats = exporter.stats

    def by(counts: Callable[[], Mapping[str, int]]) -> Callable[[], Mapping[tuple[str, ...], int]]:
        return lambda: {(name,): count for name, count in dict(counts()).items()}

    return [
        OwnMetric("ticks", "{tick}", "Readings of all pods", lambda: agent.ticks),
        OwnMetric("ticks.missed", "{tick}", "Points of the grid that a longer tick covered", lambda: agent.missed),
        OwnMetric("tick.duration", "s", "Time spent reading and collecting", lambda: agent.tick_ns / 1e9),
        OwnMetric("pods", "{pod}", "Pods read by the last tick", lambda: agent.pods, monotonic=False),
        OwnMetric(
            "cgroups.unnamed",
            "{cgroup}",
            "Pods' cgroups for which no pod is listed",
            lambda: agent.coverage.unnamed,
            monotonic=False,
        ),
        OwnMetric(
            "pods.excluded",
            "{pod}",
            "Pods that the settings leave out",
            lambda: agent.coverage.excluded,
            monotonic=False,
        ),
        OwnMetric(
            "read.errors",
            "{error}",
            "Figures that could not be read",
            by(lambda: agent.read_errors.by_cause),
            ("cause",),
        ),
        OwnMetric(
            "api.requests",
            "{request}",
            "Requests to the Kubernetes API or kubelet",
            lambda: {(verb, result): n for (verb, result), n in watcher.stats.api_requests.items()},
            ("verb", "result"),
        ),
        OwnMetric(
            "watch.restarts", "{restart}", "Watches that ended", by(lambda: watcher.stats.watch_restarts), ("reason",)
        ),
        OwnMetric("api.skipped_objects", "{object}", "Objects that do not parse", lambda: watcher.skipped_objects),
        OwnMetric(
            "api.refused_claims",
            "{pod}",
            "Pods that claim another pod's cgroup",
            lambda: watcher.refused_claims + agent.known.refused_claims,
        ),
        OwnMetric("export.requests", "{request}", "OTLP requests", by(lambda: stats.requests), ("result",)),
        OwnMetric("export.points", "{point}", "Points the receiver took", lambda: stats.points_sent),
        OwnMetric("export.rejected_points", "{point}", "Points it took back", lambda: stats.points_rejected),
        OwnMetric("export.dropped_points", "{point}", "Points given up", lambda: stats.points_dropped),
        OwnMetric("export.folded", "ns", "CPU time sent later for it", lambda: stats.folded_ns),
        OwnMetric("export.lost", "ns", "CPU time lost with ended pods", lambda: stats.lost_ns),
        OwnMetric("queue.bytes", "By", "What waits to be sent", lambda: exporter.queue_bytes, monotonic=False),
        OwnMetric("log.dropped_lines", "{line}", "Lines that standard error did not take", dropped_log_lines),
    ]


def latest_of(settings: RunSettings) -> Latest | None:
    """What is scraped of the ticks; None where ``scrape`` is not set.

    Raises:
        ExporterError: what writes it is not installed.
    """
    if not settings.scrape:
        return None
    if not is_library_there():
        raise ExporterError(f"scrape: {NO_LIBRARY}")
    metrics, poll = metrics_of(settings), settings.poll_interval
    most_ns = round(stalled_seconds(poll.total_seconds()) * 1e9)
    return Latest(metrics, parts_of(metrics, dict(settings.intervals), poll), most_ns=most_ns)


def run(
    settings: RunSettings,
    stop: Stop,
    *,
    hide_token: Callable[[str], None],
    dropped_log_lines: Callable[[], int],
) -> None:
    """Runs the exporter until ``stop``, with a last export.

    Args:
        settings: as they were read.
        stop: see ``Agent.run``.
        hide_token: is called with each token of the Kubernetes API, for no message to show it.
        dropped_log_lines: how many lines of the log were not written.

    Raises:
        ExporterError: something cannot be used as it is set.
    """
    watcher = watch_pods(settings, hide_token)
    instruments = Instruments(metrics_of(settings), device_name)
    latest = latest_of(settings)
    exporter: Exporter | NoExporter = NoExporter()
    if settings.otlp.endpoint:
        exporter = Exporter(
            open_transport(settings.otlp),
            instruments.know,
            queue_bytes=settings.queue_bytes,
            endpoint=settings.otlp.endpoint,
            prefix=settings.metric_prefix,
            suffix=settings.metric_suffix,
            own_metrics=lambda: telemetry.encode(),  # noqa: PLW0108 it tells of the exporter, so it comes after it
            state=StateSaver(StateFile(settings.state_file)) if settings.state_file else None,
        )
    agent = Agent(
        cgroups=open_cgroups(settings),
        pods=lambda: watcher.pods,
        left_out=lambda: watcher.left_out,
        exporter=exporter,
        instruments=instruments,
        describe=Describe(
            settings.k8s_node,
            shared_attributes(settings.resource_attributes),
            settings.point_attributes,
            boot_unix_ns(),
        ),
        source=LISTED_BY[settings.pod_source.method],
        # A file has what it has.
        start_time_wait_ns=0 if settings.pod_source.method == "file" else START_TIME_WAIT_NS,
        latest=latest,
    )
    telemetry = Telemetry(
        own_rows(agent, exporter, watcher, dropped_log_lines),
        node=settings.k8s_node,
        service_name=settings.service_name,
        resource_attributes=settings.resource_attributes,
    )
    _log.info(
        "node %s: pods from %s, cgroups below %s, every %g s to %s",
        settings.k8s_node,
        settings.pod_source.method,
        settings.cgroup_root,
        settings.poll_interval.total_seconds(),
        f"{settings.otlp.endpoint} ({settings.otlp.protocol})" if settings.otlp.endpoint else "/metrics alone",
    )
    status = Status(
        ticks=lambda: agent.ticks,
        are_pods_listed=watcher.synced.is_set,
        pods=lambda: len(watcher.pods),
        measured=lambda: agent.pods,
        accepted=(lambda: exporter.stats.requests["ok"]) if settings.otlp.endpoint else None,
        rows=own_rows(agent, exporter, watcher, dropped_log_lines),
        poll_seconds=settings.poll_interval.total_seconds(),
        measured_pods=None if latest is None else Pods(latest, settings.metric_prefix, settings.metric_suffix),
    )
    health = ExitStack()
    health.enter_context(serving(settings.health_listen, status))
    watcher.start()
    exporter.start()
    # All that is there now stays: a collection of the garbage need not walk it each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    try:
        agent.run(
            stop,
            poll_interval_ns=round(settings.poll_interval.total_seconds() * 1e9),
            ticks_per_export=max(1, round(settings.export_interval / settings.poll_interval)),
        )
    finally:
        watcher.stop(timeout_seconds=0)  # nobody asks it any more; it has the time of the last export to end
        # The tick that was under way, and the last one, may have taken long.
        exporter.close(max(_LEAST_EXPORT_SECONDS, _LAST_EXPORT_SECONDS - stop.seconds_since()))
        watcher.stop(timeout_seconds=0.25)
        health.close()
    _log.info("stopped: %d points delivered in all", exporter.stats.points_sent)
