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
from typing import NamedTuple, TypeVar

import msgspec

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.model import Pod

T = TypeVar("T")

_MAX_NAME_CHARACTERS = 253
_MAX_VERSION_CHARACTERS = 256
_MAX_CONTINUE_CHARACTERS = 64 * 1024
_MAX_OWNERS_BYTES = 4096
"""The kubelet gives a mirror pod one owner; whoever writes more is not the kubelet."""
# An RFC 4122 uid, the 32 hex digits of a static pod, or what a manifest's author chose; it becomes a part of a path and
# of a message, so it is nothing but a word.
_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)
# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
_FINISHED = (b'"Succeeded"', b'"Failed"')
# Go writes none; but JSON may hold half of a surrogate pair, which has no UTF-8. Group 1: any other escape.
_LONE_SURROGATE = re.compile(
    rb"(\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)


# --- what is read ---------------------------------------------------------------------------------------------------


class _Object(msgspec.Struct):
    """Base of the structs; other fields of the JSON are passed over."""


class _Annotations(_Object):
    """The kubelet's: https://pkg.go.dev/k8s.io/kubernetes/pkg/kubelet/types#pkg-constants ."""

    config_hash: str | None = msgspec.field(name="kubernetes.io/config.hash", default=None)
    config_mirror: str | None = msgspec.field(name="kubernetes.io/config.mirror", default=None)
    config_source: str | None = msgspec.field(name="kubernetes.io/config.source", default=None)


class _Owner(_Object):
    api_version: str | None = msgspec.field(name="apiVersion", default=None)
    kind: str | None = None
    name: str | None = None


class _PodMetadata(_Object):
    uid: str | None = None
    name: str | None = None
    namespace: str | None = None
    annotations: _Annotations | None = None
    version: str | None = msgspec.field(name="resourceVersion", default=None)
    created: str | None = msgspec.field(name="creationTimestamp", default=None)
    owners: msgspec.Raw = msgspec.field(name="ownerReferences", default_factory=lambda: msgspec.Raw(b"null"))
    """Decoded where it matters: it may be large, and few pods are mirrors."""


class _PodSpec(_Object):
    node_name: str | None = msgspec.field(name="nodeName", default=None)


class _PodStatus(_Object):
    start_time: str | None = msgspec.field(name="startTime", default=None)
    phase: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class PodObject(_Object):
    metadata: _PodMetadata | None = None
    spec: _PodSpec | None = None
    status: _PodStatus | None = None


class _UidMetadata(_Object):
    uid: str | None = None


class _WithUid(_Object):
    metadata: _UidMetadata | None = None


class _ListMetadata(_Object):
    version: str | None = msgspec.field(name="resourceVersion", default=None)
    continue_token: str | None = msgspec.field(name="continue", default=None)


class _WithVersion(_Object):
    metadata: _ListMetadata | None = None


class _PodList(_Object):
    """Without its pods, in whose places there are empty objects."""

    items: list[object] | None
    metadata: _ListMetadata | None = None


class _PodEvent(_Object):
    type: str
    object: PodObject


class _Event(_Object):
    """Of which the object is something else."""

    type: str
    object: msgspec.Raw = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class _Status(_Object):
    code: int | None = None
    message: str | None = None


_POD = msgspec.json.Decoder(PodObject)
_OWNERS = msgspec.json.Decoder(list[_Owner] | None)
_WITH_UID = msgspec.json.Decoder(_WithUid)
_WITH_VERSION = msgspec.json.Decoder(_WithVersion)
_POD_LIST = msgspec.json.Decoder(_PodList)
_POD_EVENT = msgspec.json.Decoder(_PodEvent)
_EVENT = msgspec.json.Decoder(_Event)
_STATUS = msgspec.json.Decoder(_Status)


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
    """A pod as one object tells it. That its ``cgroup_uid`` is not its own uid is what the object claims."""

    pod: Pod
    created: str = ""
    """``metadata.creationTimestamp``: the API server's, whoever makes the object; "" where there is none."""
    unbelieved: str | None = None
    """What it says of a cgroup without being what a kubelet writes."""


def parse_page(envelope: bytes, where: str) -> Page:
    """A PodList, or the List that ``kubectl get pods -o json`` prints, with ``{}`` in the place of each pod."""
    try:
        page = _decoded(_POD_LIST, envelope)
    except msgspec.ValidationError as error:
        raise MalformedObject(f"{where}: not a PodList: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedObject(f"{where}: not JSON: {error}") from None
    metadata = page.metadata or _ListMetadata()
    return Page(
        _text(metadata.version, _MAX_VERSION_CHARACTERS),
        _text(metadata.continue_token, _MAX_CONTINUE_CHARACTERS),
        sum(item != {} for item in page.items or ()),
    )


def parse_event(line: bytes, where: str) -> Event:
    try:
        with contextlib.suppress(msgspec.ValidationError):
            pod_event = _decoded(_POD_EVENT, line)
            if pod_event.type in ("ADDED", "MODIFIED"):
                return Event(pod_event.type, pod_event.object)
        event = _decoded(_EVENT, line)
    except msgspec.ValidationError as error:
        raise MalformedObject(f"{where}: not an event of a watch: {error}") from None
    except (ValueError, RecursionError) as error:
        raise MalformedObject(f"{where}: not JSON: {error}") from None
    return Event(event.type, bytes(event.object))


def parse_pod(obj: PodObject | bytes, node: str, *, by_kubelet: bool = False) -> ListedPod | None:
    """``obj`` as a pod of ``node``; None where it is another node's or no node's yet.

    ``by_kubelet``: it is the kubelet's own word or an operator's file, not what a pod's author may have written.
    """
    found = obj if isinstance(obj, PodObject) else _object(_POD, obj)
    metadata = found.metadata or _PodMetadata()
    uid, name, namespace = _uid(metadata), _name("name", metadata.name), _name("namespace", metadata.namespace)
    if not _UID.fullmatch(uid):
        raise MalformedObject(f"pod {namespace!r}/{name!r}: metadata.uid {uid[:128]!r} is no uid")
    if found.spec is None or found.spec.node_name != node:
        return None
    started = found.status.start_time if found.status else None
    config_hash, unbelieved = _config_hash(metadata, name, node, by_kubelet=by_kubelet)
    pod = Pod(
        uid=uid,
        name=name,
        namespace=namespace,
        node=node,
        start_time=started if started is not None and _RFC_3339.fullmatch(started) else None,
        cgroup_uid=config_hash or uid,
        config_hash=config_hash,
        finished=found.status is not None and bytes(found.status.phase) in _FINISHED,
    )
    return ListedPod(pod, _text(metadata.created, 64) or "", unbelieved)


def parse_uid(obj: PodObject | bytes) -> str:
    """Of an object that may have nothing else left that is right."""
    found = obj if isinstance(obj, PodObject) else _object(_WITH_UID, obj)
    return _uid(found.metadata or _UidMetadata())


def parse_version(obj: PodObject | bytes) -> str | None:
    """``metadata.resourceVersion``; None where there is none."""
    try:
        metadata = obj.metadata if isinstance(obj, PodObject) else _object(_WITH_VERSION, obj).metadata
    except MalformedObject:
        return None
    return _text(metadata.version, _MAX_VERSION_CHARACTERS) if metadata else None


def parse_status(obj: PodObject | bytes) -> tuple[int, str]:
    """Code and message of the Status in an ERROR event; a code that is none is 500."""
    try:
        status = _Status() if isinstance(obj, PodObject) else _object(_STATUS, obj)
    except MalformedObject:
        status = _Status()
    known = status.code is not None and 100 <= status.code <= 599
    return (status.code or 500) if known else 500, status.message or ""


def _config_hash(metadata: _PodMetadata, name: str, node: str, *, by_kubelet: bool) -> tuple[str | None, str | None]:
    """The hash of a static pod's manifest, which its cgroup is named after; or the one that is not believed.

    A pod's author can write any annotation. The kubelet's list has the static pod itself, and there the kubelet sets
    ``config.source``. The API has its mirror, of which a kubelet makes this:
    https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/kubelet/pod/mirror_client.go
    """
    annotations = metadata.annotations
    if annotations is None or not annotations.config_hash or not _UID.fullmatch(annotations.config_hash):
        return None, None
    config_hash = annotations.config_hash
    if by_kubelet and annotations.config_source in ("file", "http"):
        return config_hash, None
    if annotations.config_mirror is None:
        return None, None
    is_mirror = (
        annotations.config_mirror == config_hash
        and name.endswith(f"-{node.lower()}")
        and _Owner("v1", "Node", node) in _owners(metadata)
    )
    return (config_hash, None) if is_mirror else (None, config_hash)


def _owners(metadata: _PodMetadata) -> list[_Owner]:
    if len(bytes(metadata.owners)) > _MAX_OWNERS_BYTES:
        return []
    try:
        return _object(_OWNERS, metadata.owners) or []
    except MalformedObject:
        return []


def _object(decoder: msgspec.json.Decoder[T], obj: bytes | msgspec.Raw) -> T:
    try:
        return _decoded(decoder, obj)
    except (ValueError, RecursionError) as error:
        # msgspec's words quote nothing of the text but a type, a position and names of the structs' fields.
        raise MalformedObject(f"an object of the API: {error}") from None


def _decoded(decoder: msgspec.json.Decoder[T], content: bytes | msgspec.Raw) -> T:
    """Raises ValueError (of which msgspec's and Unicode's errors are) and RecursionError."""
    try:
        return decoder.decode(content)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        # The half of a pair becomes what no name may have, so that it costs only a pod whose name has it.
        healed = _LONE_SURROGATE.sub(lambda match: match[1] or rb"\u0000", bytes(content))
        if healed == content:
            raise
        return decoder.decode(healed)


def _uid(metadata: _PodMetadata | _UidMetadata) -> str:
    return _name("uid", metadata.uid)


def _name(key: str, value: str | None) -> str:
    if value is None or not 0 < len(value) <= _MAX_NAME_CHARACTERS or not value.isprintable():
        shown = "is absent" if value is None else f"{value[:100]!r} is no name or uid"
        raise MalformedObject(f"an object of the API: metadata.{key} {shown}")
    return value


def _text(value: str | None, limit: int) -> str | None:
    return value if value is not None and 0 < len(value) <= limit and value.isprintable() else None
