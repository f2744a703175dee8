"""A node and the Kubernetes API that it asks, on clocks that the test moves."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING
from uuid import UUID

from otel_k8s_cgroup.kube import ApiClient, Credentials, WatchTimes, open_pods
from otel_k8s_cgroup.model import PodSource, TokenRetrieval
from tests.fakes.kube_api import PATIENCE_SECONDS, KubeApi, pod
from tests.fakes.node import SECOND, DirectReceiver, Node
from tests.otlp import points

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.otlp import Point

TICK_SECONDS = 5
REAL_LIMIT_SECONDS = 0.2
WATCH_SECONDS = 300.0
"""A server ends a stream after twice that, as the node asks it to."""


class Time:
    """Seconds that the test's ticks make pass; the thread of the pods waits by it."""

    def __init__(self) -> None:
        self.now = 0.0
        self.waits: list[float] = []
        self._due: float | None = None
        self._over = False
        self._changed = threading.Condition()

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> None:
        """For the pods' thread alone."""
        self.waits.append(seconds)
        self._due = self.now + seconds
        self.until(self._due)
        self._due = None

    def until(self, moment: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self.now >= moment or self._over)

    @property
    def is_waited_for(self) -> bool:
        due = self._due
        return due is not None and due > self.now

    def set(self, now: float) -> None:
        with self._changed:
            self.now = now
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify_all()


class Cluster:
    """A node with its exporter, and the API that it asks."""

    def __init__(self, home: Path) -> None:
        self.api = KubeApi(token="first")
        self.api.__enter__()
        self.time = Time()
        self.receiver = DirectReceiver()
        (home / "node").mkdir()
        self.node = Node(home / "node", self.receiver, tick_seconds=TICK_SECONDS)
        self.token_file = home / "token"
        self.token_file.write_text("first")
        self.ticks = 0
        self.watcher = open_pods(
            PodSource("api"),
            node="node-1",
            client=ApiClient(
                self.api.url,
                credentials=Credentials(TokenRetrieval("file", file=str(self.token_file)), self.api.url),
                idle_seconds=REAL_LIMIT_SECONDS,
                wall_clock=lambda: (self.node.mono_ns + self.node.wall_offset_ns) / SECOND,
            ),
            wait=self.time.wait,
            jitter=lambda: 1.0,
            clock=self.time,
            times=WatchTimes(
                watch_seconds=WATCH_SECONDS, grace_seconds=REAL_LIMIT_SECONDS - 2 * WATCH_SECONDS, start_seconds=0
            ),
        )

    def start(self, number: int, *, used_usec: int = 0) -> str:
        """A pod begins, and the API server knows it, whether it tells or not."""
        uid = self.node.start(number, used_usec=used_usec)
        self.api.add(pod(f"pod-{number}", uid=uid))
        return uid

    def end(self, uid: str) -> None:
        self.node.end(uid)
        self.api.delete(f"pod-{UUID(uid).int}")

    def first_look(self) -> None:
        """What is there already is no news to the exporter, though it has no name yet."""
        self.node.told = ()
        self.node.read()

    def tick(self) -> None:
        """Each pod uses something, what it uses is read and delivered, and time goes on."""
        for number, uid in enumerate(self.node.pods):
            self.node.use(uid, 1000 + number)
        self.node.told = self.watcher.pods
        self.node.tick()
        self.ticks += 1
        self.time.set(self.ticks * TICK_SECONDS)

    def settle(self, holds: Callable[[], bool] = lambda: False) -> None:
        """Until the pods' thread waits for time to pass, or for a server that says nothing; or something ``holds``."""
        pause = threading.Event()
        for _ in range(int(PATIENCE_SECONDS / 0.0005)):
            if self.time.is_waited_for or self.api.parked or holds():
                return
            pause.wait(0.0005)
        raise AssertionError("the pods' thread is busy for ever")

    def told(self, uid: str) -> bool:
        return any(each.uid == uid for each in self.watcher.pods)

    def points(self) -> list[Point]:
        return points(self.receiver.requests)

    def close(self) -> None:
        self.time.end()
        self.api.__exit__()
        assert self.watcher.stop(10)
        self.node.close()
