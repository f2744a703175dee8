"""What was delivered of each entity, and so what its next delta is.

Cumulative values wait in the queue; deltas are made when they are sent, against the value that was delivered last. So
a failed export only widens the next delta, a reading that had to be dropped is covered by the one after it, and the sum
of an entity's deltas is its counter's growth, whatever happens between.

Sources: https://opentelemetry.io/docs/specs/otel/metrics/data-model/#temporality (a delta's start is its predecessor's
time) and #resets-and-gaps.
"""

from __future__ import annotations

from itertools import repeat
from operator import gt, sub
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from otel_k8s_cgroup.model import EntityKind, Reading
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from otel_k8s_cgroup.export.layout import Layout, Shape
    from otel_k8s_cgroup.metrics import Column, Row
    from otel_k8s_cgroup.model import Origin

# What a busy machine may put between the reading of the one clock and of the other.
_CLOCKS_APART_NS = 100_000_000

Devices: TypeAlias = "Mapping[str, Collection[str]]"
"""By family (``Column.family``), the devices that a cgroup had used where its counters begin; without those families
that could not be read then."""

_NOT_APART: Mapping[int, tuple[int, int]] = MappingProxyType({})


class Base(NamedTuple):
    """Where a counter's next delta begins."""

    mono_ns: int
    unix_ns: int
    value: int


class Bases(NamedTuple):
    """Where the next deltas of an entity begin."""

    mono_ns: int
    """When its counters were last read, as ``unix_ns``."""
    unix_ns: int
    numbers: tuple[int, ...]
    """The counters that have a value, by their numbers (``Layout.counters``), in order."""
    values: tuple[int, ...]
    """One a number."""
    apart: Mapping[int, tuple[int, int]]
    """Counter's number → its own ``mono_ns`` and ``unix_ns``, where it was last read at another time."""

    @classmethod
    def of(cls, each: Sequence[Base | None]) -> Bases:
        """One a counter; None where it has no value yet."""
        there = {number: base for number, base in enumerate(each) if base is not None}
        common = max((base[:2] for base in there.values()), default=(0, 0))
        apart = {number: base[:2] for number, base in there.items() if base[:2] != common}
        return cls(*common, tuple(there), tuple(base.value for base in there.values()), apart)

    @property
    def first(self) -> int | None:
        """The value of the first counter."""
        return self.values[0] if self.numbers[:1] == (0,) else None

    def by_number(self) -> dict[int, Base]:
        """Of each counter that has a value."""
        common, apart = self[:2], self.apart
        return {
            number: Base(*apart.get(number, common), value)
            for number, value in zip(self.numbers, self.values, strict=True)
        }

    def by_place(self, layout: Layout) -> dict[int, int]:
        """Column → value, of each counter that has one."""
        return {layout.counters[number]: value for number, value in zip(self.numbers, self.values, strict=True)}

    def each(self, counters: int) -> tuple[Base | None, ...]:
        """The reverse of ``of``, for so many counters."""
        return tuple(map(self.by_number().get, range(counters)))


class Step(NamedTuple):
    """What one reading sends."""

    shape: Shape
    """Which values it has; a counter's is its delta."""
    values: tuple[int | float | None, ...]
    """The time, the row, and of each counter that ``shape`` has the delta; then the start of each."""


def start(layout: Layout, origin: Origin, wall_offset_ns: int, not_before: tuple[int, int] = (0, 0)) -> Bases:
    """Where the counters of a cgroup begin that nothing was delivered of.

    Args:
        layout: of the counters.
        origin: the cgroup's.
        wall_offset_ns: the wall clock less the monotonic one.
        not_before: when an earlier cgroup of the same entity was read last: time goes on from there.
    """
    mono_ns, unix_ns = origin.mono_ns, max(0, origin.mono_ns + wall_offset_ns)
    if mono_ns < not_before[0]:
        mono_ns, unix_ns = not_before
    if origin.born:
        return from_zero(layout, mono_ns, unix_ns)
    table = Table([Reading("", EntityKind.POD, "", origin, origin.mono_ns, origin.stats, 0, origin.stats)])
    counters = (_first(layout.columns[place], table) for place in layout.counters)
    there = {number: value for number, value in enumerate(counters) if value is not None}
    return Bases(mono_ns, unix_ns, tuple(there), tuple(there.values()), {})


def _first(column: Column, table: Table) -> int | None:
    """A counter's first reading; None of a device that the cgroup had not used."""
    value: Any = table.column(column.point.figure)[0]
    if column.member is not None and value is not None:
        value = value.get(column.member)
    return value if isinstance(value, int) else None


def from_zero(layout: Layout, mono_ns: int, unix_ns: int) -> Bases:
    """Where the counters of a cgroup begin that was not there yet at that time; devices have none before their first
    use.
    """
    numbers = tuple(number for number, place in enumerate(layout.counters) if layout.columns[place].member is None)
    return Bases(mono_ns, unix_ns, numbers, (0,) * len(numbers), {})


