"""What a check is, and what can come of it."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.check.bench import Bench


class Status(StrEnum):
    """As ``--json`` has it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


class Check(NamedTuple):
    """A row: ``try_it`` returns the evidence that all is well, or raises one of the below or an ExporterError."""

    group: str
    code: str
    """Stable: the README has a line of that name."""
    what: str
    try_it: Callable[[Bench], str]
    remedy: str
    needs: tuple[str, ...] = ()
    """Codes of checks without which this one cannot be tried."""
    before_install: bool = False
    """Whether ``--pre`` has it."""


class Result(NamedTuple):
    """What came of a check."""

    check: Check
    status: Status
    evidence: str
    remedy: str = ""


class Outcome(Exception):
    """Of a check that did not just succeed. The message is the evidence; ``remedy``: instead of the row's."""

    status = Status.FAILED

    def __init__(self, evidence: str, remedy: str | None = None) -> None:
        super().__init__(evidence)
        self.remedy = remedy


class Failed(Outcome):
    """`run` cannot do its work so."""


class Doubtful(Outcome):
    """`run` works, but not as one would want it to."""

    status = Status.WARNING


class Skipped(Outcome):
    """It cannot be tested here; the message says why."""

    status = Status.SKIPPED
