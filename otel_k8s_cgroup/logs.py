"""The log: one line a message on standard error, without secrets, and never a reason to wait.

A container runtime that stops reading, a terminal that is held by Ctrl-S, a pipe whose reader hangs: each blocks who
writes to it. So a thread of its own writes, out of a queue that is bounded; lines that do not fit are counted.
"""

from __future__ import annotations

import io
import logging
import os
import select
import sys
import threading
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_k8s_cgroup.redaction import Redactor

_log = logging.getLogger(__name__)

QUEUE_BYTES = 256 * 1024
_LONGEST_LINE_BYTES = 16 * 1024


class LineWriter:
    """Writes lines to a descriptor in a thread of its own, which begins with the first line.

    Args:
        descriptor: of an open file.
        queue_bytes: what may wait.
        write: as ``os.write``.
    """

    def __init__(
        self,
        descriptor: int = 2,
        *,
        queue_bytes: int = QUEUE_BYTES,
        write: Callable[[int, bytes], int] = os.write,
    ) -> None:
        self.dropped = 0
        """Lines that were not written, since the start."""
        self._descriptor = descriptor
        self._queue_bytes = queue_bytes
        self._write = write
        self._changed = threading.Condition()
        self._lines: deque[bytes] = deque()
        self._waiting_bytes = 0
        """Of the lines in the queue and of the one that is being written."""
        self._reported = 0
        """Of the dropped lines."""
        self._thread: threading.Thread | None = None

    def put(self, line: str) -> None:
        """Queues ``line``, or drops it where the queue is full. Never waits."""
        data = line.encode("utf-8", "backslashreplace")
        if len(data) > _LONGEST_LINE_BYTES:
            data = data[:_LONGEST_LINE_BYTES] + "…".encode()
        data += b"\n"
        with self._changed:
            if self._waiting_bytes + len(data) > self._queue_bytes:
                self.dropped += 1
                return
            self._lines.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None:
                # A daemon: a descriptor that takes nothing must not keep the process from ending.
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def flush(self, timeout_seconds: float) -> bool:
        """Waits until all lines are written, so long at most. Whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, timeout_seconds)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines)
                data = self._lines.popleft()
            is_written = self._write_all(data)
            with self._changed:
                self._waiting_bytes -= len(data)
                self.dropped += not is_written
                missing = self.dropped - self._reported if is_written and not self._lines else 0
                self._reported += missing
                self._changed.notify_all()
            if missing:
                _log.warning("%d lines of the log were dropped: standard error did not take them", missing)

    def _write_all(self, data: bytes) -> bool:
        try:
            while data:
                try:
                    data = data[self._write(self._descriptor, data) :]
                except BlockingIOError:  # who shares the descriptor with us has made it so
                    select.select([], [self._descriptor], [])
        except (OSError, ValueError):  # closed, its reader is gone, its disk is full
            return False
        return True


class OneLine(logging.Formatter):
    """Time, severity and message on a line without secrets.

    What others wrote (a pod's name, an answer) must not begin a line of its own or move a terminal's cursor. A
    traceback, which only a defect makes, has lines of its own; they are indented.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s")
        self._redact = redact

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 the base class's name
        """The line of the message."""
        record.message = _printable(self._redact(record.message))
        return super().formatMessage(record)

    def formatException(self, ei: object) -> str:  # noqa: N802 the base class's name
        """The lines of the traceback."""
        text = self._redact(super().formatException(ei))  # type: ignore[arg-type] # typeshed has a private name for it
        return "\n".join(f"  {_printable(line)}" for line in text.split("\n"))


class LineHandler(logging.Handler):
    """Gives each record to ``writer``."""

    def __init__(self, writer: LineWriter) -> None:
        super().__init__()
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._writer.put(self.format(record))
        except Exception:  # noqa: BLE001 a line of the log must not end what it tells of
            self.handleError(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 the base class's name
        """The base class would write to sys.stderr itself."""
        self._writer.put(f"ERROR a line of the log cannot be formatted ({record.filename}:{record.lineno})")


class KeptWarnings(logging.Handler):
    """Keeps the warnings that it is given, instead of their being logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Those of the logger ``name``, inside."""
        logger = logging.getLogger(name)
        propagate, logger.propagate = logger.propagate, False
        logger.addHandler(self)
        try:
            yield
        finally:
            logger.removeHandler(self)
            logger.propagate = propagate


class Logs:
    """Where all that the command says goes: log lines, and its own words to its user.

    Args:
        redact: hides secrets.
        writer: takes the lines.
    """

    def __init__(self, redact: Redactor, writer: LineWriter) -> None:
        self.redact = redact
        self.writer = writer

    def begin(self, level: str = "info") -> None:
        """From here on the log is here, with ``level`` for the exporter and warnings for the libraries."""
        handler = LineHandler(self.writer)
        handler.setFormatter(OneLine(self.redact))
        logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
        logging.captureWarnings(capture=True)
        # It warns of headers that it cannot parse, with a traceback. What comes of such an answer we say ourselves.
        logging.getLogger("urllib3").setLevel(logging.ERROR)
        logging.getLogger("otel_k8s_cgroup").setLevel(level.upper())
        threading.excepthook = _log_end_of_thread

    def write(self, text: str) -> None:
        """The command's own words, which may be several lines."""
        for line in self.redact(text).split("\n"):
            self.writer.put(_printable(line))


def open_standard_streams() -> None:
    """Gives standard input, output and error that are closed to /dev/null.

    Else the next file or socket would have their number, and get what is meant for them.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
    if sys.stdout is None:
        sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115 it is the process's
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or a file of another encoding than UTF-8 does not have every sign.
        sys.stdout.reconfigure(errors="backslashreplace")
    if sys.stderr is None:
        sys.stderr = open(2, "w", encoding="utf-8", closefd=False)  # noqa: SIM115


def _log_end_of_thread(ended: threading.ExceptHookArgs) -> None:
    if ended.exc_value is not None:
        name = ended.thread.name if ended.thread is not None else "?"
        _log.error("the thread %s has ended", name, exc_info=ended.exc_value)


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
