"""``make bench``: what the exporter costs, beside the least that the kernel allows.

    python -m bench.bench [--json FILE] [--quick] [EARLIER.json]

Ratios in one run are what to compare: machines differ, and shared ones are noisy. Figures are medians of RUNS.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import resource
import statistics
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import google.protobuf
from opentelemetry.sdk.version import __version__ as sdk_version

from bench.nodes import ALL_CONTROLLERS, Node, made
from bench.process import measure_process
from bench.read_cost import read_cost
from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import Group, Pod
from otel_k8s_cgroup.schemas import ALUMET, figures_of, select
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.sink import Protocol
    from otel_k8s_cgroup.metrics import Metric

SIZES = (10, 110, 500, 1000)
RUNS = 7
PROCESS_RUNS = 5

_LOOP = 20_000


def reference_us() -> float:
    """A fixed pure-Python loop, µs: what machine this is, in the one unit that all of them share."""
    begin = time.process_time_ns()
    value = 1
    for number in range(_LOOP):
        value = (value * 31 + number) & 0xFFFFFFFF
    return (time.process_time_ns() - begin) / 1e3


class ToNowhere:
    """Takes the bytes as a socket would, and lets them go."""

    def __init__(self) -> None:
        self.bytes = 0
        self._out = Path("/dev/null").open("wb", buffering=0)  # noqa: SIM115 closed with the process

    def send(self, body: bytes) -> Receipt:
        self.bytes += self._out.write(body) or 0
        return Receipt()

    def close(self) -> None:
        self._out.close()


def pods_of(node: Node) -> dict[str, Pod]:
    """The node's pods, by their cgroup uid."""
    return {
        uid: Pod(uid, f"checkout-7d9c5b6f4-{number:05d}", "shop", "bench-node", "2026-01-01T00:00:00Z", uid)
        for number, uid in enumerate(node.uids)
    }


_EVERYTHING_PROCESS = "110 of two containers, everything, http/protobuf 5s"
_GROUPS = [group for group in get_args(Group) if group != "network"]  # which no cgroup knows
_EVERYTHING_FLAGS = ("--metrics", ",".join(_GROUPS), "--containers", "true", "--node-totals", "true")

EVERYTHING = select(("alumet",), _GROUPS)


