"""Pods and containers that are known against cgroups that are there: reports, once, what does not match."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_log = logging.getLogger(__name__)

_TICKS_WITHOUT_CGROUPS = 2
"""A tick may come between the API's word of a pod and its cgroup."""

UNMATCHED_SECONDS = 60.0
"""How long a cgroup may lack its pod, or a container its cgroup: the API reports one within seconds, or within 30 s of
an outage."""


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
        self._unnamed = _Unmatched()
        self._without_cgroup = _Unmatched()
        self._ticks_without = 0
        self._reported_missing = False

    def update(
        self,
        now_ns: int,
        pods: Collection[str],
        found: Mapping[str, str],
        *,
        excluded: Collection[str] = (),
        hides_others: bool = False,
        containers_without_cgroup: Collection[str] = (),
    ) -> None:
        """One tick's.

        Args:
            now_ns: on the monotonic clock.
            pods: the cgroup uids of the pods that should have a cgroup (``KnownPods.expected``).
            found: as ``NodeCgroups.found_pods``: cgroup uid → path of each pod's cgroup that is there.
            excluded: the cgroup uids of those of ``pods`` that the settings leave out.
            hides_others: as in ``LeftOut``: a cgroup for which no pod is listed is one that they leave out.
            containers_without_cgroup: the keys of containers that are wanted and listed as running, and not found.
        """
        unnamed = found.keys() - pods
        self._report_missing(len(pods), len(found), len(unnamed))
        self.excluded = len(found.keys() & excluded)
        if hides_others:
            self.excluded += len(unnamed)
            unnamed = set()
        self.unnamed = len(unnamed)
        if lasting := self._unnamed.update(now_ns, unnamed):
            _log.warning(
                "cgroups of pods that are not measured: %d; for %g s %s has listed no pod for them (such as %s)",
                len(lasting),
                UNMATCHED_SECONDS,
                self._source,
                found[lasting[0]],
            )
        if lasting := self._without_cgroup.update(now_ns, containers_without_cgroup):
            _log.warning(
                "containers that are not measured: %d; for %g s %s has listed them as running, but they have no cgroup "
                "of their own (such as %s), as where a pod is a virtual machine",
                len(lasting),
                UNMATCHED_SECONDS,
                self._source,
                lasting[0],
            )

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


class _Unmatched:
    """What lacks its counterpart, and since when."""

    def __init__(self) -> None:
        self._since_ns: dict[str, int] = {}
        self._reported = False

    def update(self, now_ns: int, keys: Collection[str]) -> list[str]:
        """Those that have lasted, in order, where that is to be reported: once, until there are none any more."""
        since = self._since_ns
        self._since_ns = {key: since.get(key, now_ns) for key in keys}
        self._reported = self._reported and bool(keys)
        if self._reported:
            return []
        lasting = sorted(
            key for key, since_ns in self._since_ns.items() if now_ns - since_ns >= UNMATCHED_SECONDS * 1e9
        )
        self._reported = bool(lasting)
        return lasting


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
