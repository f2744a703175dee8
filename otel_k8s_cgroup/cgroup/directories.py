"""Which pods have a cgroup now, and since when, without walking the tree each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.cgroup.files import is_exhausted, refused
from otel_k8s_cgroup.cgroup.locate import QOS, find_parents, pod_uid, subdirectories

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.errors import CgroupError

# A new parent of pods (a kind node that starts) is looked for this often; while there is none, at every scan.
_DISCOVER_EVERY_NS = 10 * 10**9


class PodDirectory(NamedTuple):
    """Where a pod's cgroup is, and when it was certainly not there yet."""

    path: str
    """Below the hierarchy's root, with its leading ``/``."""
    absent_ns: int | None
    """The last look (on the monotonic clock) that would have shown it and did not. None where there was none: then it
    may be older than we are."""


class _Listing:
    """A directory that holds pods, as it was when it could last be listed; empty until then."""

    __slots__ = ("absent_ns", "levels", "listed_ns", "names", "pods")

    def __init__(self, absent_ns: int | None) -> None:
        self.absent_ns = absent_ns
        """As in ``PodDirectory``: nothing that is in it is older."""
        self.listed_ns: int | None = None
        self.names: set[str] = set()
        self.levels: dict[str, int | None] = {}
        """A QoS level's path → its ``absent_ns``."""
        self.pods: dict[str, PodDirectory] = {}

    def update(self, directory: str, names: set[str], now_ns: int) -> bool:
        """Takes up a listing; true where it differs from the one before."""
        changed = names != self.names
        if changed:
            absent_ns = self.absent_ns if self.listed_ns is None else self.listed_ns
            levels, pods = self.levels, self.pods
            self.levels, self.pods = {}, {}
            for name in sorted(names):
                path = f"{directory}/{name}"
                if QOS.fullmatch(name):
                    self.levels[path] = levels.get(path, absent_ns)
                elif uid := pod_uid(name):
                    known = pods.get(uid)
                    self.pods[uid] = known if known and known.path == path else PodDirectory(path, absent_ns)
            self.names = names
        self.listed_ns = now_ns
        return changed

    def forget(self, path: str) -> None:
        """Where the next listing has it again, it is new."""
        self.names.discard(path.rpartition("/")[2])
        self.levels.pop(path, None)
        self.pods = {uid: pod for uid, pod in self.pods.items() if pod.path != path}


