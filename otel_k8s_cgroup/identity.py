"""What a Resource says of an entity, as plain attributes: identity and path in, names and values out.

Names of OpenTelemetry's semantic conventions 1.44 where they have one, else under ``otel_k8s_cgroup.``.
Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/k8s/
"""

from __future__ import annotations

import json
import re
import zlib
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.cadvisor_labels import cadvisor_points
from otel_k8s_cgroup.figures import API_PREFIX, START
from otel_k8s_cgroup.model import INT64_MAX, NO_RESOURCES, Description, Entity, EntityKind, container_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from otel_k8s_cgroup.model import Attributes, Container, Pod, Resources, Value

PREFIX = "otel_k8s_cgroup."
"""Of attributes that the conventions lack."""
QOS_CLASS = f"{PREFIX}qos_class"
_QOS_OF_CGROUP = {"guaranteed": "Guaranteed", "burstable": "Burstable", "besteffort": "BestEffort"}
PRIORITY_CLASS = f"{PREFIX}priority_class"
CONFIG_HASH = "kubernetes.io/config.hash"
RESOURCE_ANNOTATION = "resource.opentelemetry.io/"

# What OTEL_RESOURCE_ATTRIBUTES says of the exporter's own pod, as the OpenTelemetry Operator sets it: true of no other.
_OF_THE_EXPORTER = re.compile(
    r"(k8s\.(pod|container|namespace|daemonset|deployment|replicaset|statefulset|job|cronjob)|container|process|cgroup"
    r"|telemetry)\..*|k8s\.node\.name"
)


