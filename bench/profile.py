"""Which function takes what share of a tick's CPU, with its delivery: samples of the stack, as the process uses CPU.

python -m bench.profile [PODS [SECONDS]]
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections import Counter
from typing import TYPE_CHECKING

from bench.bench import ToNowhere, pods_of
from bench.nodes import made
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.schemas import ALUMET

if TYPE_CHECKING:
    from types import FrameType

_EVERY_SECONDS = 0.001  # what the kernel makes of it is a tick of its clock at the least
_LEAST_SHARE = 0.01


def profile(pods: int, seconds: float) -> tuple[Counter[str], Counter[str], int]:
    """Samples by the innermost function, by every function on the stack, and in all."""
    own: Counter[str] = Counter()
    with_callees: Counter[str] = Counter()

    def sample(_signal: int, frame: FrameType | None) -> None:
        if frame is None or frame.f_code is sample.__code__:
            return
        own[_name(frame)] += 1
        names = set()
        while frame is not None:
            names.add(_name(frame))
            frame = frame.f_back
        with_callees.update(names)

    with made(pods) as node:
        known = pods_of(node)
        instruments = Instruments(ALUMET)
        exporter = Exporter(ToNowhere(), instruments, queue_bytes=1 << 30)
        cgroups = NodeCgroups(str(node.root), open_files=OpenFiles(100_000), clock=time.monotonic_ns)

        entities = {
            reading.key: Describe(with_points=False).pod(known[reading.key], reading.path)
            for reading in cgroups.read(known, _fail)
        }

        def tick() -> None:
            readings = cgroups.read(known, _fail)
            rows = instruments.collect(readings)
            exporter.put([entities[reading.key] for reading in readings], readings, rows, 0)
            exporter.delivery.deliver()

        for _ in range(3):
            tick()
        gc.collect()
        gc.freeze()
        gc.set_threshold(200_000, 50, 1_000)
        signal.signal(signal.SIGPROF, sample)
        signal.setitimer(signal.ITIMER_PROF, _EVERY_SECONDS, _EVERY_SECONDS)
        end = time.process_time() + seconds
        while time.process_time() < end:
            tick()
        signal.setitimer(signal.ITIMER_PROF, 0)
        cgroups.close()
    return own, with_callees, own.total()


def _name(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__', '?')}.{frame.f_code.co_qualname}"


def _fail(error: Exception) -> None:
    raise error


def main() -> None:
    """Prints a table (Markdown) of the functions that take a hundredth or more."""
    pods = int(sys.argv[1]) if len(sys.argv) > 1 else 110
    own, with_callees, total = profile(pods, float(sys.argv[2]) if len(sys.argv) > 2 else 20.0)
    out = sys.stdout
    out.write(f"{total} samples, {pods} pods\n\n| share | with what it calls | function |\n|---:|---:|---|\n")
    for name, samples in own.most_common():
        if samples >= _LEAST_SHARE * total:
            out.write(f"| {samples / total:.1%} | {with_callees[name] / total:.1%} | `{name}` |\n")


if __name__ == "__main__":
    main()
