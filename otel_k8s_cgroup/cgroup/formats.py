"""Bytes of a cgroup file → values: one parser a format.

Each takes the whole file, the keys that are wanted of it, the file's path for messages, and ``report``; it gives the
keys' values in their order. A key that is absent is None, and so is one whose line is malformed, which is reported. The
first line of a key counts.

Formats: https://docs.kernel.org/admin-guide/cgroup-v2.html#format and https://docs.kernel.org/accounting/psi.html.
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from otel_k8s_cgroup.errors import CgroupError, MalformedFile
from otel_k8s_cgroup.model import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

Report: TypeAlias = "Callable[[CgroupError], None]"
Value: TypeAlias = "int | float | Mapping[str, int] | None"

_UNENDED = "the line does not end (truncated?)"
_AVERAGE = re.compile(rb"[0-9]{1,3}\.[0-9]{2}")


def single(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``123\\n``, or ``max\\n``: there is no limit, so there is no number. The key is ``""``."""
    return [_ended(data, path, report, lambda value: _count(value, path, data)) for _ in keys]


def pair(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``cpu.max``: ``QUOTA PERIOD\\n``, the quota may be ``max``. The keys are ``0`` and ``1``."""

    def value(key: bytes, line: bytes) -> int | None:
        values = line.split(b" ")
        if len(values) != 2:
            raise MalformedFile(path, shown(data), "two values are expected")
        return _count(values[int(key)], path, data)

    return [_ended(data, path, report, partial(value, key)) for key in keys]


def flat_keyed(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``KEY VALUE\\n`` a line, as of ``memory.stat``. ``max`` is no number."""
    found: dict[bytes, int | None] = {}
    for line in _lines(data, path, report, keys):
        key, _, value = line.partition(b" ")
        if key in keys and key not in found:
            found[key] = None
            try:
                found[key] = _count(value, path, line)
            except MalformedFile as error:
                report(error)
    return [found.get(key) for key in keys]


def nested_keyed(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``DEVICE KEY=VALUE KEY=VALUE …\\n`` a line, as of ``io.stat``. A key's value is device → number."""
    found: list[dict[str, int]] = [{} for _ in keys]
    for line in _lines(data, path, report, ()):
        device, *pairs = line.split(b" ")
        name = shown(device)
        for each in pairs:
            key, sign, value = each.partition(b"=")
            if sign and key in keys:
                try:
                    number = _count(value, path, line)
                except MalformedFile as error:
                    report(error)
                else:
                    if number is not None:
                        found[keys.index(key)].setdefault(name, number)
    return [by_device or None for by_device in found]


def pressure(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``some avg10=0.00 avg60=0.00 avg300=0.00 total=0\\n``, and a line ``full``. A key is ``some total``.

    Totals are µs, averages percentages of time.
    """
    found: dict[bytes, int | float | None] = {}
    for line in _lines(data, path, report, ()):
        kind, *pairs = line.split(b" ")
        for each in pairs:
            name, _, value = each.partition(b"=")
            key = kind + b" " + name
            if key in keys and key not in found:
                found[key] = None
                try:
                    found[key] = _count(value, path, line) if name == b"total" else _average(value, path, line)
                except MalformedFile as error:
                    report(error)
    return [found.get(key) for key in keys]


def shown(line: bytes) -> str:
    """``line`` for a message."""
    return line[:80].rstrip().decode("utf-8", "backslashreplace")


def _lines(data: bytes, path: str, report: Report, keys: Sequence[bytes]) -> Iterator[bytes]:
    """The lines that end; one that does not is reported where it is one of ``keys`` (none: of any)."""
    # Not splitlines(), for which a carriage return ends a line too.
    *lines, unended = data.split(b"\n")
    seen = set()
    for line in lines:
        seen.add(line.partition(b" ")[0])
        if line:
            yield line
    key = unended.partition(b" ")[0]
    if unended and ((key in keys and key not in seen) or not keys):
        report(MalformedFile(path, shown(unended), _UNENDED))


def _ended(data: bytes, path: str, report: Report, parse: Callable[[bytes], int | None]) -> int | None:
    if not data.endswith(b"\n"):
        report(MalformedFile(path, shown(data), _UNENDED if data else "the file is empty"))
        return None
    try:
        return parse(data[:-1])
    except MalformedFile as error:
        report(error)
        return None


def _count(digits: bytes, path: str, line: bytes) -> int | None:
    if digits == b"max":
        return None
    # int() alone takes b"1_0", b"+1" and b" 1"; the kernel writes none of them.
    if not digits.isdigit():
        raise MalformedFile(path, shown(line), "a whole number is expected")
    # The length first: int() of a megabyte of digits is a denial of service.
    if len(digits) > 19 or (value := int(digits)) > INT64_MAX:
        raise MalformedFile(path, shown(line), f"a number of at most {INT64_MAX} is expected")
    return value


def _average(text: bytes, path: str, line: bytes) -> float:
    if not _AVERAGE.fullmatch(text):
        raise MalformedFile(path, shown(line), "a percentage with two decimals is expected")
    return float(text)
