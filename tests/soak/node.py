"""The node: its pods in a tree of files and in the API, and what each has truly used.

What is by nature lost is not in the truth, because it does not happen here:

- A pod's counter stands still for some time before its cgroup is removed, until the exporter that runs, which knows the
  pod, has read it (the file's own access time says so, exactly). Nothing is removed while no exporter runs.
- What is there when a root comes back is by contract not taken for new: so nothing is born while it is unmounted or has
  not been seen since, and what is born is seen before it is unmounted.
- No exporter is ended before the last reading of each pod that has ended has arrived, nor is a receiver that rejects it
  for good put before it.
"""

from __future__ import annotations

import time
import uuid
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from tests.fakes import kube_api
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.soak.arrivals import Absence, Series
from tests.soak.tenants import forged

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

NODE = "soak-node"
FEWEST, MOST = 5, 14
GARBAGE = (
    b"",
    b"usage_usec",
    b"usage_usec 12",
    b"usage_usec -5\nuser_usec -1\nsystem_usec -0\n",
    b"usage_usec 99999999999999999999999\n",
    b"\xff\xfe\x00garbage\n",
    b"user_usec x\n" * 2000,
)


@dataclass(eq=False)
class SoakPod:
    """One cgroup's life."""

    name: str
    uid: str
    cgroup_uid: str
    path: str
    figures: Figures
    garbage: bool = False
    told: bool = False
    """Whether the API server has it (which may not reach the exporter)."""
    frozen_ns: int = 0
    """Since when it uses nothing, on the wall clock; 0: it is alive."""
    read_since: int = 0
    """How often its frozen counter was read by the process that runs."""
    forced: bool = False
    """The API forgets it before its cgroup is removed."""

    @property
    def is_static(self) -> bool:
        return self.cgroup_uid != self.uid


class _Absent(NamedTuple):
    """A static pod whose manifest will be put back."""

    pod: SoakPod
    from_ns: int
    at_tick: int
    """The canary's tick since which the exporter can have seen that it is gone."""


