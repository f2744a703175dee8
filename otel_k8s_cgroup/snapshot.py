"""``otel-k8s-cgroup snapshot``: one reading of every pod on this node, to look at or to script with."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any, TextIO

from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.model import EntityKind
from otel_k8s_cgroup.readings import NodeReader
from otel_k8s_cgroup.table import Table

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from otel_k8s_cgroup.cgroup import NodeCgroups
    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import Pod
    from otel_k8s_cgroup.readings import Shot


def read_twice(
    cgroups: NodeCgroups,
    pods: Sequence[Pod],
    report: Callable[[CgroupError], None],
    wait: Callable[[float], object] = time.sleep,
    seconds: float = 1.0,
) -> list[Shot]:
    """Each entity that runs here: pods with their containers, the busiest pod first, then the levels of the node. CPU
    percentages are of the ``seconds`` between two readings.

    Raises:
        CgroupRootError: the root is no cgroup root.
    """
    reader = NodeReader(cgroups, lambda: pods, describe=Describe(pods[0].node if pods else ""))
    reader.read(lambda _error: None)
    wait(seconds)
    shots = reader.read(report)
    busy = {shot.entity.key: _value(shot, "cpu_usage_percent") or 0 for shot in shots}

    def order(shot: Shot) -> tuple[object, ...]:
        pod_key, _, container = shot.entity.key.partition("/")
        names = [str(value) for _, value in shot.entity.describe().resource[1:3]]
        # A level's key is its path, which begins with a slash.
        return not pod_key, -busy.get(pod_key, 0), *reversed(names), bool(container), shot.entity.key

    return sorted(shots, key=order)


def why_no_list(source: str, *, waited_seconds: float, failure: Exception | None) -> str:
    """Why the pods of ``source`` are not known after that time. The log may have no line that says why: at level error,
    or where nothing has failed yet.
    """
    # The failure names the source.
    why = f" from {source} within {waited_seconds:g} s: it has not answered"
    if failure is not None:
        why = f" within {waited_seconds:g} s: {failure}"
    return f"no list of pods{why}; --wait waits longer"


def as_object(shot: Shot, metrics: Iterable[Metric]) -> Mapping[str, object]:
    """One entity as ``--json`` prints it: the metrics' names as the keys; what is absent is left out.

    ``cpu_time_delta`` would be the CPU time since the last point; a snapshot has none, so it gives ``cpu_time``: the
    nanoseconds since the cgroup was made. So does each counter.
    """
    figures: dict[str, object] = {}
    for metric in metrics:
        if shot.entity.kind in metric.kinds and (values := _values(shot, metric)):
            # A metric of one figure is that figure; one of several kinds is an object of them.
            name = metric.named(shot.entity.kind).removesuffix("_delta")
            figures[name] = values.get("", values)
    resource = dict(shot.entity.describe().resource)
    pod = shot.entity.pod
    whose = {
        "uid": resource.get("k8s.pod.uid"),
        "name": resource.get("k8s.pod.name"),
        "namespace": resource.get("k8s.namespace.name"),
        "container": resource.get("k8s.container.name"),
        "node": resource.get("k8s.node.name"),
    }
    return {
        "kind": shot.entity.kind.value,
        **{key: value for key, value in whose.items() if value is not None},
        **({"start_time": pod.start_time} if pod is not None else {}),
        "cgroup_path": shot.reading.path,
        "resource": resource,
        **figures,
    }


def _values(shot: Shot, metric: Metric) -> dict[str, object]:
    """By what tells the points apart."""
    found: dict[str, object] = {}
    for point in metric.points:
        value: Any = _value(shot, point.figure)
        name = " ".join(of for _, of in point.attributes)
        for member, of_member in value.items() if metric.by and value else [("", value)]:
            if of_member is not None and of_member != {}:
                scaled = of_member if metric.scale is None else of_member * metric.scale
                found[f"{name} {member}".strip()] = scaled
    return found


def print_json(shots: Sequence[Shot], metrics: Iterable[Metric], out: TextIO) -> None:
    """One JSON array of ``as_object``."""
    metrics = list(metrics)
    json.dump([as_object(shot, metrics) for shot in shots], out, indent=2)
    out.write("\n")


_HEADERS = ("NAMESPACE", "POD", "CPU %", "CPU TIME", "MEMORY", "ANON", "FILE")


def print_table(shots: Sequence[Shot], out: TextIO) -> None:
    """A line an entity; ``-`` where the kernel gives no such figure."""
    lines = [
        (
            *_names(shot),
            _or_dash(_value(shot, "cpu_usage_percent"), "{:.1f}".format),
            _or_dash(_value(shot, "cpu_usage_ns"), lambda ns: f"{ns / 1e9:.2f} s"),
            _or_dash(_value(shot, "memory_usage_bytes"), human_bytes),
            _or_dash(_value(shot, "anon_bytes"), human_bytes),
            _or_dash(_value(shot, "file_bytes"), human_bytes),
        )
        for shot in shots
    ]
    widths = [max(len(row[column]) for row in (_HEADERS, *lines)) for column in range(len(_HEADERS))]
    for row in (_HEADERS, *lines):
        names, figures = zip(row[:2], widths[:2], strict=True), zip(row[2:], widths[2:], strict=True)
        cells = [name.ljust(width) for name, width in names] + [figure.rjust(width) for figure, width in figures]
        out.write("  ".join(cells).rstrip() + "\n")


def _names(shot: Shot) -> tuple[str, str]:
    """Namespace and pod; a container stands below its pod, a level has its path."""
    resource = dict(shot.entity.describe().resource)
    if shot.entity.kind is EntityKind.CONTAINER:
        return "", _plain(f"  {resource['k8s.container.name']}")
    if shot.entity.kind is EntityKind.POD:
        return _plain(str(resource["k8s.namespace.name"])), _plain(str(resource["k8s.pod.name"]))
    return "-", _plain(shot.reading.path)


def human_bytes(count: float) -> str:
    """``1536`` → ``1.5 KiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"


def _value(shot: Shot, figure: str) -> float | None:
    return Table((shot.reading,), (shot.entity.reported,)).column(figure)[0]


def _or_dash(value: float | None, show: Callable[[float], str]) -> str:
    return "-" if value is None else show(value)


def _plain(name: str) -> str:
    """Without what would move a terminal's cursor."""
    return name if name.isprintable() else ascii(name)
