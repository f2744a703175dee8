"""The exporter's processes, one after the other, and what each used of memory and descriptors."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.programs import PATIENCE_SECONDS, Program, clean_environ

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

SIGTERM_SECONDS = 5.0
"""Within which SIGTERM has ended it, whatever else happens."""
_SCHEDULING_SECONDS = 1.0
"""Which a machine that is busy with other things may add to it."""
_WARM_SECONDS = 60.0
"""After which all code paths have been taken, and what grows then is a leak."""
_SHORTEST_SLOPE_SECONDS = 60.0
_TICKS_TO_KNOW = 3
"""A process that does not know a pod reads it once."""
_LONGEST_PAUSE_SECONDS = 6.0
"""Between two ticks, at an interval of 0.2 s."""


class Stallable(Program):
    """A program whose output nobody reads for a while: each of its writes waits, or fails where it does not wait."""

    def __init__(self, argv: Sequence[str | Path], environ: Mapping[str, str]) -> None:
        self._reads = threading.Event()
        self._reads.set()
        self._has_paused = threading.Event()
        super().__init__(argv, environ)

    def stall(self) -> None:
        """Stops reading, and fills the pipe with empty lines."""
        assert self.process.stdout is not None
        self._has_paused.clear()
        self._reads.clear()
        # A description of its own: the program's must go on to wait.
        pipe = os.open(f"/proc/self/fd/{self.process.stdout.fileno()}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            os.write(pipe, b"\n")
            self._has_paused.wait(PATIENCE_SECONDS)  # the reader has taken what it takes at once
            while True:
                os.write(pipe, b"\n" * 4096)
        except BlockingIOError:
            pass
        finally:
            os.close(pipe)

    def read_on(self) -> None:
        self._reads.set()

    def _take(self, line: str) -> None:
        if not self._reads.is_set():
            self._has_paused.set()
            self._reads.wait()
        if line != "\n":
            super()._take(line)


@dataclass
class Life:
    """One process."""

    program: Stallable
    began: float
    rss_mb: list[tuple[float, float]] = field(default_factory=list)
    """Seconds since it began, and how much it was then."""
    descriptors: list[int] = field(default_factory=list)
    killed_ns: int = 0
    """When SIGKILL was sent, on the wall clock."""
    may_forget: bool = True
    """Whether that excuses points that come twice, as what was not noted yet."""
    ended_ns: int = 0
    remembered: dict[str, list[int]] = field(default_factory=dict)
    """What the state file said at its end: a cgroup's path → the time of each counter's last delivered point."""

    def sample(self) -> None:
        process = Path("/proc", str(self.program.process.pid))
        pages = int((process / "statm").read_text().split()[1])
        self.rss_mb.append((time.monotonic() - self.began, pages * os.sysconf("SC_PAGE_SIZE") / 1e6))
        self.descriptors.append(sum(1 for _ in (process / "fd").iterdir()))

    @property
    def slope_mb_per_hour(self) -> float | None:
        """By least squares, once it is warm; None where it has not lived long enough."""
        warm = self._warm()
        return slope(warm) * 3600 if warm else None

    @property
    def growth_mb(self) -> float:
        """Along that slope; 0 where there is none."""
        warm = self._warm()
        return slope(warm) * (warm[-1][0] - warm[0][0]) if warm else 0.0

    def _warm(self) -> list[tuple[float, float]]:
        samples = [sample for sample in self.rss_mb if sample[0] >= _WARM_SECONDS]
        return samples if samples and samples[-1][0] - samples[0][0] >= _SHORTEST_SLOPE_SECONDS else []


class Pulse:
    """Whether one process ticks, from when it has done so some times: it knows the canary then, whatever breaks."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._first: int | None = None
        self._newest = 0
        self._changed = 0.0

    def missing(self, ticks_seen: int, *, ticks: bool) -> str | None:
        """What to report where it has not ticked for long.

        Args:
            ticks_seen: of all processes.
            ticks: whether it is to tick now.
        """
        if self._first is None:
            self._first = ticks_seen
        if not ticks or ticks_seen != self._newest:
            self._newest, self._changed = ticks_seen, self._clock()
        is_known = ticks_seen >= self._first + _TICKS_TO_KNOW
        if is_known and self._clock() - self._changed > _LONGEST_PAUSE_SECONDS:
            return f"no tick for {_LONGEST_PAUSE_SECONDS:g} s"
        return None