def step(bases: Bases, devices: Devices, shape: Shape, times_ns: tuple[int, int], row: Row) -> tuple[Step, Bases]:
    """What a reading sends after ``bases``, and what is delivered once it has arrived.

    Args:
        bases: what was delivered before.
        devices: of the cgroup, at its first reading.
        shape: of ``row``.
        times_ns: when it was read: on the monotonic clock, and since 1970.
        row: its values; counters are cumulative.
    """
    mono_ns, unix_ns = times_ns
    began_ns, began_unix_ns, numbers, before, apart = bases
    # Nearly always the same counters are read, all at once.
    if numbers == shape.numbers and before and mono_ns > began_ns and not apart:
        values = shape.counters(row)
        deltas = tuple(map(sub, values, before))
        if min(deltas) >= 0:
            began = _start_unix_ns(began_ns, began_unix_ns, mono_ns, unix_ns)
            sent = (unix_ns, *row, *deltas, *(began,) * len(deltas))
            return Step(shape, sent), Bases._make((mono_ns, unix_ns, numbers, values, apart))
    return _step_each(bases, devices, shape, times_ns, row)


class Steps(NamedTuple):
    """What one reading of each of several series sends."""

    values: Sequence[Sequence[int | float | None]]
    """As of ``Step``, by column."""
    after: list[Bases]


def step_all(
    bases: Sequence[Bases], shape: Shape, times_ns: Sequence[tuple[int, int]], rows: Sequence[Row]
) -> Steps | None:
    """As ``step`` of each, a column at a time, which takes a fifth of that; None where one of them is no usual case.

    Args:
        bases: one a series, and so are the others; each has just the counters that ``shape`` has, read at one time.
        shape: of all the rows, but that is checked.
        times_ns: as of ``step``.
        rows: as of ``step``.
    """
    columns = list(zip(*rows, strict=True))
    began_ns, began_unix_ns, _, before, _ = zip(*bases, strict=True)
    monos_ns, unixs_ns = zip(*times_ns, strict=True)
    # Both clocks are set apart by nothing but the time between reading the one and the other.
    stepped_ns = {unix - mono for mono, unix in times_ns} | {unix - mono for mono, unix, _, _, _ in bases}
    if (
        max(stepped_ns) - min(stepped_ns) > _CLOCKS_APART_NS
        or not shape.fits_all(columns)
        or not all(map(gt, monos_ns, began_ns))
        or not all(map(gt, unixs_ns, began_unix_ns))
    ):
        return None
    counters = shape.counters(columns) if shape.numbers else ()
    deltas = [[*map(sub, now, was)] for now, was in zip(counters, zip(*before, strict=True), strict=True)]
    if min(map(min, deltas), default=0) < 0:
        return None
    now_all = zip(*counters, strict=True) if counters else repeat(())
    after = zip(monos_ns, unixs_ns, repeat(shape.numbers), now_all, repeat(_NOT_APART))
    values = (unixs_ns, *columns, *deltas, *[began_unix_ns] * len(deltas))
    return Steps(values, [*map(tuple.__new__, repeat(Bases), after)])


def _step_each(bases: Bases, devices: Devices, shape: Shape, times_ns: tuple[int, int], row: Row) -> tuple[Step, Bases]:
    mono_ns, unix_ns = times_ns
    deltas: list[int] = []
    starts: list[int] = []
    after: list[Base | None] = []
    sent = list(row)
    there = bases.by_number()
    for number, place in enumerate(shape.layout.counters):
        value, base = row[place], there.get(number)
        column = shape.layout.columns[place]
        if base is None and value is not None and column.member not in devices.get(column.family, (column.member,)):
            # The kernel lists a device once the cgroup has used it: at the last reading it was 0.
            base = Base(bases.mono_ns, bases.unix_ns, 0)
        sent[place] = None
        # Not read this time: the next delta begins where this one would have. A first value, one that went down, or a
        # baseline's own reading: from here on it counts.
        after.append(Base(mono_ns, unix_ns, value) if isinstance(value, int) else base)
        if isinstance(value, int) and base is not None and value >= base.value and mono_ns > base.mono_ns:
            sent[place] = value - base.value
            deltas.append(value - base.value)
            starts.append(_start_unix_ns(base.mono_ns, base.unix_ns, mono_ns, unix_ns))
    return Step(shape.layout.shape(sent), (unix_ns, *row, *deltas, *starts)), Bases.of(after)


def _start_unix_ns(began_ns: int, began_unix_ns: int, mono_ns: int, unix_ns: int) -> int:
    """The time of the point before; where the wall clock was set meanwhile, as long ago as the monotonic clock says."""
    elapsed_ns = mono_ns - began_ns
    stepped_ns = (unix_ns - began_unix_ns) - elapsed_ns
    # The two clocks are read one after the other: between two readings close together that alone may be a tenth.
    as_before = abs(stepped_ns) <= max(elapsed_ns // 10, _CLOCKS_APART_NS) and began_unix_ns < unix_ns
    return began_unix_ns if as_before else max(0, unix_ns - elapsed_ns)
