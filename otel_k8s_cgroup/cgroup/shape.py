"""Files as they nearly always are: one expression takes all the values out of all of a cgroup's files.

The shape of a cgroup's files is learned from a reading by the parsers of ``formats``: which files are there, and of
those with keys the keys up to the last one that is wanted, in the kernel's order. While files have that shape, a row
costs one system call a file, one match, and one call that makes numbers of the digits. Where one has not, the parsers
decide again, and report.
"""

from __future__ import annotations

import operator
import os
import re
from operator import itemgetter
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from otel_k8s_cgroup.cgroup.files import CHUNK_BYTES, COUNT_BYTES, SMALL_BYTES
from otel_k8s_cgroup.errors import CgroupError
from otel_k8s_cgroup.figures import Format

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from otel_k8s_cgroup.cgroup.formats import Value
    from otel_k8s_cgroup.cgroup.planned import Cell, PlannedFile

_RAW = (Format.NESTED, Format.BLKIO, Format.CPUS)
"""Formats whose files the parsers take apart, each time that one has changed; they seldom do."""

_PRESSURE_NAMES = (b"avg10", b"avg60", b"avg300", b"total")
_AVERAGE = rb"\d{1,3}\.\d\d"
_PRESSURE_LINE = re.compile(rb"(some|full) avg10=%b avg60=%b avg300=%b total=\d{1,15}\n" % ((_AVERAGE,) * 3))

# From 2⁶² on, which is 4611686018427387904, a limit is none; what has fewer digits is one.
_NO_LIMIT = rb"-1|max|[5-9]\d{18}"


class Layout(NamedTuple):
    """How one file is written."""

    size: int
    """More than it has."""
    keys: tuple[bytes, ...] = ()
    """Of a flat keyed file up to the last one that is wanted, in their order; of a pressure file its lines'."""


def layout(file: PlannedFile, data: bytes, *, is_flat: bool) -> Layout | None:
    """That of ``data``; None where what is wanted of it is not as the kernel nearly always writes it."""
    if file.format in (Format.SINGLE, Format.LIMIT, Format.PAIR):
        known = Layout(COUNT_BYTES)
        return known if re.fullmatch(_expression(file, known, is_flat=is_flat)[0], data) else None
    if len(data) >= CHUNK_BYTES:
        return None
    # Twice as much, and a new line of a device, may come before it has to be learned anew.
    size = SMALL_BYTES if len(data) < SMALL_BYTES // 2 else CHUNK_BYTES
    keys: tuple[bytes, ...] | None = ()
    if file.format is Format.FLAT:
        keys = _flat_keys(file, data, is_flat=is_flat)
    elif file.format is Format.PRESSURE:
        keys = tuple(_PRESSURE_LINE.findall(data))
        if _PRESSURE_LINE.sub(b"", data) or not keys or len(set(keys)) < len(keys):
            keys = None
    return None if keys is None else Layout(size, keys)


def _flat_keys(file: PlannedFile, data: bytes, *, is_flat: bool) -> tuple[bytes, ...] | None:
    if not data.endswith(b"\n"):
        return None  # an empty or cut file does not tell which keys there are
    wanted = _by_key(file, is_flat=is_flat)
    keys: list[bytes] = []
    needed = 0
    for line in data.removesuffix(b"\n").split(b"\n"):
        key, space, value = line.partition(b" ")
        keys.append(key)
        if key in wanted and key not in keys[:needed]:
            if not re.fullmatch(_digits(wanted[key]), value):
                return None
            needed = len(keys)
        elif not space:
            return None
    return tuple(keys[:needed])


