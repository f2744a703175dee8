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
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.errors import ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.transport import Receipt
from tests.fakes.node import Node
from tests.otlp import points

if TYPE_CHECKING:
    from collections.abc import Callable

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))
LARGE_QUEUE = 1 << 24
ENTRY_BYTES = 280 + 40 * 11
"""Of one reading of one pod, as queue.py estimates it."""


class KilledError(BaseException):
    """The process ends here: nothing of it may catch that."""


@dataclass(eq=False)
class Life:
    """A pod's cgroup from its birth to its end, and the model of it: what its deltas have to come to."""

    uid: str
    since_ns: int
    """Unix time of its birth; what is stamped earlier is an earlier cgroup's of the same pod."""
    used: int = 0
    """The counter now, µs."""
    seen: int | None = 0
    """The counter when it was read last; None where the next reading is a baseline."""
    truth_ns: int = 0
    """What it used between the readings: at most that may be delivered, and in the end that is."""
    delivered_ns: int = 0
    ends: dict[str, int] = field(default_factory=dict)
    """By kind: when its last delivered delta ended."""
    is_exact: bool = True
    """Nothing happened to it that makes some of its CPU time nobody's (a counter that went backwards, …)."""
    has_gaps: bool = False
    was_looked_at: bool = False

    def read(self) -> None:
        if self.seen is not None:
            self.truth_ns += max(0, self.used - self.seen) * 1000
        self.seen = self.used


class Receiver:
    """A transport that answers on cue, and well when there is no cue."""

    def __init__(self) -> None:
        self.cues: list[str] = []
        self.heard: list[ExportMetricsServiceRequest] = []
        """Taken, and the exporter knows."""
        self.meanwhile: Callable[[], None] = lambda: None

    def send(self, body: bytes) -> Receipt:
        cue = self.cues.pop(0) if self.cues else "ok"
        if cue.startswith("slow"):
            self.meanwhile()
        match cue.rpartition(", ")[2]:
            case "unavailable":
                raise ExportRetryable("receiver", "HTTP 503", "not now", 1.0)
            case "refused":
                raise ExportRejected("receiver", "HTTP 400", "never")
            case "too large":
                raise ExportTooLarge("receiver", "HTTP 413", "less")
            # Whether the receiver took it is not to be known; what comes twice by that is what the README tells of.
            case "killed":
                raise KilledError
        self.heard.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt(3, "three of them are too old") if cue == "partial success" else Receipt()

    def close(self) -> None:
        """Nothing to close."""


