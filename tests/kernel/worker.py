"""A container's process: joins the cgroups whose ``cgroup.procs`` it is given, then does as its standard input says.

One JSON object a line in, one out: ``{"burn_seconds": 0.5, "system": false}``, ``{"anonymous_bytes": n}``,
``{"file_bytes": n}`` and ``{"threads": n}`` (held until the end). It answers with what it has used since it joined, by
``getrusage``; between two lines it sleeps.
"""

import json
import mmap
import os
import resource
import sys
import threading

_PAGE = mmap.PAGESIZE


def cpu_seconds() -> tuple[float, float]:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime, usage.ru_stime


def burn(seconds: float, *, system: bool) -> None:
    """Until ``seconds`` of CPU time are used, in user mode or in system calls."""
    zeros = os.open("/dev/zero", os.O_RDONLY)
    buffer = bytearray(1 << 20)
    end = sum(cpu_seconds()) + seconds
    while sum(cpu_seconds()) < end:
        if system:
            os.readv(zeros, [buffer])
        else:
            sum(range(20_000))
    os.close(zeros)


def main() -> None:
    for procs in sys.argv[1:]:
        with open(procs, "w", encoding="ascii") as file:  # noqa: PTH123 nothing is imported that need not be
            file.write("0")
    user_before, system_before = cpu_seconds()
    held = []
    for line in sys.stdin:
        order = json.loads(line)
        if "burn_seconds" in order:
            burn(order["burn_seconds"], system=order.get("system", False))
        if "anonymous_bytes" in order:
            block = mmap.mmap(-1, order["anonymous_bytes"], flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            for offset in range(0, len(block), _PAGE):
                block[offset] = 1
            held.append(block)
        if "file_bytes" in order:
            file_descriptor = os.memfd_create("held")
            for _ in range(order["file_bytes"] // _PAGE):
                os.write(file_descriptor, b"1" * _PAGE)
        for _ in range(order.get("threads", 0)):
            threading.Thread(target=threading.Event().wait, daemon=True).start()
        user, system = cpu_seconds()
        print(json.dumps({"user": user - user_before, "system": system - system_before}), flush=True)  # noqa: T201


main()