class Shape:
    """Files of known layouts, and how a row is taken out of them.

    Args:
        files: of a plan.
        layouts: of each file; None where it is not there.
        width: of the row: how many figures there are.
        is_complete: as ``Plan.is_complete``.
        is_flat: whether the files' ``flat_keys`` hold.
    """

    def __init__(
        self,
        files: Sequence[PlannedFile],
        layouts: Sequence[Layout | None],
        width: int,
        *,
        is_complete: bool,
        is_flat: bool,
    ) -> None:
        there = [(number, files[number], known) for number, known in enumerate(layouts) if known is not None]
        there.sort(key=lambda item: item[1].format in _RAW)
        self._order = [number for number, _, _ in there]
        self._sizes = [known.size for _, _, known in there]
        self._is_flat = is_flat
        self._raw = [(file, known.size) for _, file, known in there if file.format in _RAW]
        self._cells: list[Cell] = []
        """In the order in which the values come: of the expression's groups, then of the files that are parsed."""
        expressions: list[bytes] = []
        for _, file, known in there:
            expression, cells = _expression(file, known, is_flat=is_flat)
            expressions.append(expression)
            self._cells += cells
        self._groups = len(self._cells) - sum(len(file.cells) for file, _ in self._raw)
        # A separator that no file has: what one file lacks must not be taken from the next.
        self._match = re.compile(b"/".join(expressions)).fullmatch
        self._scaled = [place for place, cell in enumerate(self._cells[: self._groups]) if cell.factor != 1]
        self._width = width
        self.values = len(set(self._cells))
        """How many it takes."""
        wanted = {cell for file in files for cell in file.cells if cell.rank == 0}
        self.is_whole = is_complete and wanted <= {*self._cells}
        """Whether each figure's first source is there; if not, it is worth another look now and then."""

    def reader(self, descriptors: Sequence[int]) -> Callable[[], tuple[Value, ...] | None] | None:
        """What reads a row of these files; it gives None where they take a closer look.

        Args:
            descriptors: of the plan's files; -1 is one that is not open. None is returned where one is needed.
        """
        fds = [descriptors[number] for number in self._order]
        if min(fds, default=-1) < 0:
            return None
        pread, match, decode, sizes, starts = os.pread, self._match, _DECODER.decode, self._sizes, (0,) * len(fds)
        groups, parse = self._groups, self._parse if self._raw else None
        scaled = _taker(self._scaled) if self._scaled else None
        factors = [self._cells[place].factor for place in self._scaled]
        pick = self._pick()
        raw: tuple[bytes, ...] = ()
        parsed: list[Value] = []

        def read() -> tuple[Value, ...] | None:
            nonlocal raw, parsed
            try:
                found = match(b"/".join(map(pread, fds, sizes, starts)))
                if not found:
                    return None
                texts = found.groups(b"null")
                # Digits and averages are numbers of JSON, too: half of what an int() or float() of each costs.
                values: list[Any] = decode(b"[%b]" % b",".join(texts[:groups]))
                if scaled:
                    values += map(operator.mul, scaled(values), factors)
                if parse:
                    if texts[groups:] != raw:
                        parsed = parse(texts[groups:])
                        raw = texts[groups:]
                    values += parsed
            except (OSError, CgroupError, msgspec.MsgspecError):
                return None
            values.append(None)
            return pick(values)

        return read

    def _parse(self, contents: Sequence[bytes]) -> list[Value]:
        """Of the files whose format the expression does not go into.

        Raises:
            CgroupError: one is malformed, or longer than what was read of it.
        """
        values: list[Value] = []
        for (file, size), data in zip(self._raw, contents, strict=True):
            if len(data) >= size:
                raise CgroupError(file.name, "is longer than what was read of it")
            values += file.parse(data, file.name, _raise, is_flat=self._is_flat)
        return values

    def _pick(self) -> Callable[[list[Any]], tuple[Value, ...]]:
        """Values as ``read`` has them, with a None behind → a row. Of several of a figure that of the first source
        counts.
        """
        behind = {place: self._groups + number for number, place in enumerate(self._scaled)}
        best: dict[tuple[int, str], tuple[int, int]] = {}
        for number, cell in enumerate(self._cells):
            place = behind.get(number, number) if number < self._groups else number + len(behind)
            known = best.get((cell.figure, cell.member), (cell.rank, place))
            best[cell.figure, cell.member] = min(known, (cell.rank, place))
        end = len(self._cells) + len(behind)
        places = [best.get((figure, ""), (0, end))[1] for figure in range(self._width)]
        mappings: list[tuple[list[str], Callable[[list[Any]], tuple[Any, ...]]]] = []
        for figure in sorted({figure for figure, member in best if member}):
            members = [member for of, member in best if of == figure]
            mappings.append((members, _taker([best[figure, member][1] for member in members])))
            places[figure] = end + len(mappings)
        take = _taker(places)
        if not mappings:
            return take

        def take_all(values: list[Any]) -> tuple[Value, ...]:
            for members, of_members in mappings:
                pairs = zip(members, of_members(values), strict=True)
                values.append({member: value for member, value in pairs if value is not None})
            return take(values)

        return take_all


