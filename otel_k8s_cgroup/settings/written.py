"""Values back into what one writes for them: the configuration file's own syntax."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta

from otel_k8s_cgroup.model import PodSource, TokenRetrieval
from otel_k8s_cgroup.settings.values import duration_text


def as_written(value: object) -> object:  # noqa: PLR0911 - a table: one return a row
    """``value`` of a setting as strings, booleans, numbers, lists and tables: ``timedelta(seconds=5)`` → ``"5s"``.

    Nothing is ``""``. What is given back for it is read as the same value.
    """
    match value:
        case None:
            return ""
        case bool() | int() | float() | str():
            return value
        case timedelta():
            return duration_text(value)
        case TokenRetrieval(method="file", file=file) if file != TokenRetrieval().file:
            return {"file": file}
        case TokenRetrieval(method="kubectl"):
            return {"kubectl": {"service_account": value.service_account, "namespace": value.namespace}}
        case TokenRetrieval(method=method):
            return method
        case PodSource(method="file", file=str(file)):
            return {"file": file}
        case PodSource(method=method):
            return method
        case Mapping():
            return {str(key): as_written(item) for key, item in value.items()}
        case tuple() if value and all(isinstance(item, tuple) and len(item) == 2 for item in value):
            return {str(key): as_written(item) for key, item in value}
        case Sequence() | frozenset():
            return [as_written(item) for item in value]
    return str(value)


def toml(value: object) -> str:
    """``value``, as `as_written` gives it, in TOML; of one line, and nothing in it moves a terminal's cursor."""
    match value:
        case bool():
            return str(value).lower()
        case int() | float():
            return str(value)
        case dict():
            pairs = ", ".join(f"{_key(key)} = {toml(item)}" for key, item in value.items())
            return f"{{ {pairs} }}" if pairs else "{}"
        case list():
            return "[" + ", ".join(toml(item) for item in value) + "]"
    return _string(str(value))


def _key(key: str) -> str:
    return key if key and key.isascii() and key.replace("-", "").replace("_", "").isalnum() else _string(key)


def _string(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("${", "\\${")
    return '"' + "".join(char if char.isprintable() else _escape(char) for char in escaped) + '"'


def _escape(char: str) -> str:
    code = ord(char)
    if 0xD800 <= code < 0xE000:  # an argument that is no UTF-8; TOML has no such character
        return "\\ufffd"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
