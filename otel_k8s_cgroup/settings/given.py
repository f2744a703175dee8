"""A setting as it was found, and the lines a user reads about one that cannot be taken."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.redaction import HIDDEN, hide_shapes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SECRET_KEYS: Final = frozenset({"otlp_headers"})
"""The settings whose values are never shown."""

_SHOWN_CHARACTERS = 100
# A password in a URL that may lack its scheme, or have spaces.
_URL_USER = re.compile(r"^(\w+://)?.*@", re.DOTALL)
# A token put where its file's path belongs.
_PASTED_TOKEN = re.compile(r"(?<![^\s'\"{}\[\],=])(?![/.~]|[\w.-]{1,32}/)[^\s'\"{}\[\],=]{16,}")


@dataclass(frozen=True, slots=True)
class Given:
    """A setting as it was found: ``value`` as written, and ``where``, such as ``"flag --k8s-node"``. ``name``: what it
    is called there, if that is not its key.
    """

    value: object = field(repr=False)
    where: str
    name: str = ""


def refusal(key: str, given: Given, allowed: str) -> SettingsError:
    """The one line about a value that cannot be taken."""
    return SettingsError(given.name or key, f"found {_shown(key, given.value)} ({given.where}); allowed: {allowed}")


def joined(problems: Sequence[SettingsError]) -> SettingsError:
    """One error of several (at least one), each a line of its own."""
    first, *others = problems
    message = str(first).removeprefix(f"{first.key}: ")
    return SettingsError(first.key, "\n".join([message, *map(str, others)]))


def unknown(name: str, where: str, known: Iterable[str]) -> SettingsError:
    """The line about a key that is none, with the nearest one that is."""
    # By cutoff 0 there always is one.
    nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
    return SettingsError(one_line(name), f"unknown setting ({where}); the nearest known one is {nearest}")


def one_line(text: str) -> str:
    """``text`` fit for a line of a log: as it is where it is printable and short."""
    text = hide_shapes(text)  # before it is cut
    return text if text.isprintable() and len(text) <= _SHOWN_CHARACTERS else repr(text[:_SHOWN_CHARACTERS])


def _shown(key: str, value: object) -> str:
    if key in SECRET_KEYS:
        return "a value that is not shown"
    if isinstance(value, str):
        value = _URL_USER.sub(r"\1***@", value)
    text = str(value).lower() if isinstance(value, bool) else hide_shapes(repr(value))  # hidden before it is cut
    if key == "token_retrieval":
        text = _PASTED_TOKEN.sub(HIDDEN, text)
    return text if len(text) <= _SHOWN_CHARACTERS else text[:_SHOWN_CHARACTERS] + "…"
