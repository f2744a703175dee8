"""The table of figures → what is read of each cgroup: which files, one expression a file, and where each value goes.

A plan is compiled once a hierarchy. The shape of a cgroup's files is learned from a reading by the parsers of
``formats``: which files are there, and the keys up to the last one that is wanted, in the kernel's order. While files
have that shape, one expression a file takes the values out; where one has not, the parsers decide again, and report.
"""

from __future__ import annotations

import operator
import os
import re
from dataclasses import dataclass
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from otel_k8s_cgroup.cgroup import formats
from otel_k8s_cgroup.cgroup.files import CHUNK_BYTES, COUNT_BYTES
from otel_k8s_cgroup.errors import CgroupError, MalformedFile
from otel_k8s_cgroup.figures import Format
from otel_k8s_cgroup.model import INT64_MAX

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Literal

    from otel_k8s_cgroup.cgroup.formats import Report, Value
    from otel_k8s_cgroup.figures import Figure, Source

_PARSERS = {
    Format.SINGLE: formats.single,
    Format.PAIR: formats.pair,
    Format.FLAT: formats.flat_keyed,
    Format.NESTED: formats.nested_keyed,
    Format.PRESSURE: formats.pressure,
}

_MOST_SHAPES = 64
"""All cgroups of a node have one or two; this bounds what a tree that is no kernel's can cost."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a file and the figure that it may be: ``rank`` 0 is the figure's first source."""

    figure: int
    rank: int
    factor: int


@dataclass(frozen=True, slots=True)
class PlannedFile:
    """A file that is read, and what is taken out of it."""

    controller: str
    name: str
    format: Format
    cells: tuple[Cell, ...]
    keys: tuple[bytes, ...]
    """The cells' keys …"""
    flat_keys: tuple[bytes, ...]
    """… and those where sums over descendants are not kept (v1, ``memory.use_hierarchy`` = 0)."""
    better: tuple[tuple[int, ...], ...]
    """Of each cell, the numbers of the files that have its figure and come first: it is read where they are absent."""

    def parse(self, data: bytes, path: str, report: Report, *, is_flat: bool) -> list[Value]:
        """The cells' values, each in its figure's unit; None where the file does not have it."""
        found = _PARSERS[self.format](data, self.flat_keys if is_flat else self.keys, path, report)
        return [
            value if cell.factor == 1 else _scaled(value, cell.factor, key, path, report)
            for value, cell, key in zip(found, self.cells, self.keys, strict=True)
        ]


class Plan:
    """What is read of each cgroup of one hierarchy.

    Args:
        figures: those that are wanted; a row has a value of each, in this order.
        version: of the hierarchy.
    """

    def __init__(self, figures: Sequence[Figure], version: Literal[1, 2]) -> None:
        self.width = len(figures)
        sources = [source for figure in figures for source in (figure.v2 if version == 2 else figure.v1)]
        if len(set(sources)) < len(sources):
            raise ValueError("two figures have one source")
        by_file: dict[tuple[str, str, Format], list[tuple[Cell, Source]]] = {}
        for number, figure in enumerate(figures):
            for rank, source in enumerate(figure.v2 if version == 2 else figure.v1):
                cell = Cell(number, rank, source.factor)
                by_file.setdefault((source.controller, source.file, source.format), []).append((cell, source))
        in_order = sorted(by_file.items(), key=lambda item: min(cell.rank for cell, _ in item[1]))
        ranked = [{cell.figure: cell.rank for cell, _ in cells} for _, cells in in_order]
        self.files = tuple(
            PlannedFile(
                *file,
                cells=tuple(cell for cell, _ in cells),
                keys=tuple(source.key.encode() for _, source in cells),
                flat_keys=tuple((source.flat_key or source.key).encode() for _, source in cells),
                better=tuple(
                    tuple(number for number, of in enumerate(ranked) if of.get(cell.figure, cell.rank) < cell.rank)
                    for cell, _ in cells
                ),
            )
            for file, cells in in_order
        )
        self._shapes: dict[tuple[object, ...], Shape] = {}

    def row(self, values: Sequence[Sequence[Value] | None]) -> tuple[Value, ...]:
        """One row of what was parsed of each file; None is a file that is not there. Of several sources of a figure the
        first counts whose file is there.
        """
        row: list[Value] = [None] * self.width
        ranks: dict[int, int] = {}
        for file, found in zip(self.files, values, strict=True):
            for cell, value in zip(file.cells, found or (), strict=found is not None):
                if cell.rank < ranks.get(cell.figure, cell.rank + 1):
                    ranks[cell.figure], row[cell.figure] = cell.rank, value
        return tuple(row)

    def shape(self, contents: Sequence[bytes | None], *, is_flat: bool) -> Shape | None:
        """How files with these contents are read from now on; None where they are not as a kernel's nearly always are.

        Args:
            contents: of each file; None where it is not there.
            is_flat: whether the files' ``flat_keys`` hold.
        """
        layouts: list[_Layout | None] = []
        for file, data in zip(self.files, contents, strict=True):
            layout = None if data is None else _layout(file, data, is_flat=is_flat)
            if layout is None and data is not None:
                return None
            layouts.append(layout)
        key = (is_flat, *layouts)
        shape = self._shapes.get(key)
        if shape is None and len(self._shapes) < _MOST_SHAPES:
            shape = self._shapes[key] = Shape(self, layouts, is_flat=is_flat)
        return shape


