"""The exporter's types: plain, immutable, with the unit in each field's name. No I/O here.

``None`` means that the kernel (or the API) does not say; it stays None all the way to "no point".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import timedelta
    from typing import Any

    Stats: TypeAlias = Any
    """A named tuple of figures: ``figures.row_type``."""


SERVICE_NAME = "otel-k8s-cgroup"
"""Of the exporter itself."""


INT64_MAX = 2**63 - 1
"""OTLP's integer points are signed 64-bit; what is beyond cannot be sent. In a kernel's file it is malformed."""


class Pem(NamedTuple):
    """Certificates or a key: the file ``name``, or, where it is there, ``content`` (``name`` is then for messages)."""

    name: str
    content: bytes | None = None

    def __repr__(self) -> str:
        return f"Pem({self.name!r})"


class ClientCertificate(NamedTuple):
    """What a server knows us by."""

    certificate: Pem
    key: Pem


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """What a kubeconfig says of the way to the API that no setting of ours says; nothing where there is none."""

    ca: Pem | None = None
    """Where ``k8s_ca_file`` names none."""
    tls_server_name: str | None = None
    insecure: bool = False
    """Whether the API's certificate is not verified at all."""
    client_certificate: ClientCertificate | None = None
    """This and the next two are of its user: for ``token_retrieval`` ``kubeconfig``."""
    token: str | None = field(default=None, repr=False)
    token_file: str | None = None
    context: str | None = None
    """Its context in force."""


@dataclass(frozen=True, slots=True)
class TokenRetrieval:
    """How the token of the Kubernetes API is had; the fields behind ``method`` matter only where it uses them."""

    method: Literal["auto", "file", "kubeconfig", "kubectl", "none"] = "auto"
    file: str = "/var/run/secrets/kubernetes.io/serviceaccount/token"
    service_account: str = "alumet-reader"
    namespace: str = "alumet"


@dataclass(frozen=True, slots=True)
class PodSource:
    """Where the node's pods are listed; ``file`` is the path of a PodList (JSON) where ``method`` is ``"file"``."""

    method: Literal["api", "kubelet", "file"] = "api"
    file: str | None = None


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where and how metrics are sent, all of the standard's variables resolved.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    protocol: Literal["grpc", "http/protobuf"]
    endpoint: str
    """A whole URL. gRPC: scheme and authority, no path. HTTP: as it is posted to, ``/v1/metrics`` included. Empty:
    nothing is sent."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Lower-case names. Not in the repr: they carry credentials."""
    timeout_seconds: float = 10.0
    compression: Literal["none", "gzip"] = "none"
    certificate_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None


Schema = Literal["alumet", "semconv", "cadvisor"]
Group = Literal["cpu", "memory", "limits", "throttling", "events", "io", "pids", "pressure", "hugetlb", "network"]
"""Of metrics."""

