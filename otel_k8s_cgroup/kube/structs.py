"""JSON of the Kubernetes API → structs. Whatever the bytes are, nothing but MalformedObject is raised."""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from otel_k8s_cgroup.errors import MalformedObject

T = TypeVar("T")

RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)

# Go writes none; but JSON may hold half of a surrogate pair, which has no UTF-8. Group 1: any other escape.
_LONE_SURROGATE = re.compile(
    rb"(\\(?:[^u]|u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u(?![dD][89a-fA-F])))"
    rb"|\\u[dD][89a-fA-F][0-9a-fA-F]{2}",
    re.DOTALL,
)


NOTHING = msgspec.Raw(b"null")


class _Object(msgspec.Struct):
    """Base of the structs; other fields of the JSON are passed over. A Raw field is decoded where it matters: it may be
    large, or of another type without costing the object that has it.
    """


class Annotations(_Object):
    """The kubelet's: https://pkg.go.dev/k8s.io/kubernetes/pkg/kubelet/types#pkg-constants ."""

    config_hash: str | None = msgspec.field(name="kubernetes.io/config.hash", default=None)
    config_mirror: str | None = msgspec.field(name="kubernetes.io/config.mirror", default=None)
    config_source: str | None = msgspec.field(name="kubernetes.io/config.source", default=None)


class TemplateHashes(_Object):
    """Labels that controllers set: what the name of a pod's ReplicaSet ends in."""

    of_deployment: str | None = msgspec.field(name="pod-template-hash", default=None)
    of_rollout: str | None = msgspec.field(name="rollouts-pod-template-hash", default=None)


class OwnerReference(_Object):
    api_version: str | None = msgspec.field(name="apiVersion", default=None)
    kind: str | None = None
    name: str | None = None
    uid: str | None = None
    controller: bool | None = None


class PodMetadata(_Object):
    uid: str | None = None
    name: str | None = None
    namespace: str | None = None
    labels: msgspec.Raw = NOTHING
    annotations: msgspec.Raw = NOTHING
    version: str | None = msgspec.field(name="resourceVersion", default=None)
    created: str | None = msgspec.field(name="creationTimestamp", default=None)
    owners: msgspec.Raw = msgspec.field(name="ownerReferences", default=NOTHING)


class PodSpec(_Object):
    node_name: str | None = msgspec.field(name="nodeName", default=None)
    hostname: msgspec.Raw = NOTHING
    host_network: msgspec.Raw = msgspec.field(name="hostNetwork", default=NOTHING)
    priority_class: msgspec.Raw = msgspec.field(name="priorityClassName", default=NOTHING)
    init_containers: msgspec.Raw = msgspec.field(name="initContainers", default=NOTHING)
    containers: msgspec.Raw = NOTHING
    ephemeral_containers: msgspec.Raw = msgspec.field(name="ephemeralContainers", default=NOTHING)
    resources: msgspec.Raw = NOTHING
    overhead: msgspec.Raw = NOTHING


class PodStatus(_Object):
    start_time: str | None = msgspec.field(name="startTime", default=None)
    phase: msgspec.Raw = NOTHING
    qos_class: msgspec.Raw = msgspec.field(name="qosClass", default=NOTHING)
    ip: msgspec.Raw = msgspec.field(name="podIP", default=NOTHING)
    resources: msgspec.Raw = NOTHING
    init_containers: msgspec.Raw = msgspec.field(name="initContainerStatuses", default=NOTHING)
    containers: msgspec.Raw = msgspec.field(name="containerStatuses", default=NOTHING)
    ephemeral_containers: msgspec.Raw = msgspec.field(name="ephemeralContainerStatuses", default=NOTHING)


class PodObject(_Object):
    metadata: PodMetadata | None = None
    spec: PodSpec | None = None
    status: PodStatus | None = None


class Amounts(_Object):
    cpu: msgspec.Raw = NOTHING
    memory: msgspec.Raw = NOTHING


class ResourceRequirements(_Object):
    requests: Amounts | None = None
    limits: Amounts | None = None


