"""A tick is a table: entities × figures, a column a figure, derived figures included."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from otel_k8s_cgroup.figures import DERIVED, START, UPTIME, Difference, EitherOf, Rate, is_of_a_cgroup

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_k8s_cgroup.model import Reading

Values: TypeAlias = "Sequence[int | float | None]"
"""A figure of each entity."""

_DERIVED = {derived.name: derived for derived in DERIVED}


class Table:
    """One tick's readings by column.

    Args:
        readings: all of the same figures; an entity's values stand at its reading's place in each column.
        reported: what the API reports of each entity in numbers, or nothing.
        wall_offset_ns: the wall clock less the monotonic one.
    """

    def __init__(
        self,
        readings: Sequence[Reading],
        reported: Sequence[Mapping[str, int | float]] = (),
        wall_offset_ns: int = 0,
    ) -> None:
        self._readings = readings
        self._reported = reported
        self._wall_offset_ns = wall_offset_ns
        self._columns: dict[str, Values] = {}
        if readings:
            columns = zip(*[reading.stats for reading in readings], strict=True)
            self._columns = dict(zip(readings[0].stats._fields, columns, strict=True))

    def column(self, name: str) -> Values:
        """The values of a figure, or of a derived one; None where an entity does not have it."""
        column = self._columns.get(name)
        if column is None:
            column = self._columns[name] = self._derive(name)
        return column

    def _derive(self, name: str) -> Values:
        if self._reported and not is_of_a_cgroup(name):
            return self._uptime() if name == UPTIME else [reported.get(name) for reported in self._reported]
        derived = _DERIVED.get(name)
        if derived is None:
            return (None,) * len(self._readings)
        if isinstance(derived, Rate):
            return self._rate(derived)
        if isinstance(derived, Difference):
            pairs = zip(self.column(derived.whole), self.column(derived.part), strict=True)
            return [
                None if whole is None or part is None else whole - part if whole > part else 0 for whole, part in pairs
            ]
        if isinstance(derived, EitherOf):
            pairs = zip(self.column(derived.one), self.column(derived.other), strict=True)
            return [other if one is None else one for one, other in pairs]
        pairs = zip(self.column(derived.dividend), self.column(derived.divisor), strict=True)
        # Neither is negative: what is 0 divides nothing.
        return [dividend / divisor if divisor and dividend is not None else None for dividend, divisor in pairs]

    def _uptime(self) -> Values:
        offset_ns = self._wall_offset_ns
        starts = [reported.get(START) for reported in self._reported]
        return [
            None if start is None else max(0.0, (reading.mono_ns + offset_ns - start) / 1e9)
            for reading, start in zip(self._readings, starts, strict=True)
        ]

    def _rate(self, rate: Rate) -> Values:
        """Absent at a first reading, and where the counter went down."""
        if not self._readings or rate.counter not in self._readings[0].stats._fields:
            return (None,) * len(self._readings)
        number = self._readings[0].stats._fields.index(rate.counter)
        scale = rate.scale
        return [
            scale * (now - was) / elapsed_ns
            if now is not None and was is not None and now >= was and (elapsed_ns := mono_ns - before_ns) > 0
            else None
            for _, _, _, _, mono_ns, stats, before_ns, before in self._readings
            for now, was in ((stats[number], before[number]),)
        ]
