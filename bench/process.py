"""The exporter as a process of its own: memory, threads, CPU, start, and how well it keeps its grid."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench.sink import Protocol, Sink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.nodes import Node

_CPUCLOCK_SCHED = 2


def measure_process(
    node: Node,
    *,
    protocol: Protocol,
    poll_ms: int,
    ticks: int,
    point_attributes: bool = True,
    flags: Sequence[str] = (),
) -> dict[str, float]:
    """Runs ``otel-k8s-cgroup run`` for ``ticks`` after the first ones, and looks at it from outside."""
    with Sink(protocol) as sink:
        began = time.monotonic()
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--log-level", "warning", "--k8s-node", "bench-node"),
                *("--cgroup-root", str(node.root), "--pod-source", f'{{ file = "{node.pods_file}" }}'),
                *("--poll-interval", f"{poll_ms}ms", "--point-attributes", str(point_attributes).lower()),
                *("--otlp-endpoint", sink.endpoint, "--otlp-protocol", protocol),
                *flags,
            ]
        )
        try:
            sink.wait_for(1)
            first_point_seconds = time.monotonic() - began
            # The second tick has values that need two readings, so all messages are built anew in it.
            time.sleep(2.5 * poll_ms / 1000)
            cpu_before, at_before = cpu_seconds(process.pid), time.monotonic()
            time.sleep(ticks * poll_ms / 1000)
            cpu_share = (cpu_seconds(process.pid) - cpu_before) / (time.monotonic() - at_before)
            figures = status(process.pid)
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)
        times = _tick_times_ns(sink)
    phases = [at - number * poll_ms * 1_000_000 for number, at in times]
    late = sorted((phase - min(phases)) / 1e6 for phase in phases)
    return {
        "start_to_first_point_seconds": first_point_seconds,
        "rss_mb": figures["VmRSS"] / 1024,
        "threads": figures["Threads"],
        "cpu_percent_of_a_core": 100 * cpu_share,
        "late_p99_ms": late[int(0.99 * (len(late) - 1))],
    }


def cpu_seconds(pid: int) -> float:
    """What the process has used, by its own clock; /proc/PID/stat counts in hundredths of a second.

    Source: https://man7.org/linux/man-pages/man3/clock_getcpuclockid.3.html; the id is Linux' own of that process.
    """
    return time.clock_gettime(~pid << 3 | _CPUCLOCK_SCHED)


def status(pid: int) -> dict[str, int]:
    """VmRSS (kB) and Threads."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {
        name: int(value.split()[0])
        for name, _, value in (line.partition(":") for line in lines)
        if name in ("VmRSS", "Threads")
    }


def _tick_times_ns(sink: Sink) -> list[tuple[int, int]]:
    """(number of the tick, when its first pod was read), wall clock; without the last tick, which SIGTERM makes."""
    times: set[int] = set()
    first_uid = None
    for request in sink.decoded():
        for each in request.resource_metrics:
            attributes = {attribute.key: attribute.value.string_value for attribute in each.resource.attributes}
            uid = None if "k8s.container.name" in attributes else attributes.get("k8s.pod.uid")
            first_uid = first_uid or uid
            if uid is not None and uid == first_uid:
                metric = each.scope_metrics[0].metrics[-1]
                times.update(point.time_unix_nano for point in metric.gauge.data_points or metric.sum.data_points)
    return list(enumerate(sorted(times)[:-1]))
