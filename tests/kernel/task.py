"""A container's process for one thing: joins the cgroups whose ``cgroup.procs`` it is given, does it, and answers.

Its arguments are the thing as JSON, and the files. The answer, what it did, is one JSON object on a line; then it waits
for its standard input to end.
"""

import contextlib
import json
import mmap
import os
import resource
import signal
import sys
import time
from typing import Any

_BLOCK = 65536
_MADV_NOHUGEPAGE = 15


def burn(seconds: float) -> dict[str, float]:
    """CPU time, and the time that it took."""
    begun, before = time.monotonic(), time.process_time()
    while (used := time.process_time() - before) < seconds:
        sum(range(10_000))
    return {"cpu_seconds": used, "elapsed_seconds": time.monotonic() - begun}


def fault(pages: int) -> dict[str, int]:
    """Touches so many pages for the first time."""
    memory = mmap.mmap(-1, pages * mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with contextlib.suppress(OSError):  # a kernel without huge pages
        memory.madvise(_MADV_NOHUGEPAGE)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for at in range(0, len(memory), mmap.PAGESIZE):
        memory[at] = 1
    HELD.append(memory)
    return {"minor": resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before}


def fork_until_refused(_: None) -> dict[str, int]:
    """Children that wait; how many there are."""
    children = 0
    while True:
        try:
            child = os.fork()
        except BlockingIOError:
            return {"children": children}
        if not child:
            signal.pause()
        children += 1


def use_disk(order: dict[str, Any]) -> dict[str, int]:
    """Writes and reads blocks past the page cache."""
    direct = os.open(order["device"], os.O_RDWR | os.O_DIRECT)
    block = mmap.mmap(-1, _BLOCK)
    for number in range(order["writes"]):
        os.pwritev(direct, [block], number * _BLOCK)
    for number in range(order["reads"]):
        os.preadv(direct, [block], number * _BLOCK)
    return {"written": order["writes"] * _BLOCK, "read": order["reads"] * _BLOCK}


def fetch(device: str) -> dict[str, int]:
    """Touches a page of the device that has to be read first."""
    cached = os.open(device, os.O_RDONLY)
    os.posix_fadvise(cached, 0, 0, os.POSIX_FADV_DONTNEED)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_majflt
    mapped = mmap.mmap(cached, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ)
    HELD.append(mapped[0])
    return {"major": resource.getrusage(resource.RUSAGE_SELF).ru_majflt - before}


HELD: list[Any] = []

if __name__ == "__main__":
    what, argument = json.loads(sys.argv[1])
    for procs in sys.argv[2:]:
        with open(procs, "w", encoding="ascii") as file:  # noqa: PTH123 nothing is imported that need not be
            file.write("0")
    does: dict[str, Any] = {"burn": burn, "fault": fault, "fork": fork_until_refused, "disk": use_disk, "fetch": fetch}
    done = does[what](argument)
    print(json.dumps(done), flush=True)  # noqa: T201 its answer
    sys.stdin.read()
