"""What ``/livez``, ``/readyz`` and ``/metrics`` are answered with. No secret is in an answer."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.scrape import NO_LIBRARY, exposition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from otel_k8s_cgroup.scrape import OwnRow, Pods

_STALLED_SECONDS = 30.0


def stalled_seconds(poll_seconds: float) -> float:
    """After so long without a tick, ticks have come to a halt."""
    return max(_STALLED_SECONDS, 3 * poll_seconds)


class Status(NamedTuple):
    """What is asked of the exporter; each function is called in the server's thread, and reads only."""

    ticks: Callable[[], int]
    """How many there were."""
    are_pods_listed: Callable[[], bool]
    """Whether the pods were listed once."""
    pods: Callable[[], int]
    """How many are listed."""
    measured: Callable[[], int]
    """How many the last tick read."""
    accepted: Callable[[], int] | None
    """How many requests the receiver took; None: nothing is sent."""
    rows: Sequence[OwnRow] = ()
    """The exporter's own metrics."""
    poll_seconds: float = 5.0
    measured_pods: Pods | None = None
    """What ``/metrics`` has beside them; None: nothing."""


class Answer(NamedTuple):
    """What a path is answered with."""

    status: int
    text: str = ""
    content_type: str = "text/plain; charset=utf-8"
    pieces: Iterator[str] | None = None
    """In place of ``text``, where it may be long; an empty one says that others may have a turn."""


class Health:
    """The answers.

    Args:
        status: the exporter's; None: nothing is measured, because it is switched off.
        clock: seconds, monotonic.
    """

    def __init__(self, status: Status | None, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._status = status
        self._clock = clock
        self._ticks = 0
        self._ticked = clock()
        self._lock = threading.Lock()

    def answer(self, path: str, accept: str = "") -> Answer:
        """Of a GET. ``accept``: the header of that name."""
        match path:
            case "/livez":
                return self._livez()
            case "/readyz":
                return self._readyz()
            case "/metrics":
                return self._metrics(accept)
        return Answer(404, "not found: /livez, /readyz and /metrics are here\n")

    def _livez(self) -> Answer:
        if self._status is None:
            return Answer(200, "ok: nothing is measured, for OTEL_SDK_DISABLED is true\n")
        with self._lock:
            now, ticks = self._clock(), self._status.ticks()
            if ticks != self._ticks:
                self._ticks, self._ticked = ticks, now
            seconds = now - self._ticked
        if seconds > stalled_seconds(self._status.poll_seconds):
            return Answer(
                503, f"no tick has ended for {seconds:.0f} s (poll_interval {self._status.poll_seconds:g} s)\n"
            )
        return Answer(200, f"ok: {ticks} ticks\n")

    def _readyz(self) -> Answer:
        status = self._status
        if status is None:
            return Answer(200, "ready: nothing is measured, for OTEL_SDK_DISABLED is true\n")
        listed, pods, measured = status.are_pods_listed(), status.pods(), status.measured()
        waiting = "missing: no list of pods yet (the log says why; `otel-k8s-cgroup check` finds out)"
        lines = [
            f"pods: {pods} listed" if listed else f"pods: {waiting}",
            f"cgroups: {measured} pods measured"
            if measured or (listed and not pods)
            else "cgroups: missing: no pod is measured yet"
            + (" (is the host's /sys/fs/cgroup mounted?)" if listed else ", for none is listed"),
            _export_line(status),
        ]
        ready = not any(": missing: " in line for line in lines)
        return Answer(200 if ready else 503, "\n".join(["ready" if ready else "not ready", *lines, ""]))

    def _metrics(self, accept: str) -> Answer:
        status = self._status
        own, pods = ((), None) if status is None else (status.rows, status.measured_pods)
        try:
            content_type, pieces = exposition(own, pods, accept)
        except ImportError:
            return Answer(501, f"{NO_LIBRARY}\n")
        return Answer(200, content_type=content_type, pieces=pieces)


def _export_line(status: Status) -> str:
    if status.accepted is None:
        return "export: none, for otlp_endpoint is none"
    if accepted := status.accepted():
        return f"export: {accepted} requests accepted"
    return "export: missing: the OTLP receiver has taken no request yet (the log says why)"
