"""What came of the checks, for a person or a program."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, TextIO

from otel_k8s_cgroup.check.outcomes import Status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from otel_k8s_cgroup.check.model import Result

_SIGNS = {Status.OK: "√", Status.WARNING: "‼", Status.FAILED: "×", Status.SKIPPED: "–"}


def print_text(results: Sequence[Result], redact: Callable[[str], str], out: TextIO) -> None:
    """A line a check with its evidence; below what is wrong, the way out. ``redact`` hides secrets."""
    group = ""
    for result in results:
        check = result.check
        if check.group != group:
            out.write(f"{'' if not group else chr(10)}{check.group}\n")
            group = check.group
        skipped = "skipped: " if result.status is Status.SKIPPED else ""
        out.write(f"  {_SIGNS[result.status]} {check.what}: {skipped}{_line(redact(result.evidence))}\n")
        if result.remedy:
            out.write(f"      {_line(result.remedy)} [{check.code}]\n")
    counts = Counter(result.status for result in results)
    out.write("\n")
    if any(result.remedy for result in results):
        # No link: there is no such file beside the program.
        out.write("For a [code], see the README, section `check`.\n")
    out.write(f"{', '.join(f'{counts[status]} {status}' for status in Status)}\n")


def print_json(results: Sequence[Result], redact: Callable[[str], str], out: TextIO) -> None:
    """One object of the same."""
    checks = [
        {
            "group": result.check.group,
            "code": result.check.code,
            "what": result.check.what,
            "status": str(result.status),
            "evidence": redact(result.evidence),
            "remedy": result.remedy or None,
            "link": _link(result.check.code),
        }
        for result in results
    ]
    failed = any(result.status is Status.FAILED for result in results)
    json.dump({"failed": failed, "checks": checks}, out, indent=2)
    out.write("\n")


def _link(code: str) -> str:
    return f"README.md#check-{code}"


def _line(text: str) -> str:
    """On one line, and nothing that moves a terminal's cursor."""
    return "".join(char if char.isprintable() else "; " if char == "\n" else ascii(char)[1:-1] for char in text)
