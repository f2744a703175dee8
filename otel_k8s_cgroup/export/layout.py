"""What a row of values means: the columns of a tick, and which of their values are there."""

from __future__ import annotations

from operator import itemgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

    from otel_k8s_cgroup.metrics import Column, Row


class Names(NamedTuple):
    """Of a row's values, by which a state file of another version's table is read."""

    counters: tuple[str, ...]
    """In the order of ``Layout.counters``."""
    values: tuple[str, ...]
    """In the order of the columns."""


_MOST_SHAPES = 1000
"""A node has some for each pod that uses devices of its own; one whose interfaces come and go could make any number."""
_NO_FAMILIES: Mapping[str, str] = MappingProxyType({})


class Layout:
    """The columns of a tick's rows.

    Args:
        columns: as ``instruments`` has them.
        families: of columns that come with devices and are sent as deltas: family → figure (``Column.family``).
        seldom: figures that are not read at each tick.
    """

    def __init__(
        self, columns: Sequence[Column], families: Mapping[str, str] = _NO_FAMILIES, seldom: Container[str] = ()
    ) -> None:
        self.columns = columns
        self.width = len(columns)
        self.counters = tuple(number for number, column in enumerate(columns) if column.metric.has_deltas)
        """The columns of which deltas are sent."""
        self.seldom = tuple(place for place in self.counters if columns[place].point.figure in seldom)
        """Those of them that most rows do not have."""
        self.first = next((place for place in self.counters if columns[place].point.figure == "cpu_usage_ns"), None)
        """The CPU time that the statistics count; None where it is not sent as deltas."""
        self.names = Names(
            tuple(columns[number].label for number in self.counters),
            tuple(column.label for column in columns),
        )
        self.families = families
        self._members = frozenset((column.family, column.member) for column in columns)
        self._shapes: dict[tuple[bool, ...], Shape] = {}

    def shape(self, row: Sequence[object]) -> Shape:
        """Of the values that ``row`` has."""
        present = tuple(value is not None for value in row)
        shape = self._shapes.get(present)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[present] = Shape(self, present)
        return shape

    def devices(self, stats: Any) -> dict[str, Collection[str]]:
        """Family → the devices that a reading has; without families that could not be read."""
        found = {family: getattr(stats, figure, None) for family, figure in self.families.items()}
        return {family: members for family, members in found.items() if isinstance(members, dict)}

    def covered(self, devices: Mapping[str, Collection[str]]) -> frozenset[str]:
        """The families of which each of ``devices`` has a column."""
        return frozenset(
            family
            for family, members in devices.items()
            if all((family, member) in self._members for member in members)
        )

    def total(self, row: Row) -> int | None:
        """The CPU time; None where the row does not have it."""
        value = None if self.first is None else row[self.first]
        return value if isinstance(value, int) else None


class Shape:
    """Which values rows of a layout have; one object for each such set."""

    __slots__ = ("absent", "count", "counters", "layout", "numbers", "pick", "present")

    def __init__(self, layout: Layout, present: tuple[bool, ...]) -> None:
        self.layout = layout
        self.present = present
        self.count = sum(present)
        self.absent = layout.width - self.count
        self.pick = picker([place for place, is_there in enumerate(present) if is_there])
        """A row → its values that are there."""
        self.numbers = tuple(number for number, place in enumerate(layout.counters) if present[place])
        """Which counters are there …"""
        self.counters = picker([layout.counters[number] for number in self.numbers])
        """… and a row → their values."""

    def fits(self, row: Row) -> bool:
        """Whether ``row`` has these values and no others."""
        return row.count(None) == self.absent and None not in self.pick(row)

    def fits_all(self, columns: Sequence[Sequence[object]]) -> bool:
        """Whether each of the rows that have these columns does."""
        return all(
            None not in column if is_there else column.count(None) == len(column)
            for is_there, column in zip(self.present, columns, strict=True)
        )


def picker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """What takes the values at ``places``. (``itemgetter()`` gives a tuple only of several.)"""
    return itemgetter(*places) if len(places) > 1 else lambda values: tuple(values[place] for place in places)
