"""Faults that go over a restart, each from its beginning to its end while nothing else breaks.

Where a process cannot know what was delivered before it, CPU time between the last delivered reading and its own first
one is by nature lost. So all pods stand still over such a restart, and what they used before has arrived: then nothing
may be missing, and nothing may come twice.
"""

from __future__ import annotations

import itertools
import signal
import time
from collections import Counter
from typing import TYPE_CHECKING

from tests.fakes.cgroup_tree import CgroupTree
from tests.soak.faults import Window

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tests.soak.arrivals import Arrivals
    from tests.soak.disk import SmallDisk
    from tests.soak.front import Front
    from tests.soak.lives import Lives
    from tests.soak.node import Node, SoakPod

PATIENCE_SECONDS = 150.0
"""For what is still to be delivered: the longest backoff, that of the list of pods, is half a minute."""
_STEP_SECONDS = 0.05
_VICTIMS = 2


class Episodes:
    """Runs one after the other; each call blocks until it is over.

    Args:
        node: its pods go on.
        lives: the exporter's processes.
        start: starts one, with some flags instead of the usual ones.
        mend: ends every fault.
        front: of the receiver.
        arrivals: what has arrived.
        disk: where the state is; None: it cannot be filled.
        state_file: the exporter's.
        directory: for files.
        chance: decides.
        log: is given what happens.
    """

    def __init__(
        self,
        *,
        node: Node,
        lives: Lives,
        start: Callable[..., None],
        mend: Callable[[], None],
        front: Front,
        arrivals: Arrivals,
        disk: SmallDisk | None,
        state_file: Path,
        directory: Path,
        chance: random.Random,
        log: Callable[[str], None],
        without: Sequence[str] = (),
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.pauses: list[Window] = []
        """When every pod stood still."""
        self.ended_in_outage: set[str] = set()
        """The paths of pods whose last readings no process may have delivered before it ended."""
        self._node = node
        self._lives = lives
        self._start = start
        self._mend = mend
        self._front = front
        self._arrivals = arrivals
        self._disk = disk
        self._state_file = state_file
        self._empty = directory / "empty"
        CgroupTree(self._empty)
        self._nowhere = directory / "nowhere"
        self._chance = chance
        self._log = log
        kinds = {"full disk": self._full_disk, "wrong root": self._wrong_root, "outage": self._outage}
        if disk is None:
            del kinds["full disk"]
        kinds = {name: kind for name, kind in kinds.items() if name not in without}
        order = chance.sample(list(kinds.items()), len(kinds))
        self._kinds = itertools.cycle(order) if order else None

    def run_next(self) -> None:
        """The next kind of them."""
        if self._kinds is None:
            return
        name, kind = next(self._kinds)
        self._log(f"episode: {name}")
        self.counts[name] += 1
        kind()
        self._log("episode over")

    def settle(self) -> bool:
        """Everything is well and stands still, and what was used has arrived. Whether it has."""
        self._mend()
        self._node.settle()
        if not self._lives.is_there:
            self._start()
        return self._all_arrived(time.time_ns())

    # --- the kinds ---

    def _full_disk(self) -> None:
        """What was delivered while nothing could be saved must not come again from an older file."""
        assert self._disk is not None
        self._mend()
        self._disk.fill()
        self._work(self._chance.uniform(1, 3))
        from_ns = time.time_ns()
        if self._settled("the disk was full"):
            self._end(self._chance.choice([signal.SIGTERM, signal.SIGKILL]), may_forget=False)
            self._start()
            self._pause_over(from_ns, "a restart with a full disk")
        self._disk.empty()

    def _wrong_root(self) -> None:
        """A process that cannot see the pods must not leave a file that says there are none."""
        from_ns = time.time_ns()
        if not self._settled("a start with a wrong root"):
            return
        self._end(self._chance.choice([signal.SIGTERM, signal.SIGKILL]))
        if self._chance.random() < 0.5:
            self._state_file.unlink(
                missing_ok=True
            )  # as on a node's first run, whose settings are mostly the wrong ones
        self._start("--cgroup-root", str(self._chance.choice([self._empty, self._empty, self._nowhere])))
        end = time.monotonic() + self._chance.uniform(2, 4)
        self._step_until(lambda: time.monotonic() > end)
        self._end(self._chance.choice([signal.SIGTERM, signal.SIGKILL]))
        self._start()
        self._pause_over(from_ns, "a start with a wrong root")

    def _outage(self) -> None:
        """What pods used that ended in an outage is delivered by the next process, or counted as lost."""
        if not self._settled("an outage"):
            return
        self._front.nobody()
        self._work(self._chance.uniform(0.5, 2), acts=False)
        node = self._node
        candidates = [pod for pod in node.pods if node.may_end(pod) and not pod.is_static]
        victims = self._chance.sample(candidates, min(len(candidates), self._chance.randint(1, _VICTIMS)))
        for victim in victims:
            node.freeze(victim)
        # Their ends have been observed, too.
        if not self._step_until(lambda: not any(victim in node.pods for victim in victims)):
            self._fail("pods that ended in an outage were not read")
            return
        ticks = node.ticks_seen
        self._step_until(lambda: node.ticks_seen >= ticks + 3, uses=True)
        self._end(signal.SIGTERM)
        self._front.relay()
        self._start()
        started_ns = time.time_ns()
        self._step_until(
            lambda: all(self._newest(pod) > started_ns for pod in node.pods if not pod.frozen_ns), uses=True
        )
        for victim in victims:
            self.ended_in_outage.add(victim.path)
            if victim in node.ended:
                node.ended.remove(victim)

    # --- what they are made of ---

    def _work(self, seconds: float, *, acts: bool = True) -> None:
        """The pods go on for some time; ``acts``: some are born and some end."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._node.use()
            self._step(acts=acts)
            time.sleep(_STEP_SECONDS)

    def _settled(self, why: str) -> bool:
        if self.settle():
            return True
        self._fail(f"before {why}, what had been used did not arrive")
        return False

    def _end(self, number: signal.Signals, *, may_forget: bool = True) -> None:
        """Ends the process, and waits for its end."""
        self._lives.end(number, may_forget=may_forget)
        while self._lives.is_there:
            self._step(acts=False)
            time.sleep(_STEP_SECONDS)

    def _pause_over(self, from_ns: int, what: str) -> None:
        if not self._all_arrived(time.time_ns()):
            self._fail(f"after {what}, nothing arrived of some pods")
        self.pauses.append(Window(from_ns, time.time_ns()))

    def _all_arrived(self, after_ns: int) -> bool:
        """Whether a point of each pod is newer than that, in the end, and nobody has ended without one."""
        node = self._node
        return self._step_until(
            lambda: (
                not node.ended
                and not any(pod.frozen_ns for pod in node.pods)
                and all(self._newest(pod) > after_ns for pod in node.pods)
            )
        )

    def _newest(self, pod: SoakPod) -> int:
        return self._arrivals.newest_ns(pod.path)

    def _step_until(self, reached: Callable[[], bool], *, uses: bool = False) -> bool:
        end = time.monotonic() + PATIENCE_SECONDS
        while not reached():
            if time.monotonic() > end or self._lives.failures:
                return False
            if uses:
                self._node.use()
            self._step(acts=False)
            time.sleep(_STEP_SECONDS)
        return True

    def _step(self, *, acts: bool) -> None:
        self._lives.step()
        self._node.step(runs=self._lives.runs, rejecting=False, acts=acts)

    def _fail(self, what: str) -> None:
        self._lives.failures.append(what)
