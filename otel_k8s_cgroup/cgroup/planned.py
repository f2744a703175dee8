"""A file of a cgroup as it is read: what is taken out of it, and how it is parsed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import formats
from otel_k8s_cgroup.errors import MalformedFile
from otel_k8s_cgroup.figures import Format
from otel_k8s_cgroup.model import INT64_MAX

if TYPE_CHECKING:
    from otel_k8s_cgroup.cgroup.formats import Report, Value

_PARSERS = {
    Format.SINGLE: formats.single,
    Format.LIMIT: formats.limit,
    Format.PAIR: formats.pair,
    Format.CPUS: formats.cpus,
    Format.FLAT: formats.flat_keyed,
    Format.NESTED: formats.nested_keyed,
    Format.BLKIO: formats.blkio,
    Format.PRESSURE: formats.pressure,
}


@dataclass(frozen=True, slots=True)
class Cell:
    """A value of a file and the figure that it may be: ``rank`` 0 is the figure's first source."""

    figure: int
    rank: int
    factor: int
    member: str = ""
    """What the ``*`` of the source's file stands for: the key of the value in the figure's mapping."""


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


def _scaled(value: Value, factor: int, key: bytes, path: str, report: Report) -> Value:
    if not isinstance(value, int):
        return value
    most = INT64_MAX // factor
    if value > most:
        report(MalformedFile(path, f"{key.decode()} {value}", f"a number of at most {most} is expected"))
        return None
    return value * factor
