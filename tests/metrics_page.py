"""docs/metrics.md, made of the tables of metrics and figures: ``python -m tests.metrics_page`` writes it anew."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, get_args

from otel_k8s_cgroup.figures import DERIVED, FIGURES, UPTIME, Difference, EitherOf, Rate, Ratio, is_of_a_cgroup
from otel_k8s_cgroup.metrics import ALL_KINDS, Instrument
from otel_k8s_cgroup.model import EntityKind, Group, Schema
from otel_k8s_cgroup.schemas import figures_of, select

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_k8s_cgroup.figures import Source
    from otel_k8s_cgroup.metrics import Metric, Point

PAGE = Path(__file__).parents[1] / "docs" / "metrics.md"

HEAD = """# Metrics

Made of the program's own tables (`python -m tests.metrics_page`). A group is asked for with `metrics`, a schema with
`schema`; without `metrics` those rows are sent that are marked **default**. What a kernel does not have is absent, and
so is what has no limit.

`{entity}` is `k8s.pod`, `container` or `k8s.node`.
"""

_TYPES = {
    Instrument.COUNTER: "Sum, monotonic",
    Instrument.UPDOWN: "Sum",
    Instrument.GAUGE: "Gauge",
}
_FIGURES = {figure.name: figure for figure in FIGURES}
_DERIVED = {derived.name: derived for derived in DERIVED}


def page() -> str:
    """The whole text."""
    parts = [HEAD, "\n".join(_costs()) + "\n"]
    for schema in get_args(Schema):
        parts.append(f"\n## Schema `{schema}`\n")
        default = {metric.name for metric in select((schema,))}
        for group in get_args(Group):
            metrics = select((schema,), (group,))
            if metrics:
                parts.append(f"\n### `{group}`\n\n" + "\n".join(_rows(metrics, default)) + "\n")
    return "".join(parts)


def _costs() -> Iterator[str]:
    """What each group takes, in schema ``alumet``."""
    yield "\n## What a group costs\n"
    yield "Of each entity, in schema `alumet`. A file takes about 2.6 µs of CPU to read and parse (`make bench`)."
    yield 'A file that several groups read is read once. "a device" and "a size": so many for each that is there.'
    yield "`network` is of pods alone, and its file is opened anew at each reading (some 10 µs).\n"
    yield "| group | points | files, cgroup v2 | files, cgroup v1 |"
    yield "|---|---:|---:|---:|"
    for name, metrics in (("default", select(("alumet",))), *((g, select(("alumet",), (g,))) for g in get_args(Group))):
        points = sum(len(metric.points) for metric in metrics)
        member = {"io": " a device", "hugetlb": " a size", "network": " an interface"}.get(name, "")
        figures = figures_of(metrics)
        of_network = {"net/dev" for figure in figures if figure.net_dev is not None}
        v2 = {source.file for figure in figures for source in figure.v2[:1]} | of_network
        v1 = {(source.controller, source.file) for figure in figures for source in figure.v1[:1]} | of_network
        a_size = member if name == "hugetlb" else ""
        yield f"| `{name}` | {points}{member} | {len(v2)}{a_size} | {len(v1)}{a_size} |"


def _rows(metrics: Iterable[Metric], default: set[str]) -> Iterator[str]:
    yield "| metric | OTLP type | unit | meaning | cgroup v2 | cgroup v1 |"
    yield "|---|---|---|---|---|---|"
    for metric in metrics:
        name = f"`{'{entity}.' if metric.of_entity else ''}{metric.name}`"
        if metric.name in default:
            name += " **default**"
        number = "double" if metric.is_double or metric.scale is not None else "int"
        temporality = ""
        if metric.instrument is Instrument.COUNTER:
            temporality = ", delta" if metric.is_delta else ", cumulative"
        meaning = metric.description
        if told_apart := _by_attribute(metric):
            meaning += f"; by {told_apart}"
        if metric.kinds != ALL_KINDS:
            meaning += f"; of {', '.join(kind.value for kind in EntityKind if kind in metric.kinds)}"
        where = " | ".join(_where(metric.points, version) or "absent" for version in (2, 1))
        yield f"| {name} | {_TYPES[metric.instrument]}{temporality}, {number} | `{metric.unit}` | {meaning} | {where} |"


def _by_attribute(metric: Metric) -> str:
    values: dict[str, list[str]] = {}
    for point in metric.points:
        for key, value in point.attributes:
            values.setdefault(key, []).append(value)
    words = [f"`{key}` ({', '.join(dict.fromkeys(of))})" for key, of in values.items()]
    return ", ".join([*words, *(f"`{attribute}`" for attribute, _ in metric.by)])


def _where(points: Iterable[Point], version: int) -> str:
    return ", ".join(dict.fromkeys(text for point in points if (text := _source(point.figure, version))))


def _source(name: str, version: int) -> str:  # noqa: PLR0911 one a kind of figure
    if name == UPTIME:
        return "time since the start that the API says"
    if not is_of_a_cgroup(name):
        return "the API"
    match _DERIVED.get(name):
        case Rate(counter=counter):
            of = _source(counter, version)
            return of and f"{of} by time"
        case Difference(whole=one, part=other):
            both = _source(one, version), _source(other, version)
            return f"{both[0]} less {both[1]}" if all(both) else ""
        case Ratio(dividend=one, divisor=other):
            both = _source(one, version), _source(other, version)
            return f"{both[0]} by {both[1]}" if all(both) else ""
        case EitherOf(one=one, other=other):
            return _source(one, version) or _source(other, version)
    figure = _FIGURES[name]
    if figure.net_dev is not None:
        return f"`/proc/PID/net/dev`: {name.removeprefix('network_').replace('_', ' ')}"
    return " or ".join(dict.fromkeys(map(_written, figure.v2 if version == 2 else figure.v1)))


def _written(source: Source) -> str:
    return f"`{source.file}`" + (f": `{source.key}`" if source.key not in ("", "0", "1") else "")


if __name__ == "__main__":
    PAGE.write_text(page())
