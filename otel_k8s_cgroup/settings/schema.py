"""The JSON schema of the configuration file, for editors and for checks before a roll-out.

Made of the rows and their types. It is never stricter than what reads the file, and less strict where that knows more
(a duration's limits, what must hold between two settings).

Source: https://json-schema.org/draft/2020-12
"""

from __future__ import annotations

from datetime import timedelta
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin

from otel_k8s_cgroup.model import Group, PodAttribute, PodSource, TokenRetrieval
from otel_k8s_cgroup.settings.file import (
    AGENT_KEYS,
    K8S_KEYS,
    OPENTELEMETRY_KEYS,
    OPENTELEMETRY_PASSED_OVER,
    PLUGIN_KEYS,
)
from otel_k8s_cgroup.settings.model import rows
from otel_k8s_cgroup.settings.values import DURATION_UNITS, ListenAddress
from otel_k8s_cgroup.settings.written import as_written

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic.fields import FieldInfo

    Schema = dict[str, Any]

_VARIABLE: Schema = {"type": "string", "pattern": r"\$\{"}
"""What any string may be instead: an environment variable is in it."""

_UNIT = "|".join(DURATION_UNITS)
_DURATION: Schema = {"type": "string", "pattern": rf"^\s*([0-9]{{1,18}}(\.[0-9]{{1,9}})?\s*({_UNIT})\s*)+$"}
_FILE: Schema = {
    "type": "object",
    "properties": {"file": {"type": "string", "minLength": 1}},
    "required": ["file"],
    "additionalProperties": False,
}
_KUBECTL: Schema = {
    "type": "object",
    "properties": {
        "kubectl": {
            "type": "object",
            "properties": {"service_account": {"type": "string"}, "namespace": {"type": "string"}},
            "additionalProperties": False,
        }
    },
    "required": ["kubectl"],
    "additionalProperties": False,
}
_INLINE: Schema = {"type": "string", "pattern": r"^\s*\{"}
"""A table as text, as flags and the environment have it."""
_SIZE: Schema = {"type": "string", "pattern": r"^\s*[0-9]{1,18}(\.[0-9]{1,9})?\s*([A-Za-z]*)\s*$"}


def _any_case(words: Sequence[object]) -> str:
    """A regular expression for one of ``words``; JSON schema's have no flag for "whatever case"."""
    letters = (
        "".join(f"[{char.upper()}{char.lower()}]" if char.isalpha() else char.replace("/", r"\/") for char in str(word))
        for word in words
    )
    return f"({'|'.join(letters)})"


def _list_of(words: Sequence[object]) -> list[Schema]:
    """The shapes of a list of some of ``words``, or as text with commas."""
    word = _any_case(words)
    return [
        {"type": "string", "pattern": rf"^[\s,]*({word}\s*(,[\s,]*|$))*$"},
        {"type": "array", "items": {"anyOf": [{"type": "string", "pattern": rf"^{word}$"}, _VARIABLE]}},
    ]


_SHAPES: dict[object, list[Schema]] = {
    bool: [{"type": "boolean"}, {"type": "string", "pattern": r"^\s*([Tt][Rr][Uu][Ee]|[Ff][Aa][Ll][Ss][Ee])\s*$"}],
    int: [{"type": "integer"}, _SIZE],
    str: [{"type": "string"}],
    timedelta: [_DURATION],
    TokenRetrieval: [{"enum": ["auto", "file", "kubeconfig", "kubectl", "none"]}, _FILE, _KUBECTL, _INLINE],
    PodSource: [{"enum": ["api", "kubelet"]}, _FILE, _INLINE],
    NoneType: [{"const": ""}],
    tuple[tuple[Group, timedelta], ...]: [
        {"const": ""},
        {"type": "array", "maxItems": 0},
        {"type": "object", "additionalProperties": {"anyOf": [_DURATION, _VARIABLE]}},
        _INLINE,
    ],
    tuple[PodAttribute, ...]: _list_of([*get_args(PodAttribute), "none"]),
    ListenAddress: [{"type": "integer", "minimum": 1, "maximum": 65535}, {"type": "string"}],
    tuple[tuple[str, str], ...]: [{"type": "string"}, {"type": "object", "additionalProperties": {"type": "string"}}],
}
"""Of a row's type; one that is not here may be anything."""


def json_schema() -> Schema:
    """The schema of the file."""
    settings = {key: _row(field) for key, field in rows().items()}
    passed_over: Schema = {"description": "Alumet's own: passed over"}
    k8s = {
        "type": "object",
        "properties": settings | dict.fromkeys(sorted(K8S_KEYS), passed_over),
        "additionalProperties": False,
    }
    off = [{"required": [key], "properties": {key: {"const": False}}} for key in sorted(PLUGIN_KEYS)]
    opentelemetry = {
        "type": "object",
        "if": {"anyOf": off},
        "else": {
            "properties": {key: settings[ours] for key, ours in OPENTELEMETRY_KEYS.items()}
            | dict.fromkeys(sorted(OPENTELEMETRY_PASSED_OVER), passed_over),
            "additionalProperties": False,
        },
    }
    plugins = {"k8s": k8s, "opentelemetry": opentelemetry}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Configuration file of otel-k8s-cgroup (TOML)",
        "type": "object",
        "properties": settings
        | {
            "plugins": {
                "description": "Alumet's plugins; the settings may stand in [plugins.k8s]",
                "type": "object",
                "properties": plugins,
                "additionalProperties": {"type": "object"},
            }
        },
        # Beside Alumet's plugins also stand its own keys and tables.
        "if": {"required": ["plugins"]},
        "then": {
            "properties": dict.fromkeys(sorted(AGENT_KEYS), passed_over),
            "additionalProperties": {"type": "object"},
        },
        "else": {"propertyNames": {"enum": [*settings, "plugins"]}},
    }


def _row(field: FieldInfo) -> Schema:
    described: Schema = {"description": field.description}
    default = getattr(field.default, "value", None)
    if isinstance(default, str | bool | int):
        described["default"] = as_written(default)
    shapes = _shapes(field.annotation)
    if not shapes:
        return described
    if any(shape.get("type") == "string" and "pattern" not in shape for shape in shapes):
        return described | _any_of(shapes)
    return described | _any_of([*shapes, _VARIABLE])


def _any_of(shapes: list[Schema]) -> Schema:
    return shapes[0] if len(shapes) == 1 else {"anyOf": shapes}


def _shapes(annotation: object) -> list[Schema]:
    if annotation in _SHAPES:
        return _SHAPES[annotation]
    if get_origin(annotation) is Literal:
        return [{"type": "string", "pattern": rf"^\s*{_any_case(get_args(annotation))}\s*$"}]
    if get_origin(annotation) is tuple and get_args(annotation)[1:] == (Ellipsis,):
        item = get_args(annotation)[0]
        if get_origin(item) is Literal:
            return _list_of(get_args(item))
        # A list, or as text with commas.
        of = _shapes(item)
        return [{"type": "string"}, {"type": "array", "items": _any_of([*of, _VARIABLE])}] if of else []
    if get_origin(annotation) in (Union, UnionType):
        each = [_shapes(part) for part in get_args(annotation)]
        return [shape for shapes in each for shape in shapes] if all(each) else []
    return []
