"""How the demo shows what came in: the seam, and the view that needs no library (``--json``)."""

from __future__ import annotations

import json
import os
import queue
import select
import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.errors import ExporterError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

    from otel_k8s_cgroup.demo.receiver import Point
    from otel_k8s_cgroup.demo.store import PodRow
    from otel_k8s_cgroup.signals import StopFlag

# Once the demo is to stop, a reader of its output that takes nothing is waited for so long.
_PATIENCE_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Progress:
    """The demo at one moment."""

    tree: str
    """What the cgroups are, in a few words: real or simulated."""
    tree_reason: str | None
    """Why they are simulated; None where they are real."""
    otlp_url: str
    phase: str
    """One or two words and seconds: ``12 s of 30 s``."""
    pod_points: int
    own_points: int
    """Those about the exporter itself."""
    rows: Sequence[PodRow]
    events: Sequence[str]
    """What happened to pods, the oldest first."""
    now_unix_nano: int

    @property
    def tree_in_full(self) -> str:
        """With the reason, which is long: to be shown once."""
        return self.tree if self.tree_reason is None else f"{self.tree}: {self.tree_reason}"


class View(Protocol):
    """Shows the demo to a user. ``received`` is called from the receiver's threads, the rest from the demo's."""

    def received(self, points: Sequence[Point]) -> None:
        """Takes points as they come in; must not wait."""

    def show(self, progress: Progress) -> None:
        """Is called some times a second."""

    def finish(self, progress: Progress, summary: Sequence[str]) -> None:
        """Is called once, at a good end."""

    def close(self) -> None:
        """Is called at any end: leaves the terminal as it was."""


class LineWriter:
    """Writes lines to ``out`` so that nobody who reads it can keep the demo from ending.

    A reader that goes away (``demo --json | head``) sets ``stop``, and so ends the demo; one that takes nothing keeps
    the demo waiting until ``stop`` is set.
    """

    def __init__(self, out: TextIO, stop: StopFlag) -> None:
        self._out = out
        self._stop = stop
        self._gone = False
        try:
            self._descriptor: int | None = out.fileno()
        except OSError:  # io.UnsupportedOperation: no file, so nothing to wait for
            self._descriptor = None

    def write(self, line: str) -> None:
        """Writes the line and flushes.

        Raises:
            ExporterError: it cannot be written, for another reason than that the reader is gone.
        """
        if self._gone:
            return
        if not self._wait_writable():
            self._abandon()
            return
        try:
            self._out.write(line + "\n")
            self._out.flush()
        except BrokenPipeError:
            self._abandon()
        except OSError as error:
            self._abandon()
            raise ExporterError(f"the demo's output cannot be written: {error.strerror}") from None

    def _wait_writable(self) -> bool:
        """False where the demo is to stop and the reader takes nothing; a writable pipe takes PIPE_BUF bytes."""
        give_up: float | None = None
        writable = select.poll()  # select() knows no descriptor above 1023
        if self._descriptor is not None:
            writable.register(self._descriptor, select.POLLOUT)
        while self._descriptor is not None and not writable.poll(100):
            if not self._stop.is_set():
                continue
            give_up = give_up or time.monotonic() + _PATIENCE_SECONDS
            if time.monotonic() > give_up:
                return False
        return True

    def _abandon(self) -> None:
        self._gone = True
        self._stop.set()
        if self._descriptor is not None:
            # What is left in the buffer is flushed at the interpreter's end: it must neither fail nor block there.
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self._descriptor)
            os.close(null)


class JsonLines:
    """One JSON object a point, as soon as it is there; everything else goes to ``err``.

    The exporter's own points wait for the first point of a pod, which is what a user looks for.
    """

    def __init__(self, out: TextIO, err: TextIO, stop: StopFlag) -> None:
        self._writer = LineWriter(out, stop)
        self._err = err
        self._pod_points: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self._own_points: queue.SimpleQueue[Point] = queue.SimpleQueue()
        self._has_pod_point = False
        self._has_tree = False
        self._events = 0

    def received(self, points: Sequence[Point]) -> None:
        for point in points:
            (self._own_points if point.pod_uid is None else self._pod_points).put(point)

    def show(self, progress: Progress) -> None:
        if not self._has_tree:
            self._has_tree = True
            self._notify(progress.tree_in_full)
        for event in progress.events[self._events :]:
            self._notify(event)
        self._events = len(progress.events)
        if self._write(self._pod_points):
            self._has_pod_point = True
        if self._has_pod_point:
            self._write(self._own_points)

    def finish(self, progress: Progress, summary: Sequence[str]) -> None:
        self._has_pod_point = True  # no more will come
        self.show(progress)
        for line in summary:
            self._notify(line)

    def close(self) -> None:
        pass

    def _write(self, points: queue.SimpleQueue[Point]) -> int:
        count = 0
        while not points.empty():
            self._writer.write(json.dumps(asdict(points.get())))
            count += 1
        return count

    def _notify(self, line: str) -> None:
        self._err.write(f"{line}\n")
        self._err.flush()