class Shape:
    """Files that have a known layout, and how a row is taken out of them with no call but the kernel's."""

    def __init__(self, plan: Plan, layouts: Sequence[_Layout | None], *, is_flat: bool) -> None:
        there = [(number, plan.files[number], layout) for number, layout in enumerate(layouts) if layout is not None]
        self._plan = plan
        self._is_flat = is_flat
        self._singles = [(n, file) for n, file, layout in there if file.format is Format.SINGLE and layout != _MAX]
        self._keyed = [(n, file, layout) for n, file, layout in there if file.format is Format.FLAT]
        apart = {number for number, *_ in (*self._singles, *self._keyed)}
        self._parsed = [(number, file) for number, file, _ in there if number not in apart]
        self._cells = [file.cells[0] for _, file in self._singles]
        self._cells += [cell for _, file, layout in self._keyed for cell in _cells(file, layout, is_flat=is_flat)]
        self._factors = [cell.factor for cell in self._cells]
        self._cells += [cell for _, file in self._parsed for cell in file.cells]
        # A separator that no number has: what one file lacks must not be taken from the next.
        singles = (_digits(file.cells[0]) + rb"\n" for _, file in self._singles)
        self._match_singles = re.compile(b"/".join(singles)).fullmatch
        self._matches = [re.compile(_pattern(file, layout, is_flat=is_flat)).match for _, file, layout in self._keyed]
        self.values = len(set(self._cells))
        """How many it takes."""
        self.is_whole = {*self._cells} >= {cell for file in plan.files for cell in file.cells if cell.rank == 0}
        """Whether each figure's first source is there; if not, it is worth another look now and then."""

    def reader(self, descriptors: Sequence[int]) -> Callable[[], tuple[Value, ...] | None] | None:
        """What reads a row of these files; it gives None where they take a closer look.

        Args:
            descriptors: of the plan's files; -1 is one that is not open. None is returned where one is needed.
        """
        singles = [descriptors[number] for number, _ in self._singles]
        keyed = [(descriptors[number], match) for (number, _, _), match in zip(self._keyed, self._matches, strict=True)]
        parsed = [(descriptors[number], file) for number, file in self._parsed]
        if min([*singles, *(fd for fd, _ in keyed), *(fd for fd, _ in parsed)], default=-1) < 0:
            return None
        pread, match_singles, is_flat = os.pread, self._match_singles, self._is_flat
        factors = self._factors if any(factor != 1 for factor in self._factors) else None
        pick = self._pick()

        def read() -> tuple[Value, ...] | None:
            texts: tuple[Any, ...] = ()
            try:
                if singles:
                    counts = match_singles(b"/".join([pread(fd, COUNT_BYTES, 0) for fd in singles]))
                    if not counts:
                        return None
                    texts = counts.groups()
                for fd, match in keyed:
                    data = pread(fd, CHUNK_BYTES, 0)
                    found = match(data)
                    if not found or len(data) == CHUNK_BYTES:
                        return None
                    texts += found.groups()
                values: list[Value] = [*map(int, texts)]
                if factors:
                    values = [*map(operator.mul, values, factors)]
                for fd, file in parsed:
                    data = pread(fd, CHUNK_BYTES, 0)
                    if len(data) == CHUNK_BYTES:
                        return None
                    values += file.parse(data, file.name, _raise, is_flat=is_flat)
            except (OSError, CgroupError):
                return None
            return pick(values)

        return read

    def _pick(self) -> Callable[[list[Value]], tuple[Value, ...]]:
        """Values in the order of the files → a row. Of several cells of a figure that of the first source counts."""
        best: dict[int, tuple[int, int]] = {}
        for place, cell in enumerate(self._cells):
            best[cell.figure] = min(best.get(cell.figure, (cell.rank, place)), (cell.rank, place))
        width = self._plan.width
        places = [best[figure][1] for figure in range(width) if figure in best]
        absent = [figure for figure in range(width) if figure not in best]
        # itemgetter() gives a tuple only of several.
        take = itemgetter(*places) if len(places) > 1 else lambda values: tuple(values[place] for place in places)
        if not absent:
            return take
        if absent == [*range(len(places), width)]:
            behind = (None,) * len(absent)
            return lambda values: take(values) + behind
        padded = itemgetter(*(best[figure][1] if figure in best else -1 for figure in range(width)), -1)
        return lambda values: padded([*values, None])[:-1]


