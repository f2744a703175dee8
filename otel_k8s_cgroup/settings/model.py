"""The settings, one row a key, and what must hold between them."""

from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import timedelta
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self, TypeVar, get_args

from pydantic import Field, PlainValidator, SkipValidation, model_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from otel_k8s_cgroup.model import (
    SERVICE_NAME,
    ApiAccess,
    Choice,
    Group,
    OtlpTarget,
    PodAttribute,
    PodSource,
    QosClass,
    RunSettings,
    Schema,
    TokenRetrieval,
    Wanted,
)
from otel_k8s_cgroup.settings import lists, values
from otel_k8s_cgroup.settings.given import Given, joined, refusal
from otel_k8s_cgroup.settings.otlp import LONGEST, NOWHERE, Compression, Protocol, resolve

T = TypeVar("T")

LogLevel = Literal["debug", "info", "warning", "error"]

DEFAULT = "default"
"""Where a setting is from that nobody gave."""
POLL_INTERVAL = "5s"


def _by(read: Callable[[object], object]) -> PlainValidator:
    """The field's value is what ``read`` makes of what was given, and its refusal keeps where that was."""
    return PlainValidator(lambda given: read(given.value))


def _optional(read: Callable[[object], T]) -> Callable[[object], T | None]:
    return lambda value: None if value is None or value == "" else read(value)


def _row(meaning: str, default: str | bool, shown: str | None = None, **more: Any) -> Any:
    """A setting whose ``default`` is as one would write it; ``shown`` tells it better where it is not all."""
    text = str(default).lower() if isinstance(default, bool) else default
    description = f"{meaning} (default: {shown or text or 'none'})"
    return Field(default=Given(default, DEFAULT), validate_default=True, description=description, **more)


def _derived_row(meaning: str, shown: str) -> Any:
    """A setting whose default hangs on the machine or on another setting: `load` finds it."""
    return Field(description=f"{meaning} (default: {shown})")


