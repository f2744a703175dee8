"""What a pod's object says beside who it is: which of it is read and kept, as the settings ask.

An author of pods may write nearly anything there. A field of another type than the API's is as if it was absent, and
what is kept of each pod is bounded.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from otel_k8s_cgroup.model import NO_DETAILS, Choice, Details, Wanted
from otel_k8s_cgroup.pod_attributes import (
    ANNOTATION,
    CONFIG_HASH,
    LABEL,
    PRIORITY_CLASS,
    QOS_CLASS,
    RESOURCE_ANNOTATION,
    SERVICE_LABELS,
    Owner,
    annotated_attributes,
    packed,
    service_attributes,
    workload_attributes,
)
from otel_k8s_cgroup.selectors import Included, LabelSelector, Patterns

from .containers import containers_of, pod_resources, qos_class_of
from .structs import MAP, OWNERS, TEMPLATE_HASHES, TEXT, PodObject, TemplateHashes, decoded_or_none

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import msgspec

    from .structs import OwnerReference, PodMetadata, PodSpec

T = TypeVar("T")

MAX_VALUE_CHARACTERS = 1024
"""Of a label or an annotation; what is longer is cut. (A label has 63 at most.)"""
MAX_KEY_CHARACTERS = 317
"""Of a prefix of 253, a slash and a name of 63, as the API allows; what is longer is left out."""
MAX_TOTAL_CHARACTERS = 16 * 1024
"""Of a pod's labels and of its annotations each; what does not fit, the last in order of the keys, is left out."""
_MAX_MAP_BYTES = 512 * 1024
"""Of a pod's labels or annotations as JSON. The API takes annotations of 256 KiB; of more tiny ones, each would cost
many times its bytes while they are decoded, so larger ones are as if there were none."""
_MAX_OWNERS_BYTES = 4096
"""The kubelet gives a mirror pod one owner, a controller its pods one; who writes more is neither."""

_LABELS_OF_SERVICES = frozenset(key for keys in SERVICE_LABELS.values() for key in keys)
_QOS_CLASSES = ("Guaranteed", "Burstable", "BestEffort")


class PodReader:
    """Reads of each pod what the settings ask for, and no more.

    Args:
        wanted: what is kept.
        choice: which pods are measured.
        selected_by_server: the list and the watch have the pods of ``choice.pod_selector`` alone.
    """

    def __init__(
        self, wanted: Wanted | None = None, choice: Choice | None = None, *, selected_by_server: bool = False
    ) -> None:
        self.wanted = wanted or Wanted()
        choice = choice or Choice()
        self._labels, self._annotations = Patterns(self.wanted.labels), Patterns(self.wanted.annotations)
        self._containers = Included(self.wanted.include_containers, self.wanted.exclude_containers)
        self._namespaces = Included(choice.include_namespaces, choice.exclude_namespaces)
        self._selector = LabelSelector("" if selected_by_server else choice.pod_selector)
        self._qos_classes = choice.qos_classes

    def chooses(self, found: PodObject, namespace: str) -> bool:
        """Whether the settings have this pod measured."""
        if namespace not in self._namespaces:
            return False
        if self._selector:
            metadata = found.metadata
            if metadata is None or not self._selector.matches(_texts(_map(metadata.labels), lambda _key: True)):
                return False
        return not self._qos_classes or qos_class(found) in self._qos_classes

    def details(self, found: PodObject, name: str, namespace: str) -> Details:
        """What is kept of ``found``, a pod of that name."""
        if self.wanted == _NOTHING or found.metadata is None or found.spec is None:
            return NO_DETAILS
        encoded = packed(self._attributes(found, found.metadata, found.spec, name, namespace))
        on_host = self.wanted.network and bytes(found.spec.host_network) == b"true"
        if not (self.wanted.containers or self.wanted.resources):
            return Details(encoded, host_network=on_host) if encoded or on_host else NO_DETAILS
        containers = containers_of(found, self._containers)
        resources = pod_resources(found, containers)
        return Details(encoded, containers if self.wanted.containers else (), *resources, on_host)

    def _attributes(
        self, found: PodObject, metadata: PodMetadata, spec: PodSpec, name: str, namespace: str
    ) -> dict[str, Mapping[str, str]]:
        """By the prefix of their names."""
        wanted = self.wanted
        raw_labels = _map(metadata.labels) if self._labels or wanted.service else {}
        annotations = _map(metadata.annotations) if self._annotations or wanted.service else {}
        workload: dict[str, str] = {}
        if (wanted.service or "workload" in wanted.attributes) and (owner := _controller(metadata)):
            hashes = decoded_or_none(TEMPLATE_HASHES, metadata.labels) or TemplateHashes()
            workload = workload_attributes(owner, hashes.of_deployment, hashes.of_rollout)
        attributes = self._single(found, spec)
        if "workload" in wanted.attributes:
            attributes |= workload
        if wanted.service:
            annotated = annotated_attributes(_bounded(annotations, lambda key: key.startswith(RESOURCE_ANNOTATION)))
            labels = _bounded(raw_labels, _LABELS_OF_SERVICES.__contains__)
            attributes |= annotated | service_attributes(name, namespace, workload, labels, annotated)
        return {
            "": attributes,
            LABEL: _bounded(raw_labels, self._labels.match),
            # The hash is said of a static pod alone.
            ANNOTATION: _bounded(annotations, lambda key: key != CONFIG_HASH and self._annotations.match(key)),
        }

    def _single(self, found: PodObject, spec: PodSpec) -> dict[str, str]:
        wanted, status = self.wanted.attributes, found.status
        values = {
            QOS_CLASS: qos_class(found) if "qos_class" in wanted else None,
            PRIORITY_CLASS: _word(spec.priority_class) if "priority_class" in wanted else None,
            "k8s.pod.ip": _word(status.ip) if "ip" in wanted and status else None,
            "k8s.pod.hostname": _word(spec.hostname) if "hostname" in wanted else None,
        }
        return {key: value for key, value in values.items() if value}


