"""The pods that are known now: one thread writes, any thread reads the tuple."""

from __future__ import annotations

import logging
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import MalformedObject

from .details import PodReader
from .objects import ListedPod, PodObject, parse_pod, parse_uid

if TYPE_CHECKING:
    from collections.abc import Iterable

    from otel_k8s_cgroup.model import Pod

log = logging.getLogger(__name__)

_MAX_CAUSES_LOGGED = 20
_MAX_PODS = 50_000
"""Of one node, finished ones included (a cluster keeps 12,500 of those); a server that lists more is not believed."""
_MAX_ENDED = 1024
"""How many uids of ended pods are remembered."""


class PodStore:
    """The pods of one node, at most one for each cgroup uid.

    Who has a cgroup uid as its own uid has that cgroup. A static pod's mirror, whose uid is another one, only claims
    it, and its author may be anybody: a claim is believed where no pod has or had that uid itself, and of several
    claimants the one that holds it keeps it while it is listed. See `_preference` for the others.

    Args:
        node: whose pods they are.
        reader: what is read and kept of them, and which of them are measured.
        hides_others: whether the objects are only those that the API server has selected. What is not among them may
            have a cgroup all the same, which another pod may claim: so no claim is believed before a kubelet reports
            of the pod, as nobody else may.
    """

    def __init__(self, node: str, *, reader: PodReader | None = None, hides_others: bool = False) -> None:
        self.node = node
        self.hides_others = hides_others
        self.skipped_objects = 0
        self.refused_claims = 0
        """How many pods claimed a cgroup and were not believed."""
        self._reader = reader or PodReader()
        self._lock = threading.Lock()
        self._by_uid: dict[str, ListedPod] = {}
        self._pods: tuple[Pod, ...] = ()
        self._excluded: tuple[Pod, ...] = ()
        self._changed = False
        self._ended: dict[str, None] = {}
        """The uids of the last pods that were here, oldest first."""
        self._holders: dict[str, tuple[str, str]] = {}
        """cgroup uid → namespace and name of the claimant that was believed."""
        self._refused: set[str] = set()
        """The uids of pods whose claim was refused."""
        self._logged_causes: set[str] = set()

    @property
    def pods(self) -> tuple[Pod, ...]:
        """Those that are measured; the same object until something changes."""
        with self._lock:
            self._settle()
            return self._pods

    @property
    def excluded(self) -> tuple[Pod, ...]:
        """Those that the settings leave out, by their identity alone; the same object until something changes."""
        with self._lock:
            self._settle()
            return self._excluded

    def _settle(self) -> None:
        if not self._changed:
            return
        self._changed = False
        pods: list[Pod] = []
        excluded: list[Pod] = []
        for pod in self._by_cgroup_uid().values():
            (excluded if self._by_uid[pod.uid].excluded else pods).append(pod)
        if tuple(pods) != self._pods:
            self._pods = tuple(pods)
        if tuple(excluded) != self._excluded:
            self._excluded = tuple(excluded)

    def replace(self, objects: Iterable[bytes]) -> None:
        """These and no others are the node's. Where ``objects`` raises while it is read, all stays as it was."""
        by_uid: dict[str, ListedPod] = {}
        for obj in objects:
            listed = self._parse(obj)
            if listed is not None and self._has_room(by_uid, listed):
                by_uid[listed.pod.uid] = listed
        with self._lock:
            for uid in self._by_uid.keys() - by_uid.keys():
                self._remember(uid)
            self._by_uid = by_uid
            self._changed = True

    def put(self, obj: PodObject | bytes) -> None:
        """``obj`` is new or changed."""
        listed = self._parse(obj)
        # Most changes are of what is not read; what is read is put together only once somebody asks for it.
        if listed is not None and self._by_uid.get(listed.pod.uid) != listed and self._has_room(self._by_uid, listed):
            with self._lock:
                self._by_uid[listed.pod.uid] = listed
                self._changed = True

    def remove(self, obj: PodObject | bytes) -> None:
        """``obj`` is gone; its uid is enough."""
        try:
            uid = parse_uid(obj)
        except MalformedObject as error:
            self.skip(error)
            return
        with self._lock:
            if self._by_uid.pop(uid, None) is not None:
                self._remember(uid)
                self._changed = True

    def skip(self, error: MalformedObject) -> None:
        """Counts an object that was passed over, and says why, once a cause."""
        self.skipped_objects += 1
        cause = str(error)
        if cause not in self._logged_causes and len(self._logged_causes) < _MAX_CAUSES_LOGGED:
            self._logged_causes.add(cause)
            log.warning("skipped: %s", cause)

    def _parse(self, obj: PodObject | bytes) -> ListedPod | None:
        try:
            return parse_pod(obj, self.node, reader=self._reader)
        except MalformedObject as error:
            self.skip(error)
            return None

    def _has_room(self, by_uid: dict[str, ListedPod], listed: ListedPod) -> bool:
        if len(by_uid) < _MAX_PODS or listed.pod.uid in by_uid:
            return True
        self.skip(MalformedObject(f"node {self.node!r}: a pod beyond the first {_MAX_PODS}"))
        return False

    def _remember(self, uid: str) -> None:
        self._ended[uid] = None
        if len(self._ended) > _MAX_ENDED:
            del self._ended[next(iter(self._ended))]

    def _by_cgroup_uid(self) -> dict[str, Pod]:
        by_cgroup_uid: dict[str, Pod] = {}
        claims: dict[str, list[ListedPod]] = {}
        refused: list[tuple[ListedPod, str]] = []
        for uid, listed in self._by_uid.items():
            if listed.pod.cgroup_uid == uid:
                by_cgroup_uid[uid] = listed.pod
                if listed.unbelieved is not None:
                    refused.append((listed, listed.unbelieved))
            elif listed.pod.start_time is not None or not self.hides_others:
                claims.setdefault(listed.pod.cgroup_uid, []).append(listed)
        holders: dict[str, tuple[str, str]] = {}
        for cgroup_uid, claimants in claims.items():
            # A mirror that was made anew has the name of the one before, whose end was not heard of.
            by_name = {_name(listed): listed for listed in claimants}
            if cgroup_uid not in self._by_uid and cgroup_uid not in self._ended:
                holder = min(by_name, key=lambda name: self._preference(cgroup_uid, name, by_name[name]))
                by_cgroup_uid[cgroup_uid] = by_name.pop(holder).pod
                holders[cgroup_uid] = holder
            refused += [(listed, cgroup_uid) for listed in by_name.values()]
        self._holders = holders
        self._refused &= self._by_uid.keys()
        for listed, cgroup_uid in refused:
            # What it uses is its own all the same.
            uid = listed.pod.uid
            by_cgroup_uid.setdefault(uid, replace(listed.pod, cgroup_uid=uid, config_hash=None))
            self._refuse(listed.pod, cgroup_uid)
        return by_cgroup_uid

    def _preference(self, cgroup_uid: str, name: tuple[str, str], listed: ListedPod) -> tuple[bool, bool, str]:
        """The least is believed: one of which a kubelet reports, which nobody else may; who holds it; the oldest."""
        return (listed.pod.start_time is None, name != self._holders.get(cgroup_uid), listed.created)

    def _refuse(self, pod: Pod, cgroup_uid: str) -> None:
        if pod.uid in self._refused:
            return
        self._refused.add(pod.uid)
        self.refused_claims += 1
        if self.refused_claims <= _MAX_CAUSES_LOGGED:
            log.warning("%s", claim_refused(pod, cgroup_uid))


def claim_refused(pod: Pod, cgroup_uid: str) -> str:
    """One line for the log."""
    return (
        f"pod {pod.namespace}/{pod.name} claims the cgroup of {cgroup_uid} by its annotations; not believed: it is "
        "another pod's, or the pod is not a static pod's mirror as a kubelet writes it"
    )


def _name(listed: ListedPod) -> tuple[str, str]:
    return listed.pod.namespace, listed.pod.name
