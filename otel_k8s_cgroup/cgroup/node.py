"""All the entities' cgroups of one node: which are there, since when, and what they use."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from otel_k8s_cgroup.cgroup.directories import EntityDirectories
from otel_k8s_cgroup.cgroup.interfaces import Interfaces
from otel_k8s_cgroup.cgroup.listing import EntityDirectory
from otel_k8s_cgroup.cgroup.locate import Hierarchy, detect
from otel_k8s_cgroup.cgroup.network import PROC, NetworkReader, Sight
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.errors import CgroupError, CgroupGone, CgroupRootError
from otel_k8s_cgroup.figures import DEFAULT_FIGURES, row_type, v1_controllers, with_descendants
from otel_k8s_cgroup.model import INT64_MAX, CgroupRoot, Discovery, EntityKind, Origin, Reading

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Container, Mapping, Sequence

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.figures import Figure
    from otel_k8s_cgroup.model import Stats

_new_tuple = tuple.__new__
_ALWAYS_WANTED = frozenset({EntityKind.QOS, EntityKind.NODE})


class _Tracked:
    """A cgroup that was found, its files, and what its next reading is compared with.

    Args:
        key: of the entity.
        found: where it is.
        mount: of the hierarchy that says whether it is there.
        open_files: what reads its files.
        before: the reading before the first one.
    """

    __slots__ = (
        "_files",
        "_open_files",
        "_row",
        "directory",
        "inode",
        "key",
        "kind",
        "origin",
        "path",
        "previous_ns",
        "previous_stats",
    )

    def __init__(
        self,
        key: str,
        found: EntityDirectory,
        mount: str,
        open_files: Callable[[str], list[CgroupReader | NetworkReader]],
        before: Stats,
    ) -> None:
        self.kind, self.path, born_ns = found
        self.key = key
        self.directory = mount + self.path
        self._open_files = open_files
        self._files: list[CgroupReader | NetworkReader] = []
        """One a part; none where it is not read: it may never be."""
        self.inode: int | None = None
        """Of the directory, at its first reading."""
        self.origin = None if born_ns is None else Origin(True, born_ns, before)
        self.previous_ns = born_ns or 0
        self.previous_stats = before
        self._row = type(before)

    def read(self, now_ns: int, report: Callable[[CgroupError], None], due: Collection[int]) -> Reading:
        """One reading of the parts that are ``due``, by their numbers; of all where it is the first one.

        Raises:
            CgroupGone: the cgroup was removed, and perhaps made anew at the same path.
        """
        files = self._files
        if len(files) == 1 and 0 in due and self.inode is not None:
            # As nearly always; an open file belongs to the cgroup that it was opened in.
            (part,) = files
            usual = part.usual
            if usual is not None and (part.retry_ns is None or now_ns < part.retry_ns) and (row := usual()):
                stats: Stats = _new_tuple(self._row, row)
                reading = _new_tuple(
                    Reading,
                    (self.key, self.kind, self.path, self.origin, now_ns, stats, self.previous_ns, self.previous_stats),
                )
                self.previous_ns, self.previous_stats = now_ns, stats
                return reading
        if not files:
            files = self._files = self._open_files(self.path)
        is_first = self.inode is None or self.origin is None
        was_open = False
        values: tuple[Any, ...] = ()
        for number, part in enumerate(files):
            if number in due or is_first:
                was_open = was_open or part.is_open
                values += part.read(now_ns, report)
            else:
                values += part.nothing
        stats = self._row._make(values)
        # After the reading: a directory that is made anew between the two is then noticed, at the next reading.
        if self.inode is None or self.origin is None:
            self.inode = self._inode()
            if self.origin is None:
                self.origin = Origin(False, now_ns, stats, self.inode)
            elif self.origin.inode is None:
                self.origin = replace(self.origin, inode=self.inode)
        elif not was_open and self._is_another():
            # An open file belongs to the cgroup that it was opened in; one that was opened just now may be another's.
            raise CgroupGone(self.directory)
        # _make, not Reading(): half of what it costs.
        reading = Reading._make(
            (self.key, self.kind, self.path, self.origin, now_ns, stats, self.previous_ns, self.previous_stats)
        )
        if 0 in due or is_first:
            self.previous_ns, self.previous_stats = now_ns, stats
        return reading

    def close(self) -> None:
        """Closes its files; the next reading opens them again."""
        for part in self._files:
            part.close()
        self._files = []

    def _is_another(self) -> bool:
        try:
            inode = os.stat(self.directory).st_ino & INT64_MAX
        except OSError as error:
            return isinstance(error, FileNotFoundError)
        return 0 not in (self.inode, inode) and inode != self.inode

    def _inode(self) -> int:
        try:
            return os.stat(self.directory).st_ino & INT64_MAX
        except OSError:
            return 0


class NodeCgroups:
    """The cgroups below ``root`` (``/sys/fs/cgroup``, or any tree of the same shape). Not for several threads.

    An entity that ends between two readings takes with it what it used since the last one: a removed cgroup cannot be
    read. Of a container, its pod's counters have that; of a pod, its QoS level's.

    Args:
        root: the mount of the hierarchy (v2), or the directory of the controllers' mounts (v1).
        open_files: the bound on descriptors that stay open.
        clock: monotonic nanoseconds.
        parts: what is read of each, and at which of the readings: (figures, 1) is read each time, (figures, 3) at every
            third. What rates are made of is in the first part.
        containers: whether the containers of pods are entities, too.
        node_totals: whether ``kubepods`` and the QoS levels below it are.
        proc: where the kernel shows processes.
    """

    def __init__(
        self,
        root: str,
        *,
        open_files: OpenFiles,
        clock: Callable[[], int],
        parts: Sequence[tuple[Sequence[Figure], int]] = ((DEFAULT_FIGURES, 1),),
        containers: bool = False,
        node_totals: bool = False,
        proc: str = PROC,
    ) -> None:
        self._proc = proc
        self._sight = Sight()
        self._on_host_network: Container[str] = ()
        self.root = root.rstrip("/") or "/"
        self._open_files = open_files
        self._clock = clock
        self._hierarchy: Hierarchy | None = None
        self._parts = parts
        self._readings = 0
        self._due: frozenset[int] = frozenset()
        """The parts that this reading reads."""
        figures = [figure for of_part, _ in parts for figure in of_part]
        self._plans: dict[tuple[int, bool], list[Plan]] = {}
        stats = row_type(figures)
        self._nothing: Stats = stats()
        """Before a first reading."""
        self._zero: Stats = stats(**{figure.name: figure.zero for figure in figures if figure.is_counter})
        """Before the first reading of what was born."""
        self._kinds = frozenset(
            [
                EntityKind.POD,
                *([EntityKind.CONTAINER] if containers else []),
                *([EntityKind.QOS, EntityKind.NODE] if node_totals else []),
            ]
        )
        self._directories: EntityDirectories | None = None
        self._entities: Mapping[str, EntityDirectory] = {}
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
            controllers = v1_controllers(figure for figures, _ in self._parts for figure in figures)
            # What is read may be of no cgroup, but the pods are found by theirs.
            self._hierarchy = detect(self.root, controllers or v1_controllers(DEFAULT_FIGURES))
        return self._hierarchy

    def plans(self, kind: EntityKind) -> list[Plan]:
        """What is read of each cgroup of such entities, part by part.

        Raises:
            CgroupRootError: the root is no cgroup root (now).
        """
        version, is_lowest = self.hierarchy.version, kind is EntityKind.CONTAINER
        if (version, is_lowest) not in self._plans:
            self._plans[version, is_lowest] = [
                Plan(figures if is_lowest else with_descendants(figures), version) for figures, _ in self._parts
            ]
        return self._plans[version, is_lowest]

    @property
    def found(self) -> dict[str, tuple[str, Origin | None]]:
        """key → path and origin of each cgroup that the last discovery found, also where it was not wanted.

        The origin is None where it has not been read yet.
        """
        return {key: (tracked.path, tracked.origin) for key, tracked in self._tracked.items()}

    @property
    def found_pods(self) -> dict[str, str]:
        """The pods of ``found``: cgroup uid → path."""
        return {key: tracked.path for key, tracked in self._tracked.items() if tracked.kind is EntityKind.POD}

    @property
    def due(self) -> frozenset[int]:
        """The parts that the last reading read, by their numbers; a first reading of a cgroup has all."""
        return self._due

    @property
    def discovery(self) -> Discovery:
        """What the last discovery was of, and what it could not list."""
        if self._directories is None or self._hierarchy is None:
            return Discovery(CgroupRoot(0, 0, 0), kinds=self._kinds)
        root = CgroupRoot(*self._directories.identity, self._hierarchy.version)
        return Discovery(root, self._directories.unlisted, self._kinds)

    def read(
        self,
        wanted: Container[str],
        report: Callable[[CgroupError], None],
        *,
        is_last: bool = False,
        on_host_network: Container[str] = (),
    ) -> list[Reading]:
        """One reading of each entity whose key is in ``wanted``; ended ones are forgotten, silently.

        A pod or container that is not wanted (yet: the API may list it later) is read once where it was there before
        us, so that its CPU time counts from then on; none of its files stays open.

        Args:
            wanted: the keys of the pods and containers to read. QoS levels and nodes are always wanted.
            report: is given what could not be read; that figure is None, and nothing else is lost.
            is_last: every part is read.
            on_host_network: the keys of pods that have no network of their own, by the API.

        Raises:
            CgroupRootError: the root is no cgroup root, or it was unmounted; the next call tries again.
        """
        self._on_host_network = on_host_network
        self._due = frozenset(
            number for number, (_, every) in enumerate(self._parts) if is_last or self._readings % every == 0
        )
        self._readings += 1
        directories = self._discover(wanted, report)
        readings, ended = self._read_each(list(self._tracked.values()), directories, wanted, report)
        if ended:
            # That discovery did not notice another one in its place; now one does, and nothing proves itself by being
            # read.
            known = {*self._tracked.values()}
            directories = self._discover((), report)
            new = [tracked for tracked in self._tracked.values() if tracked not in known]
            readings += self._read_each(new, directories, wanted, report)[0]
        return readings

    def _read_each(
        self,
        entities: list[_Tracked],
        directories: EntityDirectories,
        wanted: Container[str],
        report: Callable[[CgroupError], None],
    ) -> tuple[list[Reading], bool]:
        """The readings of ``entities`` that are wanted, and whether one has ended."""
        clock = self._clock
        readings: list[Reading] = []
        ended = False
        for tracked in entities:
            is_wanted = tracked.key in wanted or tracked.kind in _ALWAYS_WANTED
            if is_wanted or tracked.origin is None:
                try:
                    reading = tracked.read(clock(), report, self._due)
                except CgroupGone:
                    again = self._read_again(tracked, report)
                    if again is None:
                        directories.ended(tracked.key)
                        ended = True
                        continue
                    reading = again
                if is_wanted:
                    readings.append(reading)
            if not is_wanted:
                # Other nodes' pods on one host, as with kind, and sandboxes may never be wanted.
                tracked.close()
        return readings, ended

    def close(self) -> None:
        """Closes all files. What is read after that counts on from its first reading."""
        for tracked in self._tracked.values():
            tracked.close()
        self._tracked.clear()
        self._before.clear()
        self._hierarchy = self._directories = None
        self._entities = {}

    def _lose_root(self) -> None:
        """What is there when a root comes back was not born meanwhile: it goes on from where it was."""
        before = self._before | self._tracked
        self.close()
        self._before = before

    def _read_again(self, ended: _Tracked, report: Callable[[CgroupError], None]) -> Reading | None:
        """It ended. Where its directory is there all the same, that is a new cgroup of the same entity."""
        self._forget(ended)
        # The new one was not there yet when the old one was last read.
        absent_ns = ended.previous_ns if ended.origin else None
        again = self._track(ended.key, EntityDirectory(ended.kind, ended.path, absent_ns))
        try:
            return again.read(self._clock(), report, self._due)
        except CgroupGone:
            self._forget(again)
            return None

    def _discover(self, wanted: Container[str], report: Callable[[CgroupError], None]) -> EntityDirectories:
        """Takes up what was born since the last discovery and forgets what has ended."""
        now_ns = self._clock()
        try:
            directories = self._same_root()
            entities = directories.scan(now_ns, wanted, report)
        except OSError as error:
            self._lose_root()
            raise CgroupRootError(self.root, f"cannot be listed: {error.strerror}") from None
        if entities is not self._entities:
            for tracked in list(self._tracked.values()):
                found = entities.get(tracked.key)
                if found is None or found.path != tracked.path:
                    self._forget(tracked)
            for key, found in entities.items():
                if key not in self._tracked:
                    self._track(key, found)
            self._entities = entities
        self._before.clear()
        return directories

    def _same_root(self) -> EntityDirectories:
        if self._directories is not None and not self._directories.is_same_root():
            self._lose_root()
        if self._directories is None:
            self._directories = EntityDirectories(self.hierarchy.listed, self._open_files, self._kinds)
        return self._directories

    def _readers(
        self, key: str, kind: EntityKind, interfaces: Interfaces, path: str
    ) -> list[CgroupReader | NetworkReader]:
        directories = {
            controller: None if mount is None else mount + path
            for controller, mount in self.hierarchy.directories.items()
        }
        of_pod = self.hierarchy.listed + path if kind is EntityKind.POD else None
        return [
            NetworkReader(
                figures,
                of_pod,
                self._open_files,
                self._proc,
                sight=self._sight,
                is_on_host=lambda: key in self._on_host_network,
                interfaces=interfaces,
            )
            if all(figure.net_dev is not None for figure in figures)
            else CgroupReader(plan, directories, self._open_files)
            for (figures, _), plan in zip(self._parts, self.plans(kind), strict=True)
        ]

    def _track(self, key: str, found: EntityDirectory) -> _Tracked:
        before = self._nothing if found.absent_ns is None else self._zero
        # What its readers know of it is kept where they are not.
        interfaces = Interfaces(f"{self.hierarchy.listed}{found.path}: net/dev", born=found.absent_ns is not None)
        readers = partial(self._readers, key, found.kind, interfaces)
        self._tracked[key] = tracked = _Tracked(key, found, self.hierarchy.listed, readers, before)
        lost = self._before.get(key)
        if lost is not None and lost.path == found.path and tracked.origin is None:
            tracked.origin, tracked.previous_ns = lost.origin, lost.previous_ns
        return tracked

    def _forget(self, tracked: _Tracked) -> None:
        tracked.close()
        del self._tracked[tracked.key]
