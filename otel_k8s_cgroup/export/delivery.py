"""Waiting readings → requests, and what became of them."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter, deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.bound import REQUEST_BYTES, RequestBound
from otel_k8s_cgroup.export.complaints import Complaints
from otel_k8s_cgroup.export.ledger import Step, step
from otel_k8s_cgroup.export.series import Group
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.http_words import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_k8s_cgroup.export.encode import Encoder
    from otel_k8s_cgroup.export.ledger import Bases
    from otel_k8s_cgroup.export.queue import ReadingQueue
    from otel_k8s_cgroup.export.series import Readings, Series
    from otel_k8s_cgroup.export.transport import Transport

_log = logging.getLogger(__name__)

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
    """Taken by the receiver, for all that it said."""
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


class _Sent(NamedTuple):
    """A group in a request, and what holds once the request has arrived."""

    group: Group
    after: Bases
    points: int
    carried: dict[int, int | float]
    """As ``Series.carried`` when it was made."""


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
                waits = "" if self._own_apart else "no pod's points wait; "
                self._complain(error, "own", f"{waits}the exporter's own metrics are left out")
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
            groups.extendleft(sent.group for sent in reversed(taken))
            raise
        except ExportTooLarge as error:
            if len(taken) == len(taken[0].group.parts) == 1:
                self._give_up(taken, error)
                return
            self._split_from_now_on(len(body), error)
            groups.extendleft(sent.group for sent in reversed(taken))
        except ExportRejected as error:
            self._give_up(taken, error)
        else:
            self._settle(taken)
            self._take_back(receipt, sum(sent.points for sent in taken))

    def _fill(self, groups: deque[Group]) -> tuple[list[_Sent], bytes]:
        """Takes from ``groups`` what fits one request, at least one reading of one pod."""
        taken: list[_Sent] = []
        chunks: list[bytes] = []
        size = 0
        while groups:
            group = groups.popleft()
            # The second half of a group that was split has to be counted from where the first arrives.
            if taken and taken[-1].group.series is group.series:
                groups.appendleft(group)
                break
            chunk, sent = self._encode(group)
            if taken and size + len(chunk) > self._bound.bytes:
                groups.appendleft(group)
                break
            if len(chunk) > self._bound.bytes and len(group.parts) > 1:
                _split(group, groups)
                continue
            taken.append(sent)
            chunks.append(chunk)
            size += len(chunk)
        return taken, b"".join(chunks)

    def _encode(self, group: Group) -> tuple[bytes, _Sent]:
        series, parts = group
        after = series.delivered
        steps: list[Step] = []
        carried = series.carried
        points = 0
        shape = series.shape
        for number, (readings, mono_ns, unix_ns, row) in enumerate(parts):
            if carried and number == 0:
                row = tuple(  # noqa: PLW2901 what was dropped and not read again
                    carried.get(place) if value is None else value for place, value in enumerate(row)
                )
            if shape is None or shape.layout is not readings.layout or not shape.fits(row):
                shape = series.shape = readings.layout.shape(row)
            each, after = step(after, series.origin, shape, (mono_ns, unix_ns), row)
            steps.append(each)
            points += each.shape.count
        return self._encoder(series).encode(steps), _Sent(group, after, points, carried)

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
            self._complaints.add("own metrics", "own", f"the exporter's own metrics are left out: {text}")
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

    def _settle(self, taken: Sequence[_Sent]) -> None:
        self._queue.settle(map(self._settled, taken))

    def _settled(self, sent: _Sent) -> Group:
        """Called while the queue drops nothing."""
        (series, parts), after, points, carried = sent
        if series.carried is carried and carried:
            series.carried = {}
        if series.dropped is not None:
            self._stats.folded_ns += series.folded(after.first)
        series.delivered = after
        self._stats.points_sent += points
        self.settled += len(parts)
        return sent.group

    def _give_up(self, taken: Sequence[_Sent], error: ExportError) -> None:
        points, pods = sum(sent.points for sent in taken), len(taken)
        alone = "one reading by itself is too large: " if isinstance(error, ExportTooLarge) else ""
        self._complain(
            error,
            "dropped",
            f"{alone}{_count(points, 'point')} of {_count(pods, 'pod')} dropped; the CPU time joins the next points",
        )
        for sent in taken:
            self._queue.drop(sent.group)

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


def _split(group: Group, groups: deque[Group]) -> None:
    half = len(group.parts) // 2
    groups.appendleft(Group(group.series, group.parts[half:]))
    groups.appendleft(Group(group.series, group.parts[:half]))


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
