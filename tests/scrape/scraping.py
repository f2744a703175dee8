"""Asks for what is scraped, and reads it by the official library."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import parser
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from otel_k8s_cgroup.scrape import Pods, exposition

if TYPE_CHECKING:
    from collections.abc import Iterable

    from prometheus_client import Metric

    from otel_k8s_cgroup.scrape import Latest

OPENMETRICS = "application/openmetrics-text;version=1.0.0"
PROMETHEUS = "text/plain;version=0.0.4"

Samples = list[tuple[str, frozenset[tuple[str, str]], float]]
"""Name, labels that are not empty, and value of each."""


def scraped(latest: Latest, accept: str = OPENMETRICS, prefix: str = "", suffix: str = "") -> str:
    """The text, but for the exporter's own metrics."""
    return "".join(exposition((), Pods(latest, prefix, suffix), accept)[1])


def families_of(text: str) -> list[Metric]:
    """By the parser of its format, which refuses what is none."""
    if text.endswith("# EOF\n"):
        return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call] # it has no types
    return list(parser.text_string_to_metric_families(text))


def samples_of(text: str) -> Samples:
    return sorted(_samples(families_of(text)), key=lambda sample: (sample[0], sorted(sample[1])))


def _samples(families: Iterable[Metric]) -> Samples:
    return [
        (sample.name, frozenset((key, value) for key, value in sample.labels.items() if value), sample.value)
        for family in families
        for sample in family.samples
    ]