CUES = (
    *("ok", "ok", "ok", "unavailable", "refused", "too large", "partial success"),
    *("slow, ok", "slow, unavailable", "slow, refused"),
)
usecs = st.sampled_from([0, 1, 999_999]) | st.integers(0, 10**7)
scripts = st.lists(st.sampled_from(CUES), max_size=4)


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
        self.saved_ns = 0
        self.saved_uids: set[str] = set()

    @initialize(readings=st.sampled_from([7, 20, LARGE_QUEUE // ENTRY_BYTES]), old=st.lists(usecs, max_size=3))
    def start(self, readings: int, old: list[int]) -> None:
        """A queue with room for so many readings, and pods that are there already."""
        self.limit_bytes = readings * ENTRY_BYTES
        (self.root / "cgroup").mkdir()
        self.node = Node(
            self.root / "cgroup",
            self.receiver,
            queue_bytes=self.limit_bytes,
            state_file=self.state,
            point_attributes=False,
        )
        self.receiver.meanwhile = self.tick
        for used in old:
            self.pod_is_born(used, told=True)

    # --- pods ---

    @rule(used=usecs, told=st.booleans())
    def pod_is_born(self, used: int, told: bool) -> None:
        """The API may be late to tell its name."""
        if len(self.alive) < 5:
            self._begin(len({life.uid for life in self.lives}), used)
            if told:
                self.api_tells()

    @rule(data=st.data(), used=usecs)
    def pod_uses_cpu(self, data: st.DataObject, used: int) -> None:
        if self.alive:
            life = self._any(data)
            life.used += used
            self.node.use(life.uid, used)

    @rule(data=st.data())
    def pod_ends(self, data: st.DataObject) -> None:
        if self.alive:
            self._end(self._any(data))

    @rule(data=st.data(), used=usecs, is_named=st.booleans(), script=scripts)
    def cgroup_is_made_anew(self, data: st.DataObject, used: int, is_named: bool, script: list[str]) -> None:
        """The same pod in the same place, with counters from zero. (A look between shows it; without one, an open file
        of the kernel's would answer ENODEV: tests/cgroup/test_kernel.py.)
        """
        if self.alive:
            life = self._any(data)
            self._end(life)
            self.tick()
            self._begin(int(life.uid[-12:], 16), used)
            if is_named:
                self.api_tells()
            self.tick()
            self.send(script)

    @rule(data=st.data(), less=st.integers(1, 10**6))
    def counter_goes_backwards(self, data: st.DataObject, less: int) -> None:
        """No kernel's does; what it used since is counted, but how much is lost of before depends on what waits."""
        if self.alive:
            life = self._any(data)
            less = min(less, life.used)
            life.used -= less
            life.is_exact, life.has_gaps = False, True
            self.node.use(life.uid, -less)

    @rule()
    def api_tells(self) -> None:
        self.node.tell()

    # --- the exporter ---

    @rule()
    def tick(self) -> None:
        """One reading of all, which is the first look of a new process."""
        if self.is_new:
            self._first_look()
        self.named = {pod.uid for pod in self.node.told} | (self.named & self.alive.keys())
        for uid, life in self.alive.items():
            life.was_looked_at = True
            if life.seen is None or uid in self.named:
                life.read()
        self.is_blind = self.is_new = False
        self.node.read()

    @rule(script=scripts)
    def send(self, script: list[str]) -> None:
        self.receiver.cues = script
        self.node.deliver()
        self.receiver.cues = []

    @rule(ticks=st.integers(5, 30), script=scripts)
    def outage(self, ticks: int, script: list[str]) -> None:
        """So many ticks that a small queue is full."""
        for _ in range(ticks):
            self._work(7)
        self.send([*script, "unavailable"])

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
        for _ in range(waiting):
            self._work(7)
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
        if self.limit_bytes == LARGE_QUEUE:
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

    def _work(self, used: int) -> None:
        for life in self.alive.values():
            life.used += used
            self.node.use(life.uid, used)
        self.tick()

    def _any(self, data: st.DataObject) -> Life:
        return self.alive[data.draw(st.sampled_from(sorted(self.alive)))]

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
        """What only the process knew of pods that have ended is gone with it; what is there goes on from the file."""
        self.nothing_is_delivered_twice()
        self.ended.clear()
        self.named.clear()
        self.is_new, self.is_blind = True, not self.state.exists()
        self.remembers = not self.is_blind
        if self.remembers:
            saved = json.loads(self.state.read_bytes())
            self.saved_ns, self.saved_uids = saved["unix_ns"], set(saved["pods"])
        self.node.cgroups.close()
        self.node.restart()

    def _first_look(self) -> None:
        """Of a new process: where each pod's CPU time counts from now."""
        for uid, life in self.alive.items():
            if self.is_blind:
                life.truth_ns, life.seen, life.has_gaps = life.delivered_ns, None, True
            elif life.since_ns > self.saved_ns and uid in self.saved_uids:
                # Of its uid and path the file has an earlier cgroup, which nothing tells from this one.
                life.is_exact, life.has_gaps = False, True
            elif life.seen is None:
                life.seen = 0  # the file tells that it was not there


TestDelivery = Delivery.TestCase
TestDelivery.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=40,
    deadline=None,  # how long a step takes is the machine's affair
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
