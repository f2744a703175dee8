"""The configuration file: our keys at its top level or in ``[plugins.k8s]``; an Alumet file is read as it is."""

from __future__ import annotations

import difflib
import logging
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.settings.given import Given, joined, one_line, refusal, unknown
from otel_k8s_cgroup.settings.otlp import CollectorHost

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

logger = logging.getLogger(__name__)

_LARGEST_BYTES = 1 << 20

# Alumet's own keys, of no use here: of its agent, of every plugin, of its k8s plugin, of its opentelemetry plugin.
AGENT_KEYS = frozenset({"max_update_interval", "source_channel_size"})
PLUGIN_KEYS = frozenset({"enable", "enabled"})
K8S_KEYS = PLUGIN_KEYS | {"disable_sources", "annotate_foreign_measurements", "annotate_containers"}
OPENTELEMETRY_KEYS = {
    "collector_host": "otlp_endpoint",
    "prefix": "metric_prefix",
    "suffix": "metric_suffix",
    "add_attributes_to_labels": "point_attributes",
}
OPENTELEMETRY_PASSED_OVER = PLUGIN_KEYS | {"use_unit_display_name"}


class Unset(ValueError):
    """An environment variable is not set; the message is what is allowed."""

    def __init__(self, name: str) -> None:
        super().__init__(rf"environment variables that are set; {name} is not: set it, or write \${{ for a plain ${{")
        self.name = name


def read_file(
    path: str, environ: Mapping[str, str], keys: Collection[str], absent: dict[str, str] | None = None
) -> dict[str, Given]:
    """The settings of the TOML file at ``path``, ``${NAME}`` replaced from ``environ``; ``keys`` are the known ones.

    What is Alumet's alone is passed over with one line of the log. ``absent``: gets the settings, each with the reason,
    that need a variable that is not set; None: they are refused. Raises `SettingsError`.
    """
    found: dict[str, Given] = {}
    passed_over: list[str] = []
    problems: list[SettingsError] = []
    for entry in _entries(path, _parsed(path, _text(path)), keys):
        match entry:
            case str():
                passed_over.append(one_line(entry))
            case SettingsError():
                problems.append(entry)
            case (key, given) if key in found:
                problems.append(SettingsError(key, f"given twice ({found[key].where}; {given.where}); keep one"))
            case (key, given):
                found[key] = given
    for key, given in list(found.items()):
        try:
            found[key] = Given(_expanded(given.value, environ), given.where)
        except ValueError as allowed:
            if absent is not None and isinstance(allowed, Unset):
                absent[key] = f"{allowed.name} is not set"
                del found[key]
                continue
            problems.append(refusal(key, Given(_unmarked(given.value), given.where), str(allowed)))
    if problems:
        raise joined(problems)
    if passed_over:
        logger.info("%s: passed over, for it is Alumet's alone: %s", path, ", ".join(passed_over))
    return found


# --- TOML -----------------------------------------------------------------------------------------------------------


