"""The table of figures → what is read of each cgroup: which files, and where each value goes.

A plan is compiled once a hierarchy; ``shape`` says how its files are read fast.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.planned import Cell, PlannedFile
from otel_k8s_cgroup.cgroup.shape import Shape, layout

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Literal

    from otel_k8s_cgroup.cgroup.formats import Value
    from otel_k8s_cgroup.cgroup.shape import Layout
    from otel_k8s_cgroup.figures import Figure, Format, Source


_MOST_SHAPES = 64
"""All cgroups of a node have one or two; this bounds what a tree that is no kernel's can cost."""


class Plan:
    """What is read of each cgroup of one hierarchy.

    Args:
        figures: those that are wanted; a row has a value of each, in this order.
        version: of the hierarchy.
        members: of a source's file with a ``*``, what that stands for, by controller and file.
    """

    def __init__(
        self,
        figures: Sequence[Figure],
        version: Literal[1, 2],
        members: Mapping[tuple[str, str], tuple[str, ...]] | None = None,
    ) -> None:
        self.width = len(figures)
        sources = [source for figure in figures for source in (figure.v2 if version == 2 else figure.v1)]
        if len(set(sources)) < len(sources):
            raise ValueError("two figures have one source")
        members = members or {}
        by_file: dict[tuple[str, str, Format], list[tuple[Cell, Source]]] = {}
        for number, figure in enumerate(figures):
            for rank, source in enumerate(figure.v2 if version == 2 else figure.v1):
                for member in members.get((source.controller, source.file), ()) if "*" in source.file else ("",):
                    cell = Cell(number, rank, source.factor, member)
                    name = source.file.replace("*", member)
                    by_file.setdefault((source.controller, name, source.format), []).append((cell, source))
        in_order = sorted(by_file.items(), key=lambda item: min(cell.rank for cell, _ in item[1]))
        ranked = [{(cell.figure, cell.member): cell.rank for cell, _ in cells} for _, cells in in_order]
        self.files = tuple(
            PlannedFile(
                *file,
                cells=tuple(cell for cell, _ in cells),
                keys=tuple(source.key.encode() for _, source in cells),
                flat_keys=tuple((source.flat_key or source.key).encode() for _, source in cells),
                better=tuple(
                    tuple(
                        number
                        for number, of in enumerate(ranked)
                        if of.get((cell.figure, cell.member), cell.rank) < cell.rank
                    )
                    for cell, _ in cells
                ),
            )
            for file, cells in in_order
        )
        self._figures = figures
        self._version = version
        self._starred = tuple(dict.fromkeys((of.controller, of.file) for of in sources if "*" in of.file))
        self.is_complete = all(members.get(file) for file in self._starred)
        """Whether it is known what each ``*`` stands for."""
        self._shapes: dict[tuple[object, ...], Shape] = {}
        self._with_members: dict[tuple[tuple[str, ...], ...], Plan] = {}

    def of(self, directories: Mapping[str, str | None]) -> Plan:
        """The plan of a cgroup, with what each ``*`` stands for there; this one where its files have none.

        Args:
            directories: controller → the cgroup's directory, as of ``Hierarchy.directories``.
        """
        if not self._starred:
            return self
        members = tuple(_members(directories.get(controller), file) for controller, file in self._starred)
        plan = self._with_members.get(members)
        if plan is None:
            plan = Plan(self._figures, self._version, dict(zip(self._starred, members, strict=True)))
            if len(self._with_members) < _MOST_SHAPES:
                self._with_members[members] = plan
        return plan

    def row(self, values: Sequence[Sequence[Value] | None]) -> tuple[Value, ...]:
        """One row of what was parsed of each file; None is a file that is not there. Of several sources of a figure the
        first counts whose file is there.
        """
        row: list[Value] = [None] * self.width
        ranks: dict[tuple[int, str], int] = {}
        mappings: dict[int, dict[str, int] | None] = {}
        for file, found in zip(self.files, values, strict=True):
            for cell, value in zip(file.cells, found or (), strict=found is not None):
                key = (cell.figure, cell.member)
                if cell.rank >= ranks.get(key, cell.rank + 1):
                    continue
                ranks[key] = cell.rank
                if not cell.member:
                    row[cell.figure] = value
                    continue
                mapping = mappings.setdefault(cell.figure, {})
                if isinstance(value, int) and mapping is not None:
                    mapping[cell.member] = value
                elif self._figures[cell.figure].is_counter and found is not None:
                    # A member that is missing once would be taken for one that starts anew.
                    mappings[cell.figure] = None
        for figure, mapping in mappings.items():
            row[figure] = mapping
        return tuple(row)

    def shape(self, contents: Sequence[bytes | None], *, is_flat: bool) -> Shape | None:
        """How files with these contents are read from now on; None where they are not as a kernel's nearly always are.

        Args:
            contents: of each file; None where it is not there.
            is_flat: whether the files' ``flat_keys`` hold.
        """
        layouts: list[Layout | None] = []
        for file, data in zip(self.files, contents, strict=True):
            known = None if data is None else layout(file, data, is_flat=is_flat)
            if known is None and data is not None:
                return None
            layouts.append(known)
        key = (is_flat, *layouts)
        shape = self._shapes.get(key)
        if shape is None and len(self._shapes) < _MOST_SHAPES:
            shape = self._shapes[key] = Shape(
                self.files, layouts, self.width, is_complete=self.is_complete, is_flat=is_flat
            )
        return shape


def _members(directory: str | None, file: str) -> tuple[str, ...]:
    """What the ``*`` of ``file`` stands for in a directory; a name with a dot is of another file: ``2MB.rsvd``."""
    before, _, after = file.partition("*")
    try:
        names = os.listdir(directory) if directory is not None else []
    except OSError:
        return ()  # it was removed, as the next reading notices
    found = {name[len(before) : -len(after)] for name in names if name.startswith(before) and name.endswith(after)}
    return tuple(sorted(member for member in found if member and "." not in member))
