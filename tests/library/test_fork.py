"""The package as a library in a process that was forked from one that has its pods open."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_k8s_cgroup import ExporterError, PodReader, observe_pods, pod_view
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, pod
from tests.programs import PATIENCE_SECONDS

from .test_observe_pods import points
from .test_read_pods import A, B, environment, pods_file

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["environment"]

# From Python 3.12 on, of any fork of a process with threads, which is what these are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")


def in_child(do: Callable[[], object]) -> object:
    """What ``do`` returns, as JSON has it, in a process that is forked; where it raises or hangs, that is an error."""
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        with suppress(BaseException):
            os.write(sending, json.dumps(do()).encode())
        os._exit(0)
    os.close(sending)
    try:
        assert select.select([receiving], [], [], PATIENCE_SECONDS)[0], "the child hangs"
        return json.loads(os.read(receiving, 1 << 16))
    finally:
        os.close(receiving)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_a_reader_of_the_parent_is_an_error_and_stays_the_parents(tmp_path: Path) -> None:
    """Nobody watches its pods in the child; closing it there leaves the parent its watch."""
    tree = CgroupTree(tmp_path)
    tree.write(A, Figures())
    tree.write(B, Figures())
    with KubeApi() as api:
        api.add(pod("a", uid=A))
        with PodReader(cgroup_root=str(tmp_path), api_url=api.url, token="none") as reader:

            def child() -> str:
                try:
                    reader.read()
                except ExporterError as error:
                    reader.close()
                    return str(error)
                return "it reads"

            assert in_child(child) == "PodReader: this process was forked after it was opened; open another one here"
            api.add(pod("b", uid=B))
            until = time.monotonic() + PATIENCE_SECONDS
            while len(reader.read()) < 2 and time.monotonic() < until:
                time.sleep(0.01)
            assert {reading.name for reading in reader.read()} == {"a", "b"}
            assert (len(api.seen("list")), len(api.seen("watch"))) == (1, 1)


def test_the_parents_pods_are_not_observed_once_more(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever the parent's threads were at: one line says what to do, and that works."""
    CgroupTree(tmp_path).write(A, Figures(user_usec=1))
    listed = pods_file(tmp_path, pod("a", uid=A))
    reader, another = InMemoryMetricReader(), InMemoryMetricReader()
    provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
    with observe_pods(provider, cgroup_root=str(tmp_path), pods_file=listed) as observed:

        def child() -> list[object]:
            counts = [len(points(reader)), len(points(reader))]
            observed.close()
            counts.append(len(points(reader)))
            own = MeterProvider([another], views=[pod_view()], shutdown_on_exit=False)
            with observe_pods(own, cgroup_root=str(tmp_path), pods_file=listed):
                counts.append(len(points(another)["k8s.pod.cpu.time"]))
            return [counts, caplog.messages]

        # As while another thread collects.
        with observed._lock:
            found = in_child(child)
        assert len(points(reader)["k8s.pod.cpu.time"]) == 1
    line = "no pods are observed: this process was forked after observe_pods; call it with a new MeterProvider"
    assert found == [[0, 0, 0, 1], [line]]