class ContainerSpec(_Object):
    name: str
    image: str | None = None
    restart_policy: str | None = msgspec.field(name="restartPolicy", default=None)
    resources: msgspec.Raw = NOTHING


class Ending(_Object):
    reason: str | None = None
    container_id: str | None = msgspec.field(name="containerID", default=None)


class Running(_Object):
    started_at: str | None = msgspec.field(name="startedAt", default=None)


class ContainerState(_Object):
    waiting: Ending | None = None
    running: Running | None = None
    terminated: Ending | None = None


class ContainerStatus(_Object):
    name: str
    container_id: str | None = msgspec.field(name="containerID", default=None)
    image: str | None = None
    image_id: str | None = msgspec.field(name="imageID", default=None)
    ready: bool | None = None
    restart_count: int | None = msgspec.field(name="restartCount", default=None)
    state: ContainerState | None = None
    last_state: ContainerState | None = msgspec.field(name="lastState", default=None)
    resources: msgspec.Raw = NOTHING
    allocated: msgspec.Raw = msgspec.field(name="allocatedResources", default=NOTHING)


class UidMetadata(_Object):
    uid: str | None = None


class WithUid(_Object):
    metadata: UidMetadata | None = None


class ListMetadata(_Object):
    version: str | None = msgspec.field(name="resourceVersion", default=None)
    continue_token: str | None = msgspec.field(name="continue", default=None)


class WithVersion(_Object):
    metadata: ListMetadata | None = None


class PodList(_Object):
    """Without its pods, in whose places there are empty objects."""

    items: list[object] | None
    metadata: ListMetadata | None = None


class PodEvent(_Object):
    type: str
    object: PodObject


class WatchEvent(_Object):
    """Of which the object is something else."""

    type: str
    object: msgspec.Raw = NOTHING


class Status(_Object):
    code: int | None = None
    message: str | None = None


POD = msgspec.json.Decoder(PodObject)
POD_ANNOTATIONS = msgspec.json.Decoder(Annotations | None)
TEMPLATE_HASHES = msgspec.json.Decoder(TemplateHashes | None)
OWNERS = msgspec.json.Decoder(list[OwnerReference] | None)
WITH_UID = msgspec.json.Decoder(WithUid)
WITH_VERSION = msgspec.json.Decoder(WithVersion)
POD_LIST = msgspec.json.Decoder(PodList)
POD_EVENT = msgspec.json.Decoder(PodEvent)
EVENT = msgspec.json.Decoder(WatchEvent)
STATUS = msgspec.json.Decoder(Status)
TEXT = msgspec.json.Decoder(str | None)
ITEMS = msgspec.json.Decoder(list[msgspec.Raw] | None)
MAP = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)
CONTAINER_SPEC = msgspec.json.Decoder(ContainerSpec)
CONTAINER_STATUS = msgspec.json.Decoder(ContainerStatus)
RESOURCES = msgspec.json.Decoder(ResourceRequirements | None)
AMOUNTS = msgspec.json.Decoder(Amounts | None)


def decoded_object(decoder: msgspec.json.Decoder[T], obj: bytes | msgspec.Raw, place: str = "$") -> T:
    """``place``: of ``obj`` in the object that it is a part of, for the message."""
    try:
        return decoded(decoder, obj)
    except (ValueError, RecursionError) as error:
        # msgspec's words quote nothing of the text but a type, a position and names of the structs' fields.
        text = str(error)
        if place != "$":
            text = text.replace("`$", f"`{place}", 1) if "`$" in text else f"{text} - at `{place}`"
        raise MalformedObject(f"an object of the API: {text}") from None


def decoded_or_none(decoder: msgspec.json.Decoder[T | None], obj: msgspec.Raw) -> T | None:
    """None where it is of another type: of what costs nothing but itself."""
    try:
        return decoded(decoder, obj)
    except (ValueError, RecursionError):
        return None


def decoded(decoder: msgspec.json.Decoder[T], content: bytes | msgspec.Raw) -> T:
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