def _text(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = error.strerror if isinstance(error, OSError) else error
        raise SettingsError(one_line(path), f"cannot read the configuration file: {reason}") from None
    if len(content) > _LARGEST_BYTES:
        raise SettingsError(one_line(path), f"no configuration file is larger than {_LARGEST_BYTES} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SettingsError(one_line(path), f"line {line}: not UTF-8, which TOML is written in") from None


# Alumet replaces ${NAME} before it parses, so that "\${" may stand in any string of its files; to TOML it would be a
# wrong escape. So the escaped form becomes a sign of our own first (a code point that is no character).
_ESCAPED = re.compile(r"\\{1,2}\$\{")
_MARK = "\ufdd0{"
_UNCLOSED_TABLE = re.compile(r"^[ \t]*([\w.-]+)[ \t]*=[ \t]*\{[^}\n]*$", re.MULTILINE)


def _parsed(path: str, text: str) -> dict[str, object]:
    try:
        return tomllib.loads(_ESCAPED.sub(_MARK, text))
    except RecursionError:
        raise SettingsError(one_line(path), "not a configuration: nested too deeply") from None
    except ValueError as error:
        last = text.count("\n") + 1
        message = str(error).replace("at end of document", f"at line {last}, the end of the file")
        if unclosed := _UNCLOSED_TABLE.search(text):
            key, entries = unclosed[1], 'name = "value", other = "value"'
            if "token_retrieval" in key:  # as Alumet's documentation has it
                key = "token_retrieval.kubectl"
                entries = 'service_account = "alumet-reader", namespace = "alumet"'
            message += f"; an inline table stands on one line with commas: {key} = {{ {entries} }}"
        raise SettingsError(one_line(path), f"not TOML: {message}") from None


_Entry: TypeAlias = "tuple[str, Given] | SettingsError | str"
"""A key with what is given for it, a problem, or the name of what is passed over."""


def _entries(path: str, document: dict[str, object], keys: Collection[str]) -> Iterator[_Entry]:
    where = f"file {path}"
    is_alumets = "plugins" in document
    plugins = document.pop("plugins", {})
    for key, value in document.items():
        if key in keys:
            yield key, Given(value, where)
        elif is_alumets and (key in AGENT_KEYS or isinstance(value, dict)):
            yield f"[{key}]" if isinstance(value, dict) else key
        else:
            # A table is nearest to a table: [plugin.k8s] means [plugins.k8s].
            yield unknown(key, where, {"plugins"} if _is_nearly_plugins(key, value) else keys)
    for plugin, table in plugins.items() if isinstance(plugins, dict) else [("", plugins)]:
        if not isinstance(table, dict):
            yield refusal(f"plugins.{plugin}".rstrip("."), Given(table, where), "a table, as in an Alumet file")
        elif plugin == "k8s":
            yield from _k8s(f"{where}, [plugins.k8s]", table, keys)
        elif plugin == "opentelemetry":
            yield from _opentelemetry(f"{where}, [plugins.opentelemetry]", table)
        else:
            yield f"[plugins.{plugin}]"


def _k8s(where: str, table: dict[str, object], keys: Collection[str]) -> Iterator[_Entry]:
    for key, value in table.items():
        if key in keys:
            yield key, Given(value, where)
        elif _switches_off(key, value):
            wanted = "false" if key == "disable_sources" else "true"
            allowed = f"{wanted} (to measure nothing, do not run the exporter: it does nothing else)"
            yield refusal(f"plugins.k8s.{key}", Given(value, where), allowed)
        elif key in K8S_KEYS:
            yield f"[plugins.k8s] {key}"
        else:
            yield unknown(key, where, keys)


def _is_nearly_plugins(key: str, value: object) -> bool:
    return isinstance(value, dict) and bool(difflib.get_close_matches(key, ["plugins"], cutoff=0.7))


def _switches_off(key: str, value: object) -> bool:
    """Whether it says that the k8s plugin is not to measure; what is no boolean is refused, too."""
    return (key == "disable_sources" and value is not False) or (key in PLUGIN_KEYS and value is not True)


def _opentelemetry(where: str, table: dict[str, object]) -> Iterator[_Entry]:
    if any(table.get(key) is False for key in PLUGIN_KEYS):  # switched off
        yield "[plugins.opentelemetry]"
        return
    for key, value in table.items():
        if key in OPENTELEMETRY_PASSED_OVER or (key == "add_attributes_to_labels" and value is True):
            yield f"[plugins.opentelemetry] {key}"  # true: as we do anyway
        elif key in OPENTELEMETRY_KEYS:
            host = CollectorHost(value) if key == "collector_host" and isinstance(value, str) else value
            yield OPENTELEMETRY_KEYS[key], Given(host, f"{where} {key}")
        else:
            yield unknown(key, where, {*OPENTELEMETRY_KEYS, *OPENTELEMETRY_PASSED_OVER})


# --- ${NAME} --------------------------------------------------------------------------------------------------------

_VARIABLE = re.compile(r"\$\{(?P<name>[^}]*)(?P<end>\}?)|" + _MARK)
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def _expanded(value: object, environ: Mapping[str, str]) -> object:
    """``value`` with the variables in every string of it replaced; what they hold is not looked at again."""

    def replacement(found: re.Match[str]) -> str:
        if found[0] == _MARK:
            return "${"
        if not found["end"] or _VARIABLE_NAME.fullmatch(found["name"]) is None:
            raise ValueError(r"${NAME} for an environment variable, and \${ for a plain ${")
        if found["name"] not in environ:
            raise Unset(found["name"])
        return environ[found["name"]]

    match value:
        case str():
            # The kind of an endpoint is its class.
            return type(value)(_VARIABLE.sub(replacement, value))
        case dict():
            return {key: _expanded(item, environ) for key, item in value.items()}
        case list():
            return [_expanded(item, environ) for item in value]
    return value


def _unmarked(value: object) -> object:
    return value.replace(_MARK, r"\${") if isinstance(value, str) else value
