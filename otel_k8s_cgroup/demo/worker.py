"""The program that a demo pod runs: burns CPU by a plan and holds memory.

Started by its path with ``python -I -S``, so it imports nothing of the package and little of the standard library: what
its cgroup shows is the workload, not an interpreter that loads libraries. The simulated tree imports the two functions
that tell the plan, so that both trees show the same pods.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import NamedTuple

MIB = 1024 * 1024
_PERIOD_SECONDS = 0.05


class Workload(NamedTuple):
    """What a pod does."""

    steps: tuple[tuple[float, float], ...]
    """(seconds, share of one core), one after the other and then over again."""
    memory_mib: float
    """Held from the start."""
    memory_limit_mib: float
    """Grown to by ``growth_mib_per_second``; never given back."""
    growth_mib_per_second: float = 0.0
    system_fraction: float = 0.1
    """Of the CPU time, about how much is spent in the kernel."""
    file_mib: int = 0
    """Written to a file at the start: page cache."""


def cpu_share(workload: Workload, elapsed_seconds: float) -> float:
    """The share of one core that is to be burnt at this time of the workload's life."""
    at = elapsed_seconds % sum(seconds for seconds, _ in workload.steps)
    for seconds, share in workload.steps:
        if at < seconds:
            return share
        at -= seconds
    return workload.steps[-1][1]  # rounding at the very end of a cycle


def memory_mib(workload: Workload, elapsed_seconds: float) -> float:
    """MiB to be held at this time of the workload's life."""
    return min(workload.memory_limit_mib, workload.memory_mib + workload.growth_mib_per_second * elapsed_seconds)


def burn(until: float, system_fraction: float, zeros: int) -> None:
    """Brings the process's CPU time to ``until`` seconds, if it is not there yet.

    Part of it is spent in the kernel, by reading ``zeros``, a descriptor of /dev/zero.
    """
    used = time.process_time()
    while time.process_time() < used + (until - used) * (1 - system_fraction):
        sum(range(2000))
    buffer = bytearray(64 * 1024)
    while time.process_time() < until:
        os.readv(zeros, [buffer])


def main(plan: str, data_file: str) -> None:
    """Runs for ever: the demo ends it, or the kernel does when the demo dies (see launch.py)."""
    workload = Workload(**json.loads(plan))
    zeros = os.open("/dev/zero", os.O_RDONLY)
    if workload.file_mib:
        with open(data_file, "wb") as file:  # noqa: PTH123 - pathlib costs more memory than the whole program
            for _ in range(workload.file_mib):
                file.write(bytes(MIB))
    held: list[bytearray] = []
    start = next_wake = time.monotonic()
    cpu_target = time.process_time()
    while True:
        elapsed = time.monotonic() - start
        while len(held) < memory_mib(workload, elapsed):
            held.append(bytearray(b"\xa5") * MIB)  # not zeros: those would share one page until written to
        # Towards a sum, so that it comes out right where the kernel counts CPU time by ticks; and wakes on a grid, so
        # that burning does not lengthen the period. A busy machine does not make it catch up later.
        now = time.process_time()
        cpu_target = min(cpu_target + cpu_share(workload, elapsed) * _PERIOD_SECONDS, now + _PERIOD_SECONDS)
        burn(cpu_target, workload.system_fraction, zeros)
        next_wake = max(next_wake + _PERIOD_SECONDS, time.monotonic() - _PERIOD_SECONDS)
        time.sleep(max(0.0, next_wake - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
