"""The exporter's types: plain, immutable, with the unit in each field's name. No I/O here.

``None`` means that the kernel (or the API) does not say; it stays None all the way to "no point".
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from datetime import timedelta
    from typing import Any, TypeAlias

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
    """Who tells which pods the node has; ``file`` is the path of a PodList (JSON) where ``method`` is ``"file"``."""

    method: Literal["api", "kubelet", "file"] = "api"
    file: str | None = None


@dataclass(frozen=True, slots=True)
class OtlpTarget:
    """Where and how metrics are sent, all of the standard's variables resolved.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    protocol: Literal["grpc", "http/protobuf"]
    endpoint: str
    """A whole URL. gRPC: scheme and authority, no path. HTTP: as it is posted to, ``/v1/metrics`` included."""
    headers: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Lower-case names. Not in the repr: they carry credentials."""
    timeout_seconds: float = 10.0
    compression: Literal["none", "gzip"] = "none"
    certificate_file: str | None = None
    client_certificate_file: str | None = None
    client_key_file: str | None = None


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What the settings come to: the values that the exporter is made of. The README's table tells each."""

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
    k8s_kubeconfig: str | None = None
    k8s_access: ApiAccess = ApiAccess()
    """Of ``k8s_kubeconfig``."""
    sdk_disabled: bool = False
    """``OTEL_SDK_DISABLED``: nothing is measured or sent."""
    service_name: str = SERVICE_NAME
    """``OTEL_SERVICE_NAME``: of the exporter's own Resource."""
    resource_attributes: tuple[tuple[str, str], ...] = ()
    """``OTEL_RESOURCE_ATTRIBUTES``: of every Resource, the exporter's own included."""


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod as the Kubernetes API tells it."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """From where a cgroup's CPU time counts: one object for each cgroup that was found, told apart by identity.

    A pod that was born while the exporter runs counts from zero, at the time of the last look that did not see it; one
    that was there before counts from its first reading.
    """

    born: bool
    mono_ns: int
    stats: Stats
    """Its first reading; of one that was born, all counters are 0, and nothing else is there."""
    inode: int | None = None
    """Of its directory when it was first read: a cgroup that is made anew at the same path has another one. 0 where it
    could not be had."""


class CgroupRoot(NamedTuple):
    """Which hierarchy the cgroups are of: its root directory, and the cgroup version."""

    device: int
    inode: int
    version: int


class Look(NamedTuple):
    """What a look at all cgroups could show."""

    root: CgroupRoot
    unlisted: tuple[str, ...] = ()
    """Directories that could not be listed, as paths below the root with a ``/`` at both ends: what is in them may be
    there unseen."""


class Reading(NamedTuple):
    """One reading of one pod's cgroup."""

    cgroup_uid: str
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
