"""What was delivered of each pod, and so what the next delta is.

Cumulative values wait in the queue; deltas are made when they are sent, against the value that was delivered last. So
a failed export only widens the next delta, a reading that had to be dropped is covered by the one after it, and the sum
of a pod's deltas is its counter's growth, whatever happens between.

Sources: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#temporality (a delta's start is its predecessor's
time) and #resets-and-gaps.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from otel_k8s_cgroup.metrics import Instrument

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.export.encode import PodEncoder
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Origin, Pod


# What a busy machine may put between the reading of the one clock and of the other.
_CLOCKS_APART_NS = 100_000_000


class Base(NamedTuple):
    """Where a counter's next delta begins."""

    mono_ns: int
    unix_ns: int
    value: int


class Names(NamedTuple):
    """Of a row's values, by which a state file of another version's table is read."""

    counters: tuple[str, ...]
    """In the order of ``Bases``."""
    values: tuple[str, ...]
    """In the order of the columns …"""
    doubles: tuple[bool, ...]
    """… and whether each is a floating-point number."""


Bases = tuple[Base | None, ...]
"""One a counter, in the order of the columns; None where it has none yet: its next value will be one."""


class Series:
    """A pod's cgroup on its way to the receiver: whose it is, what was delivered, and how much of it waits.

    Args:
        pod: as it is known now.
        path: of the cgroup.
        origin: of the cgroup.
        delivered: where its counters begin.
    """

    __slots__ = ("delivered", "encoder", "newest", "origin", "path", "pod", "read", "total", "waiting")

    def __init__(self, pod: Pod, path: str, origin: Origin, delivered: Bases) -> None:
        self.pod = pod
        self.path = path
        self.origin = origin
        self.delivered = delivered
        self.total = delivered[0].value if delivered and delivered[0] else None
        """The first counter as it was read last, whatever became of the reading."""
        self.read = origin.mono_ns, 0
        """When that was: on the monotonic clock, and since 1970; ns."""
        self.waiting = 0
        """Entries in the queue or in a request."""
        self.newest: Entry | None = None
        """Of those that wait: what the next delta will be made of."""
        self.encoder: PodEncoder | None = None

    def used(self, total: int | None) -> int | None:
        """What the first counter grew by since it was read last; ``total`` is what it is now."""
        before = self.total
        if total is None:
            return None
        self.total = total
        return 0 if before is None or total < before else total - before

    @property
    def undelivered(self) -> int:
        """What the first counter grew by since the last delivered reading."""
        base = self.delivered[0] if self.delivered else None
        return 0 if base is None or self.total is None else max(0, self.total - base.value)


class Entry:
    """One reading of one pod, waiting to be delivered; ``values`` as in ``instruments.Row``."""

    __slots__ = ("mono_ns", "series", "unix_ns", "used", "values")

    def __init__(
        self, series: Series, mono_ns: int, unix_ns: int, values: Sequence[int | float | None], used: int | None
    ) -> None:
        self.series = series
        self.mono_ns = mono_ns
        self.unix_ns = unix_ns
        self.values = values
        self.used = used
        """The first counter's growth since the reading before; None where it was not read."""


class Step(NamedTuple):
    """What one entry sends: ``values`` with its counters as deltas, and each counter's start."""

    unix_ns: int
    values: list[int | float | None]
    starts_unix_ns: list[int]
    """One a counter, in the order of the columns."""


class Ledger:
    """Makes deltas, by the table of metrics."""

    def __init__(self, metrics: Sequence[Metric]) -> None:
        columns = [(metric, point) for metric in metrics for point in metric.points]
        self._counters: list[tuple[int, str]] = [
            (column, point.figure)
            for column, (metric, point) in enumerate(columns)
            if metric.instrument is Instrument.COUNTER
        ]
        """Each one's column and figure."""
        names = tuple(metric.name if point.kind is None else f"{metric.name} {point.kind}" for metric, point in columns)
        self.names = Names(
            tuple(names[column] for column, _ in self._counters),
            names,
            tuple(metric.instrument is Instrument.GAUGE_DOUBLE for metric, _ in columns),
        )
        self._columns = [column for column, _ in self._counters]
        self._first = self._columns[0] if self._columns else None

    def start(self, origin: Origin, wall_offset_ns: int, not_before: tuple[int, int] = (0, 0)) -> Bases:
        """Where the counters of a cgroup begin that nothing was delivered of.

        Args:
            origin: the cgroup's.
            wall_offset_ns: the wall clock less the monotonic one.
            not_before: when an earlier cgroup of the same pod was read last (``Series.read``): time goes on from there.
        """
        mono_ns, unix_ns = origin.mono_ns, max(0, origin.mono_ns + wall_offset_ns)
        if mono_ns < not_before[0]:
            mono_ns, unix_ns = not_before
        return tuple(
            Base(mono_ns, unix_ns, value) if isinstance(value, int) else None
            for value in (getattr(origin.stats, figure, None) for _, figure in self._counters)
        )

    def from_zero(self, mono_ns: int, unix_ns: int) -> Bases:
        """Where the counters of a cgroup begin that was not there yet at that time."""
        return (Base(mono_ns, unix_ns, 0),) * len(self._counters)

    def total(self, values: Sequence[int | float | None]) -> int | None:
        """The first counter: of Alumet's schema the pod's whole CPU time, cumulative in an entry, a delta in a step."""
        value = None if self._first is None else values[self._first]
        return value if isinstance(value, int) else None

    def step(self, delivered: Bases, entry: Entry) -> tuple[Step, Bases]:
        """What ``entry`` sends after ``delivered``, and what is delivered once it has arrived."""
        values = [*entry.values]
        starts: list[int] = []
        after: list[Base | None] = []
        mono_ns, unix_ns = entry.mono_ns, entry.unix_ns
        began_ns, start = -1, 0
        for column, base in zip(self._columns, delivered, strict=True):
            value: Any = values[column]
            if value is None:
                # Not read this time: the next delta begins where this one would have.
                after.append(base)
                starts.append(0)
                continue
            after.append(Base._make((mono_ns, unix_ns, value)))
            if base is None or value < base.value or mono_ns <= base.mono_ns:
                # A first value, one that went down, or a baseline's own reading: from here on it counts.
                values[column] = None
                starts.append(0)
            else:
                values[column] = value - base.value
                if began_ns != base.mono_ns:  # counters nearly always begin together
                    began_ns, start = base.mono_ns, _start_unix_ns(base, entry)
                starts.append(start)
        return Step(unix_ns, values, starts), tuple(after)


def _start_unix_ns(base: Base, entry: Entry) -> int:
    """The time of the point before; where the wall clock was set meanwhile, as long ago as the monotonic clock says."""
    elapsed_ns = entry.mono_ns - base.mono_ns
    stepped_ns = (entry.unix_ns - base.unix_ns) - elapsed_ns
    # The two clocks are read one after the other: between two readings close together that alone may be a tenth.
    as_before = abs(stepped_ns) <= max(elapsed_ns // 10, _CLOCKS_APART_NS) and base.unix_ns < entry.unix_ns
    return base.unix_ns if as_before else max(0, entry.unix_ns - elapsed_ns)
