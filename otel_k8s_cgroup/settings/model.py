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
    Choice,
    OtlpTarget,
    PodAttribute,
    PodSource,
    QosClass,
    RunSettings,
    TokenRetrieval,
    Wanted,
)
from otel_k8s_cgroup.settings import lists, values
from otel_k8s_cgroup.settings.given import Given, joined, refusal
from otel_k8s_cgroup.settings.otlp import LONGEST, Compression, Protocol, resolve

T = TypeVar("T")

Schema = Literal["alumet", "semconv", "both"]
_SCHEMAS_HERE: tuple[Schema, ...] = ("alumet",)  # the ones that this version has
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
        "CA certificates (PEM) that the API's certificate is verified with",
        "",
        "the service account's ca.crt if there, else the system's",
    )
    token_retrieval: Annotated[TokenRetrieval, _by(values.token_retrieval)] = _row(
        'how the API\'s token is had: auto, file, kubectl, none, { file = "path" } or '
        '{ kubectl = { service_account = "name", namespace = "name" } }',
        "auto",
    )
    poll_interval: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=10), LONGEST))] = _row(
        "time between two readings, such as 500ms or 1m30s", POLL_INTERVAL
    )
    export_interval: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=10), LONGEST))] = _derived_row(
        "time between two exports, at least poll_interval", "poll_interval"
    )
    # A model has a `schema` of its own.
    metrics_schema: Annotated[Schema, _by(values.choice(_SCHEMAS_HERE, " (this version has no other)"))] = _row(
        f"names and shape of the metrics: {', '.join(_SCHEMAS_HERE)} (this version has no other)",
        "alumet",
        alias="schema",
    )
    point_attributes: Annotated[bool, _by(values.boolean)] = _row(
        "whether points repeat uid, name, namespace and node of their resource", default=True
    )
    include_namespaces: Annotated[tuple[str, ...], _by(lists.namespaces)] = _row(
        'namespaces whose pods are measured: a list of names and patterns ("team-*")', "", "all"
    )
    exclude_namespaces: Annotated[tuple[str, ...], _by(lists.namespaces)] = _row(
        "namespaces whose pods are not: they win over include_namespaces", ""
    )
    pod_selector: Annotated[str, _by(lists.pod_selector)] = _row(
        'label selector of the pods that are measured, as of kubectl get -l ("app=web,tier!=cache"); the API server '
        "evaluates it",
        "",
        "all",
    )
    qos_classes: Annotated[tuple[QosClass, ...], _by(lists.choices(get_args(QosClass)))] = _row(
        f"QoS classes whose pods are measured: a list of {', '.join(get_args(QosClass))}", "", "all"
    )
    pod_attributes: Annotated[tuple[PodAttribute, ...], _by(lists.choices(get_args(PodAttribute)))] = _row(
        f"what a pod's Resource also says: a list of {', '.join(get_args(PodAttribute))}, or none", "workload"
    )
    pod_labels: Annotated[tuple[str, ...], _by(lists.keys)] = _row(
        'keys of labels that become k8s.pod.label.<key>: a list of names and patterns ("app.kubernetes.io/*")', ""
    )
    pod_annotations: Annotated[tuple[str, ...], _by(lists.keys)] = _row(
        "keys of annotations that become k8s.pod.annotation.<key>: a list of names and patterns", ""
    )
    service_attributes: Annotated[bool, _by(values.boolean)] = _row(
        "whether service.name and the like are derived, and annotations resource.opentelemetry.io/<name> become "
        "attributes, as the conventions say",
        default=False,
    )
    cluster_name: Annotated[str, _by(lists.cluster_name)] = _row("k8s.cluster.name of every Resource", "")
    cgroup_root: Annotated[str, _by(values.path)] = _row("where the cgroup hierarchy is mounted", "/sys/fs/cgroup")
    pod_source: Annotated[PodSource, _by(values.pod_source)] = _row(
        'who tells the node\'s pods: api, kubelet or { file = "pods.json" } (a PodList)', "api"
    )
    kubelet_url: Annotated[str, _by(values.api_url)] = _derived_row(
        "URL of the kubelet, for pod_source kubelet", "https://<k8s_node>:10250"
    )
    kubelet_ca_file: Annotated[str | None, _by(values.optional_file)] = _row(
        "CA certificates (PEM) that the kubelet's certificate is verified with, such as the node's "
        "/var/lib/kubelet/pki/kubelet.crt",
        "",
        "k8s_ca_file",
    )
    kubelet_tls_server_name: Annotated[str | None, _by(_optional(values.tls_name))] = _row(
        "name that the kubelet's certificate must be for", "", "the host of kubelet_url"
    )
    kubelet_insecure: Annotated[bool, _by(values.boolean)] = _row(
        "whether the kubelet's certificate is not verified at all", default=False
    )
    log_level: Annotated[LogLevel, _by(values.choice(get_args(LogLevel)))] = _row(
        "least severity that is logged: debug, info, warning or error", "info"
    )
    metric_prefix: Annotated[
        str,
        _by(
            values.name(r"([A-Za-z][A-Za-z0-9_./-]{0,62})?", "letters, digits and _ . / -, a letter first, at most 63")
        ),
    ] = _row("what every metric's name begins with", "")
    metric_suffix: Annotated[
        str, _by(values.name(r"[A-Za-z0-9_./-]{0,63}", "letters, digits and _ . / -, at most 63"))
    ] = _row("what every metric's name ends with", "")
    queue_bytes: Annotated[int, _by(values.size(64 * 1024, 1024**4))] = _row(
        "memory for what waits to be sent, such as 16777216 or 16MiB", "16MiB"
    )
    state_file: Annotated[str | None, _by(values.optional_path)] = _row(
        "file that remembers what was delivered over a restart", ""
    )
    otlp_endpoint: Annotated[str | None, _by(_optional(values.text))] = _row(
        "URL of the OTLP receiver; over HTTP /v1/metrics is appended unless it ends so",
        "",
        "http://localhost:4317, over HTTP http://localhost:4318/v1/metrics",
    )
    otlp_protocol: Annotated[
        Protocol | None,
        _by(_optional(values.choice(get_args(Protocol), " (http/json is not spoken here)"))),
    ] = _row("grpc or http/protobuf", "", "http/protobuf where otlp_endpoint has port 4318, else grpc")
    otlp_headers: Annotated[tuple[tuple[str, str], ...], _by(values.headers)] = _row(
        "headers of every request: name=value,name2=value2 with percent-encoded values", "", repr=False
    )
    otlp_timeout: Annotated[timedelta, _by(values.duration(timedelta(milliseconds=1), LONGEST))] = _row(
        "time limit of one request", "10s"
    )
    otlp_compression: Annotated[Compression, _by(values.choice(get_args(Compression)))] = _row("none or gzip", "none")
    otlp_certificate: Annotated[str | None, _by(values.optional_file)] = _row(
        "CA certificates (PEM) that the receiver's certificate is verified with", "", "the system's"
    )
    otlp_client_certificate: Annotated[str | None, _by(values.optional_file)] = _row(
        "client certificate (PEM) for mTLS, with otlp_client_key", ""
    )
    otlp_client_key: Annotated[str | None, _by(values.optional_file)] = _row("key (PEM) of otlp_client_certificate", "")
    otlp_insecure: Annotated[bool, _by(values.boolean)] = _row(
        "whether a gRPC endpoint without http:// or https:// is sent to without TLS", default=False
    )

    sources: Annotated[Mapping[str, str], SkipValidation] = Field(default={}, repr=False)
    """Every key, in the order above, and where its value is from: ``"flag --k8s-node"``, ``"environment NODE_NAME"``,
    ``"file /etc/x.toml"``, ``"default"``, …"""

    sdk_disabled: Annotated[bool, SkipValidation] = False
    service_name: Annotated[str, SkipValidation] = SERVICE_NAME
    resource_attributes: Annotated[tuple[tuple[str, str], ...], SkipValidation] = ()

    def __init__(self, places: tuple[PydanticBaseSettingsSource, ...]) -> None:
        """Of each key the value of the first place that has one. pydantic's own places, as the process environment, are
        not among them.
        """
        super().__init__(_build_sources=(places, {}))

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
        pair = ("otlp_client_certificate", self.otlp_client_certificate), ("otlp_client_key", self.otlp_client_key)
        for (key, found), (other, missing) in (pair, pair[::-1]):
            if found is not None and missing is None:
                given = Given("", self.sources[other])
                allowed = f"a file, since {key} is set ({self.sources[key]}) and the two go together"
                problems.append(refusal(other, given, allowed))
        try:
            _ = self.otlp
        except ValueError as allowed_endpoint:
            given = Given(self.otlp_endpoint, self.sources["otlp_endpoint"])
            problems.append(refusal("otlp_endpoint", given, str(allowed_endpoint)))
        if problems:
            raise joined(problems)
        return self


# What the settings also have: no keys of a user's.
_NO_ROWS = frozenset({"sources", "sdk_disabled", "service_name", "resource_attributes"})


def rows() -> dict[str, FieldInfo]:
    """The settings by their keys."""
    return {field.alias or name: field for name, field in Settings.model_fields.items() if name not in _NO_ROWS}
