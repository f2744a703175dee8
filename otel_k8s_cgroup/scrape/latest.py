"""What the last tick read, for who scrapes: what the tick has made anyway, by reference. Nothing is copied."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.figures import figures_named

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence, Set

    from otel_k8s_cgroup.figures import Figure
    from otel_k8s_cgroup.metrics import Column, Metric, Row, Rows
    from otel_k8s_cgroup.model import Entity, Origin, Reading

    Parts = frozenset[int]
    """Of the cgroups' figures, by their numbers (``NodeCgroups``): those that are not read at each tick."""


class Tick(NamedTuple):
    """One tick's values. Nobody changes any of it."""

    mono_ns: int
    entities: Sequence[Entity]
    readings: Sequence[Reading]
    """One an entity."""
    columns: tuple[Column, ...]
    rows: Sequence[Row]
    """One an entity."""
    kept: Mapping[Parts, Mapping[Origin, Row]]
    """Of what is read more rarely: the rows of when it was read last."""


class Latest:
    """The last tick's values. ``put`` is called in the thread that ticks; ``tick`` in any.

    Args:
        metrics: what is sent.
        parts: which figures are read, and at which of the readings, as of ``NodeCgroups``.
        most_ns: older values are nobody's news: the ticks have come to a halt.
        clock: nanoseconds, monotonic; the same as the ticks'.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        parts: Sequence[tuple[Sequence[Figure], int]],
        *,
        most_ns: int,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        slow = {figure.name: number for number, (figures, every) in enumerate(parts) if every > 1 for figure in figures}
        by_figure = {
            name: frozenset(slow[figure.name] for figure in figures_named([name]) if figure.name in slow)
            for name in {point.figure for metric in metrics for point in metric.points}
        }
        self._parts = {name: of for name, of in by_figure.items() if of}
        self._most_ns = most_ns
        self._clock = clock
        self._tick: Tick | None = None

    def put(
        self, mono_ns: int, entities: Sequence[Entity], readings: Sequence[Reading], collected: Rows, due: Set[int]
    ) -> None:
        """One tick's values, of which ``due`` parts were read; the arguments as ``Exporter.put`` has them."""
        before = self._tick.kept if self._tick is not None else {}
        kept: dict[Parts, Mapping[Origin, Row]] = {}
        for parts in {*self._parts.values()}:
            # A first reading has everything.
            last = {} if parts <= due else before.get(parts, {})
            kept[parts] = {
                reading.origin: last.get(reading.origin, row)
                for reading, row in zip(readings, collected.rows, strict=True)
            }
        self._tick = Tick(mono_ns, entities, readings, collected.columns, collected.rows, kept)

    def tick(self) -> Tick | None:
        """The last one; None where there was none, or none for long."""
        tick = self._tick
        return None if tick is None or self._clock() - tick.mono_ns > self._most_ns else tick

    def rows(self, tick: Tick, column: Column) -> Sequence[Row]:
        """The rows of ``tick`` in which ``column`` has its values as they were read last, one an entity."""
        parts = self._parts.get(column.point.figure)
        if parts is None:
            return tick.rows
        kept = tick.kept[parts]
        return [kept[reading.origin] for reading in tick.readings]