_DECODER = msgspec.json.Decoder()


def _taker(places: Sequence[int]) -> Callable[[Sequence[Any]], tuple[Any, ...]]:
    """Values → a tuple of those at ``places``. (itemgetter() gives one only of several.)"""
    if len(places) > 1:
        return itemgetter(*places)
    return lambda values: tuple(values[place] for place in places)


def _raise(error: CgroupError) -> None:
    raise error


def _by_key(file: PlannedFile, *, is_flat: bool) -> dict[bytes, Cell]:
    return dict(zip(file.flat_keys if is_flat else file.keys, file.cells, strict=True))


def _expression(file: PlannedFile, known: Layout, *, is_flat: bool) -> tuple[bytes, list[Cell]]:
    """What matches the whole file, and whose value each of its groups is; one group for a file that is parsed."""
    by_key = _by_key(file, is_flat=is_flat)
    if file.format in _RAW:
        return rb"([^/]*)", list(file.cells)
    if file.format in (Format.SINGLE, Format.LIMIT):
        (cell,) = file.cells
        return _or_none(cell, _NO_LIMIT if file.format is Format.LIMIT else b"max") + rb"\n", [cell]
    if file.format is Format.PAIR:
        words = [_or_none(by_key[key], b"max") if key in by_key else rb"(?:\d{1,18}|max)" for key in (b"0", b"1")]
        return b" ".join(words) + rb"\n", _present(by_key, (b"0", b"1"))
    if file.format is Format.PRESSURE:
        keys = [b"%b %b" % (kind, name) for kind in known.keys for name in _PRESSURE_NAMES]
        return b"".join(_pressure_line(kind, by_key) for kind in known.keys), _present(by_key, keys)
    # Not `[^/\n]*`, which takes three times as long: what would take in the separator lacks it behind.
    lines = (rb"%b %b\n" % (re.escape(key), _digits(by_key[key]) if key in by_key else b".*+") for key in known.keys)
    return b"".join(lines) + rb"[^/]*(?<=\n)", _present(by_key, known.keys)


def _present(by_key: dict[bytes, Cell], keys: Iterable[bytes]) -> list[Cell]:
    return [by_key[key] for key in keys if key in by_key]


def _pressure_line(kind: bytes, by_key: dict[bytes, Cell]) -> bytes:
    words = [kind]
    for name in _PRESSURE_NAMES:
        cell = by_key.get(b"%b %b" % (kind, name))
        if name == b"total":
            value = _digits(cell) if cell else rb"\d{1,18}"
        else:
            value = rb"(%b)" % _AVERAGE if cell else _AVERAGE
        words.append(b"%b=%b" % (name, value))
    return b" ".join(words) + rb"\n"


def _or_none(cell: Cell, none: bytes) -> bytes:
    return rb"(?:%b|%b)" % (_digits(cell), none) if cell.factor == 1 else _digits(cell)


def _digits(cell: Cell) -> bytes:
    """18 digits always fit an int64; where they are multiplied, so many less."""
    return rb"(\d{1,%d}+)" % (18 if cell.factor == 1 else 18 - len(str(cell.factor - 1)))
