"""Waiting readings → requests, and what became of them."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.bound import REQUEST_BYTES, RequestBound
from otel_k8s_cgroup.export.complaints import Complaints
from otel_k8s_cgroup.export.encode import encode_all
from otel_k8s_cgroup.export.ledger import Step, step, step_all
from otel_k8s_cgroup.export.series import Group
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.http_words import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_k8s_cgroup.export.encode import Encoder
    from otel_k8s_cgroup.export.layout import Shape
    from otel_k8s_cgroup.export.queue import ReadingQueue
    from otel_k8s_cgroup.export.series import Readings, Series
    from otel_k8s_cgroup.export.transport import Transport

_log = logging.getLogger(__name__)

# So many that what each call costs is small against its share of them, and that their messages fill no memory.
_ENCODED_AT_ONCE = 128

# Several ticks that waited go together, but not so many that their messages fill the memory (about 1 kB a point).
_READINGS_AT_ONCE = 1024

# The exporter's own metrics cost as much as the points of fifty pods, and are cumulative.
_OWN_EVERY_SECONDS = 10.0

_FIRST_BACKOFF_SECONDS = 1.0
_LAST_BACKOFF_SECONDS = 10.0
_LONGEST_RETRY_AFTER_SECONDS = 300.0


def about_one() -> float:
    """A random factor, so that a cluster's nodes do not all come back at once."""
    return random.uniform(0.8, 1.2)  # noqa: S311 no secret depends on it


@dataclass(slots=True)
class ExportStats:
    """What became of the points, since the start. Nanoseconds are of the first counter: the pods' whole CPU time."""

    requests: Counter[str] = field(default_factory=Counter)
    """By result: ``ok``, or the error's cause."""
    points_sent: int = 0
    """Taken by the receiver, as far as it answered."""
    points_rejected: int = 0
    """Taken back by the receiver in an answer that was otherwise a success."""
    points_dropped: int = 0
    """Of the readings that were dropped …"""
    readings_dropped: int = 0
    """… because the queue was full or the receiver will never take them. Their gauges are lost; their CPU time is in
    the pod's next delta …"""
    readings_lost: int = 0
    """… but for these: the last ones of pods that have ended."""
    folded_ns: int = 0
    """CPU time that arrived with a later reading than the one that read it, because that one was dropped."""
    lost_ns: int = 0
    """CPU time of the readings that were lost."""


