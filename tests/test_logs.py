"""The log: lines that nobody reads are dropped and counted, and no line is more than one."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.logs import LineHandler, LineWriter, OneLine
from otel_k8s_cgroup.redaction import Redactor
from tests.programs import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Iterator


class Output:
    """Stands for standard error: takes lines once it is open, a few bytes at a time, or fails."""

    def __init__(self) -> None:
        self.is_open = threading.Event()
        self.asked = threading.Event()
        self.error: OSError | None = None
        self.written = b""

    def write(self, _descriptor: int, data: bytes) -> int:
        self.asked.set()
        assert self.is_open.wait(PATIENCE_SECONDS)
        if self.error is not None:
            raise self.error
        self.written += data[:7]
        return len(data[:7])


@pytest.fixture
def output() -> Iterator[Output]:
    output = Output()
    yield output
    output.is_open.set()


@pytest.fixture
def of_ours() -> Iterator[logging.Logger]:
    """The logger of the exporter, whose handlers are taken away again."""
    logger = logging.getLogger("otel_k8s_cgroup")
    before = list(logger.handlers)
    yield logger
    logger.handlers[:] = before


def test_a_line_is_written_whole(output: Output) -> None:
    """However little is taken at a time."""
    output.is_open.set()
    writer = LineWriter(write=output.write)
    writer.put("a line that is longer than seven bytes, and has an ä and a \ud800")
    assert writer.flush(PATIENCE_SECONDS)
    assert output.written == "a line that is longer than seven bytes, and has an ä and a \\ud800\n".encode()


def test_nobody_waits_for_a_reader_that_hangs(output: Output, of_ours: logging.Logger) -> None:
    """What does not fit is dropped and counted, and that is said once there is a reader again."""
    writer = LineWriter(queue_bytes=100, write=output.write)
    handler = LineHandler(writer)
    handler.setFormatter(OneLine(Redactor()))
    of_ours.addHandler(handler)
    for _ in range(10):
        writer.put("x" * 29)
    assert writer.dropped == 7
    assert not writer.flush(0)
    output.is_open.set()
    assert writer.flush(PATIENCE_SECONDS)
    # The line about them is put behind the last one that waited.
    while b"\n2" not in output.written and writer.flush(PATIENCE_SECONDS):
        pass
    assert writer.flush(PATIENCE_SECONDS)
    assert output.written.startswith((b"x" * 29 + b"\n") * 3)
    assert output.written.endswith(b" WARNING 7 lines of the log were dropped: standard error did not take them\n")
    assert output.written.count(b"WARNING") == 1


@pytest.mark.parametrize("error", [BrokenPipeError(), OSError(28, "No space left on device"), OSError(9, "Bad file")])
def test_an_output_that_fails_costs_the_line_alone(output: Output, error: OSError) -> None:
    """Its reader is gone, its disk is full, it was closed: the next line is tried again."""
    output.error = error
    output.is_open.set()
    writer = LineWriter(write=output.write)
    writer.put("lost")
    assert writer.flush(PATIENCE_SECONDS)
    assert writer.dropped == 1
    output.error = None
    writer.put("there")
    assert writer.flush(PATIENCE_SECONDS)
    assert output.written.startswith(b"there\n")


def test_an_output_that_does_not_block_is_waited_for() -> None:
    """Another process may have made the pipe so that we share with it."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    try:
        writer = LineWriter(writing)
        for _ in range(10):
            writer.put("x" * 16_000)
        received = b""
        while received.count(b"\n") < 10:
            received += os.read(reading, 65536)
        assert writer.flush(PATIENCE_SECONDS)
        assert (writer.dropped, len(received)) == (0, 160_010)
    finally:
        os.close(reading)
        os.close(writing)


def test_a_line_has_an_end(output: Output) -> None:
    """Whatever somebody else wrote into it."""
    output.is_open.set()
    writer = LineWriter(write=output.write)
    writer.put("x" * 1_000_000)
    assert writer.flush(PATIENCE_SECONDS)
    assert len(output.written) < 20_000


def record(message: str, *arguments: object, error: bool = False) -> logging.LogRecord:
    info = sys.exc_info() if error else None
    return logging.LogRecord("x", logging.ERROR, "file.py", 7, message, arguments, info)


def raise_with(message: str) -> None:
    raise ValueError(message)


def test_a_traceback_is_indented_and_without_secrets() -> None:
    """What others wrote into an exception begins no line of the log, and shows no token."""
    redact = Redactor()
    redact.add_token("opaque-token-of-this-test")
    try:
        raise_with("bad opaque-token-of-this-test\n2026-01-01 00:00:00,000 INFO forged \x1b[2J")
    except ValueError:
        lines = OneLine(redact).format(record("it broke: %s", "\n", error=True)).split("\n")
    assert lines[0].endswith(" ERROR it broke: \\n")
    assert len(lines) > 3
    assert all(line.startswith("  ") and line.isprintable() for line in lines[1:])
    assert lines[-2:] == ["  ValueError: bad ***", "  2026-01-01 00:00:00,000 INFO forged \\x1b[2J"]


def test_a_line_that_cannot_be_formatted_is_said(output: Output) -> None:
    """By the log itself, not by Python on standard error."""
    output.is_open.set()
    writer = LineWriter(write=output.write)
    handler = LineHandler(writer)
    handler.setFormatter(OneLine(Redactor()))
    handler.emit(record("%d", "no number"))
    assert writer.flush(PATIENCE_SECONDS)
    assert output.written == b"ERROR a line of the log cannot be formatted (file.py:7)\n"
