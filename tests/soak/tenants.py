"""What a tenant who may create pods writes to look like a static pod.

A kubelet creates the mirror of a static pod: with the hash of its manifest in two annotations that are equal, owned by
its Node, and named after it. Whatever lacks one of these marks claims a cgroup that is not its own; so does a pod with
all of them that claims the uid of a pod of its own.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.fakes import kube_api

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence

    from tests.soak.node import SoakPod

_MOST = 4
_CONFIG = "kubernetes.io/config."

Metadata = dict[str, Any]


def forged(chance: random.Random, node: str, cgroup_uid: str) -> tuple[str, Metadata]:
    """A mirror that lacks one mark, and which."""
    metadata = kube_api.mirror(cgroup_uid, node=node)
    annotations, owner = metadata["annotations"], metadata["ownerReferences"][0]
    flaw = chance.choice(["source alone", "no mirror", "another mirror", "no owner", "no node", "another node"])
    match flaw:
        case "source alone":
            metadata = {"annotations": {key: annotations[key] for key in (f"{_CONFIG}hash", f"{_CONFIG}source")}}
        case "no mirror":
            del annotations[f"{_CONFIG}mirror"]
        case "another mirror":
            annotations[f"{_CONFIG}mirror"] = uuid.UUID(int=chance.getrandbits(128)).hex
        case "no owner":
            del metadata["ownerReferences"]
        case "no node":
            owner["kind"] = "ReplicaSet"
        case "another node":
            owner["name"] = f"another-{node}"
    return flaw, metadata


class Tenants:
    """Creates and deletes pods that have no cgroup, and claim one.

    Args:
        api: where they are created.
        node: its name, which is in theirs.
        chance: decides.
        pods: those of the node that can be claimed.
    """

    def __init__(
        self, api: kube_api.KubeApi, node: str, chance: random.Random, pods: Callable[[], Sequence[SoakPod]]
    ) -> None:
        self.counts: Counter[str] = Counter()
        """By what is wrong with them."""
        self._api = api
        self._node = node
        self._chance = chance
        self._pods = pods
        self._names: list[str] = []
        self._next = 0.0

    def step(self) -> None:
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + self._chance.uniform(0.3, 3)
        if len(self._names) >= self._chance.randrange(_MOST) + 1:
            self._api.delete(self._names.pop(self._chance.randrange(len(self._names))))
        elif pods := self._pods():
            self._create(self._chance.choice(pods))

    def _create(self, victim: SoakPod) -> None:
        name = f"thief-{sum(self.counts.values())}"
        flaw, metadata = forged(self._chance, self._node, victim.cgroup_uid)
        if self._chance.random() < 0.3 and not victim.is_static:
            # It belongs to a pod of its own, so not even a mirror without a flaw may have it.
            flaw, metadata = "uid of a pod", kube_api.mirror(victim.cgroup_uid, node=self._node)
        elif self._chance.random() < 0.3:
            flaw, metadata = "name", kube_api.mirror(victim.cgroup_uid, node=self._node)
        suffix = "" if flaw == "name" else f"-{self._node}"
        self.counts[flaw] += 1
        self._names.append(name + suffix)
        self._api.add(kube_api.pod(name + suffix, node=self._node, **metadata))