class Delivery:
    """Takes what waits, makes requests of it and settles them. Without a thread of its own; not for several threads.

    Args:
        transport: sends a request.
        queue: what waits.
        encoder: gives that of a series.
        stats: is kept up to date.
        own_metrics: gives the exporter's own metrics as a request, which joins the last one of a ``deliver``, every ten
            seconds; what becomes of them costs nothing else, and they are not kept. Whatever it raises leaves them out.
        mono_clock: seconds.
        request_bytes: the bound on a request; it shrinks where the receiver wants less, and grows again.
        jitter: a factor about 1, for the backoff.
    """

    def __init__(
        self,
        transport: Transport,
        queue: ReadingQueue,
        encoder: Callable[[Series], Encoder],
        *,
        stats: ExportStats,
        own_metrics: Callable[[], bytes] | None = None,
        request_bytes: int = REQUEST_BYTES,
        jitter: Callable[[], float] = about_one,
        mono_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._transport = transport
        self._queue = queue
        self._encoder = encoder
        self._stats = stats
        self._own_metrics = own_metrics
        self._bound = RequestBound(request_bytes)
        self._jitter = jitter
        self._mono_clock = mono_clock
        self._failures = 0
        self._own_due = False
        self._own_next_seconds = 0.0
        """Not before that."""
        self._own_apart = b""
        """For which the last request had no room."""
        self._complaints = Complaints()
        self._accepted = False
        self.settled = 0
        """Readings that were delivered, since the start."""

    def deliver(self, *, is_last: bool = False) -> float | None:
        """Sends all that waits. None when nothing is left, else the seconds after which to try again.

        Args:
            is_last: the exporter's own metrics are sent whenever they were sent before.
        """
        self._own_due = is_last or self._mono_clock() >= self._own_next_seconds
        self._complaints.begin_round()
        self._accepted = False
        while ticks := self._queue.take(_READINGS_AT_ONCE):
            groups = _grouped(ticks)
            while groups:
                try:
                    self._send_one(groups)
                except ExportRetryable as error:
                    self._queue.give_back(_left(ticks, groups))
                    return self._backoff_seconds(error)
        if own := self._own_apart or self._own():
            try:
                self._send(own)
            except ExportError as error:
                waits = "" if self._own_apart else "no reading of a pod waits; "
                self._complain(error, "own", f"{waits}the exporter's own metrics are not sent")
        self._own_apart = b""
        if self._accepted:
            self._complaints.end_round()
        return None

    def _send_one(self, groups: deque[Group]) -> None:
        """Sends what fits one request; leaves in ``groups`` what was not settled."""
        taken, body = self._fill(groups)
        receipt = Receipt()
        try:
            if body:
                receipt = self._send_joined(body, last=not groups and not len(self._queue))
                self._bound.accepted(len(body))
        except ExportRetryable:
            groups.extendleft(reversed(taken))
            raise
        except ExportTooLarge as error:
            if len(taken) == len(taken[0].parts) == 1:
                self._give_up(taken, error)
                return
            self._split_from_now_on(len(body), error)
            groups.extendleft(reversed(taken))
        except ExportRejected as error:
            self._give_up(taken, error)
        else:
            self._settle(taken)
            self._take_back(receipt, sum(group.points for group in taken))

    def _fill(self, groups: deque[Group]) -> tuple[list[Group], bytes]:
        """Takes from ``groups`` what fits one request, at least one reading of one pod."""
        taken: list[Group] = []
        chunks: list[bytes] = []
        size = 0
        while groups:
            group = groups[0]
            # The second half of a group that was split has to be counted from where the first arrives.
            if taken and taken[-1].series is group.series:
                break
            chunk = group.chunk
            if chunk is None:
                chunk = self._encode(groups)
            if taken and size + len(chunk) > self._bound.bytes:
                break
            groups.popleft()
            if len(chunk) > self._bound.bytes and len(group.parts) > 1:
                _split(group, groups)
                continue
            taken.append(group)
            chunks.append(chunk)
            size += len(chunk)
        return taken, b"".join(chunks)

    def _encode(self, groups: Sequence[Group]) -> bytes:
        """The first group's message. Where it is a usual case, those behind it that are, too, are encoded with it."""
        first = groups[0]
        if _usual_shape(first) is None:
            return self._encode_one(first)
        alike: dict[Shape, list[Group]] = {}
        for group in islice(groups, _ENCODED_AT_ONCE):
            if group.chunk is None and (shape := _usual_shape(group)) is not None:
                alike.setdefault(shape, []).append(group)
        for shape, some in alike.items():
            self._encode_all(some, shape)
        return first.chunk or b""

    def _encode_all(self, groups: Sequence[Group], shape: Shape) -> None:
        parts = [group.parts[0] for group in groups]
        steps = step_all(
            [group.series.delivered for group in groups],
            shape,
            [part[1:3] for part in parts],
            [part.row for part in parts],
        )
        if steps is None:
            for group in groups:
                self._encode_one(group)
            return
        chunks = encode_all([self._encoder(group.series) for group in groups], shape, steps.values)
        for group, chunk, after in zip(groups, chunks, steps.after, strict=True):
            group.chunk, group.after, group.points = chunk, after, shape.count

    def _encode_one(self, group: Group) -> bytes:
        series = group.series
        after = series.delivered
        steps: list[Step] = []
        carried = group.carried = series.carried
        points = 0
        shape = series.shape
        for number, (readings, mono_ns, unix_ns, row) in enumerate(group.parts):
            if carried and number == 0:
                row = tuple(  # noqa: PLW2901 what was dropped and not read again
                    carried.get(place) if value is None else value for place, value in enumerate(row)
                )
            if shape is None or shape.layout is not readings.layout or not shape.fits(row):
                shape = series.shape = readings.layout.shape(row)
            each, after = step(after, series.devices, shape, (mono_ns, unix_ns), row)
            steps.append(each)
            points += each.shape.count
        group.chunk, group.after, group.points = self._encoder(series).encode(steps), after, points
        return group.chunk

    def _send_joined(self, body: bytes, *, last: bool) -> Receipt:
        own = self._own() if last else b""
        if len(body) + len(own) > self._bound.bytes:
            self._own_apart, own = own, b""
        try:
            return self._send(body + own)
        except ExportTooLarge as error:
            if not own:
                raise
            self._own_apart = own
            self._split_from_now_on(2 * len(body), error)
            return self._send(body)
        except ExportRejected as error:
            if not own:
                raise
            receipt = self._send(body)
            self._complain(error, "own", "the pods' points were taken without the exporter's own metrics")
            return receipt

    def _split_from_now_on(self, size: int, error: ExportError) -> None:
        if self._bound.refused(size):
            _log.warning("%s; requests are split from now on, and nothing is lost", error)

    def _own(self) -> bytes:
        """What the exporter says of itself, once a ``deliver``."""
        if not self._own_due or self._own_metrics is None:
            return b""
        self._own_due = False
        self._own_next_seconds = self._mono_clock() + _OWN_EVERY_SECONDS
        try:
            return self._own_metrics()
        except Exception as error:  # noqa: BLE001 no defect of theirs may end the pods' points
            text = f"{type(error).__name__} {str(error)[:120]!r}"
            self._complaints.add("own metrics", "own", f"the exporter's own metrics are not sent: {text}")
            return b""

    def _send(self, body: bytes) -> Receipt:
        began = time.monotonic()
        result = "ok"
        try:
            receipt = self._transport.send(body)
        except ExportError as error:
            result = error.cause
            raise
        finally:
            self._stats.requests[result] += 1
            _log.debug("OTLP request of %d bytes: %s after %.3f s", len(body), result, time.monotonic() - began)
        self._failures = 0
        self._accepted = True
        return receipt

    def _take_back(self, receipt: Receipt, points: int) -> None:
        """What the receiver rejected of a request that it took; it may say anything."""
        rejected = min(receipt.rejected_points, points)
        self._stats.points_rejected += rejected
        self._stats.points_sent -= rejected
        if receipt.rejected_points or receipt.message:
            self._complaints.add(
                "partial success",
                "rejected",
                f"the OTLP receiver rejected {rejected} of {points} points and said {quoted(receipt.message)}",
            )

    def _settle(self, taken: Sequence[Group]) -> None:
        self._queue.settle(taken, self._settled)
        self._stats.points_sent += sum(group.points for group in taken)

    def _settled(self, group: Group) -> None:
        """Called while the queue drops nothing."""
        series = group.series
        if series.carried:
            # What was dropped while the request was under way may be newer, and may be older.
            delivered = group.after.by_place(group.parts[-1].readings.layout)
            series.carried = {
                place: value for place, value in series.carried.items() if value > delivered.get(place, -1)
            }
        if series.dropped is not None:
            self._stats.folded_ns += series.folded(group.after.first)
        series.delivered = group.after
        self.settled += len(group.parts)

    def _give_up(self, taken: Sequence[Group], error: ExportError) -> None:
        points, pods = sum(group.points for group in taken), len(taken)
        alone = "one reading by itself is too large: " if isinstance(error, ExportTooLarge) else ""
        self._complain(
            error,
            "dropped",
            f"{alone}{_count(points, 'point')} of {_count(pods, 'pod')} dropped; the CPU time joins the next points",
        )
        for group in taken:
            self._queue.drop(group)

    def _backoff_seconds(self, error: ExportRetryable) -> float:
        self._complain(error, "wait", f"{_count(len(self._queue), 'reading')} of pods wait to be sent again")
        wait = min(_LAST_BACKOFF_SECONDS, _FIRST_BACKOFF_SECONDS * 2.0**self._failures) * self._jitter()
        self._failures = min(self._failures + 1, 16)
        if error.retry_after_seconds is not None:
            wait = max(wait, min(error.retry_after_seconds, _LONGEST_RETRY_AFTER_SECONDS))
        return wait

    def _complain(self, error: ExportError, consequence: str, message: str) -> None:
        self._complaints.add(error.cause, consequence, f"{error}; {message}")


def _count(number: int, of: str) -> str:
    return f"{number} {of}" if number == 1 else f"{number} {of}s"


def _grouped(ticks: Iterable[Readings]) -> deque[Group]:
    groups: dict[int, Group] = {}
    for readings in ticks:
        for series, part in zip(readings.series, readings.parts(), strict=True):
            group = groups.get(id(series))
            if group is None:
                groups[id(series)] = Group(series, [part])
            else:
                group.parts.append(part)
    return deque(groups.values())


def _usual_shape(group: Group) -> Shape | None:
    """Of a group of one reading that ``step_all`` takes, where it is as the one before; else None."""
    series, readings = group.series, group.parts[0].readings
    shape, delivered = series.shape, series.delivered
    if shape is None or shape.layout is not readings.layout or shape.numbers != delivered.numbers or delivered.apart:
        return None
    return None if len(group.parts) > 1 or group.is_split or series.carried else shape


def _split(group: Group, groups: deque[Group]) -> None:
    half = len(group.parts) // 2
    groups.appendleft(Group(group.series, group.parts[half:], is_split=True))
    groups.appendleft(Group(group.series, group.parts[:half], is_split=True))


def _left(ticks: Sequence[Readings], groups: Iterable[Group]) -> Sequence[Readings]:
    """What of ``ticks`` is still in ``groups``."""
    left = {(id(part.readings), id(group.series)) for group in groups for part in group.parts}
    if len(left) == sum(map(len, ticks)):
        return ticks
    parts = (
        readings.only(place for place, series in enumerate(readings.series) if (id(readings), id(series)) in left)
        for readings in ticks
    )
    return [readings for readings in parts if len(readings)]
