"""Which pod a cgroup is named after, and that it stays so while the cgroup is there."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_k8s_cgroup.kube import claim_refused
from otel_k8s_cgroup.model import LeftOut

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

    A pod's identity stays as it is for the life of its cgroup, since a backend takes another one for another series;
    what may change (``Pod.details``) is as it is listed:

    - A pod is named once its start time is known: the API has that up to seconds after the cgroup is there. Where it is
      not known after ``wait_ns``, it is left out for good.
    - Who a cgroup is named after keeps it while it is there: a static pod's mirror that was made anew has another uid
      and start time, and another pod that claims the cgroup is refused. Only a pod whose own uid it is has precedence.
    - A pod that the settings leave out from now on is not measured; where they no longer do, it is known as it was.
    """

    def __init__(self, wait_ns: int = START_TIME_WAIT_NS) -> None:
        self.by_cgroup_uid: dict[str, Pod] = {}
        self.waiting: dict[str, Pod] = {}
        """cgroup uid → a pod whose own cgroup that is, or will be, and whose start time is not known yet."""
        self.set_aside: dict[str, Pod] = {}
        """cgroup uid → a pod that was known and is left out now, while its cgroup is there."""
        self.on_host_network: frozenset[str] = frozenset()
        """The cgroup uids of those that have no network of their own, where that is asked for."""
        self.refused_claims = 0
        self._wait_ns = wait_ns
        self._listed: Sequence[Pod] = ()
        self._left_out = LeftOut()
        self._settled = True
        """Every pod that is listed is known as it is listed, and no other: nothing changes before the list does."""
        self._since_ns: dict[str, int] = {}
        """When the cgroup of a pod without a start time was first there, by its uid."""
        self._refused: set[str] = set()
        """The uids of pods whose claim was refused."""

    def hold(self, pods: Mapping[str, Pod], *, aside: bool = False) -> None:
        """Whom cgroups that are there (by their uid) were named after by the process before this one.

        ``aside``: they are not measured before they are listed, for some may be left out now.
        """
        (self.set_aside if aside else self.by_cgroup_uid).update(pods)
        self._settled = False

    def update(
        self, listed: Sequence[Pod], running: Collection[str], now_ns: int = 0, left_out: LeftOut | None = None
    ) -> None:
        """One tick's.

        Args:
            listed: at most one for each cgroup uid; the same object where nothing changed.
            running: the uids of the cgroups that were there at the last tick.
            now_ns: on the monotonic clock.
            left_out: whom the settings leave out.
        """
        left_out = left_out or LeftOut()
        same_left_out = left_out.pods is self._left_out.pods and left_out.hides_others == self._left_out.hides_others
        if listed is self._listed and same_left_out and self._settled:
            return
        self._listed, self._left_out = listed, left_out
        holders = {uid: pod for uid, pod in (self.set_aside | self.by_cgroup_uid).items() if uid in running}
        known: dict[str, Pod] = {}
        since_ns: dict[str, int] = {}
        waiting: dict[str, Pod] = {}
        for pod in listed:
            uid = pod.cgroup_uid
            if (holder := holders.get(uid)) is not None and (kept := self._kept(holder, pod)) is not None:
                known[uid] = kept
                continue
            if pod.start_time is None and self._wait_ns:
                if uid in running:
                    since_ns[uid] = self._since_ns.get(uid, now_ns)
                if now_ns - since_ns.get(uid, now_ns) < self._wait_ns:
                    waiting[uid] = pod
                    continue
            known[uid] = pod
        aside = self._aside(holders, known, waiting)
        for uid, pod in holders.items():
            if uid not in aside:
                known.setdefault(uid, pod)
        self.by_cgroup_uid = known
        self.set_aside = aside
        self.waiting = {uid: pod for uid, pod in waiting.items() if pod.uid == uid not in known}
        self.on_host_network = frozenset(
            uid for of in (self.waiting, known) for uid, pod in of.items() if pod.details.host_network
        )
        self._settled = (
            not aside
            and len(known) == len(listed)
            and all((found := known.get(pod.cgroup_uid)) is pod or found == pod for pod in listed)
        )
        self._since_ns = since_ns
        self._refused &= {pod.uid for pod in (*listed, *left_out.pods)}

    def _aside(self, holders: Mapping[str, Pod], known: dict[str, Pod], waiting: Container[str]) -> dict[str, Pod]:
        """Of ``holders`` those that are left out now; takes them from ``known``."""
        aside: dict[str, Pod] = {}
        for pod in self._left_out.pods:
            uid = pod.cgroup_uid
            # Not by a claim: nobody ends the measuring of another's pod.
            if (holder := holders.get(uid)) is not None and (pod.uid == uid or self._is_of(holder, pod)):
                aside[uid] = holder if self._is_of(holder, pod) else pod
                known.pop(uid, None)
        for uid, holder in holders.items():
            if uid not in known and uid not in waiting and (self._left_out.hides_others or uid in self.set_aside):
                aside.setdefault(uid, holder)
        return aside

    def expected(self, found: Container[str]) -> set[str]:
        """The cgroup uids of the pods that are listed, left out or not, that are known, or that wait to be named; of
        those that have finished, which stay listed, only those in ``found``.
        """
        listed = {pod.cgroup_uid: pod for pod in (*self._left_out.pods, *self._listed)}
        pods = listed | self.set_aside | self.by_cgroup_uid
        return {uid for uid, pod in pods.items() if not pod.finished or uid in found}

    @property
    def left_out(self) -> set[str]:
        """The cgroup uids of the pods that the settings leave out, as far as they are or were listed."""
        return ({pod.cgroup_uid for pod in self._left_out.pods} | self.set_aside.keys()) - self.by_cgroup_uid.keys()

    def _kept(self, holder: Pod, pod: Pod) -> Pod | None:
        """Whom a cgroup that is there is named after, where ``holder`` was before; None: it gives way to ``pod``."""
        if self._is_of(holder, pod):
            return holder if holder.details == pod.details else replace(holder, details=pod.details)
        if pod.uid == pod.cgroup_uid != holder.uid:
            return None
        if pod.uid not in self._refused:
            self._refused.add(pod.uid)
            self.refused_claims += 1
            if self.refused_claims <= _MAX_REFUSALS_LOGGED:
                _log.warning("%s", claim_refused(pod, pod.cgroup_uid))
        return holder

    @staticmethod
    def _is_of(holder: Pod, pod: Pod) -> bool:
        """Whether the two are the same pod, as a static pod's mirror that was made anew is."""
        return holder.uid == pod.uid or (holder.namespace, holder.name) == (pod.namespace, pod.name)
