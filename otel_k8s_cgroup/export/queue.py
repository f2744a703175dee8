"""Readings that wait to be delivered, bounded in bytes. The newest state wins."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from otel_k8s_cgroup.export.series import Group, Readings, Series
    from otel_k8s_cgroup.metrics import Row


class ReadingQueue:
    """Between the thread that reads and the thread that sends.

    When it is full, the oldest ticks are dropped: their gauge points are lost, their CPU time is in the next delta. The
    newest reading of a series is what that delta is made of, so it is the last to go: one that has ended will not be
    read again.

    Args:
        limit_bytes: what the waiting readings may take.
        on_drop: is given the series and row of each reading that was dropped, and whether because the queue is full;
            never by two threads at once.
    """

    def __init__(self, limit_bytes: int, on_drop: Callable[[Series, Row, bool], None]) -> None:
        self._limit_bytes = limit_bytes
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._ticks: deque[Readings] = deque()
        self._bytes = 0
        """Of ``_ticks``."""
        self._taken_bytes = 0
        self._length = 0

    @property
    def bytes(self) -> int:
        """What waits, the requests under way included."""
        return self._bytes + self._taken_bytes

    def __len__(self) -> int:
        return self._length

    def put(self, readings: Readings) -> None:
        """Appends one tick's readings."""
        if not len(readings):
            return
        first = readings.layout.first
        with self._lock:
            if self._ticks:
                self._ticks[-1].pack()
            for series, row in zip(readings.series, readings.rows, strict=True):
                series.waiting += 1
                # One whose counter could not be read says nothing of what was used.
                if series.newest is None or first is None or row[first] is not None:
                    series.newest = readings
            self._append(readings)
            self._trim()

    def take(self, most: int) -> list[Readings]:
        """The oldest readings, of all ticks but the first at most ``most``; nothing else may be taken meanwhile. They
        count until they are settled, dropped or given back.

        And at most half of what may wait: what comes meanwhile must have room, at least the newest of each series.
        """
        taken: list[Readings] = []
        length = 0
        with self._lock:
            self._taken_bytes = 0
            while self._ticks and (not taken or length + len(self._ticks[0]) <= most):
                room_bytes = self._limit_bytes // 2 - self._taken_bytes
                if self._ticks[0].bytes > room_bytes:
                    if taken:
                        break
                    self._split_first(room_bytes)
                readings = self._ticks.popleft()
                self._bytes -= readings.bytes
                self._length -= len(readings)
                self._taken_bytes += readings.bytes
                length += len(readings)
                taken.append(readings)
        return taken

    def give_back(self, ticks: Iterable[Readings]) -> None:
        """What was taken and was neither settled nor dropped is the oldest again."""
        with self._lock:
            self._taken_bytes = 0
            for readings in reversed([*ticks]):
                readings.pack()
                self._append(readings, first=True)
            self._trim()

    def settle(self, groups: Iterable[Group], settled: Callable[[Group], None]) -> None:
        """What was taken has been delivered; ``settled`` is called with each group."""
        with self._lock:
            for group in groups:
                settled(group)
                series = group.series
                for part in group.parts:
                    self._remove(series, part.readings)
                    self._taken_bytes -= part.readings.reading_bytes

    def drop(self, group: Group) -> None:
        """What was taken will never be delivered."""
        with self._lock:
            for part in group.parts:
                self._remove(group.series, part.readings)
                self._taken_bytes -= part.readings.reading_bytes
                self._on_drop(group.series, part.row, False)

    def _append(self, readings: Readings, *, first: bool = False) -> None:
        (self._ticks.appendleft if first else self._ticks.append)(readings)
        self._bytes += readings.bytes
        self._length += len(readings)

    def _split_first(self, room_bytes: int) -> None:
        """Makes the oldest tick two, of which the first takes about ``room_bytes``."""
        whole = self._ticks[0]
        size = max(1, min(len(whole), (room_bytes - whole.bytes) // whole.reading_bytes + len(whole)))
        if size == len(whole):
            return
        self._ticks.popleft()
        self._bytes -= whole.bytes
        self._length -= len(whole)
        self._append(whole.only(range(size, len(whole))), first=True)
        self._append(whole.only(range(size)), first=True)

    @staticmethod
    def _remove(series: Series, readings: Readings) -> None:
        series.waiting -= 1
        if series.newest is readings:
            series.newest = None

    def _drop(self, readings: Readings, places: Iterable[int]) -> None:
        rows = readings.rows
        for place in places:
            series = readings.series[place]
            self._remove(series, readings)
            self._on_drop(series, rows[place], True)

    def _trim(self) -> None:
        kept: list[Readings] = []
        excess_bytes = self.bytes - self._limit_bytes
        while excess_bytes > 0 and self._ticks:
            readings = self._ticks.popleft()
            self._bytes -= readings.bytes
            self._length -= len(readings)
            excess_bytes -= readings.bytes
            is_newest = [series.newest is readings for series in readings.series]
            self._drop(readings, [place for place, newest in enumerate(is_newest) if not newest])
            if any(is_newest):
                kept.append(readings.only(place for place, newest in enumerate(is_newest) if newest))
                excess_bytes += kept[-1].bytes
        # Only newest readings are left, and they alone are too many. Those of cgroups that are there will be taken
        # again, so the latest go; the last ones of those that have ended are the oldest.
        while excess_bytes > 0 and kept:
            readings = kept.pop()
            excess_bytes -= readings.bytes
            room = (-excess_bytes - readings.bytes) // readings.reading_bytes + len(readings)
            size = max(0, min(len(readings), room))
            self._drop(readings, range(size, len(readings)))
            if size:
                kept.append(readings.only(range(size)))
                break
        for readings in reversed(kept):
            self._append(readings, first=True)