def slope(samples: Sequence[tuple[float, float]]) -> float:
    """Of the straight line through them."""
    mean_x = sum(x for x, _ in samples) / len(samples)
    mean_y = sum(y for _, y in samples) / len(samples)
    return sum((x - mean_x) * (y - mean_y) for x, y in samples) / sum((x - mean_x) ** 2 for x, _ in samples)


class Lives:
    """Starts and ends the exporter. No call blocks: ``step`` sees what has come of the last one.

    Args:
        flags: gives the flags of the next start.
        state_file: of the exporter.
        log: is given what the processes said.
    """

    def __init__(self, flags: Callable[[], Sequence[str]], state_file: Path, log: Callable[[str], None]) -> None:
        self.all: list[Life] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self._flags = flags
        self._state_file = state_file
        self._log = log
        self._told_to_end = 0.0
        self._next_sample = 0.0

    @property
    def now(self) -> Life:
        return self.all[-1]

    @property
    def is_there(self) -> bool:
        """Whether a process is there, be it on its way out."""
        return bool(self.all) and not self.now.ended_ns

    @property
    def runs(self) -> bool:
        return self.is_there and not self._told_to_end

    def start(self, *flags_instead: str) -> None:
        """``flags_instead``: of some of the flags."""
        flags = [*self._flags(), *flags_instead]
        self._log(f"start {' '.join(flags)}")
        program = Stallable([sys.executable, "-m", "otel_k8s_cgroup", "run", *flags], clean_environ())
        self.all.append(Life(program, time.monotonic()))
        self._told_to_end = 0.0

    def end(self, number: signal.Signals, *, may_forget: bool = True) -> None:
        """``may_forget``: as ``Life.may_forget``."""
        self.counts[number.name] += 1
        self._log(number.name)
        self._told_to_end = time.monotonic()
        self.now.may_forget = may_forget
        if number is signal.SIGKILL:
            self.now.killed_ns = time.time_ns()
        self.now.program.process.send_signal(number)

    def step(self) -> None:
        if not self.is_there:
            return
        life = self.now
        if (code := life.program.process.poll()) is not None:
            self._has_ended(life, code)
        elif self._told_to_end and time.monotonic() - self._told_to_end > SIGTERM_SECONDS + _SCHEDULING_SECONDS:
            self.failures.append(f"SIGTERM did not end process {len(self.all)} within {SIGTERM_SECONDS:g} s")
            life.program.process.kill()
            self._has_ended(life, -signal.SIGTERM)
        elif self.runs and time.monotonic() >= self._next_sample:
            self._next_sample = time.monotonic() + 1.0
            life.sample()
            self._log(f"{life.rss_mb[-1][1]:.1f} MB, {life.descriptors[-1]} descriptors")

    def stall(self) -> str | None:
        """Nobody reads what the process writes; None where there is none."""
        if not self.runs or self.now.program.process.poll() is not None:
            return None
        self.now.program.stall()
        return "stderr stalled"

    def read_on(self) -> None:
        self.now.program.read_on()

    def close(self) -> None:
        if self.is_there:
            self.now.program.process.kill()
            self._has_ended(self.now, -signal.SIGKILL)

    def remembered(self) -> dict[str, list[int]]:
        """As ``Life.remembered``, now; empty where the file is not to be believed."""
        try:
            state = json.loads(self._state_file.read_bytes())
        except (FileNotFoundError, ValueError):
            return {}
        return {
            pod["path"]: [0 if base is None else base[1] for base in pod["bases"]]
            for pod in state.get("pods", {}).values()
            if pod is not None
        }

    def _has_ended(self, life: Life, code: int) -> None:
        life.program.read_on()
        life.program.wait()
        life.ended_ns = time.time_ns()
        life.remembered = self.remembered()
        self._log("\n".join(["ended, having said:", *life.program.lines]))
        if not self._told_to_end:
            self.failures.append(f"process {len(self.all)} ended by itself with code {code}")
        elif not life.killed_ns and code != 0 and not (code == -signal.SIGTERM and not life.program.lines):
            # (Before its first line it may still be loading its modules, and ends as any Python does.)
            self.failures.append(f"process {len(self.all)} ended with code {code} on SIGTERM")
        if "Traceback" in life.program.output:
            self.failures.append(f"process {len(self.all)} wrote a traceback")
