"""The thread that ticks puts readings in, a thread of its own sends them."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.export.delivery import Delivery, ExportStats, about_one
from otel_k8s_cgroup.export.ledger import Entry, Ledger, Series
from otel_k8s_cgroup.export.queue import ReadingQueue
from otel_k8s_cgroup.export.restart import Restart
from otel_k8s_cgroup.export.state import Remembered, Remnant, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from otel_k8s_cgroup.export.saver import StateSaver
    from otel_k8s_cgroup.export.transport import Receipt, Transport
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Look, Origin, Pod, Reading

_log = logging.getLogger(__name__)

_CLOSING_RETRY_SECONDS = 0.25
# Of the state, once nothing is sent any more.
_LAST_SAVE_SECONDS = 0.25
# Of the time to close: in which a request that hangs is cut off.
_CUT_OFF_SECONDS = 0.5


class _Seen(NamedTuple):
    """A look at all cgroups."""

    mono_ns: int
    wall_offset_ns: int
    cgroups: Mapping[str, tuple[str, Origin | None]]
    look: Look


class Exporter:
    """Accepts readings from the thread that ticks, and sends them in a thread of its own.

    Args:
        transport: sends a request.
        metrics: the table.
        queue_bytes: what may wait.
        point_attributes: see ``PodEncoder``, as ``resource_attributes``.
        endpoint: the receiver's, for the log.
        prefix: of each metric's exported name, as ``suffix``.
        own_metrics: see ``Delivery``, as ``jitter``.
        state: remembers over a restart what was delivered; None: every start is a new one.
    """

    def __init__(
        self,
        transport: Transport,
        metrics: Sequence[Metric],
        *,
        queue_bytes: int,
        point_attributes: bool,
        resource_attributes: Sequence[tuple[str, str]] = (),
        endpoint: str = "the OTLP receiver",
        prefix: str = "",
        suffix: str = "",
        own_metrics: Callable[[], bytes] | None = None,
        state: StateSaver | None = None,
        jitter: Callable[[], float] = about_one,
    ) -> None:
        self.stats = ExportStats()
        self._transport = transport
        self._queue_bytes = queue_bytes
        self._endpoint = endpoint
        self._succeeded = False
        self._queue = ReadingQueue(queue_bytes, self._on_drop)
        self._ledger = Ledger(metrics)
        self.delivery = Delivery(
            _SavingTransport(transport, self._save),
            metrics,
            self._queue,
            self._ledger,
            stats=self.stats,
            point_attributes=point_attributes,
            resource_attributes=resource_attributes,
            prefix=prefix,
            suffix=suffix,
            own_metrics=own_metrics,
            jitter=jitter,
        )
        # By the cgroup, not the pod: a static pod whose mirror was made anew has another uid, and the same CPU time.
        self._series: dict[str, Series] = {}
        self._ended: list[Series] = []
        """Of cgroups whose pod has another one now."""
        self._state = state
        self._seen: _Seen | None = None
        self._outage = False
        self._lock = threading.Lock()
        """Of what the saver's thread reads: the series, and what is left of the last process."""
        remembered = state.load(self._ledger.names, self._to_remember) if state else None
        self._restart = Restart(remembered, self._ledger)
        self._saved_settled = -1 if remembered is None else 0
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._full = False
        # A daemon: a receiver that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="otlp-sender", daemon=True)

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

    def holders(self, cgroups: Mapping[str, tuple[str, Origin | None]], look: Look) -> dict[str, Pod]:
        """As ``Restart.holders``; before the first ``saw``."""
        return self._restart.holders(cgroups, look)

    def saw(
        self, looked_ns: int, wall_offset_ns: int, cgroups: Mapping[str, tuple[str, Origin | None]], look: Look
    ) -> None:
        """All cgroups of pods that the last look saw (uid → path, origin), those of pods not known yet included."""
        before, self._seen = self._seen, _Seen(looked_ns, wall_offset_ns, cgroups, look)
        with self._lock:
            left = self._restart.saw(cgroups, look)
            self._ended += [entry.series for entry in left]
            self._queue.put(left)
        if self._state and before is not None and before.cgroups.keys() - cgroups.keys():
            # What waits of those that have ended is nowhere else.
            self._state.request()

    def put(
        self, readings: Sequence[tuple[Pod, Reading]], rows: Sequence[Sequence[int | float | None]], wall_offset_ns: int
    ) -> None:
        """One tick's readings, with their rows. ``wall_offset_ns``: the wall clock less the monotonic one."""
        entries = []
        for (pod, reading), row in zip(readings, rows, strict=True):
            series = self._series.get(reading.key)
            # Born again: another cgroup, whose counters began at zero. (One that was there before is the same one.)
            if series is None or (series.origin is not reading.origin and reading.origin.born):
                series = self._begin(pod, reading, wall_offset_ns, series)
            series.pod = pod
            series.path = reading.path
            mono_ns = reading.mono_ns
            # OTLP has no time before 1970; a clock that was never set may.
            unix_ns = max(0, mono_ns + wall_offset_ns)
            series.read = mono_ns, unix_ns
            entries.append(Entry(series, mono_ns, unix_ns, row, series.used(self._ledger.total(row))))
        self._queue.put(entries)

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
        wait_seconds = self.delivery.deliver()
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
        if self._seen is not None:
            _log.info(
                "%d pods, %d cgroups, v%d; %d points accepted by %s",
                len(self._series),
                len(self._seen.cgroups),
                self._seen.look.root.version,
                self.stats.points_sent,
                self._endpoint,
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

    def _begin(self, pod: Pod, reading: Reading, wall_offset_ns: int, before: Series | None) -> Series:
        uid, path, origin = reading.key, reading.path, reading.origin
        with self._lock:
            bases = self._restart.bases(uid, path, origin, wall_offset_ns, before.read if before else (0, 0))
            self._restart.begun(uid, origin)
            if before is not None:
                self._ended.append(before)
            series = self._series[uid] = Series(pod, path, origin, bases)
        return series

    def _save(self) -> None:
        """What was delivered, where that is news."""
        if self._state and self.delivery.settled != self._saved_settled:
            self._saved_settled = self.delivery.settled
            self._state.save()

    def _to_remember(self) -> Remembered | None:
        """What a restart has to know now; None before the first look. In the thread that saves."""
        seen = self._seen
        if seen is None:
            return None
        pods: dict[str, Remnant | None] = {}
        with self._lock:
            waiting = [
                *self._restart.waiting,
                *(waits for series in self._ended if (waits := _waiting(series))),
                *(
                    waits
                    for uid, series in self._series.items()
                    if (self._outage or uid not in seen.cgroups) and (waits := _waiting(series))
                ),
            ]
            for uid, (path, origin) in seen.cgroups.items():
                series = self._series.get(uid)
                if origin is None:
                    pods[uid] = None
                elif series is not None and (series.origin is origin or not origin.born):
                    pods[uid] = Remnant(path, origin.inode or 0, series.delivered, series.pod)
                else:
                    bases = self._restart.bases(uid, path, origin, seen.wall_offset_ns, (0, 0))
                    pods[uid] = Remnant(path, origin.inode or 0, bases)
        waiting.sort(key=lambda waits: waits.mono_ns)
        unix_ns = max(0, seen.mono_ns + seen.wall_offset_ns)
        return Remembered(seen.mono_ns, unix_ns, pods, seen.look.root, seen.look.unlisted, tuple(waiting))

    def _on_drop(self, entry: Entry, full: bool) -> None:
        self.stats.readings_dropped += 1
        self.stats.points_dropped += sum(value is not None for value in entry.values)
        if full and not self._full:
            self._full = True
            _log.warning(
                "%d readings fill the queue (queue_bytes = %d): the oldest are dropped, later ones have their CPU time",
                len(self._queue),
                self._queue_bytes,
            )


def _waiting(series: Series) -> Waiting | None:
    # In this order: the other way round it could be delivered in between, and be sent twice.
    entry, delivered = series.newest, series.delivered
    if entry is None:
        return None
    remnant = Remnant(series.path, series.origin.inode or 0, delivered)
    return Waiting(series.pod, remnant, entry.mono_ns, entry.unix_ns, tuple(entry.values))


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
