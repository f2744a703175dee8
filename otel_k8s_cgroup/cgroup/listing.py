"""What one directory holds: which entities, and since when."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.cgroup.locate import QOS, container_id, pod_uid
from otel_k8s_cgroup.model import EntityKind, container_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping


class EntityDirectory(NamedTuple):
    """Where an entity's cgroup is, and when it was certainly not there yet."""

    kind: EntityKind
    path: str
    """Below the hierarchy's root, with its leading ``/``."""
    absent_ns: int | None
    """The last discovery (on the monotonic clock) that did not find it. None where there was none: then it may be older
    than we are."""


class Listing:
    """A directory that holds entities, as it was when it could last be listed; empty until then.

    Args:
        absent_ns: as in ``EntityDirectory``: nothing that is in it is older.
        pod: the pod's key, where it is a pod's own directory.
    """

    __slots__ = (
        "absent_ns",
        "certain_ns",
        "entities",
        "keys",
        "levels",
        "listed_ns",
        "modified_ns",
        "names",
        "pod",
        "pods",
        "proven",
        "unproven",
    )

    def __init__(self, absent_ns: int | None, pod: str | None = None) -> None:
        self.absent_ns = absent_ns
        self.pod = pod
        self.listed_ns: int | None = None
        self.certain_ns: int | None = None
        """``listed_ns`` if it turns out that what was read is gone."""
        self.modified_ns: int | None = None
        """The directory's own time of its last change, before it was listed."""
        self.names: set[str] = set()
        self.keys: dict[str, str] = {}
        """Of those names that are entities'."""
        self.entities: dict[str, EntityDirectory] = {}
        """By key."""
        self.levels: list[EntityDirectory] = []
        self.pods: list[tuple[str, EntityDirectory]] = []
        self.proven: dict[str, str] = {}
        """Key → name of those that are there as long as they are read."""
        self.unproven: list[str] = []
        """The names of directories that are not read, nor listed."""

    def update(self, directory: str, names: set[str], now_ns: int) -> bool:
        """Takes up a listing; true where it differs from the one before."""
        changed = names != self.names
        if changed:
            absent_ns = self.absent_ns if self.listed_ns is None else self.listed_ns
            entities: dict[str, EntityDirectory] = {}
            self.keys = {}
            for name in sorted(names):
                path = f"{directory}/{name}"
                if (found := self._entity(name, path)) and found[1] not in entities:
                    kind, key = found
                    known = self.entities.get(key)
                    entities[key] = known if known and known.path == path else EntityDirectory(kind, path, absent_ns)
                    self.keys[name] = key
            self._set(entities)
            self.names = names
        self.certain_ns = self.listed_ns = now_ns
        return changed

    def confirm(self, now_ns: int) -> None:
        """It is as it was when it was listed, if all that is read is there."""
        self.certain_ns, self.listed_ns = self.listed_ns, now_ns

    def forget(self, path: str) -> None:
        """Where the next listing has it again, it is new."""
        name = path.rpartition("/")[2]
        self.names.discard(name)
        self.keys.pop(name, None)
        self._set({key: entity for key, entity in self.entities.items() if entity.path != path})
        # It was counted as being there; what has come in its place may have been there instead.
        self.listed_ns = self.certain_ns

    @property
    def directories(self) -> Collection[str]:
        """The names of the directories in it: of a pod's all names, else those of entities."""
        return self.keys if self.pod is None else self.names

    def prove(self, there: Mapping[str, EntityDirectory]) -> None:
        """Works out what proves that it is as it was. ``there``: key → those that count, of all listings."""
        self.proven, self.unproven = {}, []
        for name in self.directories:
            key = self.keys.get(name)
            entity = None if key is None else self.entities.get(key)
            if entity is None:
                self.unproven.append(name)
            elif entity.kind is not EntityKind.QOS:  # which are listed themselves
                # Of a pod under two roots, only what is below the one that counts is read.
                if key is not None and there.get(key) is entity:
                    self.proven[key] = name
                else:
                    self.unproven.append(name)

    def _set(self, entities: dict[str, EntityDirectory]) -> None:
        self.entities = entities
        self.levels = [entity for entity in entities.values() if entity.kind is EntityKind.QOS]
        self.pods = [(key, entity) for key, entity in entities.items() if entity.kind is EntityKind.POD]

    def _entity(self, name: str, path: str) -> tuple[EntityKind, str] | None:
        if self.pod is not None:
            container = container_id(name)
            return (EntityKind.CONTAINER, container_key(self.pod, container)) if container else None
        if QOS.fullmatch(name):
            return EntityKind.QOS, path
        uid = pod_uid(name)
        return (EntityKind.POD, uid) if uid else None
