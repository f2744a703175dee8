"""What the log says of the first exports: what became of the pods' points, or that they were accepted."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable
from otel_k8s_cgroup.export.transport import Receipt
from tests.fakes.node import DirectReceiver, Node

if TYPE_CHECKING:
    from pathlib import Path

REFUSED = ExportRetryable("receiver", "refused", "connection refused")
NOT_FOUND = ExportRejected("receiver", "HTTP 404", "no such page")


def lines(caplog: pytest.LogCaptureFixture, level: int = logging.WARNING) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == level]


@pytest.mark.parametrize(
    ("error", "own", "pods"),
    [
        (
            REFUSED,
            "receiver: refused: connection refused; no reading of a pod waits; the exporter's own metrics are not sent",
            "receiver: refused: connection refused; 2 readings of pods wait to be sent again",
        ),
        (
            NOT_FOUND,
            "receiver: HTTP 404: no such page; no reading of a pod waits; the exporter's own metrics are not sent",
            "receiver: HTTP 404: no such page; 14 points of 2 pods dropped; the CPU time joins the next points",
        ),
    ],
)
def test_what_became_of_the_pods_points_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, error: ExportError, own: str, pods: str
) -> None:
    """A failure that cost only the exporter's own metrics first does not hide what it costs the pods later."""
    down: list[ExportError] = [error]
    receiver = DirectReceiver(lambda: down[0] if down else None)
    node = Node(tmp_path, receiver, own_metrics=lambda: b"\n\0")
    node.tick()
    node.start(1, used_usec=5)
    node.start(2, used_usec=5)
    for _ in range(3):
        node.read()
        node.deliver()
    assert lines(caplog) == [own, pods]
    down.clear()
    with caplog.at_level("INFO"):
        node.read()
        node.deliver()
    assert f"the OTLP receiver takes requests again (it was: {error.cause})" in lines(caplog, logging.INFO)
    node.close()


def test_the_first_accepted_export_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Pods, their cgroups, the version and the points: not before the receiver has taken a pod's point."""
    down = [REFUSED]
    receiver = DirectReceiver(lambda: down[0] if down else None)
    node = Node(tmp_path, receiver, own_metrics=lambda: b"\n\0", endpoint="http://here:4317")
    with caplog.at_level("INFO"):
        node.tick()
        for number in range(3):
            node.start(number, used_usec=1)
        node.told = node.told[:2]
        node.read()
        node.deliver()
        assert "accepted" not in caplog.text
        down.clear()
        for _ in range(3):
            node.read()
            node.deliver()
    (line,) = [line for line in lines(caplog, logging.INFO) if "accepted" in line]
    assert line == "pods: 2, cgroups: 3 (v2), points accepted by http://here:4317: 28"
    node.close()


def test_a_receiver_that_rejects_every_point_has_accepted_none(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its 200 is no success."""
    node = Node(tmp_path, DirectReceiver(receipt=Receipt(10**9, "no")))
    node.start(1)
    with caplog.at_level("INFO"):
        for _ in range(3):
            node.tick()
    assert "accepted" not in caplog.text
    node.close()


def test_debug_shows_births_ends_and_exports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line each."""
    node = Node(tmp_path, DirectReceiver())
    with caplog.at_level("DEBUG"):
        node.tick()
        uid = node.start(1)
        node.tick()
        node.tick()
        node.end(uid)
        node.tick()
    debug = lines(caplog, logging.DEBUG)
    assert f"pod ns/pod-1 ({uid}): measured from now on" in debug
    assert f"pod ns/pod-1 ({uid}): its cgroup has ended" in debug
    assert len([line for line in debug if line.startswith("OTLP request of ") and ": ok after" in line]) == 2
    node.close()