_NOTHING = Wanted()


def qos_class(found: PodObject) -> str:
    """As the API says; where it does not, as it derives it."""
    reported = _word(found.status.qos_class) if found.status else None
    return reported if reported in _QOS_CLASSES else qos_class_of(found)


def owners(metadata: PodMetadata) -> list[OwnerReference]:
    """Its owner references; none where there are too many to be a controller's or a kubelet's."""
    if len(metadata.owners) > _MAX_OWNERS_BYTES:
        return []
    return decoded_or_none(OWNERS, metadata.owners) or []


def _controller(metadata: PodMetadata) -> Owner | None:
    """The one that manages it; a node does not manage the mirror that it owns."""
    found = owners(metadata)
    managing = next((each for each in found if each.controller), found[0] if len(found) == 1 else None)
    if managing is None or not (_is_word(managing.name) and _is_word(managing.kind)):
        return None
    group = (managing.api_version or "").rpartition("/")[0]
    if (group, managing.kind) == ("", "Node"):
        return None
    return Owner(group, managing.kind or "", managing.name or "", managing.uid if _is_word(managing.uid) else None)


def _map(raw: msgspec.Raw) -> Mapping[str, msgspec.Raw]:
    return (decoded_or_none(MAP, raw) if len(raw) <= _MAX_MAP_BYTES else None) or {}


def _texts(raw: Mapping[str, msgspec.Raw], takes: Callable[[str], bool]) -> dict[str, str]:
    """Of the keys that ``takes`` takes, those whose value is a text."""
    found = ((key, decoded_or_none(TEXT, value)) for key, value in raw.items() if takes(key))
    return {key: value for key, value in found if value is not None}


def _bounded(raw: Mapping[str, msgspec.Raw], takes: Callable[[str], bool]) -> dict[str, str]:
    """As ``_texts``, bounded, in the order of the keys."""
    bounded: dict[str, str] = {}
    left = MAX_TOTAL_CHARACTERS
    for key in sorted(raw):
        if len(key) > MAX_KEY_CHARACTERS or not key.isprintable() or not takes(key):
            continue
        value = decoded_or_none(TEXT, raw[key])
        if value is not None:
            value = value[:MAX_VALUE_CHARACTERS]
            left -= len(key) + len(value)
            if left < 0:
                break
            bounded[key] = value
    return bounded


def _word(raw: msgspec.Raw) -> str | None:
    value = decoded_or_none(TEXT, raw)
    return value if _is_word(value) else None


def _is_word(value: str | None) -> bool:
    return value is not None and 0 < len(value) <= 253 and value.isprintable()
