"""What is read at which of the readings: groups with intervals of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.schemas import select
from otel_k8s_cgroup.sources import parts_of
from otel_k8s_cgroup.table import Table
from tests.cgroup.trees import Tree

if TYPE_CHECKING:
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
SECOND = timedelta(seconds=1)


def test_groups_of_one_interval_are_a_part() -> None:
    """The part that rates are of is the first, however rare it is; a figure of two groups is read with the one."""
    metrics = select(("alumet",), ("cpu", "memory", "limits"))
    parts = parts_of(metrics, {"limits": 60 * SECOND, "cpu": 3 * SECOND}, SECOND)
    assert [every for _, every in parts] == [3, 1, 60]
    names = [{figure.name for figure in figures} for figures, _ in parts]
    assert names[0] == {"cpu_usage_ns", "cpu_system_ns", "cpu_user_ns"}
    assert "memory_max_bytes" in names[2]
    assert not names[0] & names[1]
    assert not names[1] & names[2]
    # An interval that is no multiple is the nearest one.
    assert [every for _, every in parts_of(metrics, {"limits": 2.6 * SECOND}, SECOND)] == [1, 3]


def test_a_part_is_read_when_it_is_due(tmp_path: Path) -> None:
    """At the first reading, at its interval, and at the last one; a rate is of the readings that had its counter."""
    tree = Tree(tmp_path / "cgroup", 2)
    tree.make(f"/kubepods/pod{UID}")
    directory = tree.root / f"kubepods/pod{UID}"
    now_ns = 0
    metrics = select(("alumet",))
    cgroups = NodeCgroups(
        str(tree.root),
        open_files=OpenFiles(100),
        clock=lambda: now_ns,
        parts=parts_of(metrics, {"cpu": 2 * SECOND, "memory": 3 * SECOND}, SECOND),
    )
    errors: list[CgroupError] = []
    found = []
    for number in range(8):
        with (directory / "cpu.stat").open("r+") as file:
            file.truncate(0)
            file.write(f"usage_usec {1000 * number}\nuser_usec 0\nsystem_usec 0\n")
        (reading,) = cgroups.read({UID}, errors.append, is_last=number == 7)
        percent = Table((reading,)).column("cpu_usage_percent")[0]
        found.append((reading.stats.cpu_usage_ns, percent, reading.stats.memory_usage_bytes is not None))
        now_ns += 10**9
    assert errors == []
    ms = 10**6
    assert [each for each, _, _ in found] == [0, None, 2 * ms, None, 4 * ms, None, 6 * ms, 7 * ms]
    assert [percent and round(percent, 6) for _, percent, _ in found] == [None, None, 0.1, None, 0.1, None, 0.1, 0.1]
    assert [memory for _, _, memory in found] == [True, False, False, True, False, False, True, True]
