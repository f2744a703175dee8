"""What goes wrong, and when: of the receiver, of the Kubernetes API and of the tree, each by turns well and ill."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import grpc
import requests
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import MetricsServiceStub

from tests.fakes import kube_api
from tests.fakes.otlp_receiver import Answer
from tests.faults.test_outages import retry_info

if TYPE_CHECKING:
    import random
    from collections.abc import Callable, Mapping

    from tests.collectors.programs import Listening
    from tests.fakes.faulty_otlp import Fault as Breakage
    from tests.fakes.otlp_receiver import Received
    from tests.soak.front import Front

Protocol = Literal["grpc", "http/protobuf"]

_LOST_MARGIN_NS = 1_500_000_000
"""From when a request is under way to when it has come out of the collector, at most."""

_BROKEN: dict[Protocol, tuple[Breakage, ...]] = {
    "grpc": ("black hole", "reset mid-body", "closed at once", "drip of headers", "not OTLP", "goes away"),
    "http/protobuf": (
        "black hole",
        "reset mid-body",
        "closed at once",
        "drip of interim answers",
        "drip of headers",
        "drip of a body",
        "not OTLP",
    ),
}
_LATER: dict[Protocol, Mapping[str, Answer]] = {
    "grpc": {
        "UNAVAILABLE": Answer(code=grpc.StatusCode.UNAVAILABLE),
        "RESOURCE_EXHAUSTED, 1 s": Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, trailers=retry_info(1)),
        "ABORTED": Answer(code=grpc.StatusCode.ABORTED),
    },
    "http/protobuf": {
        "503": Answer(503),
        "429, 1 s": Answer(429, {"Retry-After": "1"}),
        "502": Answer(502),
        "504": Answer(504),
    },
}
_NEVER: dict[Protocol, Mapping[str, Answer]] = {
    "grpc": {
        "INVALID_ARGUMENT": Answer(code=grpc.StatusCode.INVALID_ARGUMENT),
        "UNAUTHENTICATED": Answer(code=grpc.StatusCode.UNAUTHENTICATED),
        "RESOURCE_EXHAUSTED": Answer(code=grpc.StatusCode.RESOURCE_EXHAUSTED, details="quota"),
    },
    "http/protobuf": {
        "500": Answer(500),
        "400": Answer(400),
        "307": Answer(307, {"Location": "/"}),
        "413": Answer(413),
    },
}


class Window(NamedTuple):
    """When answers may have been lost, on the wall clock."""

    from_ns: int
    to_ns: int


@dataclass
class Turns:
    """Something that is well for some time and ill for some time. ``break_it`` gives the fault's name, or None where it
    must not be broken now."""

    chance: random.Random
    break_it: Callable[[], str | None]
    mend_it: Callable[[], None]
    log: Callable[[str], None]
    well_seconds: tuple[float, float]
    ill_seconds: tuple[float, float]
    longest_seconds: float
    counts: Counter[str] = field(default_factory=Counter)
    is_ill: bool = False

    def __post_init__(self) -> None:
        self._until = time.monotonic() + self.chance.uniform(*self.well_seconds)

    def step(self) -> None:
        now = time.monotonic()
        if now < self._until:
            return
        if self.is_ill:
            self.mend()
            return
        name = self.break_it()
        if name is None:
            return
        self.is_ill = True
        self.counts[name] += 1
        self.log(f"fault: {name}")
        is_long = self.chance.random() < 0.1
        self._until = now + (self.longest_seconds if is_long else self.chance.uniform(*self.ill_seconds))

    def mend(self) -> None:
        if self.is_ill:
            self.is_ill = False
            self.log("mended")
            self.mend_it()
        self._until = time.monotonic() + self.chance.uniform(*self.well_seconds)


class ReceiverFaults:
    """Breaks what is in front of the collector, in the protocol that the exporter speaks now.

    Args:
        front: its address.
        collector: where it listens itself.
        chance: decides.
        may_reject: whether nothing is lost by an answer that gives a request up for good.
    """

    def __init__(
        self, front: Front, collector: Listening, chance: random.Random, may_reject: Callable[[], bool]
    ) -> None:
        self.protocol: Protocol = "grpc"
        self.rejects = False
        self.lost: list[Window] = []
        self._front = front
        front.on_change = self._changes
        self._collector = collector
        self._chance = chance
        self._may_reject = may_reject
        self._losing_since_ns = 0
        self._exits = ExitStack()
        channel = self._exits.enter_context(grpc.insecure_channel(collector.grpc.removeprefix("http://")))
        self._stub: Any = MetricsServiceStub(channel)  # type: ignore[no-untyped-call]  # generated code

    def _changes(self) -> None:
        """Connections end now: what is under way may have been taken."""
        now_ns = time.time_ns()
        self.lost.append(Window((self._losing_since_ns or now_ns) - _LOST_MARGIN_NS, now_ns + _LOST_MARGIN_NS))
        self._losing_since_ns = 0

    def break_it(self) -> str | None:
        front, chance, protocol = self._front, self._chance, self.protocol
        kind = chance.choice(["nobody", "broken", "broken", "later", "later", "never", "cut", "answer lost", "slow"])
        if kind == "never" and not self._may_reject():
            kind = "later"
        name = kind
        match kind:
            case "nobody":
                front.nobody()
                name = "refused"
            case "broken":
                name = chance.choice(_BROKEN[protocol])
                front.broken(name)
            case "later" | "never":
                name, answer = chance.choice(list((_LATER if kind == "later" else _NEVER)[protocol].items()))
                front.answer(protocol, lambda _request: answer)
                self.rejects = kind == "never"
            case "cut":
                front.relay(cut_after_seconds=lambda: chance.uniform(0.05, 1.0))
                self._losing_since_ns = time.time_ns()
                name = "connections cut"
            case "answer lost":
                loser = chance.choice(list(_LATER[protocol].values()))
                front.answer(protocol, lambda request: self._taken(request, loser))
                self._losing_since_ns = time.time_ns()
            case "slow":
                front.answer(protocol, lambda request: self._taken(request, Answer(kept=False), after_seconds=0.4))
        return f"{'gRPC' if protocol == 'grpc' else 'HTTP'} {name}"

    def mend_it(self) -> None:
        self._front.relay()
        self.rejects = False

    def close(self) -> None:
        self._exits.close()

    def _taken(self, request: Received, answer: Answer, *, after_seconds: float = 0) -> Answer:
        """The collector takes it; the exporter hears something else."""
        time.sleep(after_seconds)
        if self.protocol == "grpc":
            self._stub.Export(request.message, timeout=10)
        else:
            requests.post(
                f"{self._collector.http}/v1/metrics",
                request.message.SerializeToString(),
                headers={"Content-Type": "application/x-protobuf"},
                timeout=10,
            ).raise_for_status()
        return answer


class ApiFaults:
    """Breaks the Kubernetes API, in front of it or by what it says."""

    def __init__(self, api: kube_api.KubeApi, front: Front, chance: random.Random) -> None:
        self._api = api
        self._front = front
        self._chance = chance

    def break_it(self) -> str:
        chance = self._chance
        kind = chance.choice(["nobody", "broken", "cut", "compacted", "says", "says", "says"])
        match kind:
            case "nobody":
                self._front.nobody()
                return "API refused"
            case "broken":
                breakage = chance.choice(_BROKEN["http/protobuf"])
                self._front.broken(breakage)
                return f"API {breakage}"
            case "cut":
                self._front.relay(cut_after_seconds=lambda: chance.uniform(0.05, 1.0))
                return "API connections cut"
            case "compacted":
                self._api.compact()
                self._front.relay()
                return "API compacted"
        name, answers = chance.choice(list(_API_SAYS.items()))
        for verb, answer in answers.items():
            self._api.always(verb, answer)
        self._front.relay()  # streams that were open would go on as if nothing was
        return f"API {name}"

    def mend_it(self) -> None:
        for verb in ("list", "watch"):
            self._api.always(verb, None)
        self._front.relay()


def _everywhere(answer: kube_api.Answer) -> dict[kube_api.Verb, kube_api.Answer]:
    return {"list": answer, "watch": answer}


_GONE = kube_api.event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})
_API_SAYS: dict[str, dict[kube_api.Verb, kube_api.Answer]] = {
    "401": _everywhere(kube_api.failing(401)),
    "403": _everywhere(kube_api.failing(403, "no")),
    "410": _everywhere(kube_api.failing(410)),
    "429": _everywhere(kube_api.failing(429, Retry_After="1")),
    "500": _everywhere(kube_api.failing(500)),
    "garbage": _everywhere(kube_api.body(b"\xff{not json")),
    "half an answer": _everywhere(lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{")),
    "silence": _everywhere(kube_api.Exchange.hang),
    "empty lists": {"list": kube_api.body(b'{"kind":"PodList","metadata":{"resourceVersion":"1"},"items":[]}')},
    "410 in the watch": {"watch": kube_api.stream(_GONE)},
    "garbage in the watch": {"watch": kube_api.stream(b"{half a li\n")},
    "watches that end": {"watch": kube_api.stream()},
    "watches that are reset": {"watch": kube_api.stream(then=kube_api.Exchange.reset)},
    "watch 403": {"watch": kube_api.failing(403, "no")},
}
