"""The thread that ticks puts readings in, a thread of its own sends them."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, NamedTuple, Protocol

from otel_k8s_cgroup.export.delivery import Delivery, ExportStats, about_one
from otel_k8s_cgroup.export.encode import Encoder
from otel_k8s_cgroup.export.layout import Layout
from otel_k8s_cgroup.export.queue import ReadingQueue
from otel_k8s_cgroup.export.remnants import padded, remnant_of, values_there, waiting_of
from otel_k8s_cgroup.export.restart import Restart
from otel_k8s_cgroup.export.series import Readings, Series
from otel_k8s_cgroup.export.state import Remembered, Remnant
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

    from otel_k8s_cgroup.export.saver import StateSaver
    from otel_k8s_cgroup.export.transport import Receipt, Transport
    from otel_k8s_cgroup.metrics import Column, Row, Rows
    from otel_k8s_cgroup.model import Discovery, Entity, Origin, Pod, Reading

_log = logging.getLogger(__name__)

_CLOSING_RETRY_SECONDS = 0.25
# Of the state, once nothing is sent any more.
_LAST_SAVE_SECONDS = 0.25
# Of the time to close: in which a request that hangs is cut off.
_CUT_OFF_SECONDS = 0.5


class _Discovered(NamedTuple):
    """A discovery of all cgroups."""

    mono_ns: int
    wall_offset_ns: int
    cgroups: Mapping[str, tuple[str, Origin | None]]
    discovery: Discovery


class Columns(Protocol):
    """Those of the ticks' rows, as ``Instruments`` has them."""

    @property
    def families(self) -> Mapping[str, str]: ...

    def know(self, labels: Collection[str]) -> tuple[Column, ...]:
        """The columns, those of the members with such labels included; later ones may have more behind."""


