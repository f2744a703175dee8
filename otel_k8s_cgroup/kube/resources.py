"""Requests and limits: of a container as the API writes them, and of a pod as the scheduler and the kubelet add up.

Sources: https://kubernetes.io/docs/concepts/workloads/pods/init-containers/#resource-sharing-within-containers ,
https://kubernetes.io/docs/concepts/workloads/pods/sidecar-containers/#resource-sharing-within-containers ,
https://kubernetes.io/docs/tasks/configure-pod-container/assign-pod-level-resources/
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.model import NO_RESOURCES, Resources

from .quantities import nanocores, whole_bytes
from .structs import AMOUNTS, RESOURCES, decoded_or_none

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec

    from otel_k8s_cgroup.model import QosClass

    from .structs import Amounts

_MAX_QUANTITY_BYTES = 80


def requirements(raw: msgspec.Raw) -> Resources | None:
    """Of a ``ResourceRequirements``; None where it is absent or none."""
    found = decoded_or_none(RESOURCES, raw)
    if found is None:
        return None
    (cpu_request, memory_request), (cpu_limit, memory_limit) = _amounts(found.requests), _amounts(found.limits)
    # A limit of 0 is none, as the kubelet applies it.
    return Resources(cpu_request, cpu_limit or None, memory_request, memory_limit or None)


def amounts(raw: msgspec.Raw) -> Resources | None:
    """Of a ``ResourceList`` of what is requested, as ``allocatedResources`` and ``overhead`` are."""
    found = decoded_or_none(AMOUNTS, raw)
    if found is None:
        return None
    cpu, memory = _amounts(found)
    return Resources(cpu_request_nanocores=cpu, memory_request_bytes=memory)


def pod_total(
    containers: Sequence[tuple[str, Resources]], pod_level: Resources | None, overhead: Resources | None
) -> Resources:
    """What a whole pod asks for and may use.

    Args:
        containers: kind (as ``Container.kind``) and resources of each, init containers in their order.
        pod_level: ``spec.resources``; what it has counts, whatever the containers have.
        overhead: of the pod's RuntimeClass: it joins requests, and limits where there are any.
    """
    pod_level = pod_level or NO_RESOURCES
    extra = overhead or NO_RESOURCES
    more = (extra.cpu_request_nanocores,) * 2 + (extra.memory_request_bytes,) * 2
    return Resources(
        *(
            _plus(level if level is not None else _sum(containers, field, is_limit=field % 2 == 1), more[field])
            for field, level in enumerate(pod_level)
        )
    )


def qos_class(containers: Sequence[tuple[str, Resources]], pod_level: Resources | None) -> QosClass:
    """As Kubernetes derives it: https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/ ."""
    counted = [resources for kind, resources in containers if kind != "ephemeral"]
    if pod_level and any(pod_level):
        counted = [pod_level]
    if not any(any(resources) for resources in counted):
        return "BestEffort"
    guaranteed = all(
        of.cpu_limit_nanocores
        and of.memory_limit_bytes
        and of.cpu_request_nanocores in (None, of.cpu_limit_nanocores)
        and of.memory_request_bytes in (None, of.memory_limit_bytes)
        for of in counted
    )
    return "Guaranteed" if guaranteed else "Burstable"


def _amounts(found: Amounts | None) -> tuple[int | None, int | None]:
    if found is None:
        return None, None
    return nanocores(_quantity(found.cpu)), whole_bytes(_quantity(found.memory))


def _quantity(raw: msgspec.Raw) -> str:
    """A text or a number of JSON; a text with escapes is no quantity."""
    written = bytes(raw) if len(raw) <= _MAX_QUANTITY_BYTES else b""
    return written.strip(b'"').decode("ascii", "replace")


def _sum(containers: Sequence[tuple[str, Resources]], field: int, *, is_limit: bool) -> int | None:
    """Init containers run one after the other, beside the sidecars that were started before them."""
    sidecars = app = most = 0
    known = False
    for kind, resources in containers:
        if kind == "ephemeral":
            continue
        amount = resources[field]
        if not amount:
            if is_limit:
                return None
            continue
        known = True
        if kind == "app":
            app += amount
        elif kind == "sidecar":
            sidecars += amount
            most = max(most, sidecars)
        else:
            most = max(most, sidecars + amount)
    return max(app + sidecars, most) if known else None


def _plus(amount: int | None, more: int | None) -> int | None:
    return None if amount is None else amount + (more or 0)
