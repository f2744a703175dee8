"""What may be written for a setting that chooses: lists of words and patterns, and label selectors. See ``values``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_k8s_cgroup.selectors import LabelSelector
from otel_k8s_cgroup.settings.values import name, text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

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
keys = words(
    r"[A-Za-z0-9*?._/-]{1,317}",
    'a list of keys or patterns of them ("*" for any characters, "?" for one), such as ["app.kubernetes.io/*", "team"]',
)


def choices(known: Sequence[str]) -> Callable[[object], tuple[str, ...]]:
    """A reader of a list of some of ``known``, in any case of their letters; ``"none"`` is an empty list."""
    by_lower = {word.lower(): word for word in known}
    allowed = "a list of " + ", ".join(f'"{word}"' for word in known) + ' (or "none")'
    read_words = words("|".join(map(re.escape, by_lower)), allowed)

    def read(value: object) -> tuple[str, ...]:
        if isinstance(value, str):
            value = [] if value.strip().lower() == "none" else value.lower()
        elif isinstance(value, list):
            value = [word.lower() if isinstance(word, str) else word for word in value]
        return tuple(by_lower[word] for word in read_words(value))

    return read


def pod_selector(value: object) -> str:
    """A label selector as of `kubectl get pods -l`; nothing, or ``""``, selects all pods."""
    selector = text(value).strip()
    LabelSelector(selector)
    return selector


cluster_name = name(r"[^\x00-\x1f\x7f]{0,253}", "a name of at most 253 characters, none of them a control character")
