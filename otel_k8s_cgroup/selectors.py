"""What chooses by name or by label: shell patterns, and the label selectors of the Kubernetes API."""

from __future__ import annotations

import fnmatch
import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


class Patterns:
    """Shell patterns: ``*`` stands for any characters, ``?`` for one. No pattern matches nothing."""

    def __init__(self, patterns: Sequence[str]) -> None:
        self._expression = re.compile("|".join(map(fnmatch.translate, patterns))) if patterns else None

    def __bool__(self) -> bool:
        return self._expression is not None

    def match(self, name: str) -> bool:
        """Whether the whole of ``name`` is of one of them; capitals matter."""
        return self._expression is not None and self._expression.match(name) is not None


class Included:
    """Names by patterns of what is included (none: all) and of what is excluded, which wins."""

    def __init__(self, include: Sequence[str], exclude: Sequence[str]) -> None:
        self._include, self._exclude = Patterns(include), Patterns(exclude)

    def __contains__(self, name: str) -> bool:
        return not self._exclude.match(name) and (not self._include or self._include.match(name))


# https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#syntax-and-character-set
_NAME = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY = rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}"
_VALUE = rf"(?:{_NAME})?"
_REQUIREMENT = re.compile(
    rf"\s*(?:!\s*(?P<absent>{_KEY})"
    rf"|(?P<key>{_KEY})(?:\s*(?P<equal>==?|!=)\s*(?P<value>{_VALUE})"
    rf"|\s+(?P<set>in|notin)\s*\((?P<values>\s*{_VALUE}\s*(?:,\s*{_VALUE}\s*)*)\))?)\s*(?:,|\Z)"
)
ALLOWED = (
    'a label selector as of `kubectl get pods -l`, such as "app=web,tier!=cache", "env in (prod, test)", '
    '"env notin (dev)", "app" (has the label) or "!app" (has not)'
)


class _Requirement(NamedTuple):
    key: str
    values: frozenset[str] | None
    """None: any."""
    wanted: bool
    """Whether the label has to have one of the values, or must not: then it may also be absent."""


class LabelSelector:
    """A label selector of the Kubernetes API, to be evaluated here; an empty one matches everything.

    Raises ValueError, whose text says what is allowed, where ``text`` is none.

    Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
    """

    def __init__(self, text: str) -> None:
        self._requirements = tuple(_requirements(text)) if text.strip() else ()

    def __bool__(self) -> bool:
        return bool(self._requirements)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether a pod of these labels meets all that it requires."""
        return all(
            (value is not None and (values is None or value in values)) is wanted
            for key, values, wanted in self._requirements
            for value in (labels.get(key),)
        )


def _requirements(text: str) -> Iterable[_Requirement]:
    position = 0
    while position < len(text) or text.rstrip().endswith(","):
        found = _REQUIREMENT.match(text, position)
        if found is None:
            raise ValueError(ALLOWED)
        position = found.end()
        if found["absent"]:
            yield _Requirement(found["absent"], None, wanted=False)
        elif found["set"]:
            values = frozenset(value.strip() for value in found["values"].split(","))
            yield _Requirement(found["key"], values, wanted=found["set"] == "in")
        elif found["equal"]:
            yield _Requirement(found["key"], frozenset((found["value"],)), wanted=found["equal"] != "!=")
        else:
            yield _Requirement(found["key"], None, wanted=True)
