"""What a restart has to know of series: what was delivered of each, and what waits."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.export.state import Remnant, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from otel_k8s_cgroup.export.layout import Layout
    from otel_k8s_cgroup.export.ledger import Bases
    from otel_k8s_cgroup.export.series import Readings, Series
    from otel_k8s_cgroup.metrics import Row


def values_there(row: Row, places: Iterable[int]) -> dict[int, int | float]:
    """Place → value, of those of ``places`` that ``row`` has. A row that is older than the last columns is shorter."""
    width = len(row)
    return {place: value for place in places if place < width and (value := row[place]) is not None}


def waiting_of(held: Iterable[Series], layout: Layout) -> Iterator[Waiting]:
    """Of each series the newest reading, if it waits, with the counters that were not due at it."""
    by_tick: dict[int, tuple[Readings, list[Series]]] = {}
    for series in held:
        if (newest := series.newest) is not None:
            by_tick.setdefault(id(newest), (newest, []))[1].append(series)
    for readings, of_tick in by_tick.values():
        parts = {id(series): part for series, part in zip(readings.series, readings.parts(), strict=True)}
        for series in of_tick:
            # What was delivered after the reading: the other way round it could be delivered in between, and be sent
            # twice.
            part = parts[id(series)]
            entity = series.entity
            remnant, row = remnant_of(series), part.row
            if series.seldom:
                row = _with_seldom(row, series.seldom, remnant.bases, layout)
            yield Waiting(entity.key, entity.kind, entity.describe(), remnant, part.mono_ns, part.unix_ns, row)


def padded(row: Row, layout: Layout) -> Row:
    """A row that may have been read before the last columns were found."""
    return row + (None,) * (layout.width - len(row))


def _with_seldom(row: Row, seldom: Mapping[int, int | float], bases: Bases, layout: Layout) -> Row:
    """A row with what was read before it and not delivered."""
    delivered = bases.by_place(layout)
    filled = list(padded(row, layout))
    for place in layout.seldom:
        value = seldom.get(place)
        if filled[place] is None and value is not None and value != delivered.get(place):
            filled[place] = value
    return tuple(filled)


def remnant_of(series: Series) -> Remnant:
    inode = series.origin.inode or 0
    pod, by_device, start_unix_ns = series.entity.pod, series.by_device, series.start_unix_ns
    return Remnant(series.path, inode, series.delivered, pod, by_device, start_unix_ns)
