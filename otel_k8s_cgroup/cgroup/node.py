"""All the pods' cgroups of one node: who is there, since when, and what they use."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.directories import PodDirectories, PodDirectory
from otel_k8s_cgroup.cgroup.locate import Hierarchy, detect
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.errors import CgroupError, CgroupGone, CgroupRootError
from otel_k8s_cgroup.figures import FIGURES, row_type, v1_controllers
from otel_k8s_cgroup.model import INT64_MAX, CgroupRoot, EntityKind, Look, Origin, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping, Sequence

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.figures import Figure
    from otel_k8s_cgroup.model import Stats


class _Tracked:
    """A cgroup that was found, its open files, and what its next reading is compared with."""

    __slots__ = ("directory", "files", "inode", "key", "kind", "origin", "path", "previous_ns", "previous_stats")

    def __init__(self, key: str, pod: PodDirectory, mount: str, files: CgroupReader, before: Stats) -> None:
        born_ns = pod.absent_ns
        self.key = key
        self.kind = EntityKind.POD
        self.path = pod.path
        self.directory = mount + pod.path
        self.files = files
        self.inode: int | None = None
        """Of the directory, at its first reading."""
        self.origin = None if born_ns is None else Origin(True, born_ns, before)
        self.previous_ns = born_ns or 0
        self.previous_stats = before

    def read(self, now_ns: int, report: Callable[[CgroupError], None]) -> Reading:
        """One reading.

        Raises:
            CgroupGone: the cgroup was removed, and perhaps made anew at the same path.
        """
        was_open = self.files.is_open
        stats: Stats = self.previous_stats._make(self.files.read(now_ns, report))
        # After the reading: a directory that is made anew between the two is then noticed, at the next reading.
        if self.inode is None or self.origin is None:
            self.inode = self._inode()
            if self.origin is None:
                self.origin = Origin(False, now_ns, stats, self.inode)
            elif self.origin.inode is None:
                self.origin = replace(self.origin, inode=self.inode)
        elif not was_open and 0 not in (self.inode, inode := self._inode()) and inode != self.inode:
            # An open file belongs to the cgroup that it was opened in; one that was opened just now may be another's.
            raise CgroupGone(self.directory)
        # _make, not Reading(): half of what it costs.
        reading = Reading._make(
            (self.key, self.kind, self.path, self.origin, now_ns, stats, self.previous_ns, self.previous_stats)
        )
        self.previous_ns, self.previous_stats = now_ns, stats
        return reading

    def _inode(self) -> int:
        try:
            return os.stat(self.directory).st_ino & INT64_MAX
        except OSError:
            return 0


class NodeCgroups:
    """The pods' cgroups below ``root`` (``/sys/fs/cgroup``, or any tree of the same shape). Not for several threads.

    Args:
        root: the mount of the hierarchy (v2), or the directory of the controllers' mounts (v1).
        open_files: the bound on descriptors that stay open.
        clock: monotonic nanoseconds.
        figures: what is read of each.
    """

    def __init__(
        self, root: str, *, open_files: OpenFiles, clock: Callable[[], int], figures: Sequence[Figure] = FIGURES
    ) -> None:
        self.root = root.rstrip("/") or "/"
        self._open_files = open_files
        self._clock = clock
        self._hierarchy: Hierarchy | None = None
        self._figures = figures
        self._plans: dict[int, Plan] = {}
        stats = row_type(figures)
        self._nothing: Stats = stats()
        """Before a first reading."""
        self._zero: Stats = stats(**{figure.name: 0 for figure in figures if figure.is_counter})
        """Before the first reading of what was born."""
        self._directories: PodDirectories | None = None
        self._pods: Mapping[str, PodDirectory] = {}
        self._tracked: dict[str, _Tracked] = {}
        self._before: dict[str, _Tracked] = {}
        """What was tracked below a root that was lost."""

    @property
    def hierarchy(self) -> Hierarchy:
        """What the root is.

        Raises:
            CgroupRootError: it is no cgroup root (now).
        """
        if self._hierarchy is None:
            self._hierarchy = detect(self.root, v1_controllers(self._figures))
        return self._hierarchy

    @property
    def plan(self) -> Plan:
        """What is read of each cgroup.

        Raises:
            CgroupRootError: the root is no cgroup root (now).
        """
        version = self.hierarchy.version
        if version not in self._plans:
            self._plans[version] = Plan(self._figures, version)
        return self._plans[version]

    @property
    def found(self) -> dict[str, tuple[str, Origin | None]]:
        """key → path and origin of each cgroup that the last look found, also where it was not wanted.

        The origin is None where it has not been read yet.
        """
        return {key: (tracked.path, tracked.origin) for key, tracked in self._tracked.items()}

    @property
    def look(self) -> Look:
        """What the last look was of, and what it could not see."""
        if self._directories is None or self._hierarchy is None:
            return Look(CgroupRoot(0, 0, 0))
        return Look(CgroupRoot(*self._directories.identity, self._hierarchy.version), self._directories.unlisted)

    def read(self, wanted: Container[str], report: Callable[[CgroupError], None]) -> list[Reading]:
        """One reading of each entity whose key is in ``wanted``; ended ones are forgotten, silently.

        A pod that is not wanted (yet: the API may list it later) is read once where it was there before us, so that its
        CPU time counts from then on; none of its files stays open.

        Args:
            wanted: the keys to read.
            report: is given what could not be read; that figure is None, and nothing else is lost.

        Raises:
            CgroupRootError: the root is no cgroup root, or it was unmounted; the next call tries again.
        """
        directories = self._look(report)
        clock = self._clock
        readings: list[Reading] = []
        for key, tracked in list(self._tracked.items()):
            is_wanted = key in wanted
            if is_wanted or tracked.origin is None:
                try:
                    reading = tracked.read(clock(), report)
                except CgroupGone:
                    again = self._read_again(tracked, report)
                    if again is None:
                        directories.ended(key)
                        continue
                    reading = again
                if is_wanted:
                    readings.append(reading)
            if not is_wanted:
                # Other nodes' pods on one host, as with kind, may never be wanted.
                tracked.files.close()
        return readings

    def close(self) -> None:
        """Closes all files. What is read after that counts on from its first reading."""
        for tracked in self._tracked.values():
            tracked.files.close()
        self._tracked.clear()
        self._before.clear()
        self._hierarchy = self._directories = None
        self._pods = {}

    def _lose_root(self) -> None:
        """What is there when a root comes back was not born meanwhile: it goes on from where it was."""
        before = self._before | self._tracked
        self.close()
        self._before = before

    def _read_again(self, ended: _Tracked, report: Callable[[CgroupError], None]) -> Reading | None:
        """It ended. Where its directory is there all the same, that is a new cgroup of the same pod."""
        self._forget(ended)
        # The new one was not there yet when the old one was last read.
        again = self._track(ended.key, PodDirectory(ended.path, ended.previous_ns if ended.origin else None))
        try:
            return again.read(self._clock(), report)
        except CgroupGone:
            self._forget(again)
            return None

    def _look(self, report: Callable[[CgroupError], None]) -> PodDirectories:
        """Takes up what was born since the last look and forgets what has ended."""
        now_ns = self._clock()
        try:
            directories = self._same_root()
            pods = directories.scan(now_ns, report)
        except OSError as error:
            self._lose_root()
            raise CgroupRootError(self.root, f"cannot be listed: {error.strerror}") from None
        if pods is not self._pods:
            for tracked in list(self._tracked.values()):
                pod = pods.get(tracked.key)
                if pod is None or pod.path != tracked.path:
                    self._forget(tracked)
            for key, pod in pods.items():
                if key not in self._tracked:
                    self._track(key, pod)
            self._pods = pods
        self._before.clear()
        return directories

    def _same_root(self) -> PodDirectories:
        if self._directories is not None and not self._directories.is_same_root():
            self._lose_root()
        if self._directories is None:
            self._directories = PodDirectories(self.hierarchy.listed, self._open_files)
        return self._directories

    def _track(self, key: str, pod: PodDirectory) -> _Tracked:
        hierarchy = self.hierarchy
        directories = {
            controller: None if mount is None else mount + pod.path
            for controller, mount in hierarchy.directories.items()
        }
        files = CgroupReader(self.plan, directories, self._open_files)
        before = self._nothing if pod.absent_ns is None else self._zero
        self._tracked[key] = tracked = _Tracked(key, pod, hierarchy.listed, files, before)
        lost = self._before.get(key)
        if lost is not None and lost.path == pod.path and tracked.origin is None:
            tracked.origin, tracked.previous_ns = lost.origin, lost.previous_ns
        return tracked

    def _forget(self, tracked: _Tracked) -> None:
        tracked.files.close()
        del self._tracked[tracked.key]
