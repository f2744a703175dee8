"""The pods that are known now: one thread writes, any thread reads the tuple."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import MalformedObject

from .objects import parse_pod, parse_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_k8s_cgroup.model import Pod

log = logging.getLogger(__name__)

_MAX_CAUSES_SAID = 20


class PodStore:
    """The pods of one node. ``pods`` is swapped in one assignment, and is the same object until something changes."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.pods: tuple[Pod, ...] = ()
        self.skipped_objects = 0
        self._by_uid: dict[str, Pod] = {}
        self._said: set[str] = set()

    def replace(self, objects: Iterable[object]) -> None:
        """These and no others are the node's. Where ``objects`` raises while it is read, all stays as it was."""
        by_uid = {}
        for obj in objects:
            pod = self._parse(obj)
            if pod is not None:
                by_uid[pod.uid] = pod
        self._by_uid = by_uid
        self._publish()

    def put(self, obj: object) -> None:
        """``obj`` is new or changed."""
        pod = self._parse(obj)
        if pod is not None:
            self._by_uid[pod.uid] = pod
            self._publish()

    def remove(self, obj: object) -> None:
        """``obj`` is gone; its uid is enough."""
        try:
            uid = parse_uid(obj)
        except MalformedObject as error:
            self.skip(error)
        else:
            if self._by_uid.pop(uid, None) is not None:
                self._publish()

    def skip(self, error: MalformedObject) -> None:
        """Counts an object that was passed over, and says why, once a cause."""
        self.skipped_objects += 1
        cause = str(error)
        if cause not in self._said and len(self._said) < _MAX_CAUSES_SAID:
            self._said.add(cause)
            log.warning("skipped: %s", cause)

    def _parse(self, obj: object) -> Pod | None:
        try:
            return parse_pod(obj, self.node)
        except MalformedObject as error:
            self.skip(error)
            return None

    def _publish(self) -> None:
        # A pod whose annotations name another pod's uid (whoever may create pods may write that) must not have that
        # pod's figures: who has a uid by itself keeps it; of two mirrors of one manifest the later one is the live one.
        by_cgroup: dict[str, Pod] = {}
        for pod in self._by_uid.values():
            if pod.cgroup_uid == pod.uid or by_cgroup.get(pod.cgroup_uid, pod).uid != pod.cgroup_uid:
                by_cgroup[pod.cgroup_uid] = pod
        pods = tuple(by_cgroup.values())
        if pods != self.pods:
            self.pods = pods
