"""What a Resource says of an entity, as plain attributes: identity and path in, names and values out.

Names of OpenTelemetry's semantic conventions 1.44 where they have one.
Source: https://opentelemetry.io/docs/specs/semconv/registry/attributes/k8s/
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_k8s_cgroup.model import Entity

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.model import Attributes, Pod

# What OTEL_RESOURCE_ATTRIBUTES says of the exporter's own pod, as the OpenTelemetry Operator sets it: true of no other.
_OF_THE_EXPORTER = re.compile(
    r"(k8s\.(pod|container|namespace|daemonset|deployment|replicaset|statefulset|job|cronjob)|container|process|cgroup"
    r"|telemetry)\..*|k8s\.node\.name"
)


def shared_attributes(resource_attributes: Sequence[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Those of ``resource_attributes`` that are true of every entity of the node, not of the exporter's pod alone."""
    return tuple((key, value) for key, value in resource_attributes if _OF_THE_EXPORTER.fullmatch(key) is None)


def pod_resource(pod: Pod, path: str, shared: Sequence[tuple[str, str]] = ()) -> Attributes:
    """The attributes of a pod's Resource.

    Args:
        pod: whose it is.
        path: of its cgroup, below the hierarchy's root, with its leading ``/``.
        shared: as ``shared_attributes`` gives them.
    """
    return _present(
        ("k8s.pod.uid", pod.uid),
        ("k8s.pod.name", pod.name),
        ("k8s.namespace.name", pod.namespace),
        ("k8s.node.name", pod.node),
        ("k8s.pod.start_time", pod.start_time),
        ("k8s.pod.annotation.kubernetes.io/config.hash", pod.config_hash),
        ("cgroup.path", path),
        *shared,
    )


def point_attributes(pod: Pod, path: str) -> Attributes:
    """What each point of a pod says again: Alumet's attributes, so a query that filters or groups by them still works.

    The last four are those of its LocalMachine resource and its Cgroup consumer.

    Source: https://github.com/alumet-dev/alumet/tree/main/plugins/opentelemetry
    """
    return _present(
        ("uid", pod.uid),
        ("name", pod.name),
        ("namespace", pod.namespace),
        ("node", pod.node),
        ("resource_kind", "local_machine"),
        ("resource_id", "empty"),
        ("resource_consumer_kind", "cgroup"),
        ("resource_consumer_id", path),
    )


def pod_entity(pod: Pod, path: str, *, shared: Sequence[tuple[str, str]] = (), with_points: bool = True) -> Entity:
    """A pod as its messages say it; ``with_points``: whether each point says again who it is."""
    point = point_attributes(pod, path) if with_points else ()
    return Entity(pod.cgroup_uid, pod_resource(pod, path, shared), point, pod)


def _present(*attributes: tuple[str, str | int | tuple[str, ...] | None]) -> Attributes:
    return tuple((key, value) for key, value in attributes if value is not None and value not in ("", ()))
