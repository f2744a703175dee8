"""SIGTERM, SIGINT and SIGHUP: waited for instead of obeyed at once.

Imports next to nothing, for the handlers come before all else: until there are some, the kernel keeps these signals
from the first process of a container (PID 1), and ``kubectl delete pod`` would wait for its grace period.
"""

from __future__ import annotations

import signal
import time
from _queue import Empty, SimpleQueue  # queue's own, without what else it imports

STOPPING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class StopSignals:
    """The signals that end the exporter, from its creation on: waits for one.

    Not an Event: the handler runs in the thread that waits, wherever that is, and would wait for ever for the lock that
    the Event's own wait() holds at times. A SimpleQueue may be interrupted by itself.
    """

    def __init__(self) -> None:
        self._came: SimpleQueue[int] = SimpleQueue()
        self._came_at: float | None = None
        for number in STOPPING:
            # What was started under nohup is to outlive its terminal.
            if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._handle)

    def _handle(self, number: int, _frame: object) -> None:
        if self._came_at is None:
            self._came_at = time.monotonic()
        self._came.put(number)

    def __call__(self, seconds: float) -> bool:
        """Whether one has come, after so many seconds at most."""
        if self._came_at is None:
            try:
                self._came.get(timeout=seconds)
            except Empty:
                return False
        return True

    def seconds_since(self) -> float:
        """Since the first one came; 0 where none has."""
        return 0.0 if self._came_at is None else time.monotonic() - self._came_at


class StopFlag:
    """As an Event that is only set, once or more often; a signal's handler may do so while its own thread waits.

    Any thread may set it, one waits. (An Event's own lock would be waited for by the handler that interrupts it.)
    """

    def __init__(self) -> None:
        self._set: SimpleQueue[None] = SimpleQueue()
        self._is_set = False

    def set(self) -> None:
        self._is_set = True
        self._set.put(None)

    def is_set(self) -> bool:
        return self._is_set

    def wait(self, seconds: float) -> bool:
        """Whether it is set, after so many seconds at most."""
        if not self._is_set:
            try:
                self._set.get(timeout=seconds)
            except Empty:
                return self._is_set
        return True


def as_before() -> None:
    """Each of the signals ends this process again, as it does any other."""
    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


def exit_at_once() -> None:
    """From here on each of the signals raises SystemExit in the main thread, with the exit code that a shell gives.

    Unlike what they do by themselves, this also ends the first process of a container.
    """

    def exit_by(number: int, _frame: object) -> None:
        raise SystemExit(128 + number)

    for number in STOPPING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, exit_by)
