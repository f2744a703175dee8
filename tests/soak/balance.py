"""Whether the books balance: what each pod has used beside what arrived, and why anything arrived twice."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence, Set

    from tests.soak.arrivals import Absence, Arrivals, Delta, Series
    from tests.soak.faults import Window
    from tests.soak.lives import Life

KINDS = ("total", "system", "user")
"""In the order of the state file's counters."""
_NOT_YET_NOTED_NS = 5_000_000_000
"""The state file is written after each export: what was delivered this long before is in it."""


@dataclass
class Truth:
    """What really happened."""

    used: Mapping[Series, int]
    """ns."""
    absences: Mapping[str, Sequence[Absence]] = field(default_factory=dict)
    """Of cgroups, by their path."""
    names: Mapping[str, set[str]] = field(default_factory=dict)
    """A cgroup's path → the name of the pod that it is of."""
    pauses: Sequence[Window] = ()
    """When no pod used anything."""
    ended_in_outage: Set[str] = frozenset()
    """The paths of those that ended in an outage over a restart."""


@dataclass
class Balance:
    """Of all series."""

    series: int = 0
    lost_ns: int = 0
    surplus_ns: int = 0
    counted_lost_ns: int = 0
    """What is missing of pods that ended in an outage over a restart, and is in ``export.lost``."""
    twice: Counter[str] = field(default_factory=Counter)
    """Why → ns that arrived twice, of all kinds."""
    twice_points: Counter[str] = field(default_factory=Counter)
    defects: list[str] = field(default_factory=list)


def balance(truth: Truth, arrivals: Arrivals, lost: Sequence[Window], lives: Sequence[Life]) -> Balance:
    """``lost``: when answers may have been lost."""
    result = Balance(series=len(truth.used))
    missing_ns = 0
    for series, truth_ns in truth.used.items():
        absences = truth.absences.get(series.path, ())
        told = arrivals.told(series, absences)
        if told.sum < truth_ns and series.path in truth.ended_in_outage:
            missing_ns += truth_ns - told.sum if series.kind == "total" else 0
        elif told.sum != truth_ns:
            result.lost_ns += max(0, truth_ns - told.sum)
            result.surplus_ns += max(0, told.sum - truth_ns)
            result.defects.append(
                f"{series.path} {series.kind}: used {truth_ns} ns, {told.sum} arrived ({told.sum - truth_ns:+d})"
            )
        for delta in told.twice:
            why = why_twice(series, delta, lost, lives)
            result.twice[why or "unexplained"] += delta.value
            result.twice_points[why or "unexplained"] += 1
            if why is None:
                result.defects.append(f"{series.path} {series.kind}: twice, and no answer was lost: {delta}")
        result.defects += [
            f"{series.path} {series.kind}: no delta covers what is between {before} and {after}; absent: {absences}"
            for before, after in told.gaps
            if not any(
                # Another cgroup began at its end, and counts from a look that did not see it: of this process in the
                # absence, or of one before, from which the old one's last reading may not have come.
                before.time_ns <= absence.from_ns <= absence.to_ns <= after.time_ns and after.start_ns <= absence.to_ns
                for absence in absences
            )
            # A process that knows nothing of the one before begins with its own first reading.
            and not any(pause.from_ns <= before.time_ns and after.start_ns <= pause.to_ns for pause in truth.pauses)
        ]
    if missing_ns > (counted_ns := arrivals.own().get("export.lost", 0)):
        result.lost_ns += missing_ns
        result.defects.append(
            f"of pods that ended in an outage over a restart {missing_ns} ns are missing, {counted_ns:.0f} are counted"
        )
    else:
        result.counted_lost_ns = missing_ns
    result.defects += [
        f"{path} was sent as of {', '.join(sorted(others))}"
        for path, names in arrivals.names.items()
        if (others := names - truth.names.get(path, names))
    ]
    result.defects += [f"a series that nobody had: {series}" for series in arrivals.cpu_series - truth.used.keys()]
    result.defects += [f"negative: {delta}" for delta in arrivals.negative]
    return result


def why_twice(series: Series, delta: Delta, lost: Iterable[Window], lives: Iterable[Life]) -> str | None:
    """The reason for which ``delta`` was rightly sent again; None where there is none."""
    if any(window.from_ns <= delta.came_ns <= window.to_ns for window in lost):
        return "answer lost"
    for life in lives:
        if (
            life.may_forget
            and life.killed_ns
            and life.killed_ns - _NOT_YET_NOTED_NS <= delta.came_ns <= life.ended_ns + 10**9
        ):
            noted = life.remembered.get(series.path)
            if noted is None or delta.time_ns > noted[KINDS.index(series.kind)]:
                return "killed before it was noted"
    return None
