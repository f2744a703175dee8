"""The containers of a pod's object, and its resources.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/#Container and #PodStatus
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Literal, TypeVar

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.model import INT64_MAX, NO_RESOURCES, Container, Resources

from .images import parse_image, repo_digest
from .resources import amounts, pod_total, qos_class, requirements
from .structs import (
    CONTAINER_SPEC,
    CONTAINER_STATUS,
    ITEMS,
    RFC_3339,
    ContainerSpec,
    ContainerState,
    ContainerStatus,
    Ending,
    PodObject,
    PodSpec,
    PodStatus,
    decoded_object,
    decoded_or_none,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import msgspec

    from otel_k8s_cgroup.model import QosClass
    from otel_k8s_cgroup.selectors import Included

T = TypeVar("T")
Kind = Literal["app", "init", "sidecar", "ephemeral"]

_MAX_CONTAINERS = 256
"""Of each kind; no node runs a pod of more."""
_MAX_LIST_BYTES = 2 * 1024 * 1024
"""Of such a list as JSON: more than etcd takes of a whole object."""
_MAX_TEXT_CHARACTERS = 128
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
# `containerd://3a4f…`; the runtime is what the CRI's version call gives.
_CONTAINER_ID = re.compile(r"(?P<runtime>[A-Za-z][A-Za-z0-9.+-]{0,31})://(?P<id>[A-Za-z0-9][A-Za-z0-9_.-]{0,127})")


def containers_of(found: PodObject, included: Included) -> tuple[Container, ...]:
    """Init containers, containers and ephemeral containers, each in the order of the spec."""
    status = found.status or PodStatus()
    states = {
        each.name: each
        for raw in (status.init_containers, status.containers, status.ephemeral_containers)
        for each in _items(raw, CONTAINER_STATUS)
    }
    return tuple(_container(kind, each, states.get(each.name), included) for kind, each in _specs(found))


def pod_resources(found: PodObject, containers: Sequence[Container]) -> tuple[Resources, Resources]:
    """What the whole pod is to have, and what the kubelet has applied."""
    spec, status = found.spec or PodSpec(), found.status or PodStatus()
    level, overhead = requirements(spec.resources), amounts(spec.overhead)
    desired = pod_total([(each.kind, each.desired) for each in containers], level, overhead)
    applied = requirements(status.resources) or level
    actual = pod_total([(each.kind, each.actual or each.desired) for each in containers], applied, overhead)
    return desired, desired if actual == desired else actual


def qos_class_of(found: PodObject) -> QosClass:
    """Of a pod whose status does not tell its QoS class."""
    resources = [(kind, requirements(each.resources) or NO_RESOURCES) for kind, each in _specs(found)]
    return qos_class(resources, requirements(found.spec.resources) if found.spec else None)


def _specs(found: PodObject) -> Iterator[tuple[Kind, ContainerSpec]]:
    spec = found.spec or PodSpec()
    for each in _items(spec.init_containers, CONTAINER_SPEC):
        yield "sidecar" if each.restart_policy == "Always" else "init", each
    for each in _items(spec.containers, CONTAINER_SPEC):
        yield "app", each
    for each in _items(spec.ephemeral_containers, CONTAINER_SPEC):
        yield "ephemeral", each


def _items(raw: msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> Iterator[T]:
    """Without those that do not parse."""
    items = decoded_or_none(ITEMS, raw) if len(raw) <= _MAX_LIST_BYTES else None
    for item in (items or [])[:_MAX_CONTAINERS]:
        with contextlib.suppress(MalformedObject):
            each = decoded_object(decoder, item)
            if _NAME.fullmatch(getattr(each, "name", "")):
                yield each


def _container(kind: Kind, spec: ContainerSpec, status: ContainerStatus | None, included: Included) -> Container:
    status = status or ContainerStatus(spec.name)
    # The spec names what the user wrote; the status, for lack of a tag, what the runtime made of it.
    image, running = parse_image(spec.image), parse_image(status.image)
    tag = image.tag or (running.tag if image.digest is None else None)
    digest = repo_digest(status.image_id)
    runtime, container_id = _id(status.container_id)
    state, ending = _state(status.state)
    last = status.last_state.terminated if status.last_state else None
    restarts = status.restart_count or 0
    return Container(
        name=spec.name,
        kind=kind,
        id=container_id,
        runtime=runtime,
        previous_id=_id(last.container_id)[1] if last else None,
        restart_count=restarts if 0 <= restarts <= INT64_MAX else 0,
        image_name=image.name or running.name,
        image_tags=(tag,) if tag else (),
        image_repo_digests=(digest,) if digest else (),
        ready=status.ready,
        started_at=_time(status.state.running.started_at) if status.state and status.state.running else None,
        state=state,
        state_reason=_text(ending.reason) if ending else None,
        last_terminated_reason=_text(last.reason) if last else None,
        desired=requirements(spec.resources) or NO_RESOURCES,
        actual=requirements(status.resources),
        allocated=amounts(status.allocated),
        excluded=spec.name not in included,
    )


def _id(written: str | None) -> tuple[str | None, str | None]:
    """Runtime and id of a ``containerID``."""
    found = _CONTAINER_ID.fullmatch(written or "")
    return (found["runtime"], found["id"]) if found else (None, None)


def _state(state: ContainerState | None) -> tuple[Literal["waiting", "running", "terminated"] | None, Ending | None]:
    if state is None:
        return None, None
    if state.running is not None:
        return "running", None
    if state.terminated is not None:
        return "terminated", state.terminated
    return ("waiting", state.waiting) if state.waiting is not None else (None, None)


def _time(value: str | None) -> str | None:
    return value if value and RFC_3339.fullmatch(value) else None


def _text(value: str | None) -> str | None:
    return value if value and len(value) <= _MAX_TEXT_CHARACTERS and value.isprintable() else None
