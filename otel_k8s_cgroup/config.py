"""``otel-k8s-cgroup config``: the settings in force and where each is from, without secrets."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, NamedTuple, TextIO

from otel_k8s_cgroup.redaction import HIDDEN
from otel_k8s_cgroup.settings.given import SECRET_KEYS
from otel_k8s_cgroup.settings.otlp import NOWHERE
from otel_k8s_cgroup.settings.written import as_written, toml

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_k8s_cgroup.settings import Settings


class Entry(NamedTuple):
    """A setting in force."""

    key: str
    value: object
    """As one writes it in the file."""
    source: str
    """``flag --k8s-node``, ``environment NODE_NAME``, ``file /etc/x.toml``, ``default``, …"""
    is_whole: bool
    """Whether the value is shown as it is; False where a secret is hidden in it."""


def entries(settings: Settings, redact: Callable[[str], str]) -> list[Entry]:
    """Every key, in the order of the settings' table.

    Args:
        settings: as they were read.
        redact: hides secrets in a text.
    """
    # What follows from the endpoint and the protocol together is in force, not what was given for each.
    resolved = {"otlp_endpoint": settings.otlp.endpoint or NOWHERE, "otlp_protocol": settings.otlp.protocol}
    found = []
    for key, source in settings.sources.items():
        value = as_written(resolved.get(key, settings.value(key)))
        if key in SECRET_KEYS:
            value = value if isinstance(value, dict) else {}
            shown: object = dict.fromkeys(value, HIDDEN)
        else:
            shown = _each_string(value, redact)
        found.append(Entry(key, shown, redact(source), shown == value))
    return found


def standard(settings: Settings, redact: Callable[[str], str]) -> dict[str, object]:
    """What the standard's variables say that have no setting of ours."""
    attributes = {key: redact(value) for key, value in settings.resource_attributes}
    return {
        "OTEL_SDK_DISABLED": settings.sdk_disabled,
        "OTEL_SERVICE_NAME": redact(settings.service_name),
        "OTEL_RESOURCE_ATTRIBUTES": attributes,
    }


def print_toml(found: Sequence[Entry], variables: dict[str, object], out: TextIO) -> None:
    """A line a setting, as the file has it, and behind it where it is from. What has a hidden secret is a comment."""
    lines = [f"{'' if entry.is_whole else '# '}{entry.key} = {toml(entry.value)}" for entry in found]
    width = min(60, max(map(len, lines)))
    for line, entry in zip(lines, found, strict=True):
        source = "".join(char if char.isprintable() else "?" for char in entry.source)
        out.write(f"{line.ljust(width)}  # {source}{'' if entry.is_whole else '; a secret is hidden'}\n")
    out.write("\n")
    for name, value in variables.items():
        out.write(f"# {name} = {toml(value)}\n")


def print_json(found: Sequence[Entry], variables: dict[str, object], out: TextIO) -> None:
    """One object: each setting's value and where it is from."""
    settings = {entry.key: {"value": entry.value, "from": entry.source} for entry in found}
    json.dump({"settings": settings, "environment": variables}, out, indent=2)
    out.write("\n")


def print_schema(out: TextIO) -> None:
    """The JSON schema of the configuration file."""
    from otel_k8s_cgroup.settings.schema import json_schema  # noqa: PLC0415 only here

    json.dump(json_schema(), out, indent=2)
    out.write("\n")


def _each_string(value: object, change: Callable[[str], str]) -> object:
    match value:
        case str():
            return change(value)
        case dict():
            return {key: _each_string(item, change) for key, item in value.items()}
        case list():
            return [_each_string(item, change) for item in value]
    return value