class PodDirectories:
    """The pods' directories of one hierarchy. The parents are looked for rarely; they and their QoS levels are listed
    at each scan, and names are looked at only where a listing has changed.

    Args:
        hierarchy_root: a mount.
        open_files: lends its spare descriptor where there is no other left.
    """

    def __init__(self, hierarchy_root: str, open_files: OpenFiles) -> None:
        self._root = hierarchy_root
        self._open_files = open_files
        self._identity = self._identify()
        self._parents: dict[str, int | None] = {}
        """Path → its ``absent_ns``."""
        self._discovered_ns = 0
        self._complete_ns: int | None = None
        """The last discovery, if it could look everywhere."""
        self._listings: dict[str, _Listing] = {}
        self._pods: dict[str, PodDirectory] = {}
        self._unlisted_nests: list[str] = []
        self._unlisted_levels: list[str] = []
        self._changed = False

    @property
    def identity(self) -> tuple[int, int]:
        """The root's device and inode; 0 where they are not known."""
        return self._identity or (0, 0)

    @property
    def unlisted(self) -> tuple[str, ...]:
        """As ``Look.unlisted``, of the last scan."""
        return tuple(self._unlisted_nests + self._unlisted_levels)

    def is_same_root(self) -> bool:
        """Whether the root is still what it was: not unmounted, and nothing mounted over it."""
        return self._identity is not None and self._identify() == self._identity

    def scan(self, now_ns: int, report: Callable[[CgroupError], None]) -> Mapping[str, PodDirectory]:
        """uid → its directory; the same object as before where nothing has changed.

        A directory that cannot be listed is given to ``report``, and holds what it last did.

        Raises:
            OSError: the root itself cannot be listed.
        """
        if not self._parents or now_ns - self._discovered_ns >= _DISCOVER_EVERY_NS:
            self._discover(now_ns, report)
        if not self._list_all(now_ns, report):
            # A parent has ended, mostly with all its pods; others may have come.
            self._discover(now_ns, report)
            self._list_all(now_ns, report)
        return self._pods

    def ended(self, uid: str) -> None:
        """The pod's cgroup has ended: where the next scan finds it all the same, it is a new one."""
        if pod := self._pods.get(uid):
            listing = self._listings.get(pod.path.rpartition("/")[0])
            if listing is not None:
                listing.forget(pod.path)
            self._changed = True

    def _discover(self, now_ns: int, report: Callable[[CgroupError], None]) -> None:
        unlisted: list[str] = []

        def failed(directory: str, error: OSError) -> None:
            unlisted.append(f"{directory}/")
            report(refused(self._root + directory, error))

        found = find_parents(lambda directory: self._names(subdirectories, directory), failed)
        found += [parent for parent in self._parents if parent.startswith(tuple(unlisted)) and parent not in found]
        self._parents = {parent: self._parents.get(parent, self._complete_ns) for parent in found}
        self._unlisted_nests = unlisted
        self._discovered_ns = now_ns
        self._complete_ns = None if unlisted else now_ns

    def _list_all(self, now_ns: int, report: Callable[[CgroupError], None]) -> bool:
        """Lists the parents and their QoS levels; false where a parent has ended."""
        seen: dict[str, _Listing] = {}
        self._unlisted_levels = []
        for parent, absent_ns in self._parents.items():
            listing = self._list(parent, absent_ns, now_ns, report)
            if listing is None:
                continue
            seen[parent] = listing
            for level, level_absent_ns in list(listing.levels.items()):
                level_listing = self._list(level, level_absent_ns, now_ns, report)
                if level_listing is None:
                    listing.forget(level)  # it ended between the two listings
                else:
                    seen[level] = level_listing
        if self._changed or seen.keys() != self._listings.keys():
            self._pods = self._merged(seen)
            self._changed = False
        self._listings = seen
        return self._parents.keys() <= seen.keys()

    def _list(
        self, directory: str, absent_ns: int | None, now_ns: int, report: Callable[[CgroupError], None]
    ) -> _Listing | None:
        """None where it is gone."""
        listing = self._listings.get(directory) or _Listing(absent_ns)
        try:
            names = self._names(os.listdir, directory)
        except FileNotFoundError:
            return None
        except OSError as error:
            report(refused(self._root + directory, error))
            self._unlisted_levels.append(f"{directory}/")
            return listing
        if listing.update(directory, set(names), now_ns):
            self._changed = True
        return listing

    def _names(self, list_names: Callable[[str], list[str]], directory: str) -> list[str]:
        try:
            return list_names(self._root + directory)
        except OSError as error:
            if not is_exhausted(error):
                raise
            with self._open_files.spare():
                return list_names(self._root + directory)

    def _merged(self, listings: Mapping[str, _Listing]) -> dict[str, PodDirectory]:
        merged: dict[str, PodDirectory] = {}
        for listing in listings.values():
            for uid, pod in listing.pods.items():
                # The same pod under two roots (the kubelet was restarted with another driver or cgroup root): the one
                # that holds containers is alive, the other was left behind.
                if uid not in merged or (not self._has_containers(merged[uid]) and self._has_containers(pod)):
                    merged[uid] = pod
        return merged

    def _has_containers(self, pod: PodDirectory) -> bool:
        try:
            return bool(self._names(subdirectories, pod.path))
        except OSError:
            return False

    def _identify(self) -> tuple[int, int] | None:
        try:
            status = os.stat(self._root)
        except OSError:
            return None
        return status.st_dev, status.st_ino
