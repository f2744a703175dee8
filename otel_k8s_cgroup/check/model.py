"""What a check is, and its result."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.check.bench import Bench
    from otel_k8s_cgroup.check.outcomes import Status


class Check(NamedTuple):
    """A row: ``try_it`` returns the evidence that all is well, or raises an ``Outcome`` or an ExporterError."""

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
