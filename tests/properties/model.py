"""What a node's exporter has to come to, in ten lines a cgroup; and a receiver that answers on cue."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.errors import ExportRejected, ExportRetryable, ExportTooLarge
from otel_k8s_cgroup.export.transport import Receipt

if TYPE_CHECKING:
    from collections.abc import Callable


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
        self.refusals = 0
        self.meanwhile: Callable[[], None] = lambda: None

    def send(self, body: bytes) -> Receipt:
        cue = self.cues.pop(0) if self.cues else "ok"
        if cue.startswith("slow"):
            self.meanwhile()
        match cue.rpartition(", ")[2]:
            case "unavailable":
                raise ExportRetryable("receiver", "HTTP 503", "not now", 1.0)
            case "refused":
                self.refusals += 1
                raise ExportRejected("receiver", "HTTP 400", "never")
            case "too large":
                self.refusals += 1  # of what is too small to be split
                raise ExportTooLarge("receiver", "HTTP 413", "less")
            # Whether the receiver took it is not to be known; what comes twice by that is what the README tells of.
            case "killed":
                raise KilledError
        self.heard.append(ExportMetricsServiceRequest.FromString(body))
        return Receipt(3, "three of them are too old") if cue == "partial success" else Receipt()

    def close(self) -> None:
        """Nothing to close."""
