"""JSON of the Kubernetes API → ``model.Pod``. Whatever the bytes are, nothing but MalformedObject is raised.

The structs declare all that is read; msgspec makes no objects of the rest. A field of another type than is declared
costs the object that has it.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ ,
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes (events),
https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror (static pods).
"""

from __future__ import annotations

import contextlib
import re
from typing import NamedTuple

import msgspec

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.model import NO_DETAILS, Pod

from .details import PodReader, owners
from .structs import (
    EVENT,
    NOTHING,
    POD,
    POD_ANNOTATIONS,
    POD_EVENT,
    POD_LIST,
    RFC_3339,
    STATUS,
    WITH_UID,
    WITH_VERSION,
    ListMetadata,
    PodMetadata,
    PodObject,
    Status,
    UidMetadata,
    decoded,
    decoded_object,
)

__all__ = ["Event", "ListedPod", "Page", "PodObject", "parse_event", "parse_page", "parse_pod", "parse_status"]

_MAX_NAME_CHARACTERS = 253
_MAX_VERSION_CHARACTERS = 256
_MAX_CONTINUE_CHARACTERS = 64 * 1024
# An RFC 4122 uid, the 32 hex digits of a static pod, or what a manifest's author chose; it becomes a part of a path and
# of a message, so it is nothing but a word.
_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
_FINISHED = (b'"Succeeded"', b'"Failed"')
_IDENTITY_ALONE = PodReader()


# --- what is made of it ---------------------------------------------------------------------------------------------


class Page(NamedTuple):
    """What an answer to a list says beside its pods: the version it is of, and where to go on from."""

    resource_version: str | None
    continue_token: str | None
    others: int
    """How many of its items are no objects."""


class Event(NamedTuple):
    """One line of a watch: ``kind`` is ADDED, MODIFIED, DELETED, BOOKMARK, ERROR, or what a later API may add."""

    kind: str
    object: PodObject | bytes


class ListedPod(NamedTuple):
    """A pod as one object describes it. That its ``cgroup_uid`` is not its own uid is what the object claims."""

    pod: Pod
    created: str = ""
    """``metadata.creationTimestamp``: the API server's, whoever makes the object; "" where there is none."""
    unbelieved: str | None = None
    """What it says of a cgroup without being what a kubelet writes."""
    excluded: bool = False
    """Whether the settings leave it out; of such a pod nothing but its identity is kept."""


