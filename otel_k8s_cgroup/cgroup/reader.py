"""One cgroup's files, read by a plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import formats
from otel_k8s_cgroup.cgroup.files import StatFile
from otel_k8s_cgroup.errors import CgroupGone

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.cgroup.formats import Value
    from otel_k8s_cgroup.cgroup.plan import Plan
    from otel_k8s_cgroup.errors import CgroupError

_RETRY_NS = 60 * 10**9
"""How often a file or key that was never there is looked for: a controller may be enabled later."""


class CgroupReader:
    """Reads the files of one cgroup.

    Args:
        plan: what is read.
        directories: controller → the cgroup's directory, as of ``Hierarchy.directories``.
        open_files: the bound on descriptors that stay open.
    """

    __slots__ = (
        "_absent",
        "_directories",
        "_files",
        "_first",
        "_flat_switch",
        "_for_all",
        "_is_flat",
        "_most_values",
        "_open_files",
        "_plan",
        "_shape",
        "retry_ns",
        "usual",
    )

    def __init__(self, plan: Plan, directories: Mapping[str, str | None], open_files: OpenFiles) -> None:
        self._for_all = plan
        self._directories = directories
        self._open_files = open_files
        self._plan = plan.of(directories)
        self._files = [self._file(planned.controller, planned.name) for planned in self._plan.files]
        self._first = next(controller for controller, directory in directories.items() if directory is not None)
        """The hierarchy that decides whether the cgroup is there; others may lack it, and with it their figures."""
        self._flat_switch = self._file("memory", "memory.use_hierarchy") if "memory" in directories else None
        self._is_flat: bool | None = None
        self._absent: frozenset[int] = frozenset()
        """Numbers of the files that were not there from the first reading on; they are not looked for each time."""
        self.retry_ns: int | None = None
        """When ``usual`` does not hold any more."""
        self._most_values = 0
        self.usual: Callable[[], tuple[Value, ...] | None] | None = None
        """Reads the files as they were at the last reading, where all stayed open and had nothing odd."""

    def _file(self, controller: str, name: str) -> StatFile | None:
        directory = self._directories[controller]
        return None if directory is None else StatFile(f"{directory}/{name}", self._open_files)

    @property
    def nothing(self) -> tuple[None, ...]:
        """A row where nothing is read."""
        return (None,) * self._plan.width

    @property
    def is_open(self) -> bool:
        """Whether a descriptor of the last reading is held, and with it the cgroup that was read then."""
        return self.usual is not None or any(
            file is not None and file.fd >= 0
            for planned, file in zip(self._plan.files, self._files, strict=True)
            if planned.controller == self._first
        )

    def read(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[Value, ...]:
        """A row of the plan. A figure that cannot be had is None, and why is given to ``report``.

        Raises:
            CgroupGone: the cgroup was removed.
        """
        usual = self.usual
        if usual is not None and (self.retry_ns is None or now_ns < self.retry_ns):
            row = usual()
            if row:
                return row
        return self._read_closely(now_ns, report)

    def close(self) -> None:
        """Closes the files; the next reading opens them again."""
        self.usual = None
        for file in self._files:
            if file is not None:
                file.close()

    def _read_closely(self, now_ns: int, report: Callable[[CgroupError], None]) -> tuple[Value, ...]:
        self.usual = None
        if self.retry_ns is not None and now_ns >= self.retry_ns:
            self._absent, self.retry_ns = frozenset(), None
            self._plan_again()
        contents, is_clean = self._contents(report)
        if (self._absent or not self._plan.is_complete) and self.retry_ns is None:
            self.retry_ns = now_ns + _RETRY_NS
        is_flat = self._keeps_no_sums(contents)

        def complain(error: CgroupError) -> None:
            nonlocal is_clean
            is_clean = False
            report(error)

        row = self._plan.row(
            [
                None if data is None or file is None else planned.parse(data, file.path, complain, is_flat=is_flat)
                for planned, file, data in zip(self._plan.files, self._files, contents, strict=True)
            ]
        )
        if is_clean:
            self._learn(contents, now_ns, is_flat=is_flat)
        return row

    def _plan_again(self) -> None:
        """Takes up files whose names were not there when the plan was made."""
        plan = self._for_all.of(self._directories)
        if plan is not self._plan:
            kept = {(of.controller, of.name): file for of, file in zip(self._plan.files, self._files, strict=True)}
            self._plan = plan
            self._files = [
                kept.pop((of.controller, of.name), None) or self._file(of.controller, of.name) for of in plan.files
            ]
            self._most_values = 0

    def _contents(self, report: Callable[[CgroupError], None]) -> tuple[list[bytes | None], bool]:
        """What each file holds, and whether all those that are not read are known to be absent."""
        contents: list[bytes | None] = []
        absent = set(self._absent)
        gone: set[str] = set()
        is_clean = True
        for number, (planned, file) in enumerate(zip(self._plan.files, self._files, strict=True)):
            data = None
            is_needed = any(absent.issuperset(better) for better in planned.better)
            if file is None:
                absent.add(number)
            elif is_needed and number not in absent and planned.controller not in gone:
                try:
                    data = file.read(report)
                except CgroupGone:
                    if planned.controller == self._first:
                        raise
                    gone.add(planned.controller)
                if data is None:
                    if file.is_absent and not file.was_there:
                        absent.add(number)
                    else:
                        is_clean = False
            contents.append(data)
        self._absent = frozenset(absent)
        return contents, is_clean and not gone

    def _learn(self, contents: list[bytes | None], now_ns: int, *, is_flat: bool) -> None:
        shape = self._plan.shape(contents, is_flat=is_flat)
        # What was there before and is missing now is odd: it may be there again at the next reading.
        if shape is None or shape.values < self._most_values:
            return
        self._most_values = shape.values
        if not shape.is_whole and self.retry_ns is None:
            self.retry_ns = now_ns + _RETRY_NS
        self.usual = shape.reader([-1 if file is None else file.fd for file in self._files])

    def _keeps_no_sums(self, contents: list[bytes | None]) -> bool:
        """Whether v1's sums over descendants are not kept; where the file is no more, there is nothing but sums."""
        if self._is_flat is None and any(
            data is not None and planned.flat_keys != planned.keys
            for planned, data in zip(self._plan.files, contents, strict=True)
        ):
            self._is_flat = False
            if self._flat_switch is not None:
                # What is wrong with it shows in the files that are read each tick.
                data = self._flat_switch.read(lambda _error: None)
                self._flat_switch.close()
                self._is_flat = data is not None and formats.single(data, (b"",), "", lambda _error: None) == [0]
        return bool(self._is_flat)
