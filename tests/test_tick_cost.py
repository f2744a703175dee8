"""What a tick costs, counted: system calls and memory. Time is for ``make bench``."""

from __future__ import annotations

import sys
import tracemalloc
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.export import encode
from otel_k8s_cgroup.export.template import Template
from otel_k8s_cgroup.model import Details
from otel_k8s_cgroup.pod_attributes import packed
from tests.fakes.node import DirectReceiver, Node

if TYPE_CHECKING:
    from pathlib import Path

    from otel_k8s_cgroup.export.transport import Receipt

pytestmark = pytest.mark.usefixtures("preads_are_seen")

PODS = 12
KIB = 1024


class Forgetful(DirectReceiver):
    """Keeps nothing, so that what is held is the exporter's."""

    def send(self, body: bytes) -> Receipt:  # noqa: ARG002
        return self.receipt


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """A dozen pods, after three ticks: all files are open, all messages built."""
    node = Node(tmp_path, Forgetful())
    for number in range(PODS):
        directory = tmp_path / "kubepods" / f"pod{node.start(number)}"
        (directory / "memory.stat").write_text("anon 1\nfile 2\nkernel 3\nkernel_stack 4\npagetables 5\n")
    for _ in range(3):
        one_tick(node)
    return node


def one_tick(node: Node) -> None:
    for uid in node.pods:
        node.use(uid, 1000)
    node.tick()


def test_a_tick_makes_no_system_call_that_it_can_do_without(node: Node) -> None:
    """Three reads a pod; a stat of the directory that holds them, and of the root."""
    calls: Counter[str] = Counter()

    def count(_frame: object, event: str, function: Any) -> None:
        if event == "c_call" and function.__module__ == "posix":
            calls[function.__name__] += 1

    for uid in node.pods:
        node.use(uid, 1000)
    sys.setprofile(count)
    try:
        node.agent.tick()
    finally:
        sys.setprofile(None)
    assert calls == {"pread": 3 * PODS, "stat": 2}


def test_a_changed_label_costs_one_message(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """The protobuf library builds that of the one pod anew, once; all others, and all later ones, are filled."""
    built: list[object] = []

    def build(*arguments: Any) -> Template:
        built.append(arguments)
        return Template(*arguments)

    monkeypatch.setattr(encode, "Template", build)
    one_tick(node)
    assert not built
    uid = next(iter(node.pods))
    labels = packed({"k8s.pod.label.": {"tier": "b"}})
    node.pods[uid] = replace(node.pods[uid], details=Details(labels))
    node.tell()
    for _ in range(3):
        one_tick(node)
    assert len(built) == 1


def test_ticks_leave_nothing_behind(node: Node) -> None:
    """What is allocated after 100 more ticks is what was allocated before them."""
    tracemalloc.start()
    try:
        for _ in range(250):  # until the interpreter has its free lists: of tuples, 2,000 of a size
            one_tick(node)
        before, _ = tracemalloc.get_traced_memory()
        for _ in range(100):
            one_tick(node)
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert after - before < 4 * KIB


def test_a_tick_takes_little_memory_for_its_while(node: Node) -> None:
    """Rows, readings and the request: at most 10 KiB a pod at once."""
    tracemalloc.start()
    try:
        one_tick(node)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        one_tick(node)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < PODS * 10 * KIB
