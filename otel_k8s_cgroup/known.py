"""Which pod a cgroup is named after, and that it stays so while the cgroup is there."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from otel_k8s_cgroup.kube import claim_refused

if TYPE_CHECKING:
    from collections.abc import Collection, Container, Mapping, Sequence

    from otel_k8s_cgroup.model import Pod

_log = logging.getLogger(__name__)

START_TIME_WAIT_NS = 15 * 10**9
"""Longer than between two lists where there is no watch."""

_MAX_REFUSALS_LOGGED = 20


class KnownPods:
    """cgroup uid → Pod: the pods that are listed, and those that are listed no longer but still run.

    (A pod that is deleted by force is gone from the API before its processes are.)

    A pod's Resource stays as it is for the life of its cgroup, since a backend takes another one for another series:

    - A pod is named once its start time is known: the API has that up to seconds after the cgroup is there. Where it is
      not known after ``wait_ns``, it is left out for good.
    - Who a cgroup is named after keeps it while it is there: a static pod's mirror that was made anew has another uid
      and start time, and another pod that claims the cgroup is refused. Only a pod whose own uid it is has precedence.
    """

    def __init__(self, wait_ns: int = START_TIME_WAIT_NS) -> None:
        self.by_cgroup_uid: dict[str, Pod] = {}
        self.waiting: dict[str, Pod] = {}
        """cgroup uid → a pod whose own cgroup that is, or will be, and whose start time is not known yet."""
        self.refused_claims = 0
        self._wait_ns = wait_ns
        self._listed: Sequence[Pod] = ()
        self._settled = True
        """Every pod that is listed is known as it is listed, and no other: nothing changes before the list does."""
        self._since_ns: dict[str, int] = {}
        """When the cgroup of a pod without a start time was first there, by its uid."""
        self._refused: set[str] = set()
        """The uids of pods whose claim was refused."""

    def hold(self, pods: Mapping[str, Pod]) -> None:
        """Whom cgroups that are there (by their uid) were named after by the process before this one."""
        self.by_cgroup_uid.update(pods)
        self._settled = False

    def update(self, listed: Sequence[Pod], running: Collection[str], now_ns: int = 0) -> None:
        """One tick's.

        Args:
            listed: at most one for each cgroup uid; the same object where nothing changed.
            running: the uids of the cgroups that were there at the last tick.
            now_ns: on the monotonic clock.
        """
        if listed is self._listed and self._settled:
            return
        self._listed = listed
        known: dict[str, Pod] = {}
        since_ns: dict[str, int] = {}
        waiting: dict[str, Pod] = {}
        for pod in listed:
            uid = pod.cgroup_uid
            holder = self.by_cgroup_uid.get(uid) if uid in running else None
            if holder is not None and not self._gives_way(holder, pod):
                known[uid] = holder
                continue
            if pod.start_time is None and self._wait_ns:
                if uid in running:
                    since_ns[uid] = self._since_ns.get(uid, now_ns)
                if now_ns - since_ns.get(uid, now_ns) < self._wait_ns:
                    waiting[uid] = pod
                    continue
            known[uid] = pod
        for uid, pod in self.by_cgroup_uid.items():
            if uid in running:
                known.setdefault(uid, pod)
        self.by_cgroup_uid = known
        self.waiting = {uid: pod for uid, pod in waiting.items() if pod.uid == uid not in known}
        self._settled = len(known) == len(listed) and all(known.get(pod.cgroup_uid) == pod for pod in listed)
        self._since_ns = since_ns
        self._refused &= {pod.uid for pod in listed}

    def expected(self, found: Container[str]) -> set[str]:
        """The cgroup uids of the pods that are known or wait to be named; of those that have finished, which stay
        listed, only those in ``found``.
        """
        pods = {pod.cgroup_uid: pod for pod in self._listed} | self.by_cgroup_uid
        return {uid for uid, pod in pods.items() if not pod.finished or uid in found}

    def _gives_way(self, holder: Pod, pod: Pod) -> bool:
        if holder.uid == pod.uid or (holder.namespace, holder.name) == (pod.namespace, pod.name):
            return False
        if pod.uid == pod.cgroup_uid != holder.uid:
            return True
        if pod.uid not in self._refused:
            self._refused.add(pod.uid)
            self.refused_claims += 1
            if self.refused_claims <= _MAX_REFUSALS_LOGGED:
                _log.warning("%s", claim_refused(pod, pod.cgroup_uid))
        return False
