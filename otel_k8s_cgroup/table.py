"""A tick is a table: entities × figures, a column a figure, derived figures included."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from otel_k8s_cgroup.figures import DERIVED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.figures import Rate
    from otel_k8s_cgroup.model import Reading

Column: TypeAlias = "Sequence[int | float | None]"

_RATES = {rate.name: rate for rate in DERIVED}


class Table:
    """One tick's readings by column.

    Args:
        readings: all of the same figures; an entity's values stand at its reading's place in each column.
    """

    def __init__(self, readings: Sequence[Reading]) -> None:
        self._readings = readings
        self._columns: dict[str, Column] = {}
        if readings:
            columns = zip(*[reading.stats for reading in readings], strict=True)
            self._columns = dict(zip(readings[0].stats._fields, columns, strict=True))

    def column(self, name: str) -> Column:
        """The values of a figure, or of a derived one; None where an entity does not have it."""
        column = self._columns.get(name)
        if column is None:
            rate = _RATES.get(name)
            column = self._columns[name] = self._rate(rate) if rate else (None,) * len(self._readings)
        return column

    def _rate(self, rate: Rate) -> Column:
        """Absent at a first reading, and where the counter went down."""
        if not self._readings:
            return ()
        number = self._readings[0].stats._fields.index(rate.counter)
        scale = rate.scale
        return [
            scale * (now - was) / elapsed_ns
            if now is not None and was is not None and now >= was and (elapsed_ns := mono_ns - before_ns) > 0
            else None
            for _, _, _, _, mono_ns, stats, before_ns, before in self._readings
            for now, was in ((stats[number], before[number]),)
        ]
