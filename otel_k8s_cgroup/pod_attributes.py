"""What a pod's object adds to its Resource: labels and annotations, its workload, the service that it is of."""

from __future__ import annotations

import json
import re
import zlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PREFIX = "otel_k8s_cgroup."
"""Of attributes that the conventions lack."""
QOS_CLASS = f"{PREFIX}qos_class"
PRIORITY_CLASS = f"{PREFIX}priority_class"
CONFIG_HASH = "kubernetes.io/config.hash"
RESOURCE_ANNOTATION = "resource.opentelemetry.io/"
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
