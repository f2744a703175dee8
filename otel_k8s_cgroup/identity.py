"""What a Resource says of an entity, as plain attributes: identity and path in, names and values out.

Names of OpenTelemetry's semantic conventions 1.44 where they have one, else under ``otel_k8s_cgroup.``.
Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/k8s/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cadvisor_labels import cadvisor_points
from otel_k8s_cgroup.figures import API_PREFIX, START
from otel_k8s_cgroup.model import INT64_MAX, NO_RESOURCES, Description, Entity, EntityKind, container_key
from otel_k8s_cgroup.pod_attributes import ANNOTATION, CONFIG_HASH, QOS_CLASS, unpacked

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from otel_k8s_cgroup.model import Attributes, Container, Pod, Resources, Value

_QOS_OF_CGROUP = {"guaranteed": "Guaranteed", "burstable": "Burstable", "besteffort": "BestEffort"}

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


def _service(pod: Pod, container: Container | None) -> dict[str, Value]:
    """What of ``service.*`` hangs on the container, and is not named by labels or annotations."""
    if container is None:
        return {"service.instance.id": f"{pod.namespace}.{pod.name}"}
    tags, digests = container.image_tags, container.image_repo_digests
    version = "@".join([*tags[:1], *(digest.rpartition("@")[2] for digest in digests[:1])])
    found = {"service.instance.id": f"{pod.namespace}.{pod.name}.{container.name}", "service.version": version}
    return _present(*found.items())
