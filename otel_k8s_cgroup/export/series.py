"""Entities on their way to the receiver, and what ticks read of them: rows at first, packed once they have to wait."""

from __future__ import annotations

import struct
from array import array
from itertools import repeat
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from otel_k8s_cgroup.export.encode import Encoder
    from otel_k8s_cgroup.export.layout import Layout, Shape
    from otel_k8s_cgroup.export.ledger import Bases, Devices
    from otel_k8s_cgroup.metrics import Row
    from otel_k8s_cgroup.model import Entity, Origin

_NUMBER_BYTES = 8
_OBJECTS_BYTES = 600
"""Of one ``Readings`` without its numbers and its series; tests/export/test_queue.py measures both."""
_ABSENT = -1
"""No figure is negative."""


class Series:
    """A cgroup: whose it is, what was delivered of it, and how much of it waits.

    Args:
        entity: whose it is, as it is known now.
        path: of the cgroup.
        origin: of the cgroup.
        delivered: where its counters begin.
    """

    __slots__ = (
        "by_device",
        "carried",
        "delivered",
        "devices",
        "dropped",
        "encoder",
        "entity",
        "newest",
        "origin",
        "path",
        "read",
        "seldom",
        "shape",
        "start_unix_ns",
        "total",
        "waiting",
    )

    def __init__(self, entity: Entity, path: str, origin: Origin, delivered: Bases) -> None:
        self.entity = entity
        self.path = path
        self.origin = origin
        self.devices: Devices = {}
        """What its cgroup had used at its first reading, or when this process took over from the one before."""
        self.by_device: frozenset[str] = frozenset()
        """As ``Remnant.by_device``."""
        self.delivered = delivered
        self.total = delivered.first
        """The first counter as it was read last, whatever became of the reading."""
        self.carried: dict[int, int | float] = {}
        """Counters of readings that were dropped, by their columns: for a later one in which they were not due."""
        self.seldom: dict[int, int | float] = {}
        """Counters that are not read at each tick, by their columns, as they were read last."""
        self.dropped: int | None = None
        """The first counter of the last reading that was dropped, until a later one is delivered."""
        self.read = origin.mono_ns, 0
        """When it was read last: on the monotonic clock, and since 1970; ns."""
        self.start_unix_ns = 0
        """When its cgroup was made anew, where it was."""
        self.waiting = 0
        """Readings in the queue or in a request."""
        self.newest: Readings | None = None
        """Of those that wait, the one that the next delta will be made of."""
        self.shape: Shape | None = None
        """Of its last row that was sent: nearly always that of the next one."""
        self.encoder: Encoder | None = None
        """Of the entity as it was when it was made."""

    def folded(self, now: int | None) -> int:
        """What the first counter had grown by when a reading was dropped, once ``now`` of it is delivered."""
        before, dropped = self.delivered.first, self.dropped
        if dropped is None or now is None or now < dropped:
            return 0
        self.dropped = None
        return 0 if before is None else max(0, dropped - before)

    @property
    def undelivered(self) -> int:
        """What the first counter grew by since the last delivered reading."""
        base = self.delivered.first
        return 0 if base is None or self.total is None else max(0, self.total - base)


class Part(NamedTuple):
    """One reading of one series."""

    readings: Readings
    """Which it is of."""
    mono_ns: int
    unix_ns: int
    row: Row


class Group:
    """The readings of one series that go into one request.

    Args:
        series: whose they are.
        parts: in the order of time.
        is_split: whether there is another group of the same series, before or behind it.
    """

    __slots__ = ("after", "carried", "chunk", "is_split", "parts", "points", "series")

    def __init__(self, series: Series, parts: list[Part], *, is_split: bool = False) -> None:
        self.series = series
        self.parts = parts
        self.is_split = is_split
        self.chunk: bytes | None = None
        """Its message; None until it is encoded. What follows holds then."""
        self.after = series.delivered
        """Where the next deltas begin once it has arrived."""
        self.points = 0
        self.carried = series.carried
        """As it was when it was encoded."""


class Readings:
    """Readings of several series at one tick.

    Args:
        layout: of the rows.
        series: whose they are; ticks share it where it is the same.
        monos_ns: when each was read, on the monotonic clock.
        wall_offset_ns: the wall clock less the monotonic one.
        rows: one each.
    """

    __slots__ = ("_format", "_numbers", "_rows", "layout", "monos_ns", "reading_bytes", "series", "wall_offset_ns")

    def __init__(
        self,
        layout: Layout,
        series: Sequence[Series],
        monos_ns: Sequence[int],
        wall_offset_ns: int,
        rows: Sequence[Row],
    ) -> None:
        self.layout = layout
        self.series = series
        self.monos_ns = monos_ns
        self.wall_offset_ns = wall_offset_ns
        self.reading_bytes = _NUMBER_BYTES * (1 + layout.width)
        """What one of them takes, packed: its time and its values."""
        self._rows: Sequence[Row] | None = rows
        self._format = ""
        self._numbers = b""

    def __len__(self) -> int:
        return len(self.series)

    @property
    def bytes(self) -> int:
        """What they take, packed."""
        return _OBJECTS_BYTES + len(self.series) * self.reading_bytes

    @property
    def rows(self) -> Sequence[Row]:
        """The values; a counter's are cumulative."""
        rows = self._rows  # another thread may pack them
        if rows is not None:
            return rows
        if not self.layout.width:
            return [()] * len(self.series)
        unpacked = struct.iter_unpack(self._format, self._numbers)
        return [tuple([None if value == _ABSENT else value for value in row]) for row in unpacked]

    def unix_ns(self, mono_ns: int) -> int:
        """That time since 1970. OTLP has no time before; a clock that was never set may."""
        return max(0, mono_ns + self.wall_offset_ns)

    def parts(self) -> list[Part]:
        """One each, in the order of the series."""
        offset_ns = self.wall_offset_ns
        unixs_ns = [max(0, mono_ns + offset_ns) for mono_ns in self.monos_ns]
        # Not Part._make of each, which is a function in Python.
        return [*map(tuple.__new__, repeat(Part), zip(repeat(self), self.monos_ns, unixs_ns, self.rows))]

    def pack(self) -> None:
        """Has them take as little as they can."""
        rows = self._rows
        if rows is None:
            return
        is_double = [any(isinstance(value, float) for value in column) for column in zip(*rows, strict=True)]
        self._format = "<" + "".join("d" if double else "q" for double in is_double)
        pack = struct.Struct(self._format).pack
        self._numbers = b"".join([pack(*[_ABSENT if value is None else value for value in row]) for row in rows])
        self.monos_ns = array("q", self.monos_ns)
        self._rows = None

    def only(self, places: Iterable[int]) -> Readings:
        """Some of them, which take the place of these."""
        places, rows = list(places), self.rows
        some = Readings(
            self.layout,
            [self.series[place] for place in places],
            [self.monos_ns[place] for place in places],
            self.wall_offset_ns,
            [rows[place] for place in places],
        )
        for series in some.series:
            if series.newest is self:
                series.newest = some
        return some
