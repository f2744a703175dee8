"""``otel-k8s-cgroup snapshot``: one reading of every pod on this node, to look at or to script with."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, TextIO

from otel_k8s_cgroup.identity import pod_resource
from otel_k8s_cgroup.schemas import ALUMET
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.model import Pod, Reading


def read_twice(
    cgroups: NodeCgroups,
    pods: Sequence[Pod],
    report: Callable[[CgroupError], None],
    wait: Callable[[float], object] = time.sleep,
    seconds: float = 1.0,
) -> list[tuple[Pod, Reading]]:
    """Each pod that runs here with its reading, the busiest first; CPU percentages are of the ``seconds`` between two.

    Raises:
        CgroupRootError: the root is no cgroup root.
    """
    by_uid = {pod.cgroup_uid: pod for pod in pods}
    cgroups.read(by_uid, lambda _error: None)
    wait(seconds)
    readings = [(by_uid[reading.key], reading) for reading in cgroups.read(by_uid, report)]
    return sorted(
        readings, key=lambda each: (-(_value(each[1], "cpu_usage_percent") or 0), each[0].namespace, each[0].name)
    )


def why_no_list(source: str, *, waited_seconds: float, failure: Exception | None) -> str:
    """Why the pods of ``source`` are not known after that time. The log may have no line that says why: at level error,
    or where nothing has failed yet.
    """
    # The failure names the source.
    why = f" from {source} within {waited_seconds:g} s: it has not answered"
    if failure is not None:
        why = f" within {waited_seconds:g} s: {failure}"
    return f"no list of pods{why}; --wait waits longer"


def as_object(pod: Pod, reading: Reading) -> Mapping[str, object]:
    """One pod as ``--json`` prints it: the metrics' names as the keys; what is absent is left out.

    ``cpu_time_delta`` would be the CPU time since the last point; a snapshot has none, so it gives ``cpu_time``: the
    nanoseconds since the pod's cgroup was made.
    """
    figures: dict[str, object] = {}
    for metric in ALUMET:
        name = metric.name.removesuffix("_delta")
        values = {
            dict(point.attributes).get("kind"): value
            for point in metric.points
            if (value := _value(reading, point.figure)) is not None
        }
        if values:
            # A metric of one figure is that figure; one of several kinds is an object of them.
            figures[name] = values.get(None, values)
    return {
        "uid": pod.uid,
        "name": pod.name,
        "namespace": pod.namespace,
        "node": pod.node,
        "start_time": pod.start_time,
        "cgroup_path": reading.path,
        "resource": dict(pod_resource(pod, reading.path)),
        **figures,
    }


def print_json(readings: Sequence[tuple[Pod, Reading]], out: TextIO) -> None:
    """One JSON array of ``as_object``."""
    json.dump([as_object(pod, reading) for pod, reading in readings], out, indent=2)
    out.write("\n")


_HEADERS = ("NAMESPACE", "POD", "CPU %", "CPU TIME", "MEMORY", "ANON", "FILE")


def print_table(readings: Sequence[tuple[Pod, Reading]], out: TextIO) -> None:
    """A line a pod; ``-`` where the kernel gives no such figure."""
    lines = [
        (
            _plain(pod.namespace),
            _plain(pod.name),
            _or_dash(_value(reading, "cpu_usage_percent"), "{:.1f}".format),
            _or_dash(reading.stats.cpu_usage_ns, lambda ns: f"{ns / 1e9:.2f} s"),
            _or_dash(reading.stats.memory_usage_bytes, human_bytes),
            _or_dash(reading.stats.anon_bytes, human_bytes),
            _or_dash(reading.stats.file_bytes, human_bytes),
        )
        for pod, reading in readings
    ]
    widths = [max(len(row[column]) for row in (_HEADERS, *lines)) for column in range(len(_HEADERS))]
    for row in (_HEADERS, *lines):
        names, figures = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
        cells = [name.ljust(width) for name, width in names] + [figure.rjust(width) for figure, width in figures]
        out.write("  ".join(cells).rstrip() + "\n")


def human_bytes(count: float) -> str:
    """``1536`` → ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _value(reading: Reading, figure: str) -> float | None:
    return Table((reading,)).column(figure)[0]


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


def _plain(name: str) -> str:
    """Without what would move a terminal's cursor."""
    return name if name.isprintable() else ascii(name)