@dataclass
class Node:
    """Drives pods at random. ``step`` is called often; what it does depends on what is allowed at the time."""

    api: kube_api.KubeApi
    mount: Path
    chance: random.Random
    newest_ns: Callable[[str], int]
    """Of a cgroup's path: the time of its newest point that has arrived."""
    log: Callable[[str], None]
    forges: bool = True
    """Whether some pods claim the cgroups of others."""
    pods: list[SoakPod] = field(default_factory=list)
    ended: list[SoakPod] = field(default_factory=list)
    """Those whose last reading may not have arrived yet."""
    used: Counter[Series] = field(default_factory=Counter)
    """The truth: ns."""
    absences: dict[str, list[Absence]] = field(default_factory=lambda: defaultdict(list))
    """Of paths at which there was a cgroup before and after."""
    names: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """A cgroup's path → the name of the pod that it is of."""
    counts: Counter[str] = field(default_factory=Counter)
    ticks_seen: int = 0
    """How often the canary was read; at most the number of the exporter's ticks."""

    def __post_init__(self) -> None:
        self.tree = CgroupTree(self.mount)
        self._away = self.mount.with_name("away")
        self._later: list[tuple[float, Callable[[], None]]] = []
        self._next_action = 0.0
        self._birth_tick = self._birth_after_tick = 0
        self._absent: list[_Absent] = []
        for _ in range(3):
            self._be_born(self._figures(), counted=False, late=False)
        # It never ends and its file is never garbage: it shows the exporter's ticks.
        self._canary = self._be_born(self._figures(), counted=False, late=False)

    # --- one step ---

    def use(self) -> None:
        """Every pod that is alive uses some CPU time."""
        for pod in self.pods:
            if pod is self._canary and not self._was_read(pod):
                continue  # written only after it was read, so that each reading shows
            if pod is self._canary:
                self.ticks_seen += 1
            if not pod.frozen_ns:
                user, system = (self.chance.choice([0, 1, 999, self.chance.randrange(40_000)]) for _ in range(2))
                pod.figures.user_usec += user
                pod.figures.system_usec += system
                pod.figures.anon = self.chance.randrange(1 << 40)
                self._count(pod, user, system)
                if not pod.garbage:
                    self.tree.write(pod.cgroup_uid, pod.figures)

    def step(self, *, runs: bool, rejecting: bool, acts: bool = True) -> None:
        """Births, ends and the rest. ``runs``: an exporter that has not been told to stop. ``rejecting``: what it sends
        now is given up for good. ``acts``: whether anything new happens."""
        now = time.monotonic()
        due = [action for when, action in self._later if when <= now]
        self._later = [(when, action) for when, action in self._later if when > now]
        for action in due:
            action()
        for pod in [pod for pod in self.pods if pod.frozen_ns]:
            if not runs or rejecting:
                pod.read_since = 0
                self._touch(pod)
            elif self._was_read(pod):
                pod.read_since += 1
                self._touch(pod)
            # A process that does not know the pod yet reads it once (for its baseline) and no more.
            if pod.read_since < 2:
                continue
            if pod.forced and pod.told:
                self.counts["deleted by force"] += 1
                self._untell(pod)
                pod.read_since = 0
            else:
                self._end(pod)
        self.ended = [pod for pod in self.ended if self.newest_ns(pod.path) <= pod.frozen_ns]
        if acts:
            self._bring_back(runs)
        if acts and self._may_be_born and now >= self._next_action:
            self._next_action = now + self.chance.expovariate(2.0)
            self._act()

    def restarted(self) -> None:
        """Another process reads from now on."""
        self._touch(self._canary)
        self._unseen()

    @property
    def may_restart(self) -> bool:
        """Whether nothing is lost by it."""
        return not self.ended and all(pod.told or not pod.frozen_ns for pod in self.pods)

    def settle(self) -> None:
        """Puts everything right, at the end: no garbage, nothing hidden, all told."""
        self.mount_again()
        for pod in self.pods:
            self._restore(pod)
        while self._later:  # what is born by one of them is told by another
            due, self._later = sorted(self._later, key=lambda each: each[0]), []
            for _, action in due:
                action()

    def may_end(self, pod: SoakPod) -> bool:
        return not pod.frozen_ns and pod is not self._canary

    def freeze(self, pod: SoakPod, *, forced: bool = False) -> None:
        """It uses nothing more, and ends once that was read."""
        self._restore(pod)
        pod.frozen_ns = time.time_ns()
        pod.forced = forced
        self._touch(pod)

    # --- faults of the tree ---

    def unmount(self) -> bool:
        """The root is gone, or, as often, an empty directory. Counters go on. False where it must not be now."""
        if self.ticks_seen < self._birth_tick + 3:
            return False
        self.mount.rename(self._away)
        self.tree.root = self._away
        if self.chance.random() < 0.5:
            self.mount.mkdir()
        return True

    def mount_again(self) -> None:
        if self.tree.root != self.mount:
            if self.mount.exists():
                self.mount.rmdir()
            self._away.rename(self.mount)
            self.tree.root = self.mount
            self._birth_after_tick = self.ticks_seen + 3
            self._unseen()

    @property
    def is_mounted(self) -> bool:
        return self.tree.root == self.mount

    @property
    def _may_be_born(self) -> bool:
        return self.is_mounted and self.ticks_seen >= self._birth_after_tick

    # --- what happens ---

    def _act(self) -> None:
        alive = [pod for pod in self.pods if self.may_end(pod)]
        wanted = self.chance.choice(["birth", "birth", "end", "end", "garbage", "garbage", "mirror", "forced"])
        if len(alive) < FEWEST or (wanted == "birth" and len(self.pods) < MOST):
            self._be_born(self._figures(), counted=True, late=True)
            return
        pod = self.chance.choice(alive)
        if wanted in {"end", "forced"}:
            self.freeze(pod, forced=wanted == "forced")
        elif wanted == "garbage":
            pod.garbage = True
            self.counts["garbage in a file"] += 1
            half = f"usage_usec ?\nuser_usec {pod.figures.user_usec}\nsystem_usec {pod.figures.system_usec}\n".encode()
            content = self.chance.choice([*GARBAGE, half])
            for name in ("cpu.stat", self.chance.choice(["memory.stat", "memory.current"])):
                with (self._directory(pod) / name).open("r+b", buffering=0) as file:
                    file.truncate()
                    file.write(content)
            self._after(self.chance.uniform(0.1, 3), lambda: self._restore(pod))
        elif wanted == "mirror" and pod.is_static and pod.told:
            self.counts["mirrors made anew"] += 1
            self._untell(pod)
            pod.uid = str(self._uuid())
            self._after(self.chance.uniform(0, 1), lambda: self._tell(pod))

    def _figures(self) -> Figures:
        a, b, *memory = (self.chance.randrange(1, 10**7) for _ in range(6))
        return Figures(a, b, *memory)

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self.chance.getrandbits(128), version=4)

    def _be_born(self, figures: Figures, *, counted: bool, late: bool, name: str = "", cgroup_uid: str = "") -> SoakPod:
        uid = str(self._uuid())
        if not cgroup_uid:
            # A pod that is made anew under its name is a StatefulSet's; a static pod's mirror has the node in its name.
            cgroup_uid = self._uuid().hex if not name and self.chance.random() < 0.25 else uid
        self.counts["born"] += 1
        name = name or f"pod-{self.counts['born']}" + ("" if cgroup_uid == uid else f"-{NODE}")
        pod = SoakPod(name, uid, cgroup_uid, self.tree.path(cgroup_uid), figures)
        self.pods.append(pod)
        self.names[pod.path].add(name)
        self._birth_tick = self.ticks_seen
        if counted:
            self._count(pod, figures.user_usec, figures.system_usec)
        self.tree.write(cgroup_uid, figures)
        self.log(f"born {pod.name} {pod.path}")
        self._after(self.chance.choice([0, self.chance.uniform(0, 2)]) if late else 0, lambda: self._tell(pod))
        return pod

    def _end(self, pod: SoakPod) -> None:
        self.counts["died"] += 1
        self.log(f"removed {pod.name} {pod.path}")
        self.tree.remove(pod.cgroup_uid)
        self.pods.remove(pod)
        self.ended.append(pod)
        if pod.is_static:
            self._absent.append(_Absent(pod, time.time_ns(), self.ticks_seen))
            self._untell(pod)
            return

        def forget() -> None:
            self._untell(pod)
            if self.chance.random() < 0.3 and self._may_be_born:  # as a StatefulSet's
                self._be_born(self._figures(), counted=True, late=True, name=pod.name)

        self._after(self.chance.uniform(0, 1), forget)

    def _bring_back(self, runs: bool) -> None:
        """A static pod whose manifest is put back has the same cgroup path. The counters are new."""
        for absent in list(self._absent):
            pod = absent.pod
            # Plain files cannot tell that they were removed as the kernel's do: the exporter has to see them gone.
            if runs and self._may_be_born and self.ticks_seen >= absent.at_tick + 5 and pod not in self.ended:
                self._absent.remove(absent)
                self.counts["reborn at the same path"] += 1
                self._be_born(self._figures(), counted=True, late=True, name=pod.name, cgroup_uid=pod.cgroup_uid)
                self.absences[pod.path].append(Absence(absent.from_ns, time.time_ns()))

    def _unseen(self) -> None:
        """Nobody has seen yet what is absent."""
        self._absent = [absent._replace(at_tick=self.ticks_seen) for absent in self._absent]

    def _count(self, pod: SoakPod, user_usec: int, system_usec: int) -> None:
        for kind, ns in Figures(user_usec, system_usec).cpu_time_ns.items():
            self.used[Series(pod.path, kind)] += ns

    # --- API and files ---

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        self._later.append((time.monotonic() + seconds, action))

    def _tell(self, pod: SoakPod) -> None:
        if pod not in self.pods:
            return  # it has ended meanwhile
        pod.told = True
        metadata: dict[str, Any] = {}
        if pod.is_static:
            metadata = kube_api.mirror(pod.cgroup_uid, node=NODE)
        elif self.forges and self.chance.random() < 0.3:
            # What it uses is its own, whatever it claims.
            self.counts["with forged annotations"] += 1
            claimed = self.chance.choice([self._uuid().hex, self.chance.choice(self.pods).cgroup_uid])
            _, metadata = forged(self.chance, NODE, claimed)
        self.api.add(kube_api.pod(pod.name, node=NODE, uid=pod.uid, **metadata))

    def _untell(self, pod: SoakPod) -> None:
        if pod.told:
            pod.told = False
            self.api.delete(pod.name)

    def _restore(self, pod: SoakPod) -> None:
        if pod.garbage and pod in self.pods:
            pod.garbage = False
            self.tree.write(pod.cgroup_uid, pod.figures)

    def _touch(self, pod: SoakPod) -> None:
        self.tree.write(pod.cgroup_uid, pod.figures)

    def _directory(self, pod: SoakPod) -> Path:
        return self.tree.root / pod.path[1:]

    def _was_read(self, pod: SoakPod) -> bool:
        """Whether the exporter has read its counter since it was written (the clock of both times is coarse)."""
        status = (self._directory(pod) / "cpu.stat").stat()
        return status.st_atime_ns > status.st_mtime_ns
