"""What may be written for a setting that chooses: lists of words and patterns, and label selectors. See ``values``."""

from __future__ import annotations

import difflib
import re
from datetime import timedelta
from typing import TYPE_CHECKING

from otel_k8s_cgroup.selectors import LabelSelector
from otel_k8s_cgroup.settings import values
from otel_k8s_cgroup.settings.values import name, text

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_MOST_WORDS = 100


def words(pattern: str, allowed: str) -> Callable[[object], tuple[str, ...]]:
    """A reader of a list of words that the whole of ``pattern`` matches; where only text can be written, with commas
    between them. A word given twice counts once.
    """
    compiled = re.compile(pattern)

    def read(value: object) -> tuple[str, ...]:
        given = [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value
        if not isinstance(given, list) or len(given) > _MOST_WORDS:
            raise ValueError(allowed)
        if not all(isinstance(word, str) and compiled.fullmatch(word) for word in given):
            raise ValueError(allowed)
        return tuple(dict.fromkeys(given))

    return read


# Of names and keys as the API has them, with "*" for any characters and "?" for one.
namespaces = words(
    r"[a-z0-9*?-]{1,63}",
    'a list of namespaces or patterns of them ("*" for any characters, "?" for one), such as ["team-*", "shop"]',
)
containers = words(
    r"[a-z0-9*?-]{1,63}",
    'a list of names of containers or patterns of them ("*" for any characters, "?" for one), such as ["istio-*"]',
)
keys = words(
    r"[A-Za-z0-9*?._/-]{1,317}",
    'a list of keys or patterns of them ("*" for any characters, "?" for one), such as ["app.kubernetes.io/*", "team"]',
)


def choices(known: Sequence[str], *, least: int = 0, none: bool = False) -> Callable[[object], tuple[str, ...]]:
    """A reader of a list of some of ``known``, in any case of their letters.

    Args:
        known: what is allowed.
        least: how many there have to be.
        none: whether ``"none"`` is an empty list. Only where that is not what the default means.
    """
    by_lower = {word.lower(): word for word in known}
    allowed = "a list of " + ", ".join(f'"{word}"' for word in known) + (' (or "none")' if none else "")
    read_words = words(".*", allowed)

    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = value.lower()
        elif isinstance(value, list):
            value = [word.lower() if isinstance(word, str) else word for word in value]
        given = read_words(value)
        if none and given == ("none",):
            return ()
        for word in given:
            if word not in by_lower:
                raise ValueError(allowed + _nearest(word, by_lower))
        if len(given) < least:
            raise ValueError(allowed)
        return tuple(by_lower[word] for word in given)

    return read


def _nearest(word: str, by_lower: Mapping[str, str]) -> str:
    found = difflib.get_close_matches(word, by_lower, n=1)
    return f'; did you mean "{by_lower[found[0]]}"?' if found else ""


def intervals(known: Sequence[str], longest: timedelta) -> Callable[[object], tuple[tuple[str, timedelta], ...]]:
    """A reader of a table of durations by some of ``known``; nothing is ``""``."""
    names = choices(known)
    duration = values.duration(timedelta(milliseconds=10), longest)

    def read(value: object) -> tuple[tuple[str, timedelta], ...]:
        table = {} if value in ("", []) else values.inline(value)
        if not isinstance(table, dict):
            raise ValueError('a table of groups and durations, such as { memory = "10s" }')  # noqa: TRY004 as the others
        found: dict[str, timedelta] = {}
        for group, interval in table.items():
            (known_name,) = names([group])
            if known_name in found:
                raise ValueError(f'each group once ("{known_name}" is there twice)')
            found[known_name] = duration(interval)
        return tuple(found.items())

    return read


def pod_selector(value: object) -> str:
    """A label selector as of `kubectl get pods -l`; nothing, or ``""``, selects all pods."""
    selector = text(value).strip()
    LabelSelector(selector)
    return selector


cluster_name = name(r"[^\x00-\x1f\x7f]{0,253}", "a name of at most 253 characters, none of them a control character")
