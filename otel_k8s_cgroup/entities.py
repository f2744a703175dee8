"""What is measured now, by key: pods as they are known, their containers, and the node's levels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.model import EntityKind, container_key

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Set

    from otel_k8s_cgroup.identity import Describe
    from otel_k8s_cgroup.model import Container, Entity, Pod, Reading


class Entities:
    """key → Entity, one object until something of it changes. Not for several threads.

    Args:
        describe: makes them.
    """

    def __init__(self, describe: Describe) -> None:
        self._describe = describe
        self._pods: Mapping[str, Pod] = {}
        self._containers: dict[str, tuple[Pod, Container]] = {}
        """By key, those that the API lists, and those that it lists no longer but still run."""
        self._known: dict[str, tuple[object, str, Entity]] = {}
        """By key: of whom and of which path it was made."""
        self.keys: Set[str] = frozenset()
        """Of the pods and containers that are measured."""
        self.running_containers: Set[str] = frozenset()
        """The keys of containers that the API lists as running."""

    def update(self, pods: Mapping[str, Pod], running: Collection[str]) -> None:
        """One tick's.

        Args:
            pods: cgroup uid → pod; the same object where nothing changed.
            running: the keys of the cgroups that were there at the last tick.
        """
        if pods is self._pods:
            return
        listed = {
            container_key(uid, container.id): (pod, container)
            for uid, pod in pods.items()
            for container in pod.containers
            if container.id is not None and not container.excluded
        }
        for key, (pod, container) in self._containers.items():
            if key not in listed and key in running and pod.cgroup_uid in pods:
                listed[key] = pods[pod.cgroup_uid], container
        self._pods, self._containers = pods, listed
        self.keys = pods.keys() | listed.keys()
        self.running_containers = {key for key, (_, container) in listed.items() if container.state == "running"}
        self._known = {
            key: known for key, known in self._known.items() if key in pods or key in listed or key in running
        }

    def of(self, reading: Reading) -> Entity | None:
        """Whose reading it is; None where nobody is known for it (yet)."""
        key, path = reading.key, reading.path
        source: Pod | tuple[Pod, Container] | str | None
        if reading.kind is EntityKind.POD:
            source = self._pods.get(key)
        elif reading.kind is EntityKind.CONTAINER:
            source = self._containers.get(key)
        else:
            source = key
        if source is None:
            return None
        known = self._known.get(key)
        if known is not None and known[0] is source and known[1] == path:
            return known[2]
        entity = self._make(reading)
        self._known[key] = source, path, entity
        return entity

    def _make(self, reading: Reading) -> Entity:
        if reading.kind is EntityKind.POD:
            return self._describe.pod(self._pods[reading.key], reading.path)
        if reading.kind is EntityKind.CONTAINER:
            return self._describe.container(*self._containers[reading.key], reading.path)
        return self._describe.level(reading.kind, reading.path, reading.qos_class)

    def of_pod(self, pod: Pod, path: str) -> Entity:
        """One that has ended before it was known for good."""
        return self._describe.pod(pod, path)
