"""Readings that wait to be delivered, bounded in bytes. The newest state wins."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_k8s_cgroup.export.ledger import Entry

# Measured with tracemalloc: an Entry with its list, and a value with its place in that list.
_ENTRY_BYTES = 280
_VALUE_BYTES = 40


class ReadingQueue:
    """Between the thread that reads and the thread that sends.

    When it is full, the oldest readings are dropped: their gauge points are lost, their CPU time is in the pod's next
    delta. The newest reading of a pod is what that delta is made of, so it is the last to go: a pod that has ended will
    not be read again.

    Args:
        limit_bytes: what the waiting readings may take, estimated.
        on_drop: is told each reading that was dropped, and whether because the queue is full; never by two threads at
            once.
    """

    def __init__(self, limit_bytes: int, on_drop: Callable[[Entry, bool], None]) -> None:
        self._limit_bytes = limit_bytes
        self._on_drop = on_drop
        self._lock = threading.Lock()
        self._entries: deque[Entry] = deque()
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What waits, the requests under way included."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entries: Sequence[Entry]) -> None:
        """Appends one tick's readings."""
        with self._lock:
            for entry in entries:
                series = entry.series
                series.waiting += 1
                # One whose counter could not be read says nothing of what was used.
                if entry.used is not None or series.newest is None:
                    series.newest = entry
                self._bytes += _size(entry)
            self._entries.extend(entries)
            self._trim()

    def take(self, most: int) -> list[Entry]:
        """The oldest readings, at most ``most``; they count until they are settled, dropped or given back.

        And at most half of what may wait: what comes meanwhile must have room, at least the newest of each pod.
        """
        taken: list[Entry] = []
        taken_bytes = 0
        with self._lock:
            while self._entries and len(taken) < most and (not taken or taken_bytes < self._limit_bytes // 2):
                taken.append(self._entries.popleft())
                taken_bytes += _size(taken[-1])
        return taken

    def give_back(self, entries: Sequence[Entry]) -> None:
        """What was taken and not delivered is the oldest again."""
        with self._lock:
            self._entries.extendleft(reversed(entries))
            self._trim()

    def settle(self, entries: Sequence[Entry]) -> None:
        """What was taken has been delivered."""
        with self._lock:
            for entry in entries:
                self._remove(entry)

    def drop(self, entries: Sequence[Entry]) -> None:
        """What was taken will never be delivered."""
        with self._lock:
            for entry in entries:
                self._remove(entry)
                self._on_drop(entry, False)

    def _remove(self, entry: Entry) -> None:
        self._bytes -= _size(entry)
        entry.series.waiting -= 1
        if entry.series.newest is entry:
            entry.series.newest = None

    def _trim(self) -> None:
        kept: list[Entry] = []
        while self._bytes > self._limit_bytes and self._entries:
            entry = self._entries.popleft()
            if entry.series.newest is entry:
                kept.append(entry)
            else:
                self._remove(entry)
                self._on_drop(entry, True)
        # Only newest readings are left, and they alone are too many. Those of pods that run will be taken again, so
        # the latest go; the last ones of pods that have ended are the oldest.
        while self._bytes > self._limit_bytes and kept:
            entry = kept.pop()
            self._remove(entry)
            self._on_drop(entry, True)
        self._entries.extendleft(reversed(kept))


def _size(entry: Entry) -> int:
    return _ENTRY_BYTES + _VALUE_BYTES * len(entry.values)
