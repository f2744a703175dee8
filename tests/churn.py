"""A program for test_churn: 20,000 pods over its life, 100 of them alive; prints what it then holds, as JSON."""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from collections import Counter, deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.kube.store import PodStore
from tests.fakes.kube_api import pod
from tests.fakes.node import Node

if TYPE_CHECKING:
    from collections.abc import Callable

ALIVE = 100
BORN_EACH_TICK = 80
WARM = 2_000
ALL = 20_000


class Sums:
    """A receiver that keeps nothing but each living pod's CPU time."""

    def __init__(self) -> None:
        self.ns: Counter[str] = Counter()

    def send(self, body: bytes) -> Receipt:
        for of_pod in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            uid = next(each.value.string_value for each in of_pod.resource.attributes if each.key == "k8s.pod.uid")
            metrics = of_pod.scope_metrics[0].metrics
            deltas = next((each.sum.data_points for each in metrics if each.name == "cpu_time_delta"), ())
            # The last attribute of a point is its kind.
            self.ns[uid] += sum(each.as_int for each in deltas if each.attributes[-1].value.string_value == "total")
        return Receipt()

    def close(self) -> None:
        """Nothing to close."""


class Churn:
    def __init__(self, root: Path) -> None:
        self.sums = Sums()
        self.node = Node(root, self.sums)
        self.store = PodStore("node")
        self.alive: deque[tuple[str, dict[str, Any]]] = deque()
        self.born = 0
        self.wrong: list[str] = []

    def turn(self, births: int) -> None:
        """So many pods end and as many begin, each uses something, and a tick with its export."""
        for _ in range(min(births, len(self.alive) + births - ALIVE)):
            uid, told = self.alive.popleft()
            self.store.remove(json.dumps(told).encode())
            self.node.end(uid)
            if self.sums.ns.pop(uid, 0) != self.node.counters.pop(uid) * 1000:
                self.wrong.append(uid)
            del self.node.at_first_sight[uid]
        for _ in range(births):
            self.born += 1
            uid = self.node.start(self.born)
            told = pod(f"pod-{self.born}", node="node", uid=uid)
            self.store.put(json.dumps(told).encode())
            self.alive.append((uid, told))
        for uid, _ in self.alive:
            self.node.use(uid, 1000 + self.born)
        self.node.told = self.store.pods
        self.node.read()
        self.node.deliver()

    def held(self) -> dict[str, object]:
        """What the process holds now."""
        pages = int(Path("/proc/self/statm").read_text().split()[1]) if Path("/proc/self/statm").exists() else 0
        with_births = calls(lambda: self.turn(BORN_EACH_TICK))
        gc.collect()
        objects = gc.get_objects()
        # A dict of plain values is not tracked by itself.
        containers = {id(each): each for each in objects}
        containers |= {id(each): each for each in gc.get_referents(*objects) if isinstance(each, dict)}
        return {
            "born": self.born,
            "wrong": self.wrong,
            "rss": pages * os.sysconf("SC_PAGE_SIZE"),
            "descriptors": len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0,
            "threads": threading.active_count(),
            "objects": Counter(type(each).__qualname__ for each in objects),
            "items": sum(len(each) for each in containers.values() if isinstance(each, dict | list | set | deque)),
            "queue": self.node.exporter.queue_bytes,
            "calls": min(calls(lambda: self.turn(0)) for _ in range(3)),
            "calls with births": with_births,
        }


def calls(work: Callable[[], None]) -> int:
    """How many functions it calls, Python's and C's: work that no other process on the machine changes."""
    count = 0

    def counted(_frame: object, event: str, _argument: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(counted)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def main() -> None:
    churn = Churn(Path(sys.argv[1]))
    churn.node.read()
    # As the exporter does once all is made.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    held = []
    for until in (WARM, ALL):
        while churn.born < until:
            churn.turn(BORN_EACH_TICK)
        held.append(churn.held())
    json.dump(held, sys.stdout)


if __name__ == "__main__":
    main()
