"""What the process before this one left: where its cgroups' counters go on, and what it could not deliver."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.export.ledger import Bases, from_zero, start
from otel_k8s_cgroup.export.series import Readings, Series
from otel_k8s_cgroup.model import Entity, Origin

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from otel_k8s_cgroup.export.layout import Layout
    from otel_k8s_cgroup.export.ledger import Devices
    from otel_k8s_cgroup.export.state import Remembered, Remnant, Waiting
    from otel_k8s_cgroup.metrics import Row
    from otel_k8s_cgroup.model import Discovery, Pod

_log = logging.getLogger(__name__)


class Beginning(NamedTuple):
    """Where the counters of a cgroup begin."""

    bases: Bases
    devices: Devices
    """What it had used there: what is not among that has counted nothing before."""
    start_unix_ns: int = 0
    """When it was made anew, where it was since an earlier process knew its entity; else 0."""


class Restart:
    """What is remembered, until this process knows better of each cgroup. Not for several threads.

    Args:
        remembered: what the state file holds; None: this is a first start.
        layout: of what is read.
    """

    def __init__(self, remembered: Remembered | None, layout: Layout) -> None:
        self._remembered = remembered and _renumbered(remembered, layout)
        self._layout = layout
        self._held = list(self._remembered.waiting) if self._remembered else []

    @property
    def remembers(self) -> bool:
        """Whether anything is remembered."""
        return self._remembered is not None

    @property
    def waiting(self) -> Sequence[Waiting]:
        """Readings of cgroups that are still there as far as is known: their next reading has all that these have."""
        return self._held

    def discovered(self, cgroups: Mapping[str, tuple[str, Origin | None]], discovery: Discovery) -> list[Readings]:
        """Takes a discovery of all cgroups (key → path, origin); what waits of those that have ended meanwhile."""
        remembered = self._remembered
        if remembered and remembered.root is not None and remembered.root != discovery.root:
            _log.warning(
                "the state file is of another cgroup root (device, inode, version: %s, now %s): pods that are there "
                "count from their first reading",
                tuple(remembered.root),
                tuple(discovery.root),
            )
            self._remembered = None
        if not self._held:
            return []
        held, self._held = self._held, []
        ended: list[Waiting] = []
        for waiting in held:
            (self._held if self._is_there(waiting, cgroups) else ended).append(waiting)
        return [self._readings(waiting) for waiting in ended]

    def holders(self, cgroups: Mapping[str, tuple[str, Origin | None]], discovery: Discovery) -> dict[str, Pod]:
        """key → the pod that each of ``cgroups`` was named after, of those that are still the same cgroup."""
        remembered = self._remembered
        if remembered is None or remembered.root != discovery.root:
            return {}
        return {
            key: remnant.pod
            for key, (path, origin) in cgroups.items()
            if (remnant := remembered.cgroups.get(key)) is not None
            and remnant.pod is not None
            and remnant.path == path
            and not (origin is None or origin.born or remnant.is_another(path, origin.inode or 0))
        }

    def beginning(
        self,
        layout: Layout,
        key: str,
        path: str,
        origin: Origin,
        *,
        wall_offset_ns: int,
        not_before: tuple[int, int],
    ) -> Beginning:
        """Of a cgroup of which this process has delivered nothing.

        ``layout`` is that of now: its columns are those of the state file, and what was found since behind them.
        """
        remembered, used = self._remembered, layout.devices(origin.stats)
        if remembered and not origin.born:
            none_used: Devices = dict.fromkeys(used, ())
            discovered = max((remembered.mono_ns, remembered.unix_ns), not_before)
            if key not in remembered.cgroups and not remembered.may_have_missed(key, path):
                return Beginning(from_zero(layout, *discovered), none_used)
            remnant = remembered.cgroups.get(key)
            if remnant is not None and remnant.is_another(path, origin.inode or 0):
                # The one before was there at that discovery, and a moment later, when it was read.
                read = [(held.mono_ns, held.unix_ns) for held in remembered.waiting if held.key == key]
                bases = from_zero(layout, *max([discovered, *read, remnant.bases[:2]]))
                return Beginning(bases, none_used, bases.unix_ns)
            if remnant is not None and remnant.path == path:
                return Beginning(remnant.bases, {**used, **self._used(remnant)}, remnant.start_unix_ns)
        # Also where an earlier process may have delivered it.
        return Beginning(start(layout, origin, wall_offset_ns, not_before), used)

    def begun(self, key: str, origin: Origin) -> None:
        """From here on this process's own series knows better."""
        if self._remembered and not origin.born:
            self._remembered.cgroups[key] = None
            self._held = [waiting for waiting in self._held if waiting.key != key]

    def _used(self, remnant: Remnant) -> Devices:
        """Nothing, of each family that it had: the devices whose counters go on have their bases."""
        columns, counters = self._layout.columns, self._layout.counters
        going_on = (columns[counters[number]] for number in remnant.bases.numbers)
        families = remnant.by_device | {column.family for column in going_on if column.member is not None}
        return dict.fromkeys(families, ())

    def _is_there(self, waiting: Waiting, cgroups: Mapping[str, tuple[str, Origin | None]]) -> bool:
        """Whether it is the cgroup that a series will begin from; one of another root is not."""
        path, origin = cgroups.get(waiting.key, ("", None))
        if self._remembered is None or path != waiting.remnant.path:
            return False
        return origin is None or not (origin.born or waiting.remnant.is_another(path, origin.inode or 0))

    def _readings(self, waiting: Waiting) -> Readings:
        key, kind, description, remnant, mono_ns, unix_ns, values = waiting
        entity = Entity(key, kind, lambda: description, remnant.pod)
        series = Series(entity, remnant.path, Origin(False, mono_ns, (), remnant.inode), remnant.bases)
        series.devices = self._used(remnant)
        series.start_unix_ns = remnant.start_unix_ns
        series.total = self._layout.total(values)
        return Readings(self._layout, [series], [mono_ns], unix_ns - mono_ns, [values])


def _renumbered(remembered: Remembered, layout: Layout) -> Remembered:
    """As ``layout`` numbers counters and values; what that does not have is left out."""
    there, wanted = remembered.names, layout.names
    counters = [there.counters.index(name) if name in there.counters else -1 for name in wanted.counters]
    values = [there.values.index(name) if name in there.values else -1 for name in wanted.values]

    def remnant(of: Remnant) -> Remnant:
        return of._replace(bases=Bases.of([*map(of.bases.by_number().get, counters)]))

    def row(of: Row) -> Row:
        found = (None if place < 0 else of[place] for place in values)
        return tuple(
            value if value is None or isinstance(value, float) == column.is_double else None
            for value, column in zip(found, layout.columns, strict=True)
        )

    return replace(
        remembered,
        cgroups={key: of and remnant(of) for key, of in remembered.cgroups.items()},
        waiting=tuple(
            waits._replace(remnant=remnant(waits.remnant), values=row(waits.values)) for waits in remembered.waiting
        ),
        names=wanted,
    )
