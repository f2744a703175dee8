"""Names and labels as Prometheus' OTLP receiver makes them, with its default translation strategy.

So a series has the same name whether it is sent or scraped.

Sources: https://opentelemetry.io/docs/specs/otel/compatibility/prometheus_and_openmetrics/ and
https://github.com/prometheus/otlptranslator/blob/v1.0.0/metric_namer.go and label_namer.go
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.cadvisor_labels import LABELS
from otel_k8s_cgroup.metrics import Instrument
from otel_k8s_cgroup.model import EntityKind
from otel_k8s_cgroup.pod_attributes import QOS_CLASS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_k8s_cgroup.model import Description, Schema, Value

_UNITS = {"": "", "1": "", "s": "seconds", "ns": "nanoseconds", "By": "bytes", "%": "percent"}

_OF_PODS = (
    "k8s.namespace.name",
    "k8s.pod.name",
    "k8s.pod.uid",
    "k8s.node.name",
    "k8s.container.name",
    # Two containers of one name may be there for a moment, when one is restarted.
    "container.id",
)
_OF_LEVELS = ("k8s.node.name", QOS_CLASS, "cgroup.path")
_IDENTITY = {
    EntityKind.POD: _OF_PODS,
    EntityKind.CONTAINER: _OF_PODS,
    EntityKind.QOS: _OF_LEVELS,
    EntityKind.NODE: _OF_LEVELS,
}

# The labels of a scrape's target that have another meaning in a schema. What is empty stays without the target's value
# where honor_labels is true, and is the same as absent afterwards.
_NOT_THE_TARGETS: dict[Schema, tuple[str, ...]] = {"alumet": ("namespace", "container"), "cadvisor": LABELS}

# A series cannot say which target it was scraped from.
_THE_TARGETS_ALONE = frozenset({"job", "instance"})


class Name(NamedTuple):
    """Of a family of series."""

    family: str
    """Without the ``_total`` of a counter."""
    unit: str
    """The last word of ``family``, where that is a unit."""


def name_of(name: str, unit: str, instrument: Instrument) -> Name:
    """Of an OpenTelemetry metric; ``unit`` is UCUM.

    Raises:
        KeyError: the unit is none of ours.
    """
    words = re.findall(r"[A-Za-z0-9:]+", name)
    word = "" if unit.startswith("{") else _UNITS[unit]
    if word and word not in words:
        words.append(word)
    if instrument is Instrument.COUNTER:
        words = [each for each in words if each != "total"]
    elif instrument is Instrument.GAUGE and unit == "1":
        words, word = [*(each for each in words if each != "ratio"), "ratio"], "ratio"
    return Name("_".join(words), word if words[-1] == word else "")


def labels_of(attributes: Iterable[tuple[str, Value]]) -> dict[str, str]:
    """Of attributes. Where two become one label the first wins: in a Resource, those come first that say who it is."""
    labels: dict[str, str] = {}
    for key, value in attributes:
        label = re.sub(r"[^A-Za-z0-9_]", "_", key)
        if label[:1].isdigit():
            label = f"key_{label}"
        elif label in _THE_TARGETS_ALONE or label.startswith("__"):
            label = f"exported_{label}"
        labels.setdefault(label, _text(value))
    return labels


def identity_of(schema: Schema, kind: EntityKind, description: Description) -> dict[str, str]:
    """The labels by which a schema's series of an entity are told apart: what its points say, else what its Resource
    says of who it is.
    """
    attributes = description.points.get(schema)
    if not attributes:
        return labels_of((key, value) for key, value in description.resource if key in _IDENTITY[kind])
    return dict.fromkeys(_NOT_THE_TARGETS.get(schema, ()), "") | labels_of(attributes)


def _text(value: Value) -> str:
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False) if isinstance(value, tuple) else str(value)
    # JSON may hold half of a surrogate pair, which UTF-8 has no bytes for; one such value must not end the answer.
    return text.encode("utf-8", "replace").decode()
