"""Which entities have a cgroup now, and since when, without walking the tree each time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup.files import is_exhausted, refused
from otel_k8s_cgroup.cgroup.listing import EntityDirectory, Listing
from otel_k8s_cgroup.cgroup.locate import find_parents, subdirectories
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Mapping

    from otel_k8s_cgroup.cgroup.files import OpenFiles
    from otel_k8s_cgroup.errors import CgroupError

# A new parent of pods (a kind node that starts) is looked for this often; while there is none, at every scan.
_DISCOVER_EVERY_NS = 10 * 10**9

# A directory of a cgroup file system has one link more for each directory in it, and two of its own.
_OWN_LINKS = 2


class EntityDirectories:
    """The entities' directories of one hierarchy. The parents of pods are looked for rarely; they and their QoS levels
    are listed where they may hold something new, and names are looked at only where a listing has changed.

    Args:
        hierarchy_root: a mount.
        open_files: lends its spare descriptor where there is no other left.
        kinds: those that are wanted, pods included.
    """

    def __init__(self, hierarchy_root: str, open_files: OpenFiles, kinds: Container[EntityKind]) -> None:
        self._root = hierarchy_root
        self._open_files = open_files
        self._kinds = kinds
        self._identity = self._identify()
        self._parents: dict[str, int | None] = {}
        """Path → its ``absent_ns``."""
        self._discovered_ns = 0
        self._complete_ns: int | None = None
        """The last discovery, if it could list everything."""
        self._scanned_ns: int | None = None
        self._listings: dict[str, Listing] = {}
        self._entities: dict[str, EntityDirectory] = {}
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

    def scan(
        self, now_ns: int, is_read: Container[str], report: Callable[[CgroupError], None]
    ) -> Mapping[str, EntityDirectory]:
        """Key → its directory; the same object as before where nothing has changed.

        A directory that cannot be listed is given to ``report``, and holds what it last did.

        Args:
            now_ns: not after now, on the monotonic clock.
            is_read: the keys of the containers that are read after this. ``ended`` is called for each that is gone.
            report: is given what could not be listed.

        Raises:
            OSError: the root itself cannot be listed.
        """
        if not self._parents or now_ns - self._discovered_ns >= _DISCOVER_EVERY_NS:
            self._discover(now_ns, report)
        if not self._list_all(now_ns, is_read, report):
            # A parent has ended, mostly with all its pods; others may have come.
            self._discover(now_ns, report)
            self._list_all(now_ns, is_read, report)
        self._scanned_ns = now_ns
        return self._entities

    def ended(self, key: str) -> None:
        """The entity's cgroup has ended: where the next scan finds it all the same, it is a new one."""
        if entity := self._entities.get(key):
            if entity.path in self._parents:
                self._parents[entity.path] = self._scanned_ns
                self._listings.pop(entity.path, None)
            elif listing := self._listings.get(entity.path.rpartition("/")[0]):
                listing.forget(entity.path)
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

    def _list_all(self, now_ns: int, is_read: Container[str], report: Callable[[CgroupError], None]) -> bool:
        """Lists the parents, their QoS levels, and their pods; false where a parent has ended."""
        seen: dict[str, Listing] = {}
        self._unlisted_levels = []
        for parent, absent_ns in self._parents.items():
            listing = self._listings.get(parent) or Listing(absent_ns)
            if not self._list(parent, listing, now_ns, is_read, report):
                self._parents[parent] = now_ns  # where it is there again when it is looked for, it is a new one
                continue
            seen[parent] = listing
            for level in listing.levels:
                level_listing = self._listings.get(level.path) or Listing(level.absent_ns)
                if self._list(level.path, level_listing, now_ns, is_read, report):
                    seen[level.path] = level_listing
                else:
                    listing.forget(level.path)  # it ended between the two listings
        if EntityKind.CONTAINER in self._kinds:
            for listing in list(seen.values()):
                for uid, pod in listing.pods:
                    seen[pod.path] = of_pod = self._listings.get(pod.path) or Listing(pod.absent_ns, uid)
                    if not self._list(pod.path, of_pod, now_ns, is_read, report) and of_pod.update(
                        pod.path, set(), now_ns
                    ):
                        # The pod is gone, and may be made anew before it is read: nothing of that is older than now.
                        self._changed = True
        if self._changed or seen.keys() != self._listings.keys():
            self._entities = self._merged(seen)
            for listing in seen.values():
                listing.prove(self._entities)
            self._changed = False
        self._listings = seen
        return self._parents.keys() <= seen.keys()

    def _is_as_listed(self, directory: str, listing: Listing, status: os.stat_result, is_read: Container[str]) -> bool:
        """Whether the directory holds just the directories that it did: all of those are there, and no others.

        An entity that is read proves by that that it is there, and a QoS level by being listed after this. The others
        have to be looked for: a pod's sandboxes one by one, for more than that it is cheaper to list. The kernel mostly
        does not keep the time of a cgroup's last change, so that alone is no proof. In a tree of plain files it is:
        there, what is open can be read on after its end.
        """
        if (
            listing.listed_ns is None
            or status.st_mtime_ns != listing.modified_ns
            or status.st_nlink != _OWN_LINKS + len(listing.directories)
        ):
            return False
        unproven = listing.unproven
        if not all(map(is_read.__contains__, listing.proven)):
            unproven = [*unproven, *(name for key, name in listing.proven.items() if key not in is_read)]
        return not unproven or (
            listing.pod is not None and all(os.access(f"{self._root}{directory}/{name}", os.F_OK) for name in unproven)
        )

    def _list(
        self,
        directory: str,
        listing: Listing,
        now_ns: int,
        is_read: Container[str],
        report: Callable[[CgroupError], None],
    ) -> bool:
        """Lists a directory, but where it cannot hold anything else than it did; false where it is gone."""
        try:
            status = os.stat(self._root + directory)
        except OSError:
            status = None  # listing it says why
        if status is not None and self._is_as_listed(directory, listing, status, is_read):
            listing.confirm(now_ns)
            return True
        try:
            names = self._names(os.listdir if listing.pod is None else subdirectories, directory)
        except FileNotFoundError:
            return False
        except OSError as error:
            report(refused(self._root + directory, error))
            self._unlisted_levels.append(f"{directory}/")
            return True
        listing.modified_ns = None if status is None else status.st_mtime_ns
        if listing.update(directory, set(names), now_ns):
            self._changed = True
        return True

    def _names(self, list_names: Callable[[str], list[str]], directory: str) -> list[str]:
        try:
            return list_names(self._root + directory)
        except OSError as error:
            if not is_exhausted(error):
                raise
            with self._open_files.spare():
                return list_names(self._root + directory)

    def _merged(self, listings: Mapping[str, Listing]) -> dict[str, EntityDirectory]:
        merged = {
            parent: EntityDirectory(EntityKind.NODE, parent, absent_ns)
            for parent, absent_ns in self._parents.items()
            if parent in listings
        }
        for listing in listings.values():
            if listing.pod is not None:
                continue
            for key, entity in listing.entities.items():
                # The same pod under two roots (the kubelet was restarted with another driver or cgroup root): the one
                # that holds containers is alive, the other was left behind.
                if key not in merged or (not self._has_containers(merged[key]) and self._has_containers(entity)):
                    merged[key] = entity
        for pod in list(merged.values()):
            if pod.kind is EntityKind.POD and pod.path in listings:
                merged |= listings[pod.path].entities
        return {key: entity for key, entity in merged.items() if entity.kind in self._kinds}

    def _has_containers(self, pod: EntityDirectory) -> bool:
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