def pipeline(node: Node, *, point_attributes: bool, metrics: Sequence[Metric] = ALUMET) -> dict[str, float]:
    """CPU of each stage of a tick, and the bytes a point; medians."""
    pods = pods_of(node)
    transport = ToNowhere()
    instruments = Instruments(metrics)
    exporter = Exporter(transport, instruments, queue_bytes=1 << 30)
    cgroups = NodeCgroups(
        str(node.root),
        open_files=OpenFiles(100_000),
        clock=time.monotonic_ns,
        parts=((figures_of(metrics), 1),),
    )
    entities = {
        reading.key: Describe(with_points=point_attributes).pod(pods[reading.key], reading.path)
        for reading in cgroups.read(pods, _fail)
    }
    figures = [point.figure for metric in metrics if not metric.by for point in metric.points]
    stages: dict[str, list[float]] = {"read": [], "collect": [], "deliver": [], "direct": [], "reference": []}
    offset_ns = time.time_ns() - time.monotonic_ns()
    points = 0
    try:
        for run in range(RUNS + 3):
            readings = rows = None
            laps = [0] * 4
            rounds = max(3, 2000 // len(pods))
            points_before, bytes_before = exporter.stats.points_sent, transport.bytes
            for _ in range(rounds):
                begin = time.process_time_ns()
                readings = cgroups.read(pods, _fail)
                read = time.process_time_ns()
                rows = instruments.collect(readings)
                collected = time.process_time_ns()
                exporter.put([entities[reading.key] for reading in readings], readings, rows, offset_ns)
                exporter.delivery.deliver()
                delivered = time.process_time_ns()
                # What the SDK's part would cost without it.
                table = Table(readings)
                rows = list(zip(*map(table.column, figures), strict=True))
                direct = time.process_time_ns()
                took = read - begin, collected - read, delivered - collected, direct - delivered
                laps = [lap + one for lap, one in zip(laps, took, strict=True)]
            points = exporter.stats.points_sent - points_before
            if run >= 3:  # the first ones build the messages
                stages["read"].append(laps[0] / 1e3 / rounds / len(pods))
                stages["collect"].append(laps[1] / 1e3 / points)
                stages["deliver"].append(laps[2] / 1e3 / points)
                stages["direct"].append(laps[3] / 1e3 / points)
                stages["reference"].append(reference_us())
            size = (transport.bytes - bytes_before) / points
    finally:
        cgroups.close()
        transport.close()
    return {
        "read_us_per_pod": statistics.median(stages["read"]),
        "collect_us_per_point": statistics.median(stages["collect"]),
        "deliver_us_per_point": statistics.median(stages["deliver"]),
        "collect_without_sdk_us_per_point": statistics.median(stages["direct"]),
        "points_per_pod": points / rounds / len(pods),
        "bytes_per_point": size,
        "reference_us": statistics.median(stages["reference"]),
    }


def _fail(error: Exception) -> None:
    raise error


def measure(*, quick: bool) -> dict[str, Any]:
    """Every figure of the table, and on what it was measured."""
    result: dict[str, Any] = {
        "on": {
            "exporter": __version__,
            "python": platform.python_version(),
            "sdk": sdk_version,
            "protobuf": google.protobuf.__version__,
            "kernel": platform.release(),
            "machine": platform.machine(),
        },
        "pipeline": {},
        "read": {},
        "process": {},
    }
    # Everything of a pod is some 25 files, and several readers have them open.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    # As the exporter itself does once it is started.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    for pods in SIZES[:2] if quick else SIZES:
        with made(pods) as node:
            result["on"]["cgroups"] = node.kind
            result["read"][str(pods)] = read_cost(node, RUNS)
            for point_attributes in (False, True):
                name = f"{pods} {'with' if point_attributes else 'without'} point attributes"
                result["pipeline"][name] = pipeline(node, point_attributes=point_attributes)
            protocols: tuple[Protocol, ...] = ("http/protobuf", "grpc")
            for protocol in protocols if pods in (110, 1000) else ():
                name = f"{pods} {protocol}"
                runs = 1 if quick else PROCESS_RUNS
                slow = [measure_process(node, protocol=protocol, poll_ms=1000, ticks=6) for _ in range(runs)]
                result["process"][f"{name} 1s"] = _medians(slow)
                if pods == 110:
                    fast = [measure_process(node, protocol=protocol, poll_ms=100, ticks=120) for _ in range(runs)]
                    result["process"][f"{name} 100ms"] = _medians(fast)
    with made(110, ALL_CONTROLLERS) as node:
        every = pipeline(node, point_attributes=False, metrics=EVERYTHING)
        result["pipeline"]["110 everything, without point attributes"] = every
        result["read"]["110 everything"] = read_cost(node, RUNS, figures_of(EVERYTHING))
    with made(110, ALL_CONTROLLERS, containers=2) as node:
        runs = [
            measure_process(node, protocol="http/protobuf", poll_ms=5000, ticks=ticks, flags=_EVERYTHING_FLAGS)
            for ticks in ([2] if quick else [4] * 3)
        ]
        result["process"][_EVERYTHING_PROCESS] = _medians(runs)
    return result


def _medians(runs: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def flat(result: dict[str, Any]) -> dict[str, float]:
    """``{"pipeline 110 … collect_us_per_point": 9.3, …}``"""
    return {
        f"{part} {name} {figure}": value
        for part in ("read", "pipeline", "process")
        for name, figures in result[part].items()
        for figure, value in figures.items()
        if isinstance(value, (int, float))
    }


_COST_COLUMNS = (
    *("pods", "read", "C", "read/C", "with listing"),
    *("collect/pt", "deliver/pt", "both, no SDK/pt", "tick", "tick/C", "bytes/pt"),
)
_PROCESS_COLUMNS = ("rss_mb", "threads", "cpu_percent_of_a_core", "start_to_first_point_seconds", "late_p99_ms")


def report(result: dict[str, Any], earlier: dict[str, Any] | None) -> None:
    """The figures as tables, what they say of the limits, and the ratio of each to the earlier run's."""
    out = sys.stdout
    out.write("  ".join(f"{name} {value}" for name, value in result["on"].items()) + "\n")
    out.write(f"\nCPU µs a pod, and a point without point attributes (medians of {RUNS} runs)\n")
    _table(_COST_COLUMNS, [_cost_row(result, pods) for pods in result["read"] if pods.isdecimal()])
    out.write(f"\nthe process (medians of {PROCESS_RUNS} runs; one with --quick)\n")
    _table(
        ("pods, protocol, interval", *_PROCESS_COLUMNS),
        [(name, *(figures[key] for key in _PROCESS_COLUMNS)) for name, figures in result["process"].items()],
    )
    out.write("\n" + "\n".join(targets(result)) + "\n")
    if earlier:
        before = flat(earlier)
        out.write("\nratio to the earlier run\n")
        for name, value in flat(result).items():
            if before.get(name):
                out.write(f"{value / before[name]:6.2f} x  {name} ({before[name]:.2f} → {value:.2f})\n")


def _cost_row(result: dict[str, Any], pods: str) -> tuple[object, ...]:
    read, stages = result["read"][pods], result["pipeline"][f"{pods} without point attributes"]
    tick, limit = _per_pod(result, pods), read["c_us_a_pod"]
    return (
        pods,
        read["read_us_a_pod"],
        limit,
        read["read_ratio"],
        read["look_us_a_pod"],
        stages["collect_us_per_point"],
        stages["deliver_us_per_point"],
        stages["collect_without_sdk_us_per_point"] + stages["deliver_us_per_point"],
        tick,
        tick / limit if limit else None,
        stages["bytes_per_point"],
    )


def _table(head: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    cells = [head, *(tuple(_cell(value) for value in row) for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for row in cells:
        sys.stdout.write("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) + "\n")


def _cell(value: object) -> str:
    return "–" if value is None else f"{value:.2f}" if isinstance(value, float) else str(value)


def targets(result: dict[str, Any]) -> list[str]:  # noqa: PLR0912 a line a target
    """What this run says of the limits that the project has set itself."""
    lines = []

    def line(what: str, value: float | None, limit: float, unit: str) -> None:
        if value is not None:
            lines.append(f"{'ok  ' if value <= limit else 'OVER'} {what}: {value:.2f} {unit} (limit {limit:g})")

    for pods, read in result["read"].items():
        limit = 1.6 if read["kind"] == "v1" else 1.8
        line(f"reading, {pods} pods, against C", read["read_ratio"], limit, "x")
    line("reading with an optional file that is absent, 110 pods", result["read"]["110"]["absent_ratio"], 1.05, "x")
    for with_or_without, limit in (("without", 0.8), ("with", 1.0)):
        stages = result["pipeline"][f"110 {with_or_without} point attributes"]
        cost = stages["collect_us_per_point"] + stages["deliver_us_per_point"]
        line(f"values to bytes, {with_or_without} point attributes", cost, limit, "µs a point")
        loops = 1e3 * cost / stages["reference_us"]
        lines.append(f"     … which is {loops:.1f} thousandths of the reference loop ({_LOOP} rounds)")
        if with_or_without == "without":
            line("bytes a point, without point attributes", stages["bytes_per_point"], 90, "B")
    if every := result["pipeline"].get("110 everything, without point attributes"):
        cost = every["collect_us_per_point"] + every["deliver_us_per_point"]
        line(f"values to bytes, everything ({every['points_per_pod']:.0f} points a pod)", cost, 0.8, "µs a point")
    for pods, limit in (("110", 2.0), ("1000", 1.6)):
        if pods in result["read"] and (c_us := result["read"][pods]["c_us_a_pod"]):
            line(f"a whole tick, {pods} pods, against C", _per_pod(result, pods) / c_us, limit, "x")
    if "1000 without point attributes" in result["pipeline"]:
        line("CPU a pod, 1000 pods against 110", _per_pod(result, "1000") / _per_pod(result, "110"), 1.15, "x")
    for name, limit in (
        *(("110 http/protobuf 1s", 41), ("110 grpc 1s", 60)),
        *(("1000 http/protobuf 1s", 72), ("1000 grpc 1s", 90)),
        (_EVERYTHING_PROCESS, 70),
    ):
        if name in result["process"]:
            line(f"RSS, {name}", result["process"][name]["rss_mb"], limit, "MB")
    for name, figures in result["process"].items():
        line(f"start to the first point, {name}", figures["start_to_first_point_seconds"], 1, "s")
        if "grpc" not in name:
            line(f"threads, {name}", figures["threads"], 4, "")
        if "100ms" in name:
            line(f"lateness, 99th percentile, {name}", figures["late_p99_ms"], 10, "ms")
            line(f"CPU, {name}", figures["cpu_percent_of_a_core"], 6.5 if "grpc" in name else 5.5, "% of a core")
        elif name.startswith("110 http"):
            line(f"CPU, {name}", figures["cpu_percent_of_a_core"], 0.65, "% of a core")
        elif name == _EVERYTHING_PROCESS:
            line(f"CPU, {name}", figures["cpu_percent_of_a_core"], 0.8, "% of a core")
    return lines


def _per_pod(result: dict[str, Any], pods: str) -> float:
    stages = result["pipeline"][f"{pods} without point attributes"]
    per_point = stages["collect_us_per_point"] + stages["deliver_us_per_point"]
    return float(stages["read_us_per_pod"] + stages["points_per_pod"] * per_point)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("earlier", nargs="?", type=Path, help="an earlier run's JSON file, to compare with")
    parser.add_argument("--json", type=Path, help="where this run's JSON goes")
    parser.add_argument("--quick", action="store_true", help="10 and 110 pods only, for a look")
    arguments = parser.parse_args()
    earlier = json.loads(arguments.earlier.read_text()) if arguments.earlier else None
    result = measure(quick=arguments.quick)
    report(result, earlier)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
