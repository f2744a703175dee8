"""Readings of the node's entities beside who they are, for who looks at them and does not export them."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.entities import Entities
from otel_k8s_cgroup.known import KnownPods
from otel_k8s_cgroup.model import LeftOut

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.errors import CgroupError, CgroupRootError
    from otel_k8s_cgroup.identity import Describe
    from otel_k8s_cgroup.model import Entity, Pod, Reading

_log = logging.getLogger(__name__)


class ReadErrors:
    """Counts what went wrong with figures, by cause, and says each cause once."""

    def __init__(self) -> None:
        self.by_cause: Counter[str] = Counter()
        self._root_lost = False

    def figure(self, error: CgroupError) -> None:
        """One figure could not be read."""
        if error.cause not in self.by_cause:
            _log.warning("%s; this figure is left out (further ones of this cause are only counted)", error)
        self.by_cause[error.cause] += 1

    def root(self, error: CgroupRootError) -> None:
        """Nothing could be read."""
        self.by_cause[error.cause] += 1
        if not self._root_lost:
            self._root_lost = True
            _log.error("%s; waiting for it", error)

    def read(self) -> None:
        """The root could be read."""
        if self._root_lost:
            self._root_lost = False
            _log.info("the cgroup root is there again")


class Shot(NamedTuple):
    """One reading of an entity."""

    entity: Entity
    reading: Reading


class NodeReader:
    """Reads each entity that runs here, as often as it is asked. Not for several threads.

    Args:
        cgroups: the node's.
        pods: those that are known now.
        left_out: those that the settings leave out.
        describe: makes the entities.
        clock: monotonic nanoseconds.
    """

    def __init__(
        self,
        cgroups: NodeCgroups,
        pods: Callable[[], Sequence[Pod]],
        *,
        describe: Describe,
        left_out: Callable[[], LeftOut] = LeftOut,
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._cgroups = cgroups
        self._pods = pods
        self._left_out = left_out
        self._entities = Entities(describe)
        # Each is named at once: what is looked at is not kept under the name that it had first.
        self._known = KnownPods(wait_ns=0)
        self._running: Collection[str] = ()
        self._clock = clock

    def read(self, report: Callable[[CgroupError], None]) -> list[Shot]:
        """One reading of each entity. ``report`` is given what could not be read; that figure is absent.

        Raises:
            CgroupRootError: the root is no cgroup root (now); the next call tries again.
        """
        self._known.update(self._pods(), self._running, self._clock(), self._left_out())
        self._entities.update(self._known.by_cgroup_uid, self._running)
        on_host = self._known.on_host_network
        readings = self._cgroups.read(self._entities.keys, report, is_last=True, on_host_network=on_host)
        self._running = self._cgroups.found.keys()
        return [Shot(entity, reading) for reading in readings if (entity := self._entities.of(reading)) is not None]
