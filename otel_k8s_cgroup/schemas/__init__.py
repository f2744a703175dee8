"""The tables of metrics: what each schema sends of figures. To add a metric, add a row."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from otel_k8s_cgroup.figures import figures_named
from otel_k8s_cgroup.schemas import alumet, cadvisor, semconv

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.figures import Figure
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Group, Schema

ALUMET = alumet.DEFAULT
"""What is sent by default."""

_METRICS: dict[Schema, tuple[Metric, ...]] = {
    "alumet": alumet.METRICS,
    "semconv": semconv.METRICS,
    "cadvisor": cadvisor.METRICS,
}
_DEFAULTS: dict[Schema, tuple[Metric, ...]] = {
    "alumet": alumet.DEFAULT,
    "semconv": semconv.DEFAULT,
    "cadvisor": cadvisor.DEFAULT,
}


def select(
    schemas: Sequence[Schema],
    groups: Sequence[Group] = (),
    *,
    are_deltas: bool = False,
    cpu_percent_of: Literal["core", "node"] = "core",
    cpus: int = 1,
) -> tuple[Metric, ...]:
    """The metrics of some schemas.

    Args:
        schemas: whose.
        groups: which; none: those that each schema sends by default.
        are_deltas: whether counters are of delta temporality; Alumet's always are, cAdvisor's never.
        cpu_percent_of: what Alumet's ``cpu_percent`` is 100 of.
        cpus: how many a node has.
    """
    found: list[Metric] = []
    for schema in schemas:
        rows = _METRICS[schema] if groups else _DEFAULTS[schema]
        for metric in rows:
            if groups and metric.group not in groups:
                continue
            if schema == "alumet":
                of_node = metric.name == "cpu_percent" and cpu_percent_of == "node"
                found.append(replace(metric, scale=1 / cpus) if of_node else metric)
            elif schema == "cadvisor":
                found.append(metric)
            else:
                found.append(replace(metric, is_delta=are_deltas))
    return tuple(found)


def figures_of(metrics: Sequence[Metric]) -> tuple[Figure, ...]:
    """What they are made of."""
    return figures_named({point.figure for metric in metrics for point in metric.points})
