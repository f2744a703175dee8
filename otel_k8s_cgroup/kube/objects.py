"""JSON of the Kubernetes API → ``model.Pod``. Whatever the JSON is, nothing but MalformedObject is raised.

Sources: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/ ,
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes (events),
https://kubernetes.io/docs/reference/labels-annotations-taints/#kubernetes-io-config-mirror (static pods).
"""

from __future__ import annotations

import json
import re
from typing import NamedTuple, cast

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.model import Pod

_MAX_NAME_CHARACTERS = 253
_MAX_VERSION_CHARACTERS = 256
_MAX_CONTINUE_CHARACTERS = 64 * 1024
# An RFC 4122 uid, the 32 hex digits of a static pod, or what a manifest's author chose; it becomes a part of a path and
# of a message, so it is nothing but a word.
_UID = re.compile(r"[0-9A-Za-z][0-9A-Za-z._-]{0,127}")
_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.ASCII)

_CONFIG_MIRROR = "kubernetes.io/config.mirror"
_CONFIG_SOURCE = "kubernetes.io/config.source"
_CONFIG_HASH = "kubernetes.io/config.hash"


class Page(NamedTuple):
    """One answer to a list: not yet parsed objects, and where to go on from."""

    items: list[object]
    resource_version: str | None
    continue_token: str | None


class Event(NamedTuple):
    """One line of a watch: ``kind`` is ADDED, MODIFIED, DELETED, BOOKMARK, ERROR, or what a later API may add."""

    kind: str
    object: object


def decode(body: bytes | bytearray, where: str) -> object:
    """``body`` as JSON. ``where`` begins the error."""
    try:
        return cast("object", json.loads(body))
    except (ValueError, RecursionError) as error:
        # Of a UnicodeDecodeError the text quotes nothing but one byte; of a JSONDecodeError only the position.
        raise MalformedObject(f"{where}: not JSON: {error}") from None


def parse_page(answer: object, where: str) -> Page:
    """A PodList, or the List that ``kubectl get pods -o json`` prints."""
    items = _mapping(answer).get("items", False)
    if items is None:  # what Go makes of an empty slice
        items = []
    if not isinstance(items, list):
        raise MalformedObject(f"{where}: not a PodList: no list of items in it")
    metadata = _mapping(_mapping(answer).get("metadata"))
    return Page(items, _version(metadata), _text(metadata.get("continue"), _MAX_CONTINUE_CHARACTERS))


def parse_event(line: bytes, where: str) -> Event:
    event = _mapping(decode(line, where))
    kind = event.get("type")
    if not isinstance(kind, str):
        raise MalformedObject(f"{where}: a line of the watch has no type")
    return Event(kind, event.get("object"))


def parse_pod(obj: object, node: str) -> Pod | None:
    """``obj`` as a pod of ``node``; None where it is another node's or no node's yet."""
    metadata = _mapping(_mapping(obj).get("metadata"))
    uid, name, namespace = (_required(metadata, key) for key in ("uid", "name", "namespace"))
    if not _UID.fullmatch(uid):
        raise MalformedObject(f"pod {namespace!r}/{name!r}: metadata.uid {uid[:128]!r} is no uid")
    if _mapping(_mapping(obj).get("spec")).get("nodeName") != node:
        return None
    started = _mapping(_mapping(obj).get("status")).get("startTime")
    return Pod(
        uid=uid,
        name=name,
        namespace=namespace,
        node=node,
        start_time=started if isinstance(started, str) and _RFC_3339.fullmatch(started) else None,
        cgroup_uid=_cgroup_uid(_mapping(metadata.get("annotations")), uid),
    )


def parse_uid(obj: object) -> str:
    """Of an object that may have nothing else left that is right."""
    return _required(_mapping(_mapping(obj).get("metadata")), "uid")


def parse_version(obj: object) -> str | None:
    """``metadata.resourceVersion``; None where there is none."""
    return _version(_mapping(_mapping(obj).get("metadata")))


def parse_status(obj: object) -> tuple[int, str]:
    """Code and message of the Status in an ERROR event; a code that is none is 500."""
    status = _mapping(obj)
    code, message = status.get("code"), status.get("message")
    known = isinstance(code, int) and not isinstance(code, bool) and 100 <= code <= 599
    return cast("int", code) if known else 500, message if isinstance(message, str) else ""


def _cgroup_uid(annotations: dict[str, object], uid: str) -> str:
    """The uid in the cgroup's path of a static pod is the hash of its manifest.

    The API has its mirror, with a uid of its own; the kubelet's list and manifests have the pod itself, which says by
    ``config.source`` that it is none of the API's.
    """
    static = _CONFIG_MIRROR in annotations or annotations.get(_CONFIG_SOURCE) in ("file", "http")
    config_hash = annotations.get(_CONFIG_HASH)
    if static and isinstance(config_hash, str) and _UID.fullmatch(config_hash):
        return config_hash
    return uid


def _mapping(value: object) -> dict[str, object]:
    """``value`` if it is a JSON object (its keys are strings then), else an empty one."""
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}


def _required(metadata: dict[str, object], key: str) -> str:
    value = metadata.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= _MAX_NAME_CHARACTERS or not value.isprintable():
        shown = repr(value)[:128] if isinstance(value, str) else f"of type {type(value).__name__}"
        raise MalformedObject(f"an object of the API: metadata.{key} {shown} is no name or uid")
    return value


def _version(metadata: dict[str, object]) -> str | None:
    return _text(metadata.get("resourceVersion"), _MAX_VERSION_CHARACTERS)


def _text(value: object, limit: int) -> str | None:
    return value if isinstance(value, str) and 0 < len(value) <= limit and value.isprintable() else None
