"""A restart with a state file: no CPU time twice, and none lost."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest

from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import cpu_time, points
from tests.programs import clean_environ

if TYPE_CHECKING:
    from pathlib import Path

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"


class Node:
    """A tree with one pod whose CPU time the test sets, and the exporter on it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.state = home / "state.json"
        self.pod = home / "cgroup" / "kubepods" / f"pod{UID}"
        self.pod.mkdir(parents=True)
        (home / "cgroup" / "cgroup.controllers").write_text("cpu memory\n")
        metadata = {"uid": UID, "name": "cart", "namespace": "shop"}
        (home / "pods.json").write_text(json.dumps({"items": [{"metadata": metadata, "spec": {"nodeName": "n1"}}]}))

    def has_used(self, usec: int) -> None:
        (self.pod / "cpu.stat").write_text(f"usage_usec {usec}\nuser_usec {usec}\nsystem_usec 0\n")

    def start(self, receiver: OtlpReceiver) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [
                *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "n1", "--poll-interval", "100ms"),
                *("--cgroup-root", str(self.home / "cgroup"), "--state-file", str(self.state)),
                *("--pod-source", f'{{ file = "{self.home / "pods.json"}" }}'),
                *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", receiver.protocol),
            ],
            env=clean_environ(),
        )


@pytest.mark.parametrize("end", ["SIGKILL", "SIGTERM"])
def test_the_next_start_goes_on_from_what_was_delivered(tmp_path: Path, end: str) -> None:
    """The sum over both processes is the counter's growth, what it grew by between them included."""
    node = Node(tmp_path)
    node.has_used(1000)

    def more_requests() -> None:
        already = len(receiver.messages)
        receiver.wait_for(lambda messages: len(messages) >= already + 5, timeout=30)

    with OtlpReceiver("http/protobuf") as receiver:
        first = node.start(receiver)
        more_requests()
        node.has_used(5000)
        more_requests()
        (first.kill if end == "SIGKILL" else first.terminate)()
        code = first.wait(20)
        assert code == (-9 if end == "SIGKILL" else 0)
        assert node.state.stat().st_mode & 0o777 == 0o600
        node.has_used(9000)
        second = node.start(receiver)
        more_requests()
        node.has_used(10_000)
        second.terminate()
        assert second.wait(20) == 0
        assert cpu_time(points(receiver.messages), UID)["total"] == (10_000 - 1000) * 1000


def test_a_cgroup_that_was_made_anew_meanwhile_counts_from_zero(tmp_path: Path) -> None:
    """A static pod's, at the same path and under the same uid: its directory's inode tells it from the one before."""
    node = Node(tmp_path)
    node.has_used(1000)
    with OtlpReceiver("http/protobuf") as receiver:
        first = node.start(receiver)
        receiver.wait_for(lambda messages: len(messages) >= 5, timeout=30)
        first.terminate()
        assert first.wait(20) == 0
        node.pod.rename(tmp_path / "before")  # which keeps its inode from being used again
        node.pod.mkdir()
        node.has_used(700)
        already = len(receiver.messages)
        second = node.start(receiver)
        receiver.wait_for(lambda messages: len(messages) >= already + 5, timeout=30)
        second.terminate()
        assert second.wait(20) == 0
        arrived = points(receiver.messages)
    assert cpu_time(arrived, UID)["total"] == 700 * 1000
    spans = sorted((p.start_ns, p.time_ns) for p in arrived if p.attributes.get("kind") == "total" and p.start_ns)
    assert all(end <= start for (_, end), (start, _) in pairwise(spans)), "deltas that overlap"


def test_a_path_of_something_else_is_refused(tmp_path: Path) -> None:
    """One line that names the setting; what is there stays."""
    node = Node(tmp_path)
    node.state.write_text("{garbage")
    with OtlpReceiver("http/protobuf") as receiver:
        process = node.start(receiver)
        assert process.wait(20) == 2
    assert node.state.read_text() == "{garbage"


def test_a_state_file_that_was_cut_short_is_set_aside(tmp_path: Path) -> None:
    """It stops nothing, and what it was can still be looked at."""
    node = Node(tmp_path)
    node.has_used(1000)
    node.state.write_text('{"format":"otel-k8s-cgroup state","version":3,"bo')
    with OtlpReceiver("http/protobuf") as receiver:
        process = node.start(receiver)
        receiver.wait_for(lambda messages: len(messages) >= 5, timeout=30)
        process.terminate()
        assert process.wait(20) == 0
    assert (tmp_path / "state.json.bad").read_text().endswith('"bo')