def shared_attributes(resource_attributes: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those of ``resource_attributes`` that are true of every entity of the node, not of the exporter's pod alone."""
    return tuple((key, value) for key, value in resource_attributes if _OF_THE_EXPORTER.fullmatch(key) is None)


# --- Entities ---


@dataclass(frozen=True, slots=True)
class Describe:
    """Makes entities of who they are. What their messages say is made when it is needed, and not kept: 30 labels of
    1,000 pods would take 6 MB.
    """

    node: str = ""
    """Its name."""
    shared: tuple[tuple[str, str], ...] = ()
    """As ``shared_attributes`` gives them."""
    with_points: bool = True
    """Whether each point of Alumet's schema says again who it is of."""
    boot_unix_ns: int = 0
    """When the node booted: its counters are since then. 0 where that is not known."""

    def pod(self, pod: Pod, path: str) -> Entity:
        """``path`` is of its cgroup."""

        start_unix_ns = _unix_ns(pod.start_time)

        def describe() -> Description:
            points = self._points(pod, path) | {"cadvisor": cadvisor_points(self.node, path, pod)}
            return Description(pod_resource(pod, path, self.shared), points, start_unix_ns or 0)

        reported = _started(start_unix_ns) | _reported({}, pod.details.desired, pod.details.actual)
        return Entity(pod.cgroup_uid, EntityKind.POD, describe, pod, reported)

    def container(self, pod: Pod, container: Container, path: str) -> Entity:
        """``path`` is of its own cgroup."""

        start_unix_ns = _unix_ns(container.started_at)

        def describe() -> Description:
            resource = container_resource(pod, container, path, self.shared)
            points = self._points(pod, path, ("container", container.name))
            points["cadvisor"] = cadvisor_points(self.node, path, pod, container)
            return Description(resource, points, start_unix_ns or 0)

        key = container_key(pod.cgroup_uid, container.id or "")
        reported = _started(start_unix_ns) | reported_of_container(container)
        return Entity(key, EntityKind.CONTAINER, describe, reported=reported)

    def level(self, kind: EntityKind, path: str, qos_class: str | None) -> Entity:
        """Of the node: all of its pods, or those of a QoS class."""

        def describe() -> Description:
            own = (("node", self.node), *((("qos_class", qos_class),) if qos_class else ()), *_consumer(path))
            points: dict[str, Attributes] = {"alumet": own} if self.with_points else {}
            points["cadvisor"] = cadvisor_points(self.node, path)
            return Description(node_resource(self.node, path, qos_class, self.shared), points, self.boot_unix_ns)

        reported = _started(self.boot_unix_ns or None) if kind is EntityKind.NODE else {}
        return Entity(path, kind, describe, reported=reported)

    def _points(self, pod: Pod, path: str, *more: tuple[str, str]) -> dict[str, Attributes]:
        return {"alumet": (*point_attributes(pod, path), *more)} if self.with_points else {}


def reported_of_container(container: Container) -> dict[str, int | float]:
    """What the API reports of a container in numbers."""
    of_container = {
        "restart_count": container.restart_count,
        "ready": None if container.ready is None else int(container.ready),
    }
    return _reported(of_container, container.desired, container.actual, container.allocated)


def _reported(
    more: Mapping[str, int | None],
    desired: Resources,
    actual: Resources | None = None,
    allocated: Resources | None = None,
) -> dict[str, int | float]:
    """Requests and limits of the spec, and the requests that the node has admitted and that the kubelet has applied;
    what is None is left out.
    """
    actual, allocated = actual or NO_RESOURCES, allocated or NO_RESOURCES
    found = {
        **more,
        "cpu_limit_cores": _cores(desired.cpu_limit_nanocores),
        "cpu_request_cores": _cores(desired.cpu_request_nanocores),
        "memory_limit_bytes": desired.memory_limit_bytes,
        "memory_request_bytes": desired.memory_request_bytes,
        "cpu_request_current_cores": _cores(actual.cpu_request_nanocores),
        "memory_request_current_bytes": actual.memory_request_bytes,
        "cpu_request_allocated_cores": _cores(allocated.cpu_request_nanocores),
        "memory_request_allocated_bytes": allocated.memory_request_bytes,
    }
    # A pod's author writes them, and what a pod's containers add up to may be more than a point can have.
    return {API_PREFIX + name: min(value, INT64_MAX) for name, value in found.items() if value is not None}


def _cores(nanocores: int | None) -> float | None:
    return None if nanocores is None else nanocores / 1e9


def _started(start_unix_ns: int | None) -> dict[str, int | float]:
    return {} if start_unix_ns is None else {START: start_unix_ns}


def _unix_ns(time: str | None) -> int | None:
    """Of a time as RFC 3339 writes it, to the second."""
    try:
        seconds = None if time is None else datetime.fromisoformat(time).timestamp()
    except (ValueError, OverflowError):  # the 30th of February, the year 0
        return None
    return None if seconds is None or not 0 <= seconds * 1e9 < INT64_MAX else int(seconds) * 10**9


# --- Resources ------------------------------------------------------------------------------------------------------


def pod_resource(pod: Pod, path: str, shared: Sequence[tuple[str, str]] = ()) -> Attributes:
    """The attributes of a pod's Resource.

    Args:
        pod: whose it is.
        path: of its cgroup, below the hierarchy's root, with its leading ``/``.
        shared: as ``shared_attributes`` gives them. They win over what a pod's author wrote, but for ``service.*``.
    """
    return _resource(pod, path, shared, ())


def container_resource(pod: Pod, container: Container, path: str, shared: Sequence[tuple[str, str]] = ()) -> Attributes:
    """The attributes of a container's Resource: its pod's, and its own. ``path`` is of its own cgroup."""
    own = (
        ("k8s.container.name", container.name),
        ("k8s.container.restart_count", container.restart_count),
        ("k8s.container.status.last_terminated_reason", container.last_terminated_reason),
        ("container.id", container.id),
        ("container.runtime.name", container.runtime),
        ("container.image.name", container.image_name),
        ("container.image.tags", container.image_tags),
        ("container.image.repo_digests", container.image_repo_digests),
    )
    return _resource(pod, path, shared, own, container)


def node_resource(node: str, path: str, qos: str | None = None, shared: Sequence[tuple[str, str]] = ()) -> Attributes:
    """The attributes of the Resource of the node's pods as a whole or, with ``qos``, of those of one QoS class.

    ``qos`` is as the API or as a cgroup's name writes it.
    """
    spelt = _QOS_OF_CGROUP.get(qos, qos) if qos else None
    own = _present(("k8s.node.name", node), (QOS_CLASS, spelt), ("cgroup.path", path))
    return tuple((own | _present(*shared)).items())


def point_attributes(pod: Pod, path: str) -> Attributes:
    """What each point of a pod says again: Alumet's attributes, so a query that filters or groups by them still works.

    The last four are those of its LocalMachine resource and its Cgroup consumer.

    Source: https://github.com/alumet-dev/alumet/tree/main/plugins/opentelemetry
    """
    points = _present(
        ("uid", pod.uid),
        ("name", pod.name),
        ("namespace", pod.namespace),
        ("node", pod.node),
        *_consumer(path),
    )
    return tuple(points.items())


def _consumer(path: str) -> tuple[tuple[str, str], ...]:
    return (
        ("resource_kind", "local_machine"),
        ("resource_id", "empty"),
        ("resource_consumer_kind", "cgroup"),
        ("resource_consumer_id", path),
    )


def _resource(
    pod: Pod,
    path: str,
    shared: Sequence[tuple[str, str]],
    own: Iterable[tuple[str, Value | None]],
    container: Container | None = None,
) -> Attributes:
    identity = _present(
        ("k8s.pod.uid", pod.uid),
        ("k8s.pod.name", pod.name),
        ("k8s.namespace.name", pod.namespace),
        ("k8s.node.name", pod.node),
        ("k8s.pod.start_time", pod.start_time),
        (ANNOTATION + CONFIG_HASH, pod.config_hash),
        *own,
        ("cgroup.path", path),
    )
    details: dict[str, Value] = dict(unpacked(pod.details.attributes))
    if "service.name" in details:
        details = _service(pod, container) | details
    settings = _present(*((key, value) for key, value in shared if not (key.startswith("service.") and key in details)))
    # Its place is where a name comes first, its value the last: that of identity, whoever else has one.
    return tuple((identity | details | settings | identity).items())


def _present(*attributes: tuple[str, Value | None]) -> dict[str, Value]:
    return {key: value for key, value in attributes if value is not None and value not in ("", ())}


# --- what a pod's object says beside who it is ----------------------------------------------------------------------

LABEL = "k8s.pod.label."
ANNOTATION = "k8s.pod.annotation."


_LEAST_COMPRESSED_BYTES = 256


def packed(by_prefix: Mapping[str, Mapping[str, str]]) -> bytes:
    """Attributes in the least memory; ``by_prefix`` has what each prefix of their names is followed by."""
    found = {prefix: dict(attributes) for prefix, attributes in by_prefix.items() if attributes}
    text = json.dumps(found, ensure_ascii=False, separators=(",", ":")).encode() if found else b""
    return text if len(text) < _LEAST_COMPRESSED_BYTES else zlib.compress(text)


def unpacked(attributes: bytes) -> Iterator[tuple[str, str]]:
    """The attributes that ``packed`` has packed."""
    if not attributes:
        return
    # An object of JSON begins with a brace, and zlib's format with another byte.
    text = attributes if attributes.startswith(b"{") else zlib.decompress(attributes)
    for prefix, named in json.loads(text).items():
        for key, value in named.items():
            yield prefix + key, value


class Owner(NamedTuple):
    """Who manages a pod, as its owner references say."""

    group: str
    """Of the API, without the version; "" is the core group."""
    kind: str
    name: str
    uid: str | None


_WORKLOADS = {
    ("", "ReplicationController"): "k8s.replicationcontroller",
    ("apps", "DaemonSet"): "k8s.daemonset",
    ("apps", "Deployment"): "k8s.deployment",
    ("apps", "ReplicaSet"): "k8s.replicaset",
    ("apps", "StatefulSet"): "k8s.statefulset",
    ("batch", "CronJob"): "k8s.cronjob",
    ("batch", "Job"): "k8s.job",
}
# A CronJob names its Jobs by the minute, since 1970, for which they are scheduled: these are of 2017 to 2034, and few
# dates as people write them (no 20260131, but a 31012026).
# https://github.com/kubernetes/kubernetes/blob/v1.34.4/pkg/controller/cronjob/utils.go
_OF_A_CRON_JOB = re.compile(r"(.+)-(?:2[5-9]|3[0-3])[0-9]{6}")


def workload_attributes(owner: Owner, template_hash: str | None, rollout_hash: str | None) -> dict[str, str]:
    """What a pod's owner reference shows of its workload, by names alone: nobody but the pod's object is asked.

    Args:
        owner: the pod's controller.
        template_hash: the pod's label ``pod-template-hash``: what the name of a Deployment's ReplicaSet ends in.
        rollout_hash: its label ``rollouts-pod-template-hash``, the same of Argo's Rollout.
    """
    prefix = _WORKLOADS.get((owner.group, owner.kind))
    if prefix is None:
        return _other_workload(owner.kind, owner.name, owner.uid)
    found = {f"{prefix}.name": owner.name, f"{prefix}.uid": owner.uid}
    if prefix == "k8s.replicaset":
        found["k8s.deployment.name"] = _without_hash(owner.name, template_hash)
        if rollout := _without_hash(owner.name, rollout_hash):
            found |= _other_workload("Rollout", rollout, None)
    elif prefix == "k8s.job" and (scheduled := _OF_A_CRON_JOB.fullmatch(owner.name)):
        found["k8s.cronjob.name"] = scheduled[1]
    return {key: value for key, value in found.items() if value}


def _other_workload(kind: str, name: str, uid: str | None) -> dict[str, str]:
    found = {"kind": kind, "name": name, "uid": uid}
    return {f"{PREFIX}workload.{key}": value for key, value in found.items() if value}


def _without_hash(name: str, template_hash: str | None) -> str | None:
    return name.removesuffix(f"-{template_hash}") if template_hash and name.endswith(f"-{template_hash}") else None


# A pod's author must not say by an annotation which pod it is, where it runs, or who measured it; nor by a name that
# becomes the same label in Prometheus. service.instance.id tells instances apart, so it cannot be of a pod template.
_NOT_BY_ANNOTATION = re.compile(
    r"(k8s|container|cgroup|otel[._-]k8s[._-]cgroup|process|telemetry)([._-].*)?|service[._-]instance[._-]id", re.I
)
_ATTRIBUTE_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,127}")


