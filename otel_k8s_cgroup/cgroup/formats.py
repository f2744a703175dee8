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
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Report: TypeAlias = "Callable[[CgroupError], None]"
Value: TypeAlias = "int | float | Mapping[str, int] | None"

_UNENDED = "the line does not end (truncated?)"
_AVERAGE = re.compile(rb"[0-9]{1,3}\.[0-9]{2}")
_DEVICE = re.compile(rb"[0-9]{1,10}:[0-9]{1,10}")
_CPUS = re.compile(rb"([0-9]{1,6})(?:-([0-9]{1,6}))?")

NO_LIMIT_FROM = 1 << 62
"""No machine has so many bytes. v1 writes no limit as the most that its counter of pages can hold, in bytes, rounded to
the size of a page: a little less than 2⁶³."""


def single(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``123\\n``, or ``max\\n``: there is no limit, so there is no number. The key is ``""``."""
    return [_ended(data, path, report, lambda value: _count(value, path, data)) for _ in keys]


def limit(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """A limit of v1: ``123\\n``; ``-1\\n`` and what no machine can have mean that there is none. The key is ``""``."""

    def value(digits: bytes) -> int | None:
        if digits == b"-1":
            return None
        number = _count(digits, path, data)
        return None if number is None or number >= NO_LIMIT_FROM else number

    return [_ended(data, path, report, value) for _ in keys]


def cpus(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``0-3,8\\n``: how many these are. None where the list is empty. The key is ``""``."""

    def value(line: bytes) -> int | None:
        count = 0
        for each in line.split(b",") if line else ():
            found = _CPUS.fullmatch(each)
            if not found:
                raise MalformedFile(path, shown(data), "a list of CPUs is expected")
            first = int(found[1])
            count += max(0, int(found[2] or first) - first + 1)
        return count or None

    return [_ended(data, path, report, value) for _ in keys]


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
    """``DEVICE KEY=VALUE KEY=VALUE …\\n`` a line, as of ``io.stat``. A key's value is device → number.

    A device that has no values (yet) may stand without its newline: ``8:0 8:16 rbytes=1 …``.
    """
    *lines, last = data.split(b"\n")
    if last and b"=" not in last:
        data = b"".join(line + b"\n" for line in lines)

    def entries(line: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
        device = b""
        for word in line.split(b" "):
            key, sign, value = word.partition(b"=")
            if not sign:
                device = key or device
            elif key in keys:
                yield key, device, value

    return _by_device(data, keys, path, report, entries)


def blkio(data: bytes, keys: Sequence[bytes], path: str, report: Report) -> list[Value]:
    """``DEVICE OPERATION VALUE\\n`` a line, as of v1's ``blkio.throttle.*``, and last ``Total VALUE``. A key is an
    operation; its value is device → number.
    """

    def entries(line: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
        device, _, rest = line.partition(b" ")
        operation, _, value = rest.partition(b" ")
        if operation in keys:
            yield operation, device, value

    return _by_device(data, keys, path, report, entries)


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


def _by_device(
    data: bytes,
    keys: Sequence[bytes],
    path: str,
    report: Report,
    entries: Callable[[bytes], Iterable[tuple[bytes, bytes, bytes]]],
) -> list[Value]:
    """Each key's mapping of device → number, empty where no device has one; None where one of it is malformed, so that
    a device's counter is never taken for one that starts anew.
    """
    found: dict[bytes, dict[str, int] | None] = {key: {} for key in keys}

    def complain(error: CgroupError, of: Iterable[bytes] = keys) -> None:
        found.update(dict.fromkeys(of))
        report(error)

    for line in _lines(data, path, complain, ()):
        for key, device, value in entries(line):
            try:
                number = _count(value, path, line)
            except MalformedFile as error:
                complain(error, (key,))
            else:
                by_device = found[key]
                # What the kernel has no number of (`(unknown)`: a path of a multipath device) is counted elsewhere too.
                if by_device is not None and number is not None and _DEVICE.fullmatch(device):
                    by_device.setdefault(device.decode(), number)
    return [found[key] for key in keys]


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