class Exporter:
    """Accepts readings from the thread that ticks, and sends them in a thread of its own.

    Args:
        transport: sends a request.
        instruments: have the columns of the ticks.
        queue_bytes: what may wait.
        endpoint: the receiver's, for the log.
        prefix: of each metric's exported name, as ``suffix``.
        seldom: figures that are not read at each tick.
        own_metrics: see ``Delivery``, as ``jitter`` and ``mono_clock``.
        state: remembers over a restart what was delivered; None: every start is a new one.
    """

    def __init__(
        self,
        transport: Transport,
        instruments: Columns,
        *,
        queue_bytes: int,
        endpoint: str = "the OTLP receiver",
        prefix: str = "",
        suffix: str = "",
        seldom: Container[str] = (),
        own_metrics: Callable[[], bytes] | None = None,
        state: StateSaver | None = None,
        jitter: Callable[[], float] = about_one,
        mono_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.stats = ExportStats()
        self._transport = transport
        self._queue_bytes = queue_bytes
        self._endpoint = endpoint
        self._succeeded = False
        self._queue = ReadingQueue(queue_bytes, self._on_drop)
        self._seldom = seldom
        self._families = instruments.families
        self._layout = self._layout_of(instruments.know(()))
        self._prefix = prefix
        self._suffix = suffix
        self.delivery = Delivery(
            _SavingTransport(transport, self._save),
            self._queue,
            self._encoder,
            stats=self.stats,
            own_metrics=own_metrics,
            jitter=jitter,
            mono_clock=mono_clock,
        )
        # By the cgroup, not the pod: a static pod whose mirror was made anew has another uid, and the same CPU time.
        self._series: dict[str, Series] = {}
        self._of_tick: list[Series] = []
        """The last tick's."""
        self._ended: list[Series] = []
        """Of cgroups whose pod has another one now."""
        self._state = state
        self._discovered: _Discovered | None = None
        self._outage = False
        self._lock = threading.Lock()
        """Of what the saver's thread reads: the series, and what is left of the last process."""
        remembered = state.load(self._to_remember) if state else None
        if remembered is not None:
            self._layout = self._layout_of(instruments.know(remembered.labels))
        self._restart = Restart(remembered, self._layout)
        self._saved_settled = -1 if remembered is None else 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._full = False
        # A daemon: a receiver that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="otlp-sender", daemon=True)

    def _layout_of(self, columns: Sequence[Column]) -> Layout:
        return Layout(columns, self._families, self._seldom)

    def start(self) -> None:
        self._thread.start()

    @property
    def is_alive(self) -> bool:
        """Whether the thread that sends still runs."""
        return self._thread.is_alive()

    @property
    def queue_bytes(self) -> int:
        """What waits, estimated."""
        return self._queue.bytes

    @property
    def remembers(self) -> bool:
        """Whether a process before this one has left its state."""
        return self._restart.remembers

    def holders(self, cgroups: Mapping[str, tuple[str, Origin | None]], discovery: Discovery) -> dict[str, Pod]:
        """As ``Restart.holders``; before the first ``discovered``."""
        return self._restart.holders(cgroups, discovery)

    def discovered(
        self,
        discovered_ns: int,
        wall_offset_ns: int,
        cgroups: Mapping[str, tuple[str, Origin | None]],
        discovery: Discovery,
    ) -> None:
        """All cgroups that the last discovery found (key → path, origin), those of pods not known yet included."""
        before, self._discovered = self._discovered, _Discovered(discovered_ns, wall_offset_ns, cgroups, discovery)
        with self._lock:
            for readings in self._restart.discovered(cgroups, discovery):
                self._ended += readings.series
                self._queue.put(readings)
        if self._state and before is not None and before.cgroups.keys() - cgroups.keys():
            # What waits of those that have ended is nowhere else.
            self._state.request()

    def put(
        self, entities: Sequence[Entity], readings: Sequence[Reading], collected: Rows, wall_offset_ns: int
    ) -> None:
        """One tick's readings.

        Args:
            entities: whose they are; one is the same object while nothing of it changes.
            readings: one each.
            collected: their rows.
            wall_offset_ns: the wall clock less the monotonic one.
        """
        if collected.columns is not self._layout.columns:
            self._layout = self._layout_of(collected.columns)
        layout, known, total_of = self._layout, self._series, self._layout.total
        of_tick: list[Series] = []
        monos_ns: list[int] = []
        for entity, reading, row in zip(entities, readings, collected.rows, strict=True):
            origin, mono_ns = reading.origin, reading.mono_ns
            series = known.get(reading.key)
            # Born again: another cgroup, whose counters began at zero. (One that was there before is the same one.)
            if series is None or (series.origin is not origin and origin.born):
                series = self._begin(entity, reading, wall_offset_ns, series)
            if series.entity is not entity:
                series.entity, series.path = entity, reading.path
            series.read = mono_ns, mono_ns + wall_offset_ns
            if (total := total_of(row)) is not None:
                series.total = total
            if layout.seldom:
                series.seldom |= values_there(row, layout.seldom)
            of_tick.append(series)
            monos_ns.append(mono_ns)
        if of_tick == self._of_tick:
            of_tick = self._of_tick
        self._of_tick = of_tick
        self._queue.put(Readings(layout, of_tick, monos_ns, wall_offset_ns, collected.rows))

    def forget_all_but(self, cgroup_uids: Collection[str]) -> None:
        """Lets go of pods that have ended, once nothing of theirs waits."""
        gone = [uid for uid, series in self._series.items() if uid not in cgroup_uids and not series.waiting]
        ended = [series for series in self._ended if not series.waiting]
        if not gone and not ended:
            return
        with self._lock:
            ended += [self._series.pop(uid) for uid in gone]
            self._ended = [series for series in self._ended if series not in ended]
        for series in ended:
            if lost_ns := series.undelivered:
                self.stats.readings_lost += 1
                self.stats.lost_ns += lost_ns

    def flush(self) -> None:
        """Has what waits sent now; returns at once."""
        self._wake.set()

    def deliver(self) -> float | None:
        """What the thread does at each flush: ``Delivery.deliver``, and the state of it saved."""
        wait_seconds = self.delivery.deliver(is_last=self._closing.is_set())
        self._outage = wait_seconds is not None
        if wait_seconds is None:
            self._full = False
        if self.stats.points_sent > 0 and not self._succeeded:
            self._log_success()
        self._save()
        if self._outage and self._state:
            self._state.save()
        return wait_seconds

    def close(self, timeout_seconds: float) -> bool:
        """Sends what waits, if it can be done in time. Whether it could."""
        self._closing.set()
        self._wake.set()
        self._thread.join(max(0.0, timeout_seconds - _CUT_OFF_SECONDS))
        done = not self._thread.is_alive()
        self._abandoned.set()
        self._transport.close()
        if not done:
            self._thread.join(_CUT_OFF_SECONDS)
            _log.warning("stopped with %d readings undelivered: the OTLP receiver did not take them", len(self._queue))
        if self._state:
            self._outage = self._outage or not done
            self._state.request()
            self._state.close(_LAST_SAVE_SECONDS)
        return done

    def _log_success(self) -> None:
        self._succeeded = True
        if self._discovered is not None:
            _log.info(
                "pods: %d, cgroups: %d (v%d), points accepted by %s: %d",
                sum(series.entity.kind is EntityKind.POD for series in list(self._series.values())),
                len(self._discovered.cgroups),
                self._discovered.discovery.root.version,
                self._endpoint,
                self.stats.points_sent,
            )

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            closing = self._closing.is_set()
            while (wait_seconds := self.deliver()) is not None:
                if self._closing.is_set():
                    self._abandoned.wait(min(wait_seconds, _CLOSING_RETRY_SECONDS))
                    if self._abandoned.is_set():
                        return
                else:
                    self._closing.wait(wait_seconds)
            if closing:
                return

    def _encoder(self, series: Series) -> Encoder:
        entity, encoder = series.entity, series.encoder
        if encoder is None or encoder.entity is not entity:
            encoder = series.encoder = Encoder(entity, self._prefix, self._suffix, series.start_unix_ns)
        return encoder

    def _begin(self, entity: Entity, reading: Reading, wall_offset_ns: int, before: Series | None) -> Series:
        key, path, origin = reading.key, reading.path, reading.origin
        not_before = (before.read[0], max(0, before.read[1])) if before else (0, 0)
        layout = self._layout
        with self._lock:
            begins = self._restart.beginning(
                layout, key, path, origin, wall_offset_ns=wall_offset_ns, not_before=not_before
            )
            self._restart.begun(key, origin)
            if before is not None:
                self._ended.append(before)
            series = self._series[key] = Series(entity, path, origin, begins.bases)
            series.devices = begins.devices
            series.by_device = layout.covered(begins.devices)
            series.start_unix_ns = begins.start_unix_ns if before is None else begins.bases.unix_ns
        return series

    def _save(self) -> None:
        """What was delivered, where that is news."""
        if self._state and self.delivery.settled != self._saved_settled:
            self._saved_settled = self.delivery.settled
            self._state.save()

    def _to_remember(self) -> Remembered | None:
        """What a restart has to know now; None before the first discovery. In the thread that saves."""
        discovered = self._discovered
        if discovered is None:
            return None
        cgroups: dict[str, Remnant | None] = {}
        with self._lock:
            held = [
                *self._ended,
                *(series for key, series in self._series.items() if self._outage or key not in discovered.cgroups),
            ]
            waiting = [*self._restart.waiting, *waiting_of(held, self._layout)]
            for key, (path, origin) in discovered.cgroups.items():
                series = self._series.get(key)
                if origin is None:
                    cgroups[key] = None
                elif series is not None and (series.origin is origin or not origin.born):
                    cgroups[key] = remnant_of(series)
                else:
                    cgroups[key] = self._unread(key, path, origin, discovered.wall_offset_ns)
        waiting.sort(key=lambda waits: waits.mono_ns)
        unix_ns = max(0, discovered.mono_ns + discovered.wall_offset_ns)
        discovery = discovered.discovery
        layout = self._layout  # no older than any of the rows
        whole = tuple(waits._replace(values=padded(waits.values, layout)) for waits in waiting)
        return Remembered(
            discovered.mono_ns,
            unix_ns,
            cgroups,
            discovery.root,
            discovery.unlisted,
            whole,
            discovery.kinds,
            layout.names,
        )

    def _unread(self, key: str, path: str, origin: Origin, wall_offset_ns: int) -> Remnant:
        """Of a cgroup of which nothing was sent."""
        layout = self._layout
        bases, devices, start_unix_ns = self._restart.beginning(
            layout, key, path, origin, wall_offset_ns=wall_offset_ns, not_before=(0, 0)
        )
        return Remnant(path, origin.inode or 0, bases, None, layout.covered(devices), start_unix_ns)

    def _on_drop(self, series: Series, row: Row, full: bool) -> None:
        self.stats.readings_dropped += 1
        self.stats.points_dropped += len(row) - row.count(None)
        if (total := self._layout.total(row)) is not None:
            series.dropped = total
        series.carried = series.carried | values_there(row, self._layout.counters)
        if full and not self._full:
            self._full = True
            _log.warning(
                "%d readings fill the queue (queue_bytes = %d): the oldest are dropped, later ones have their CPU time",
                len(self._queue),
                self._queue_bytes,
            )


class _SavingTransport:
    """Has what earlier requests delivered saved before the next one: the process may be killed in any of them."""

    def __init__(self, transport: Transport, save: Callable[[], None]) -> None:
        self._transport = transport
        self._save = save

    def send(self, body: bytes) -> Receipt:
        self._save()
        return self._transport.send(body)

    def close(self) -> None:
        self._transport.close()