class Settings(BaseSettings):
    """Every setting, read and checked; made by `load`. Frozen. Neither its repr nor a message shows a secret."""

    model_config = SettingsConfigDict(frozen=True, extra="forbid")

    k8s_node: Annotated[str, _by(values.node_name)] = _derived_row(
        "node whose pods are measured", "$NODE_NAME, else the host's name"
    )
    k8s_api_url: Annotated[str, _by(values.api_url)] = _derived_row(
        "URL of the Kubernetes API", "the cluster's own address inside a pod, else http://127.0.0.1:8080"
    )
    k8s_ca_file: Annotated[str | None, _by(values.optional_file)] = _row(
        "CA certificates (PEM) that verify the API's certificate",
        "",
        "the service account's ca.crt if there, else the system's",
    )
    token_retrieval: Annotated[TokenRetrieval, _by(values.token_retrieval)] = _row(
        'source of the API\'s token: auto, file, kubeconfig, kubectl, none, { file = "path" } or '
        '{ kubectl = { service_account = "name", namespace = "name" } }',
        "auto",
        "kubeconfig with k8s_kubeconfig, else auto",
    )
    k8s_kubeconfig: Annotated[str | None, _by(values.optional_home_path)] = _row(
        "kubeconfig with the API's URL, CA and user, for what no other setting defines", ""
    )
    k8s_context: Annotated[str | None, _by(_optional(values.text))] = _row(
        "context of k8s_kubeconfig", "", "its current-context"
    )
    poll_interval: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=10), LONGEST))] = _row(
        "time between two readings, such as 500ms or 1m30s", POLL_INTERVAL
    )
    export_interval: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=10), LONGEST))] = _derived_row(
        "time between two exports, at least poll_interval", "poll_interval"
    )
    # A model has a `schema` of its own.
    schemas: Annotated[tuple[Schema, ...], _by(lists.choices(get_args(Schema), least=1))] = _row(
        f"names and shape of the metrics: one or a list of {', '.join(get_args(Schema))}", "alumet", alias="schema"
    )
    metrics: Annotated[tuple[Group, ...], _by(lists.choices(get_args(Group)))] = _row(
        f"groups of metrics: a list of {', '.join(get_args(Group))}", "", "a few of cpu and memory"
    )
    intervals: Annotated[tuple[tuple[Group, timedelta], ...], _by(lists.intervals(get_args(Group), LONGEST))] = _row(
        'groups that are read less often than every poll_interval, such as { memory = "10s" }', ""
    )
    containers: Annotated[bool, _by(values.boolean)] = _row("whether containers are measured as well", default=False)
    include_containers: Annotated[tuple[str, ...], _by(lists.containers)] = _row(
        "names of containers that are measured: a list of names and patterns", "", "all"
    )
    exclude_containers: Annotated[tuple[str, ...], _by(lists.containers)] = _row(
        "names of containers that are not measured; takes precedence over include_containers", ""
    )
    node_totals: Annotated[bool, _by(values.boolean)] = _row(
        "whether all pods of the node together, and each QoS class, are measured as well", default=False
    )
    cpu_percent_of: Annotated[Literal["core", "node"], _by(values.choice(("core", "node")))] = _row(
        "what 100 means in cpu_percent: a core, or node (all cores), as in Alumet since 2026", "core"
    )
    point_attributes: Annotated[bool, _by(values.boolean)] = _row(
        "whether points repeat uid, name, namespace and node of their resource", default=True
    )
    include_namespaces: Annotated[tuple[str, ...], _by(lists.namespaces)] = _row(
        'namespaces whose pods are measured: a list of names and patterns ("team-*")', "", "all"
    )
    exclude_namespaces: Annotated[tuple[str, ...], _by(lists.namespaces)] = _row(
        "namespaces whose pods are not measured; takes precedence over include_namespaces", ""
    )
    pod_selector: Annotated[str, _by(lists.pod_selector)] = _row(
        'label selector of the pods that are measured, as in kubectl get -l ("app=web,tier!=cache"); the API server '
        "evaluates it",
        "",
        "all",
    )
    qos_classes: Annotated[tuple[QosClass, ...], _by(lists.choices(get_args(QosClass)))] = _row(
        f"QoS classes whose pods are measured: a list of {', '.join(get_args(QosClass))}", "", "all"
    )
    pod_attributes: Annotated[tuple[PodAttribute, ...], _by(lists.choices(get_args(PodAttribute), none=True))] = _row(
        f"more attributes of a pod's Resource: a list of {', '.join(get_args(PodAttribute))}, or none", "workload"
    )
    pod_labels: Annotated[tuple[str, ...], _by(lists.keys)] = _row(
        'keys of labels that become k8s.pod.label.<key>: a list of names and patterns ("app.kubernetes.io/*")', ""
    )
    pod_annotations: Annotated[tuple[str, ...], _by(lists.keys)] = _row(
        "keys of annotations that become k8s.pod.annotation.<key>: a list of names and patterns", ""
    )
    service_attributes: Annotated[bool, _by(values.boolean)] = _row(
        "whether service.name and similar are derived, and annotations resource.opentelemetry.io/<name> become "
        "attributes, as in the conventions",
        default=False,
    )
    cluster_name: Annotated[str, _by(lists.cluster_name)] = _row("k8s.cluster.name of every Resource", "")
    cgroup_root: Annotated[str, _by(values.path)] = _row("where the cgroup hierarchy is mounted", "/sys/fs/cgroup")
    pod_source: Annotated[PodSource, _by(values.pod_source)] = _row(
        'source of the node\'s pods: api, kubelet or { file = "pods.json" } (a PodList)', "api"
    )
    kubelet_url: Annotated[str, _by(values.api_url)] = _derived_row(
        "URL of the kubelet, for pod_source kubelet", "https://$HOST_IP:10250, else https://<k8s_node>:10250"
    )
    kubelet_ca_file: Annotated[str | None, _by(values.optional_file)] = _row(
        "CA certificates (PEM) that verify the kubelet's certificate, such as the node's "
        "/var/lib/kubelet/pki/kubelet.crt",
        "",
        "k8s_ca_file",
    )
    kubelet_tls_server_name: Annotated[str | None, _by(_optional(values.tls_name))] = _row(
        "name that the kubelet's certificate must have", "", "the host of kubelet_url"
    )
    kubelet_insecure: Annotated[bool, _by(values.boolean)] = _row(
        "whether the kubelet's certificate is not verified", default=False
    )
    log_level: Annotated[LogLevel, _by(values.choice(get_args(LogLevel)))] = _row(
        "lowest severity that is logged: debug, info, warning or error", "info"
    )
    metric_prefix: Annotated[
        str,
        _by(
            values.name(r"([A-Za-z][A-Za-z0-9_./-]{0,62})?", "letters, digits and _ . / -, a letter first, at most 63")
        ),
    ] = _row("prefix of every metric's name", "")
    metric_suffix: Annotated[
        str, _by(values.name(r"[A-Za-z0-9_./-]{0,63}", "letters, digits and _ . / -, at most 63"))
    ] = _row("suffix of every metric's name", "")
    queue_bytes: Annotated[int, _by(values.size(64 * 1024, 1024**4))] = _row(
        "memory for readings that wait to be sent, such as 16777216 or 16MiB", "16MiB"
    )
    state_file: Annotated[str | None, _by(values.optional_path)] = _row(
        "file that remembers across restarts what was delivered", ""
    )
    health_listen: Annotated[values.ListenAddress | None, _by(values.listen_address)] = _row(
        "address that serves /livez, /readyz and /metrics, such as 127.0.0.1:8081, 0.0.0.0:8081 or [::]:8081", ""
    )
    scrape: Annotated[bool, _by(values.boolean)] = _row(
        "whether /metrics of health_listen also has the metrics that are sent, with pods' names", default=False
    )
    otlp_endpoint: Annotated[str | None, _by(_optional(values.text))] = _row(
        "URL of the OTLP receiver (over HTTP, /v1/metrics is appended unless it ends so), or none with scrape alone",
        "",
        "http://localhost:4317, over HTTP http://localhost:4318/v1/metrics",
    )
    otlp_protocol: Annotated[
        Protocol | None,
        _by(_optional(values.choice(get_args(Protocol), " (http/json is not spoken here)"))),
    ] = _row(
        "grpc or http/protobuf",
        "",
        "http/protobuf where otlp_endpoint begins with http:// or https:// and has port 4318, else grpc",
    )
    otlp_headers: Annotated[tuple[tuple[str, str], ...], _by(values.headers)] = _row(
        "headers of every request: name=value,name2=value2 with percent-encoded values", "", repr=False
    )
    otlp_timeout: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=1), LONGEST))] = _row(
        "time limit of one request", "10s"
    )
    otlp_compression: Annotated[Compression, _by(values.choice(get_args(Compression)))] = _row("none or gzip", "none")
    otlp_certificate: Annotated[str | None, _by(values.optional_file)] = _row(
        "CA certificates (PEM) that verify the receiver's certificate", "", "the system's"
    )
    otlp_client_certificate: Annotated[str | None, _by(values.optional_file)] = _row(
        "client certificate (PEM) for mTLS, with otlp_client_key", ""
    )
    otlp_client_key: Annotated[str | None, _by(values.optional_file)] = _row("key (PEM) of otlp_client_certificate", "")
    otlp_insecure: Annotated[bool, _by(values.boolean)] = _row(
        "whether a gRPC endpoint without http:// or https:// is used without TLS", default=False
    )

    sources: Annotated[Mapping[str, str], SkipValidation] = Field(default={}, repr=False)
    """Every key, in the order above, and where its value is from: ``"flag --k8s-node"``, ``"environment NODE_NAME"``,
    ``"file /etc/x.toml"``, ``"default"``, …"""

    k8s_access: Annotated[ApiAccess, SkipValidation] = Field(default=ApiAccess(), repr=False)
    """What ``k8s_kubeconfig`` says beside the settings."""

    absent: Annotated[Mapping[str, str], SkipValidation] = Field(default={}, repr=False)
    """Before an installation: the settings of the file that need what this machine has not, each with the reason. They
    have their defaults."""

    sdk_disabled: Annotated[bool, SkipValidation] = False
    are_deltas: Annotated[bool, SkipValidation] = False
    service_name: Annotated[str, SkipValidation] = SERVICE_NAME
    resource_attributes: Annotated[tuple[tuple[str, str], ...], SkipValidation] = ()

    def __init__(self, places: tuple[PydanticBaseSettingsSource, ...]) -> None:
        """Of each key the value of the first place that has one. pydantic's own places, as the process environment, are
        not among them.
        """
        super().__init__(_build_sources=(places, {}))

    def value(self, key: str) -> object:
        """Of the setting ``key``, as the table of settings names it."""
        return getattr(self, _FIELD_OF_KEY.get(key, key))

    @property
    def otlp(self) -> OtlpTarget:
        """Where and how metrics are sent."""
        protocol, endpoint = resolve(self.otlp_endpoint, self.otlp_protocol, insecure=self.otlp_insecure)
        return OtlpTarget(
            protocol=protocol,
            endpoint=endpoint,
            headers=self.otlp_headers,
            timeout_seconds=self.otlp_timeout.total_seconds(),
            compression=self.otlp_compression,
            certificate_file=self.otlp_certificate,
            client_certificate_file=self.otlp_client_certificate,
            client_key_file=self.otlp_client_key,
        )

    @property
    def choice(self) -> Choice:
        """Which pods are measured."""
        return Choice(self.include_namespaces, self.exclude_namespaces, self.pod_selector, self.qos_classes)

    @property
    def wanted(self) -> Wanted:
        """What is read of them beside who they are."""
        return Wanted(
            attributes=frozenset(self.pod_attributes),
            labels=self.pod_labels,
            annotations=self.pod_annotations,
            service=self.service_attributes,
            resources="limits" in self.metrics,
            network="network" in self.metrics,
            containers=self.containers,
            include_containers=self.include_containers,
            exclude_containers=self.exclude_containers,
        )

    def plain(self) -> RunSettings:
        """The values alone, which need no pydantic."""
        found = {field.name: getattr(self, field.name) for field in fields(RunSettings)}
        if self.cluster_name:
            found["resource_attributes"] = tuple(
                (dict(self.resource_attributes) | {"k8s.cluster.name": self.cluster_name}).items()
            )
        return RunSettings(**found)

    @model_validator(mode="before")
    @classmethod
    def _with_sources(cls, found: dict[str, Given]) -> dict[str, object]:
        where = {key: found[key].where if key in found else DEFAULT for key in rows()}
        return {**found, "sources": MappingProxyType(where)}

    @model_validator(mode="after")
    def _fit_together(self) -> Self:
        problems = []
        if self.export_interval < self.poll_interval:
            given = Given(values.duration_text(self.export_interval), self.sources["export_interval"])
            least = f"{values.duration_text(self.poll_interval)} ({self.sources['poll_interval']})"
            problems.append(refusal("export_interval", given, f"at least poll_interval, which is {least}"))
        for group, interval in self.intervals:
            if interval < self.poll_interval:
                given = Given(f"{group} = {values.duration_text(interval)}", self.sources["intervals"])
                least = f"{values.duration_text(self.poll_interval)} ({self.sources['poll_interval']})"
                problems.append(refusal("intervals", given, f"at least poll_interval, which is {least}"))
        pair = ("otlp_client_certificate", self.otlp_client_certificate), ("otlp_client_key", self.otlp_client_key)
        for (key, found), (other, missing) in (pair, pair[::-1]):
            if found is not None and missing is None:
                given = Given("", self.sources[other])
                allowed = f"a file, since {key} is set ({self.sources[key]}) and the two go together"
                problems.append(refusal(other, given, allowed))
        for key in ("k8s_context", "token_retrieval"):
            needs = self.k8s_context if key == "k8s_context" else self.token_retrieval.method == "kubeconfig"
            if needs and self.k8s_kubeconfig is None:
                given = Given("kubeconfig" if key == "token_retrieval" else self.k8s_context, self.sources[key])
                problems.append(refusal(key, given, "that only together with k8s_kubeconfig, which is not set"))
        if self.scrape and self.health_listen is None and "health_listen" not in self.absent:
            given = Given("true", self.sources["scrape"])
            problems.append(refusal("scrape", given, "that only together with health_listen, which is not set"))
        if self.otlp_endpoint == NOWHERE and not self.scrape:
            given = Given(self.otlp_endpoint, self.sources["otlp_endpoint"])
            problems.append(refusal("otlp_endpoint", given, "that only together with scrape, which is not set"))
        try:
            _ = self.otlp
        except ValueError as allowed_endpoint:
            given = Given(self.otlp_endpoint, self.sources["otlp_endpoint"])
            problems.append(refusal("otlp_endpoint", given, str(allowed_endpoint)))
        if problems:
            raise joined(problems)
        return self


# What the settings also have: no keys of a user's.
_NO_ROWS = frozenset(
    {"sources", "k8s_access", "absent", "sdk_disabled", "are_deltas", "service_name", "resource_attributes"}
)


# A model has a `schema` of its own.
_FIELD_OF_KEY = {field.alias: name for name, field in Settings.model_fields.items() if field.alias}


def rows() -> dict[str, FieldInfo]:
    """The settings by their keys."""
    return {field.alias or name: field for name, field in Settings.model_fields.items() if name not in _NO_ROWS}
