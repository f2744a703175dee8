"""Nobody who reads the demo's output can keep it from ending."""

from __future__ import annotations

import contextlib
import io
import json
import os
from dataclasses import replace

import pytest

from otel_k8s_cgroup.demo.receiver import Point
from otel_k8s_cgroup.demo.views import JsonLines, LineWriter, Progress
from otel_k8s_cgroup.errors import ExporterError
from otel_k8s_cgroup.signals import StopFlag

POINT = Point(20, 10, "cpu_time_delta", "ns", 5, {"kind": "total"}, {"k8s.pod.uid": "u"})


def _progress(*events: str) -> Progress:
    return Progress("a tree", "a reason", "http://127.0.0.1:1", "1 s of 2 s", 1, 0, (), events, 0)


def test_one_object_a_point_and_notices_elsewhere() -> None:
    """stdout is for a program: each line is a point with all its fields; what is for people goes to stderr, once."""
    out, err = io.StringIO(), io.StringIO()
    view = JsonLines(out, err, StopFlag())
    view.show(_progress())
    view.received([POINT])
    view.show(_progress("an event"))
    view.finish(_progress("an event"), ["a summary"])
    assert [json.loads(line) for line in out.getvalue().splitlines()] == [
        {
            "time_unix_nano": 20,
            "start_time_unix_nano": 10,
            "metric": "cpu_time_delta",
            "unit": "ns",
            "value": 5,
            "attributes": {"kind": "total"},
            "resource": {"k8s.pod.uid": "u"},
        }
    ]
    assert err.getvalue().splitlines() == ["a tree: a reason", "an event", "a summary"]


def test_points_of_pods_come_before_the_exporters_own() -> None:
    """``demo --json | head -1`` is a point of a pod, though the exporter's first request has none of a pod."""
    out = io.StringIO()
    view = JsonLines(out, io.StringIO(), StopFlag())
    own = replace(POINT, metric="otel_k8s_cgroup.ticks", resource={"service.name": "otel-k8s-cgroup"})
    view.received([own, own])
    view.show(_progress())
    assert out.getvalue() == ""
    view.received([own, POINT])
    view.show(_progress())
    metrics = [json.loads(line)["metric"] for line in out.getvalue().splitlines()]
    assert metrics == [POINT.metric, own.metric, own.metric, own.metric]


def test_points_of_the_last_moment_are_written_too() -> None:
    """What the exporter sends when it ends is part of the output."""
    out = io.StringIO()
    view = JsonLines(out, io.StringIO(), StopFlag())
    view.received([POINT, POINT])
    view.finish(_progress(), [])
    assert len(out.getvalue().splitlines()) == 2


def test_a_reader_that_goes_away_ends_the_demo() -> None:
    """As in ``demo --json | head``: no error, and nothing left in a buffer that would fail at the interpreter's end."""
    stop = StopFlag()
    read_end, write_end = os.pipe()
    os.close(read_end)
    with os.fdopen(write_end, "w") as out:
        writer = LineWriter(out, stop)
        writer.write("a line")
        assert stop.is_set()
        writer.write("another")


def test_a_reader_that_takes_nothing_is_given_up_once_the_demo_is_to_stop() -> None:
    """The pipe is full and stays so: with ``stop`` set the writer returns all the same."""
    stop = StopFlag()
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(write_end, b"x" * 4096)
    os.set_blocking(write_end, True)
    stop.set()
    with os.fdopen(write_end, "w") as out:
        LineWriter(out, stop).write("a line")
    os.close(read_end)


def test_a_full_disk_is_an_error_with_its_name() -> None:
    """/dev/full fails each write as a full disk does."""
    if not os.path.exists("/dev/full"):  # noqa: PTH110 - a plain question
        pytest.skip("this system has no /dev/full")
    with open("/dev/full", "w") as out, pytest.raises(ExporterError, match="No space left"):  # noqa: PTH123 - a device
        LineWriter(out, StopFlag()).write("a line")