PodAttribute = Literal["workload", "qos_class", "priority_class", "ip", "hostname"]
QosClass = Literal["Guaranteed", "Burstable", "BestEffort"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is decoded and kept of a pod beside its identity; nothing by default.

    Patterns are shell patterns: ``*`` stands for any characters, ``?`` for one.
    """

    attributes: frozenset[PodAttribute] = frozenset()
    labels: tuple[str, ...] = ()
    """Patterns of keys."""
    annotations: tuple[str, ...] = ()
    """Patterns of keys."""
    service: bool = False
    """Whether ``service.*`` and what ``resource.opentelemetry.io/`` annotations say become attributes."""
    resources: bool = False
    """Whether the requests and limits of pods are."""
    network: bool = False
    """Whether it is that they are on the host's network."""
    containers: bool = False
    """Whether their containers are, with their requests and limits."""
    include_containers: tuple[str, ...] = ()
    """Patterns of names; none: all."""
    exclude_containers: tuple[str, ...] = ()
    """Patterns of names; they win."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Which pods are measured: those that every field lets through; all by default."""

    include_namespaces: tuple[str, ...] = ()
    """Patterns; none: all."""
    exclude_namespaces: tuple[str, ...] = ()
    """Patterns; they win."""
    pod_selector: str = ""
    """A label selector."""
    qos_classes: tuple[QosClass, ...] = ()
    """None: all."""


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the settings come to: the values that the exporter is made of. The README's table describes each."""

    k8s_node: str
    k8s_api_url: str
    k8s_ca_file: str | None
    token_retrieval: TokenRetrieval
    poll_interval: timedelta
    export_interval: timedelta
    point_attributes: bool
    cgroup_root: str
    pod_source: PodSource
    kubelet_url: str
    kubelet_ca_file: str | None
    kubelet_tls_server_name: str | None
    kubelet_insecure: bool
    log_level: str
    metric_prefix: str
    metric_suffix: str
    queue_bytes: int
    state_file: str | None
    otlp: OtlpTarget
    health_listen: str | None = None
    """``host:port``, the host an IP address."""
    scrape: bool = False
    """Whether ``/metrics`` has the pods' figures, too."""
    k8s_kubeconfig: str | None = None
    k8s_access: ApiAccess = ApiAccess()
    """Of ``k8s_kubeconfig``."""
    wanted: Wanted = Wanted()
    choice: Choice = Choice()
    schemas: tuple[Schema, ...] = ("alumet",)
    metrics: tuple[Group, ...] = ()
    """None: what is sent by default."""
    intervals: tuple[tuple[Group, timedelta], ...] = ()
    """Of groups that are read more rarely than at each poll_interval."""
    containers: bool = False
    node_totals: bool = False
    cpu_percent_of: Literal["core", "node"] = "core"
    are_deltas: bool = False
    """Whether counters of schemas but Alumet's are of delta temporality."""
    sdk_disabled: bool = False
    """``OTEL_SDK_DISABLED``: nothing is measured or sent."""
    service_name: str = SERVICE_NAME
    """``OTEL_SERVICE_NAME``: of the exporter's own Resource."""
    resource_attributes: tuple[tuple[str, str], ...] = ()
    """``OTEL_RESOURCE_ATTRIBUTES``: of every Resource, the exporter's own included."""


class Resources(NamedTuple):
    """What a container or a pod asks for and may use, as the API specifies it; None: not specified."""

    cpu_request_nanocores: int | None = None
    cpu_limit_nanocores: int | None = None
    memory_request_bytes: int | None = None
    memory_limit_bytes: int | None = None


NO_RESOURCES = Resources()


@dataclass(frozen=True, slots=True)
class Container:
    """A container of a pod as the Kubernetes API reports it."""

    name: str
    kind: Literal["app", "init", "sidecar", "ephemeral"] = "app"
    """``sidecar``: an init container with restartPolicy Always."""
    id: str | None = None
    """As its cgroup is named after it, without the runtime; None before it has been made."""
    runtime: str | None = None
    """``containerd``, ``cri-o``, ``docker``, …"""
    previous_id: str | None = None
    """Of the one that it was before its last restart."""
    restart_count: int = 0
    image_name: str | None = None
    """With its registry, without tag and digest."""
    image_tags: tuple[str, ...] = ()
    image_repo_digests: tuple[str, ...] = ()
    ready: bool | None = None
    started_at: str | None = None
    """RFC 3339, where it is running."""
    state: Literal["waiting", "running", "terminated"] | None = None
    state_reason: str | None = None
    """Why it waits or was terminated: ``CrashLoopBackOff``."""
    last_terminated_reason: str | None = None
    """Why it ended before its last restart: ``OOMKilled``."""
    desired: Resources = NO_RESOURCES
    """Of the spec."""
    actual: Resources | None = None
    """As the kubelet has applied it, which may come later than the spec; None where the API does not say."""
    allocated: Resources | None = None
    """The requests that the node has admitted; None where the API does not say."""
    excluded: bool = False
    """Whether the settings leave it out."""


@dataclass(frozen=True, slots=True)
class Details:
    """What may change in the life of a pod, as far as ``Wanted`` asks for it."""

    attributes: bytes = b""
    """Of its Resource, as ``identity.packed`` packs them: as strings of their own they would take four times the
    memory. None of them says who the pod is. Empty: there are none."""
    containers: tuple[Container, ...] = ()
    """In the order of the spec: init containers, containers, ephemeral ones."""
    desired: Resources = NO_RESOURCES
    """Of the whole pod, as the scheduler and the kubelet add it up: pod-level resources, else those of its containers,
    and its overhead. A limit only where all containers have one."""
    actual: Resources = NO_RESOURCES
    """The same of what the kubelet has applied."""
    host_network: bool = False
    """Whether it has no network of its own."""


NO_DETAILS = Details()


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the Kubernetes API reports it."""

    uid: str
    """``metadata.uid``: the identity that is exported as ``k8s.pod.uid``."""
    name: str
    namespace: str
    node: str
    start_time: str | None
    """``status.startTime``, RFC 3339, as the API wrote it."""
    cgroup_uid: str
    """The uid in its cgroup path: ``uid``, or ``config_hash`` of a static pod."""
    config_hash: str | None = None
    """Of a static pod: the annotation ``kubernetes.io/config.hash``, its manifest's hash or uid. By the API ``uid`` is
    its mirror's; the kubelet has no other uid of it than this one."""
    finished: bool = False
    """Whether ``status.phase`` is one that it never leaves: it has no cgroup, or not for long."""
    details: Details = NO_DETAILS
    """What may change; all before it stays as it is for the life of the pod's cgroup (``known.KnownPods``)."""

    @property
    def containers(self) -> tuple[Container, ...]:
        """Its containers, where they are asked for."""
        return self.details.containers


class LeftOut(NamedTuple):
    """What the settings leave out (``Choice``)."""

    pods: Sequence[Pod] = ()
    """The same object until something changes."""
    hides_others: bool = False
    """Whether the pods that are listed are those of a selector: the API server does not tell of others."""
    unknown: bool = False
    """Whether some may be left out, and no list has shown yet which."""


Value: TypeAlias = str | int | tuple[str, ...]
Attributes: TypeAlias = tuple[tuple[str, Value], ...]
"""In the order in which they are sent, each name once. What is not known is not there."""


class EntityKind(Enum):
    """What is measured: an entity is what has a cgroup, and is measured by it."""

    POD = "pod"
    CONTAINER = "container"
    QOS = "qos"
    """All pods of a QoS class. Guaranteed pods have no cgroup in common."""
    NODE = "node"
    """All pods of a node: the kubelet's ``kubepods``. A host of kind nodes has several."""


class Description(NamedTuple):
    """What an entity's messages say of it."""

    resource: Attributes
    """Of its Resource."""
    points: Mapping[str, Attributes] = MappingProxyType({})
    """Schema → what each of the schema's points says beside."""
    start_unix_ns: int = 0
    """From when on its cumulative counters count; 0 where that is not known."""


@dataclass(frozen=True, slots=True, eq=False)
class Entity:
    """What is measured, as it is known now: one object until something changes."""

    key: str
    """The same for as long as its cgroup is there. A pod's is the uid in its cgroup path."""
    kind: EntityKind
    describe: Callable[[], Description]
    pod: Pod | None = None
    """Which its cgroup is named after."""
    reported: Mapping[str, int | float] = field(default_factory=dict)
    """What the API reports of it in numbers, by the figures' names: limits, requests, restarts."""


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """From where a cgroup's CPU time counts: one object for each cgroup that was found, told apart by identity.

    A pod that was born while the exporter runs counts from zero, at the time of the last discovery that did not find
    it; one that was there before counts from its first reading.
    """

    born: bool
    mono_ns: int
    stats: Stats
    """Its first reading; of one that was born, all counters are 0, and nothing else is there."""
    inode: int | None = None
    """Of its directory when it was first read: a cgroup that is made anew at the same path has another one. 0 where it
    could not be had."""


def ticks_of(interval: timedelta, poll_interval: timedelta) -> int:
    """How many ticks an interval is, on the grid of ``poll_interval``; at least one."""
    return max(1, round(interval / poll_interval))


def container_key(cgroup_uid: str, container_id: str) -> str:
    """The key of a container.

    Args:
        cgroup_uid: its pod's.
        container_id: without the runtime's scheme: 64 hex digits.
    """
    return f"{cgroup_uid}/{container_id}"


def kind_of(key: str) -> EntityKind:
    """Of the entity with that key. The levels of a node are discovered together: each is NODE here."""
    if key.startswith("/"):
        return EntityKind.NODE
    return EntityKind.CONTAINER if "/" in key else EntityKind.POD


class CgroupRoot(NamedTuple):
    """Which hierarchy the cgroups are of: its root directory, and the cgroup version."""

    device: int
    inode: int
    version: int


class Discovery(NamedTuple):
    """What a discovery of all cgroups could find."""

    root: CgroupRoot
    unlisted: tuple[str, ...] = ()
    """Directories that could not be listed, as paths below the root with a ``/`` at both ends: what is in them may be
    there unseen."""
    kinds: frozenset[EntityKind] = frozenset({EntityKind.POD})
    """What was searched for; entities of other kinds may be there unseen."""


class Reading(NamedTuple):
    """One reading of one entity's cgroup."""

    key: str
    """Of the entity, the same for as long as it is there: a pod's is the uid in its cgroup path, a container's is
    ``container_key``; a QoS level's and a node's is ``path``."""
    kind: EntityKind
    path: str
    """Below the hierarchy's root, with its leading ``/``."""
    origin: Origin
    mono_ns: int
    """When it was read, on the monotonic clock."""
    stats: Stats
    before_ns: int
    """When the reading before was; of one that was born, its origin. 0 where there was none."""
    before: Stats
    """The reading before; without figures where there was none."""

    @property
    def qos_class(self) -> Literal["burstable", "besteffort"] | None:
        """Of a QoS level; None of anything else."""
        if self.kind is not EntityKind.QOS:
            return None
        return "burstable" if self.path.removesuffix(".slice").endswith("burstable") else "besteffort"