def annotated_attributes(annotations: Mapping[str, str]) -> dict[str, str]:
    """What annotations ``resource.opentelemetry.io/<name>`` say, by those names.

    Source: https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/
    """
    named = ((key.removeprefix(RESOURCE_ANNOTATION), value) for key, value in annotations.items())
    return {
        name: value
        for name, value in named
        if value and _ATTRIBUTE_NAME.fullmatch(name) and not _NOT_BY_ANNOTATION.fullmatch(name)
    }


SERVICE_LABELS = {
    "service.name": ("app.kubernetes.io/instance", "app.kubernetes.io/name"),
    "service.version": ("app.kubernetes.io/version",),
}
_SERVICE_IS_NAMED_AFTER = tuple(
    f"k8s.{kind}.name" for kind in ("deployment", "replicaset", "statefulset", "daemonset", "cronjob", "job")
)


def service_attributes(
    name: str, namespace: str, workload: Mapping[str, str], labels: Mapping[str, str], annotated: Mapping[str, str]
) -> dict[str, str]:
    """``service.*`` of a pod, the first value found of each as the conventions list them.

    Args:
        name: the pod's.
        namespace: the pod's.
        workload: as ``workload_attributes`` gives it.
        labels: the pod's.
        annotated: as ``annotated_attributes`` gives them.

    Source: https://opentelemetry.io/docs/specs/semconv/non-normative/k8s-attributes/#service-attributes
    """
    found = {"service.namespace": namespace}
    for attribute, keys in SERVICE_LABELS.items():
        if value := next((labels[key] for key in keys if labels.get(key)), None):
            found[attribute] = value
    if "service.name" not in found:
        owners = (workload[key] for key in _SERVICE_IS_NAMED_AFTER if key in workload)
        found["service.name"] = next(owners, name)
    return found | {key: value for key, value in annotated.items() if key.startswith("service.")}


def _service(pod: Pod, container: Container | None) -> dict[str, Value]:
    """What of ``service.*`` hangs on the container, and is not named by labels or annotations."""
    if container is None:
        return {"service.instance.id": f"{pod.namespace}.{pod.name}"}
    tags, digests = container.image_tags, container.image_repo_digests
    version = "@".join([*tags[:1], *(digest.rpartition("@")[2] for digest in digests[:1])])
    found = {"service.instance.id": f"{pod.namespace}.{pod.name}.{container.name}", "service.version": version}
    return _present(*found.items())
