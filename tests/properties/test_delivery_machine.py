"""A node that anything may happen to, in any order, against a model of ten lines: no nanosecond twice, none lost.

Everything is real but the receiver, the clocks and the kernel's files: cgroups are read, the SDK collects, readings
wait, deltas are made, encoded and decoded, and the state file is written and read over restarts.

``PROPERTY_EXAMPLES=5000`` looks longer.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.fakes.node import Node
from tests.otlp import points

from .model import KilledError, Life, Receiver

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))
LARGE_QUEUE = 1 << 24
ENTRY_BYTES = 600 + 8 * 12
"""Of a tick with one reading of one pod, as series.py counts it."""

CUES = (
    *("ok", "ok", "ok", "unavailable", "refused", "too large", "partial success"),
    *("slow, ok", "slow, unavailable", "slow, refused"),
)
usecs = st.sampled_from([0, 1, 999_999]) | st.integers(0, 10**7)
which = st.integers(0, 4)
scripts = st.lists(st.sampled_from(CUES), max_size=4)

some_are_alive = precondition(lambda self: self.alive)


class Delivery(RuleBasedStateMachine):
    """See the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp())
        self.state = self.root / "state.json"
        self.receiver = Receiver()
        self.lives: list[Life] = []
        self.alive: dict[str, Life] = {}
        self.named: set[str] = set()
        """Uids that the exporter knows a name for."""
        self.is_blind = True
        """No look at the cgroups (of this root) yet, and nothing remembered: what is there may be old."""
        self.remembers = False
        """This process began with a state file."""
        self.is_new = True
        """No look of this process yet."""
        self.ended: list[Life] = []
        """Since this process has looked."""
        self.most = 0
        """Cgroups of which something may have waited in this process."""
        self.saved_ns = 0
        self.saved: dict[str, object] = {}
        """By uid, what the state file has of it."""

    @initialize(
        readings=st.sampled_from([7, 20, LARGE_QUEUE // ENTRY_BYTES]), old=st.lists(usecs, min_size=1, max_size=3)
    )
    def start(self, readings: int, old: list[int]) -> None:
        """A queue with room for so many readings, and pods that are there already."""
        self.readings = readings
        self.limit_bytes = readings * ENTRY_BYTES
        (self.root / "cgroup").mkdir()
        self.node = Node(self.root / "cgroup", self.receiver, queue_bytes=self.limit_bytes, state_file=self.state)
        self.receiver.meanwhile = self.tick
        for used in old:
            self.pod_is_born(used, told=True)

    # --- pods ---

    @precondition(lambda self: len(self.alive) < 5)
    @rule(used=usecs, told=st.sampled_from([True, True, False]))
    def pod_is_born(self, used: int, told: bool) -> None:
        """The API may be late to tell its name."""
        self._begin(len({life.uid for life in self.lives}), used)
        if told:
            self.api_tells()

    @some_are_alive
    @rule(which=which)
    def pod_ends(self, which: int) -> None:
        self._end(self._one(which))

    @some_are_alive
    @rule(which=which, used=usecs, is_named=st.booleans(), script=scripts)
    def cgroup_is_made_anew(self, which: int, used: int, is_named: bool, script: list[str]) -> None:
        """The same pod in the same place, with counters from zero. (A look between shows it; without one, an open file
        of the kernel's would answer ENODEV: tests/cgroup/test_kernel.py.)
        """
        life = self._one(which)
        self._end(life)
        self.tick()
        self._begin(int(life.uid[-12:], 16), used)
        if is_named:
            self.api_tells()
        self.tick()
        self.send(script)

    @some_are_alive
    @rule(which=which, used=usecs)
    def cgroup_is_made_anew_while_no_exporter_runs(self, which: int, used: int) -> None:
        """Only its directory's inode tells it from the one before."""
        life = self._one(which)
        self._end(life)
        self._begin(int(life.uid[-12:], 16), used)
        self.api_tells()
        self._restart()

    @some_are_alive
    @rule(which=which, less=st.integers(1, 10**6))
    def counter_goes_backwards(self, which: int, less: int) -> None:
        """No kernel's does; what it used since is counted, but how much is lost of before depends on what waits."""
        life = self._one(which)
        less = min(less, life.used)
        life.used -= less
        life.is_exact, life.has_gaps = False, True
        self.node.use(life.uid, -less)

    @precondition(lambda self: not self.is_new and any(life.seen is not None for life in self.alive.values()))
    @rule(which=which)
    def counter_cannot_be_read(self, which: int) -> None:
        """For one tick: the next reading has what was used meanwhile."""
        known = [uid for uid, life in sorted(self.alive.items()) if life.seen is not None]
        uid = known[which % len(known)]
        # In place: the exporter holds the file open.
        (self.node.root / "kubepods" / f"pod{uid}" / "cpu.stat").write_text("")
        self.tick(unreadable=uid)
        self.node.use(uid, 0)

    @rule()
    def api_tells(self) -> None:
        self.node.tell()

    # --- the exporter ---

    @rule(ticks=st.sampled_from([1, 1, 3, 30]), used=usecs)
    def time_goes_on(self, ticks: int, used: int) -> None:
        """All pods use CPU time, and are read at each tick; without a send, a small queue gets full."""
        for _ in range(ticks):
            for number, life in enumerate(self.alive.values()):
                life.used += used + number
                self.node.use(life.uid, used + number)
            self.tick()

    def tick(self, unreadable: str | None = None) -> None:
        """One reading of all, which is the first look of a new process."""
        if self.is_new:
            self._first_look()
        self.named = {pod.uid for pod in self.node.told} | (self.named & self.alive.keys())
        for uid, life in self.alive.items():
            life.was_looked_at = True
            if uid != unreadable and (life.seen is None or uid in self.named):
                life.read()
        self.is_blind = self.is_new = False
        self.most = max(self.most, len(self.alive) + len(self.ended))
        self.node.read()

    @rule(script=scripts)
    def send(self, script: list[str]) -> None:
        self.receiver.cues = list(script)
        self.node.deliver()
        self.receiver.cues = []

    @rule(ticks=st.integers(1, 3))
    def root_is_unmounted_for_a_while(self, ticks: int) -> None:
        """What is there when it comes back was there before; what no look has seen by then counts from the first one
        on, but where the state file tells that it was not there.
        """
        root, away = self.node.root, self.root / "away"
        root.rename(away)
        root.mkdir()
        for _ in range(ticks):
            self.node.read()
        root.rmdir()
        away.rename(root)
        if not self.is_new and not self.remembers:
            self.is_blind = True
            for life in self.alive.values():
                if not life.was_looked_at:
                    life.seen = None

    @rule(script=scripts)
    def restart_by_sigterm(self, script: list[str]) -> None:
        """A last reading, a last export that may fail, and a new process."""
        self.tick()
        self.send(script)
        self._restart()

    @rule(
        waiting=st.sampled_from([0, 0, 10]), requests=st.integers(0, 3), is_lost=st.sampled_from([False, False, True])
    )
    def restart_by_sigkill(self, waiting: int, requests: int, is_lost: bool) -> None:
        """In the middle of an export after so many requests, or anywhere; the file may be lost with it."""
        self.time_goes_on(waiting, 7)
        self.receiver.cues = ["ok"] * requests + ["killed"]
        with suppress(KilledError):
            self.node.deliver()
        self.receiver.cues = []
        if is_lost:
            self.state.unlink(missing_ok=True)
        self._restart()

    @rule()
    def all_is_well(self) -> None:
        """Everybody is named, read and delivered: now the books are balanced."""
        self.api_tells()
        self.send([])
        self.tick()
        self.send([])
        self.tick()  # which sees who has ended
        self.send([])
        self.nothing_is_delivered_twice()
        for life in self.alive.values():
            assert life.delivered_ns == life.truth_ns or not life.is_exact, life
        if all(life.is_exact for life in self.ended):
            lost_ns = sum(life.truth_ns - life.delivered_ns for life in self.ended)
            assert self.node.exporter.stats.lost_ns == lost_ns, "what was lost with ended pods is told"
            # Half of the queue may be under way; what is the last of a pod goes last.
            has_room = self.most < self.readings // 2
            assert lost_ns == 0 or self.receiver.refusals or not has_room, "it was not lost without need"
        assert self.node.exporter.queue_bytes == 0

    # --- what always holds ---

    @invariant()
    def the_queue_is_bounded(self) -> None:
        assert self.node.exporter.queue_bytes <= self.limit_bytes

    @invariant()
    def nothing_is_delivered_twice(self) -> None:
        """Never more than was used; deltas begin where the one before them ended."""
        for point in points(self.receiver.heard):
            if point.metric == "cpu_time_delta":
                self._delivered(point.pod, point.attributes["kind"], point.start_ns, point.time_ns, int(point.value))
        self.receiver.heard.clear()
        for life in self.lives:
            assert life.delivered_ns <= life.truth_ns, life

    def teardown(self) -> None:
        try:
            self.all_is_well()
            self.nothing_is_delivered_twice()
        finally:
            self.node.close()
            shutil.rmtree(self.root)

    # ---

    def _one(self, which: int) -> Life:
        return self.alive[sorted(self.alive)[which % len(self.alive)]]

    def _begin(self, number: int, used: int) -> None:
        told = self.node.told
        uid = self.node.start(number, used_usec=used)
        self.node.told = told  # but it is not told of before api_tells
        life = Life(uid, self.node.mono_ns + self.node.wall_offset_ns, used, None if self.is_blind else 0)
        self.lives.append(life)
        self.alive[uid] = life

    def _end(self, life: Life) -> None:
        del self.alive[life.uid]
        if not self.is_new:
            self.ended.append(life)
        told = self.node.told
        self.node.end(life.uid)
        self.node.told = tuple(pod for pod in told if pod.uid != life.uid)

    def _delivered(self, uid: str, kind: str, start_ns: int, time_ns: int, value: int) -> None:
        earlier = [life for life in self.lives if life.uid == uid and life.since_ns <= time_ns]
        life = earlier.pop()
        assert all(start_ns >= ended.ends.get(kind, 0) for ended in earlier), "time goes on with a new cgroup"
        before = life.ends.get(kind)
        note(f"{uid[-2:]} {kind} {start_ns} to {time_ns}: {value}")
        assert value >= 0
        assert start_ns < time_ns
        assert before is None or start_ns == before or (life.has_gaps and start_ns > before), life
        life.ends[kind] = time_ns
        if kind == "total":
            life.delivered_ns += value

    def _restart(self) -> None:
        """What is there goes on from the file, and what it remembers of pods that have ended is delivered yet."""
        self.nothing_is_delivered_twice()
        self.node.cgroups.close()
        self.node.restart()
        self.ended.clear()
        self.most = self.receiver.refusals = 0
        self.named.clear()
        self.is_new, self.is_blind = True, not self.state.exists()
        self.remembers = not self.is_blind
        if self.remembers:
            saved = json.loads(self.state.read_bytes())
            self.saved_ns, self.saved = saved["unix_ns"], saved["cgroups"]
            self.ended = [life for waits in saved["waiting"] if (life := self._ended_one(waits)) is not None]
            self.most = len(saved["waiting"])

    def _ended_one(self, waits: dict[str, Any]) -> Life | None:
        """Of a reading that the state file has: whose it is, and that it is all of it that there is to come."""
        uid, unix_ns = waits["key"], waits["unix_ns"]
        life = [life for life in self.lives if life.uid == uid and life.since_ns <= unix_ns][-1]
        if self.alive.get(uid) is life:
            return None
        if waits["values"][0] is None or waits["remnant"]["bases"][0] is None:
            life.is_exact = False
        else:
            life.truth_ns = life.delivered_ns + max(0, waits["values"][0] - waits["remnant"]["bases"][0][2])
        return life

    def _first_look(self) -> None:
        """Of a new process: where each pod's CPU time counts from now."""
        for uid, life in self.alive.items():
            if self.is_blind:
                life.truth_ns, life.seen, life.has_gaps = life.delivered_ns, None, True
            elif life.since_ns > self.saved_ns and uid in self.saved:
                if self.saved[uid] is None:
                    # Nothing was read of the earlier cgroup, and so nothing tells it from this one.
                    life.is_exact, life.has_gaps = False, True
                else:
                    self._all_is_to_come(life)
            elif uid not in self.saved:
                self._all_is_to_come(life)  # the file tells that it was not there

    def _all_is_to_come(self, life: Life) -> None:
        life.seen = life.seen or 0
        life.truth_ns = life.delivered_ns + life.seen * 1000


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,  # how long a step takes is the machine's affair
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
