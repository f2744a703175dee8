"""What a check can come to."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """As ``--json`` has it."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"
    SKIPPED = "skipped"


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
