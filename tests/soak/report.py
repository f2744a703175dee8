"""The table that a soak ends with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Iterator, Mapping, Sequence

    from tests.soak.balance import Balance
    from tests.soak.lives import Life

_MOST_GROWTH_MB = 12.0
"""Along the slope, of a process that is warm. What outages leave in the allocator's hands comes and goes by as much."""
_PROBLEMS_SHOWN = 20


@dataclass
class Report:
    """What a soak found out."""

    seconds: float
    balance: Balance
    points: int
    series: int
    own: Mapping[str, float]
    """What the exporter told of itself."""
    faults: Mapping[str, int]
    pods: Counter[str]
    alive: int
    restarts: Counter[str]
    lives: Sequence[Life]
    failures: Sequence[str]
    left_out: Sequence[str] = ()
    """Faults that cannot be had here, and why."""

    def problems(self) -> list[str]:
        """Why it has failed; empty where it has not."""
        found = [*self.failures, *self.balance.defects]
        if self.longest.growth_mb > _MOST_GROWTH_MB:
            found.append(f"memory has grown by {self.longest.growth_mb:.1f} MB, over {_MOST_GROWTH_MB:g}")
        if self.points == 0:
            found.append("no point arrived")
        return found

    @property
    def longest(self) -> Life:
        return max(self.lives, key=lambda life: life.rss_mb[-1][0] if life.rss_mb else 0.0)

    def text(self) -> str:
        """The table, and what is wrong."""
        rows = list(self._rows())
        width = max(len(name) for name, _ in rows)
        lines = [f"  {name:{width}}  {value}" for name, value in rows]
        problems = self.problems()
        lines += [f"FAILED: {problem}" for problem in problems[:_PROBLEMS_SHOWN]]
        if len(problems) > _PROBLEMS_SHOWN:
            lines.append(f"FAILED: and {len(problems) - _PROBLEMS_SHOWN} more")
        return "\n".join([*lines, ""])

    def _rows(self) -> Iterator[tuple[str, str]]:
        own, balance = self.own, self.balance
        yield "duration", f"{self.seconds:.0f} s"
        yield "ticks", f"{own['ticks']:.0f}, {own['ticks.missed']:.0f} missed"
        yield "points that arrived", f"{self.points}"
        yield "series", f"{self.series}, {balance.series} of them of CPU time"
        yield "pods", ", ".join(f"{count} {what}" for what, count in [*self.pods.items(), ("alive", self.alive)])
        yield "restarts", ", ".join(f"{count} {name}" for name, count in self.restarts.items())
        yield "faults injected", f"{sum(self.faults.values())}"
        for name, count in sorted(self.faults.items()):
            yield f"  {name}", f"{count}"
        for reason in self.left_out:
            yield "left out", reason
        yield "lost", f"{balance.lost_ns} ns"
        yield "lost and counted so", f"{balance.counted_lost_ns} ns of pods that ended in an outage over a restart"
        yield "counted twice", f"{balance.surplus_ns} ns"
        for why, ns in sorted(balance.twice.items()):
            yield f"sent twice, {why}", f"{balance.twice_points[why]} points of {ns} ns"
        yield "folded into later points", f"{own['export.folded']:.0f} ns of {own['export.dropped_points']:.0f} points"
        for name in ("export.requests", "api.requests", "watch.restarts", "read.errors"):
            yield (
                name,
                ", ".join(
                    f"{key.removeprefix(name).strip()} {count:.0f}"
                    for key, count in sorted(own.items())
                    if key.startswith(f"{name} ")
                ),
            )
        life = self.longest
        if life.rss_mb:
            slope = life.slope_mb_per_hour
            yield (
                "memory of the longest process",
                (
                    f"{life.rss_mb[0][1]:.1f} MB to {life.rss_mb[-1][1]:.1f} MB in {life.rss_mb[-1][0]:.0f} s, "
                    + ("too short for a slope" if slope is None else f"{slope:+.1f} MB an hour")
                ),
            )
            yield "its descriptors", f"{life.descriptors[0]} to {life.descriptors[-1]}, at most {max(life.descriptors)}"
