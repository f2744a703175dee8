"""Programs that run beside a test: started with an environment of their own, watched, and ended whatever happens."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

PATIENCE_SECONDS = 30.0
"""How long a test waits for what never comes before it fails."""


def clean_environ(**extra: str) -> dict[str, str]:
    """What a program needs to run at all, what measures its coverage, and ``extra``."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "HOME"} or name.startswith("COV")}
    return kept | extra


class Program:
    """A program whose output (both streams, as one) is kept line by line; made by `started`."""

    def __init__(self, argv: Sequence[str | Path], environ: Mapping[str, str], stderr: int = subprocess.STDOUT) -> None:
        self.process = subprocess.Popen(
            argv,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            errors="replace",
        )
        self.lines: list[str] = []
        self._changed = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        return "\n".join(self.lines)

    def wait_for_line(self, matches: Callable[[str], object], timeout: float = PATIENCE_SECONDS) -> str:
        """Blocks until there was a line that ``matches``, and returns it."""

        def found() -> str | None:
            return next((line for line in self.lines if matches(line)), None)

        with self._changed:
            self._changed.wait_for(lambda: found() is not None or self._ended, timeout)
            line = found()
        if line is None:
            raise AssertionError(f"{self.process.args!r} has not said what was waited for, but:\n{self.output}")
        return line

    def stop(self, timeout: float = PATIENCE_SECONDS) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait(timeout)

    def wait(self, timeout: float = PATIENCE_SECONDS) -> int:
        """The exit code, once it has ended by itself."""
        code = self.process.wait(timeout)
        self._reader.join(timeout)
        return code

    def _read(self) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as output:
            for line in output:
                self._take(line)
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _take(self, line: str) -> None:
        with self._changed:
            self.lines.append(line.rstrip("\n"))
            self._changed.notify_all()


@contextmanager
def started(
    argv: Sequence[str | Path], environ: Mapping[str, str] | None = None, stderr: int = subprocess.STDOUT
) -> Iterator[Program]:
    """``argv`` as a process, killed at the end where it still runs. What it wrote is told with a test's failure."""
    program = Program(argv, clean_environ() if environ is None else environ, stderr)
    try:
        yield program
    except BaseException as error:
        error.add_note(f"{argv[0]} wrote:\n{program.output[-4000:]}")
        raise
    finally:
        program.process.kill()
        program.wait()


@contextmanager
def exporter(*flags: str | Path, environ: Mapping[str, str] | None = None) -> Iterator[Program]:
    """``otel-k8s-cgroup run`` with ``flags``."""
    with started([sys.executable, "-m", "otel_k8s_cgroup", "run", *flags], environ) as program:
        yield program
