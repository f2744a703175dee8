"""The memory of the exporter's process does not grow with what an API server lists."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.export.encode import Encoder
from otel_k8s_cgroup.export.layout import Layout
from otel_k8s_cgroup.export.ledger import Step
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.kube.details import PodReader
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.metrics import columns_of
from otel_k8s_cgroup.model import Wanted
from otel_k8s_cgroup.schemas import ALUMET
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import Exchange, KubeApi, event, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import points
from tests.programs import started

if TYPE_CHECKING:
    from collections.abc import Iterator

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"


def _large(name: str, uid: str, size: int) -> Iterator[bytes]:
    """A pod with as many tiny entries as its author could think of, in pieces."""
    entry = b'{"name":"A"},'
    before, _, after = json.dumps(pod(name, uid=uid) | {"x": {"env": []}}).encode().partition(b"[]")
    yield before + b"["
    for _ in range(size // (1000 * len(entry))):
        yield entry * 1000
    yield b"{}]" + after


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system has no /proc/self/status")
@pytest.mark.parametrize(
    ("count", "size"), [(110, 1_000_000), (1000, 250_000)], ids=["110 pods of 1 MB", "1,000 pods of 250 kB"]
)
def test_the_peak_of_the_memory_is_that_of_small_pods(tmp_path: Path, count: int, size: int) -> None:
    """As in ``deploy/``, at most 160 MiB are there: a list of 110 or 250 MB, and watch events of such pods, leave it
    below 110 MiB, and the last pod of the list is measured.
    """
    tree = CgroupTree(tmp_path / "cgroup")
    tree.write(UID, Figures(user_usec=1000))

    def listed(exchange: Exchange) -> None:
        exchange.stream_head()
        exchange.chunk(b'{"kind":"PodList","metadata":{"resourceVersion":"7"},"items":[')
        for number in range(count - 1):
            for piece in _large(f"p-{number}", f"u-{number}", size):
                exchange.chunk(piece)
            exchange.chunk(b",")
        for piece in _large("last", UID, size):
            exchange.chunk(piece)
        exchange.chunk(b"]}")
        exchange.finish()

    def watched(exchange: Exchange) -> None:
        exchange.stream_head()
        for number in range(20):
            exchange.chunk(b'{"type":"MODIFIED","object":')
            for piece in _large(f"p-{number}", f"u-{number}", size):
                exchange.chunk(piece)
            exchange.chunk(b"}\n")
        exchange.chunk(event("ADDED", pod("after", uid=UID.replace("d", "e"))))
        exchange.hang()

    tree.write(UID.replace("d", "e"), Figures(user_usec=1000))
    with KubeApi() as api, OtlpReceiver("http/protobuf") as receiver:
        api.on("list", listed)
        api.on("watch", watched)
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "100ms"),
            *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
            *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf"),
        ]
        with started(argv) as program:
            expected = {"last", "after"}
            receiver.wait_for(
                lambda messages: {each.resource.get("k8s.pod.name") for each in points(messages)} >= expected
            )
            status = Path(f"/proc/{program.process.pid}/status").read_text()
            assert program.stop() == 0
    (peak_kib,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))
    assert peak_kib < 110 * 1024


def _kept(labels: int, wanted: Wanted, *, sent: bool) -> int:
    """Bytes that 1,000 pods of so many labels take, each value another; ``sent``: with their messages' templates.

    Of 200 that are measured.
    """
    layout = Layout(columns_of(ALUMET))
    row = (1,) * layout.width
    step = Step(layout.shape(row), (1, *row, 1, 1, 1, 1, 1, 1))

    def objects() -> Iterator[bytes]:
        for number in range(200):
            named = {f"example.com/label-{label:02}": f"{number * label:010}" for label in range(labels)}
            yield json.dumps(pod(f"checkout-{number:05}", uid=f"uid-{number:05}", labels=named)).encode()

    def keep() -> tuple[PodStore, list[Encoder]]:
        store = PodStore("node-1", reader=PodReader(wanted))
        store.replace(objects())
        encoders = [Encoder(Describe(with_points=False).pod(each, "/path")) for each in store.pods if sent]
        for encoder in encoders:
            encoder.encode([step])
        return store, encoders

    keep()  # what is made once is none of it
    gc.collect()
    tracemalloc.start()
    try:
        kept = keep()
        gc.collect()
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(kept[0].pods) == 200
    return 5 * size


def test_labels_that_nobody_asks_for_take_no_memory() -> None:
    """Nor do containers and owners: a pod is its identity."""
    assert _kept(30, Wanted(), sent=False) - _kept(0, Wanted(), sent=False) < 10_000


def test_a_thousand_pods_of_thirty_labels_take_two_megabytes() -> None:
    """Of a label's key and value once in the store, packed, and once in the bytes of the pod's message."""
    wanted = Wanted(labels=("*",))
    assert _kept(30, wanted, sent=True) - _kept(0, wanted, sent=True) < 2_000_000