_Layout = tuple[bytes, ...]
"""The keys of a flat keyed file up to the last one that is wanted, in their order; of other files nothing, or _MAX."""

_MAX: _Layout = (b"max",)
"""Of a file whose values may be ``max``."""


def _raise(error: CgroupError) -> None:
    raise error


def _by_key(file: PlannedFile, *, is_flat: bool) -> dict[bytes, Cell]:
    return dict(zip(file.flat_keys if is_flat else file.keys, file.cells, strict=True))


def _layout(file: PlannedFile, data: bytes, *, is_flat: bool) -> _Layout | None:
    """None where a line that is wanted is not as the kernel writes it."""
    if len(data) >= CHUNK_BYTES:
        return None
    if file.format is Format.SINGLE and data != b"max\n":
        return () if re.fullmatch(_digits(file.cells[0]) + rb"\n", data) else None
    return _keys(file, data, is_flat=is_flat) if file.format is Format.FLAT else _MAX


def _keys(file: PlannedFile, data: bytes, *, is_flat: bool) -> _Layout | None:
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


def _cells(file: PlannedFile, layout: _Layout, *, is_flat: bool) -> list[Cell]:
    """Those of a file's cells that its layout has, in that order."""
    if file.format is not Format.FLAT:
        return list(file.cells)
    by_key = _by_key(file, is_flat=is_flat)
    return [by_key[key] for key in layout if key in by_key]


def _pattern(file: PlannedFile, layout: _Layout, *, is_flat: bool) -> bytes:
    by_key = _by_key(file, is_flat=is_flat)
    return b"".join(
        rb"%b %b\n" % (re.escape(key), _digits(by_key[key]) if key in by_key else rb"[^\n]*+") for key in layout
    )


def _digits(cell: Cell) -> bytes:
    """18 digits always fit an int64; where they are multiplied, so many less."""
    return rb"(\d{1,%d})" % (18 if cell.factor == 1 else 18 - len(str(cell.factor - 1)))


def _scaled(value: Value, factor: int, key: bytes, path: str, report: Report) -> Value:
    if not isinstance(value, int):
        return value
    most = INT64_MAX // factor
    if value > most:
        report(MalformedFile(path, f"{key.decode()} {value}", f"a number of at most {most} is expected"))
        return None
    return value * factor
