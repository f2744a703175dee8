"""A function in a process of its own, whose memory is given back with its end."""

from __future__ import annotations

import os
import pickle
import select
import signal
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from otel_k8s_cgroup import signals

if TYPE_CHECKING:
    from collections.abc import Callable

_LOOK_FOR_STOP_SECONDS = 0.05


def in_own_process(
    do: Callable[[], tuple[int, Any]], stop: Callable[[float], bool], flush: Callable[[], object]
) -> Any:
    """What ``do`` returns beside the exit code 0. None where ``stop`` came first: then that process is ended too.

    Args:
        do: returns an exit code and what to hand over; a SystemExit counts as the former.
        stop: whether to end; waits so many seconds at most.
        flush: is called in the new process before it ends.

    Raises:
        SystemExit: the process has ended with an exit code, and nothing to hand over.
    """
    receiving, sending = os.pipe()
    lifeline, ours = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        os.close(ours)
        _be_the_child(do, sending, lifeline, flush)
    os.close(sending)
    os.close(lifeline)
    try:
        sent = _received(receiving, stop)
        if sent is None:
            os.kill(child, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        os.close(receiving)
        os.close(ours)
    if sent is None:
        return None
    if code != 0 or not sent:
        raise SystemExit(code)
    return pickle.loads(sent)  # noqa: S301 our own child's


def _received(descriptor: int, stop: Callable[[float], bool]) -> bytes | None:
    """All that comes, until its end; None: ``stop`` came first."""
    sent = bytearray()
    while not stop(0):
        if select.select([descriptor], [], [], _LOOK_FOR_STOP_SECONDS)[0]:
            piece = os.read(descriptor, 1 << 16)
            if not piece:
                return bytes(sent)
            sent += piece
    return None


def _be_the_child(do: Callable[[], tuple[int, Any]], sending: int, lifeline: int, flush: Callable[[], object]) -> None:
    """Never returns."""
    code = 1
    try:
        signals.as_before()
        threading.Thread(target=_end_with_parent, args=(lifeline,), name="lifeline", daemon=True).start()
        code, result = do()
        with os.fdopen(sending, "wb") as pipe:
            pickle.dump(result, pipe)
    except SystemExit as error:  # argparse's
        code = error.code if isinstance(error.code, int) else 1
    except BrokenPipeError:
        pass  # the parent was killed meanwhile, and its end says enough
    finally:
        with suppress(Exception):
            flush()
        with suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(code)


def _end_with_parent(lifeline: int) -> None:
    """Whatever this process waits for (a configuration file that is a pipe), it does not outlive who asked for it."""
    with suppress(OSError):
        os.read(lifeline, 1)
    os._exit(1)
