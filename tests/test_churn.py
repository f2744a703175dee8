"""What a process holds after 20,000 pods, after many requests and streams; and what a clock that is set changes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import grpc
import pytest

from otel_k8s_cgroup.errors import ExportError, ExportRejected
from otel_k8s_cgroup.export import open_transport
from otel_k8s_cgroup.kube import WatchTimes, open_pods
from otel_k8s_cgroup.model import OtlpTarget, PodSource
from tests import churn
from tests.fakes.kube_api import Exchange, KubeApi, bookmark, failing, pod, stream
from tests.fakes.node import SECOND, DirectReceiver, Node
from tests.fakes.otlp_receiver import Answer, OtlpReceiver, Received
from tests.kube.support import client, eventually
from tests.otlp import cpu_time, points

Held = dict[str, Any]

needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system has no /proc/self/fd")


@pytest.fixture(scope="module")
def held() -> tuple[Held, Held]:
    """By a process after its first pods, and after all."""
    in_memory = "/dev/shm" if Path("/dev/shm").is_dir() else None  # 20,000 directories wear out a disk
    with tempfile.TemporaryDirectory(dir=in_memory) as root:
        done = subprocess.run(
            [sys.executable, "-m", "tests.churn", root],
            check=True,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[1],
            # Without the coverage measurement, whose own memory grows.
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")},
        )
    first, last = json.loads(done.stdout)
    assert first["born"] >= churn.WARM
    assert last["born"] >= churn.ALL
    return first, last


def test_churn_loses_no_cpu_time(held: tuple[Held, Held]) -> None:
    """Of each of the 20,000 pods the receiver has got what its counter grew by."""
    assert held[1]["wrong"] == []


@needs_proc
def test_churn_takes_no_memory(held: tuple[Held, Held]) -> None:
    """RSS grows by less than 2 MB from the 2,000th pod to the 20,000th."""
    assert held[1]["rss"] - held[0]["rss"] < 2_000_000


def test_churn_leaves_nothing_behind(held: tuple[Held, Held]) -> None:
    """No object, no entry of any table (the SDK's attribute sets, slots, encoders, the directories' and the pods'
    caches, the queue), no descriptor and no thread for each pod that has been, nor for each tick.
    """
    first, last = held
    assert last["queue"] == first["queue"] == 0
    assert last["threads"] == first["threads"]
    assert last["descriptors"] == first["descriptors"]
    grown = {kind: count - first["objects"].get(kind, 0) for kind, count in last["objects"].items()}
    assert {kind: more for kind, more in grown.items() if more > 100} == {}
    assert last["items"] - first["items"] < 150


def test_churn_makes_no_tick_longer(held: tuple[Held, Held]) -> None:
    """After 20,000 pods a tick calls as many functions as after 2,000, with births and without."""
    for what in ("calls", "calls with births"):
        assert held[1][what] < held[0][what] * 1.02


def resources() -> Counter[str]:
    """Of this process."""
    return Counter(descriptors=len(list(Path("/proc/self/fd").iterdir())), threads=threading.active_count())


@needs_proc
@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_requests_leave_no_descriptor_and_no_thread(protocol: Literal["grpc", "http/protobuf"]) -> None:
    """Whether they are taken, refused, or their connection breaks."""

    def respond(_request: Received) -> Answer:
        match len(asked) % 3:
            case 0:
                return Answer()
            case 1:
                return Answer(status=503, code=grpc.StatusCode.UNAVAILABLE)
        if protocol == "grpc":
            return Answer(code=grpc.StatusCode.INVALID_ARGUMENT)
        raise OSError("the connection is reset")

    asked: list[object] = []
    with OtlpReceiver(protocol, respond=respond) as receiver:
        path = "" if protocol == "grpc" else "/v1/metrics"
        transport = open_transport(OtlpTarget(protocol, receiver.endpoint + path))

        def ask(times: int) -> None:
            for _ in range(times):
                asked.append(None)
                try:
                    transport.send(b"")
                except ExportError as error:
                    asked[-1] = error

        ask(30)
        before = resources()
        ask(300)
        # The server's own pool may have grown by a few threads.
        eventually(lambda: (resources() - before).total() < 10, "what was there before")
        transport.close()
    assert len([answer for answer in asked if answer is None]) == 110


@needs_proc
def test_watches_leave_no_descriptor_and_no_thread() -> None:
    """Streams that end in order, break or are refused, with the lists between them, and pods that come and go."""
    with KubeApi() as api:
        for number in range(150):
            lines = [bookmark(1000 + number)]
            api.on("watch", stream(*lines), stream(*lines, then=Exchange.reset), failing(410))
        source = PodSource("api")
        watcher = open_pods(
            source,
            node="node-1",
            client=client(api.url),
            wait=lambda _seconds: None,
            jitter=lambda: 0.0,
            times=WatchTimes(start_seconds=0),
        )
        watcher.start()
        api.wait_for("watch", 50)
        before = resources()
        for number in range(100):
            api.add(pod(f"p-{number}"))
        for number in range(100):
            api.delete(f"p-{number}")
        api.wait_for("watch", 451)
        eventually(lambda: (resources() - before).total() < 10, "what was there before")
        assert watcher.stop(10)


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_is_set_while_a_delta_waits(tmp_path: Path, hours: int) -> None:
    """A delta that covers the moment is as wide as the time that passed, and its sum is whole."""
    refused = False
    receiver = DirectReceiver(lambda: ExportRejected("receiver", "HTTP 400", "no") if refused else None)
    node = Node(tmp_path, receiver)
    node.read()
    uid = node.start(1)
    for tick in range(8):
        refused = tick in (2, 3, 4)
        if tick == 3:
            node.wall_offset_ns += hours * 3600 * SECOND
        if tick == 7:
            node.wall_offset_ns -= hours * 3600 * SECOND
        node.use(uid, 500_000)
        node.tick()
    received = points(receiver.requests)
    assert cpu_time(received, uid)["total"] == 8 * 500_000_000
    shares = {p.value for p in received if p.metric == "cpu_percent" and p.attributes["kind"] == "total"}
    assert shares == {50.0}
    widths = [
        (p.time_ns - p.start_ns) // SECOND
        for p in received
        if p.metric == "cpu_time_delta" and p.attributes["kind"] == "total"
    ]
    assert widths == [1, 1, 4, 1, 1]
    node.close()
