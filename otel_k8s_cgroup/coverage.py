"""Pods that are known against cgroups that are there: counts what does not match, and reports it once."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_log = logging.getLogger(__name__)

_TICKS_WITHOUT_CGROUPS = 2
"""A tick may come between the API's word of a pod and its cgroup."""

UNNAMED_SECONDS = 60.0
"""How long a pod's cgroup may lack a pod: the API reports one within seconds, or within 30 s of an outage."""


class Coverage:
    """Compares each tick's pods and cgroups. Not for several threads.

    Args:
        root: the cgroup root, for messages.
        source: of the pods, for messages: ``the API``, ``the kubelet``, ….
    """

    def __init__(self, *, root: str, source: str) -> None:
        self.unnamed = 0
        """Pods' cgroups for which no pod is known, at the last tick."""
        self.excluded = 0
        """Pods' cgroups that the settings leave out, at the last tick."""
        self._root = root
        self._source = source
        self._unnamed_since_ns: dict[str, int] = {}
        self._ticks_without = 0
        self._reported_missing = False
        self._reported_unnamed = False

    def update(
        self,
        now_ns: int,
        pods: Collection[str],
        found: Mapping[str, tuple[str, object]],
        *,
        excluded: Collection[str] = (),
        hides_others: bool = False,
    ) -> None:
        """One tick's.

        Args:
            now_ns: on the monotonic clock.
            pods: the cgroup uids of the pods that should have a cgroup (``KnownPods.expected``).
            found: as ``NodeCgroups.found``: cgroup uid → path and origin of each pod's cgroup that is there.
            excluded: the cgroup uids of those of ``pods`` that the settings leave out.
            hides_others: as in ``LeftOut``: a cgroup for which no pod is listed is one that they leave out.
        """
        unnamed = found.keys() - pods
        self._report_missing(len(pods), len(found), len(unnamed))
        self.excluded = len(found.keys() & excluded)
        if hides_others:
            self.excluded += len(unnamed)
            unnamed = set()
        self.unnamed = len(unnamed)
        self._report_unnamed(now_ns, unnamed, found)

    def _report_missing(self, pods: int, found: int, unnamed: int) -> None:
        if not pods or found > unnamed:
            if self._reported_missing:
                _log.info("pods with a cgroup: %d of %d", found - unnamed, pods)
            self._ticks_without = 0
            self._reported_missing = False
            return
        self._ticks_without += 1
        if self._ticks_without >= _TICKS_WITHOUT_CGROUPS and not self._reported_missing:
            self._reported_missing = True
            _log.warning("%s", no_cgroups(pods, found, self._source, self._root))

    def _report_unnamed(self, now_ns: int, unnamed: Collection[str], found: Mapping[str, tuple[str, object]]) -> None:
        since = self._unnamed_since_ns
        if not unnamed:
            since.clear()
            self._reported_unnamed = False
            return
        self._unnamed_since_ns = {uid: since.get(uid, now_ns) for uid in unnamed}
        if self._reported_unnamed:
            return
        lasting = [
            uid for uid, since_ns in self._unnamed_since_ns.items() if now_ns - since_ns >= UNNAMED_SECONDS * 1e9
        ]
        if lasting:
            self._reported_unnamed = True
            _log.warning(
                "cgroups of pods that are not measured: %d; for %g s %s has listed no pod for them (such as %s)",
                len(lasting),
                UNNAMED_SECONDS,
                self._source,
                found[min(lasting)][0],
            )


def no_cgroups(pods: int, found: int, source: str, root: str) -> str:
    """Why no pod that is known is measured: one line with the way out.

    Args:
        pods: how many are known.
        found: how many pods' cgroups are there, all of other pods.
        source: of the pods.
        root: the cgroup root.
    """
    if found:
        return (
            f"none of the pods that {source} lists ({pods}) has a cgroup below {root}, but other pods have ({found}): "
            "is k8s_node this node's name in the cluster?"
        )
    return (
        f"none of the pods that {source} lists ({pods}) has a cgroup below {root}: mount the host's /sys/fs/cgroup "
        "there, or set cgroup_root to where it is"
    )