def parse_page(envelope: bytes, where: str) -> Page:
    """A PodList, or the List that ``kubectl get pods -A -o json`` prints, with ``{}`` in the place of each pod."""
    try:
        page = decoded(POD_LIST, envelope)
    except msgspec.ValidationError as error:
        raise MalformedObject(f"{where}: not a PodList: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedObject(f"{where}: not JSON: {error}") from None
    metadata = page.metadata or ListMetadata()
    return Page(
        _text(metadata.version, _MAX_VERSION_CHARACTERS),
        _text(metadata.continue_token, _MAX_CONTINUE_CHARACTERS),
        sum(item != {} for item in page.items or ()),
    )


def parse_event(line: bytes, where: str) -> Event:
    try:
        with contextlib.suppress(msgspec.ValidationError):
            pod_event = decoded(POD_EVENT, line)
            if pod_event.type in ("ADDED", "MODIFIED"):
                return Event(pod_event.type, pod_event.object)
        event = decoded(EVENT, line)
    except msgspec.ValidationError as error:
        raise MalformedObject(f"{where}: not an event of a watch: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedObject(f"{where}: not JSON: {error}") from None
    return Event(event.type, bytes(event.object))


def parse_pod(obj: PodObject | bytes, node: str, *, reader: PodReader = _IDENTITY_ALONE) -> ListedPod | None:
    """``obj`` as a pod of ``node``; None where it is another node's or no node's yet.

    ``reader``: reads what else the settings ask for.
    """
    found = obj if isinstance(obj, PodObject) else decoded_object(POD, obj)
    metadata = found.metadata or PodMetadata()
    uid, name, namespace = _uid(metadata), _name("name", metadata.name), _name("namespace", metadata.namespace)
    if not _UID.fullmatch(uid):
        raise MalformedObject(f"pod {namespace!r}/{name!r}: metadata.uid {uid[:128]!r} is no uid")
    if found.spec is None or found.spec.node_name != node:
        return None
    started = found.status.start_time if found.status else None
    config_hash, unbelieved = _config_hash(metadata, uid, name, node)
    chosen = reader.chooses(found, namespace)
    pod = Pod(
        uid=uid,
        name=name,
        namespace=namespace,
        node=node,
        start_time=started if started is not None and RFC_3339.fullmatch(started) else None,
        cgroup_uid=config_hash or uid,
        config_hash=config_hash,
        finished=found.status is not None and bytes(found.status.phase) in _FINISHED,
        details=reader.details(found, name, namespace) if chosen else NO_DETAILS,
    )
    return ListedPod(pod, _text(metadata.created, 64) or "", unbelieved, excluded=not chosen)


def parse_uid(obj: PodObject | bytes) -> str:
    """Of an object that may have nothing else left that is right."""
    found = obj if isinstance(obj, PodObject) else decoded_object(WITH_UID, obj)
    return _uid(found.metadata or UidMetadata())


def parse_version(obj: PodObject | bytes) -> str | None:
    """``metadata.resourceVersion``; None where there is none."""
    try:
        metadata = obj.metadata if isinstance(obj, PodObject) else decoded_object(WITH_VERSION, obj).metadata
    except MalformedObject:
        return None
    return _text(metadata.version, _MAX_VERSION_CHARACTERS) if metadata else None


def parse_status(obj: PodObject | bytes) -> tuple[int, str]:
    """Code and message of the Status in an ERROR event; a code that is none is 500."""
    try:
        status = Status() if isinstance(obj, PodObject) else decoded_object(STATUS, obj)
    except MalformedObject:
        status = Status()
    known = status.code is not None and 100 <= status.code <= 599
    return (status.code or 500) if known else 500, status.message or ""


def _config_hash(metadata: PodMetadata, uid: str, name: str, node: str) -> tuple[str | None, str | None]:
    """The hash of a static pod's manifest, which its cgroup is named after; or the one that is not believed.

    A pod's author can write any annotation, and no uid. The kubelet's list has the static pod itself, whose uid is the
    hash: https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/config/common.go
    The API has its mirror, of which a kubelet makes this:
    https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/pod/mirror_client.go
    """
    if metadata.annotations is NOTHING:
        return None, None
    annotations = decoded_object(POD_ANNOTATIONS, metadata.annotations, "$.metadata.annotations")
    if annotations is None or not annotations.config_hash or not _UID.fullmatch(annotations.config_hash):
        return None, None
    config_hash = annotations.config_hash
    if config_hash == uid and annotations.config_source in ("file", "http"):
        return config_hash, None
    if annotations.config_mirror is None:
        return None, None
    is_mirror = (
        annotations.config_mirror == config_hash
        and name.endswith(f"-{node.lower()}")
        and any((owner.api_version, owner.kind, owner.name) == ("v1", "Node", node) for owner in owners(metadata))
    )
    return (config_hash, None) if is_mirror else (None, config_hash)


def _uid(metadata: PodMetadata | UidMetadata) -> str:
    return _name("uid", metadata.uid)


def _name(key: str, value: str | None) -> str:
    if value is None or not 0 < len(value) <= _MAX_NAME_CHARACTERS or not value.isprintable():
        shown = "is absent" if value is None else f"{value[:100]!r} is no name or uid"
        raise MalformedObject(f"an object of the API: metadata.{key} {shown}")
    return value


def _text(value: str | None, limit: int) -> str | None:
    return value if value is not None and 0 < len(value) <= limit and value.isprintable() else None
