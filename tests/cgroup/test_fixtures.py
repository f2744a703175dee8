"""Trees of real kernels → each figure's exact value. tests/fixtures/ tells how they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from otel_k8s_cgroup.cgroup import OpenFiles, detect
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import FIGURES, v1_controllers, with_descendants
from tests.fixtures.record import files, make, recorded

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.figures import Figure

POD = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod7922aa99_d4aa_4885_a953_82976860b23a.slice"
BUSY = f"{POD}/cri-containerd-{'1c33afbc' * 8}.scope"
"""A container that was throttled, paged, forked, and read and wrote a disk."""
KILLED = f"{POD}/cri-containerd-{'2d44b0cd' * 8}.scope"
"""One that was OOM-killed."""

EXPECTED: dict[tuple[str, str], dict[str, object]] = {
    ("v2-6.12", BUSY): {
        "cpu_usage_ns": 7_594_587_000,
        "cpu_system_ns": 7_203_163_000,
        "cpu_user_ns": 391_424_000,
        "memory_usage_bytes": 48_230_400,
        "anon_bytes": 31_391_744,
        "file_bytes": 14_278_656,
        "kernel_stack_bytes": 16384,
        "pagetables_bytes": 212_992,
        "memory_peak_bytes": 50_794_496,
        "memory_swap_current_bytes": 16_560_128,
        "memory_swap_peak_bytes": 16_777_216,
        "inactive_anon_bytes": 14_282_752,
        "active_anon_bytes": 17_309_696,
        "inactive_file_bytes": 14_278_656,
        "active_file_bytes": 0,
        "unevictable_bytes": 1_048_576,
        "file_mapped_bytes": 1_048_576,
        "file_dirty_bytes": 524_288,
        "file_writeback_bytes": 0,
        "shmem_bytes": 0,
        "slab_bytes": 180_072,
        "slab_reclaimable_bytes": 145_280,
        "slab_unreclaimable_bytes": 34792,
        "sock_bytes": 540_672,
        "kernel_bytes": 425_984,
        "cpu_quota_us": 30000,
        "cpu_period_us": 100_000,
        "cpu_weight": 39,
        "cpuset_cpus": 3,
        "memory_max_bytes": 67_108_864,
        "memory_high_bytes": 50_331_648,
        "memory_low_bytes": 8_388_608,
        "memory_min_bytes": 4_194_304,
        "memory_swap_max_bytes": 16_777_216,
        "pids_max": 12,
        "nr_periods": 253,
        "nr_throttled": 251,
        "throttled_ns": 18_959_934_000,
        "nr_bursts": 1,
        "burst_ns": 20_000_000,
        "memory_events_low": 0,
        "memory_events_high": 819,
        "memory_events_max": 0,
        "memory_events_oom": 0,
        "memory_events_oom_kill": 0,
        "memory_events_oom_group_kill": 0,
        "memory_swap_events_high": 0,
        "memory_swap_events_max": 2402,
        "memory_swap_events_fail": 2402,
        "pgfault": 43462,
        "pgmajfault": 3701,
        "workingset_refault_anon": 28674,
        "workingset_refault_file": 12334,
        "pgscan": 108_659,
        "pgsteal": 55476,
        "io_rbytes": {"254:16": 117_432_320, "254:0": 101_179_392},
        "io_wbytes": {"254:16": 135_921_664, "254:0": 262_144},
        "io_dbytes": {"254:16": 0, "254:0": 0},
        "io_rios": {"254:16": 28_670, "254:0": 774},
        "io_wios": {"254:16": 33_184, "254:0": 4},
        "io_dios": {"254:16": 0, "254:0": 0},
        "pids_current": 2,
        "pids_peak": 12,
        "pids_events_max": 1,
        "cpu_pressure_some_total_ns": 11_937_187_000,
        "cpu_pressure_some_avg10_percent": 41.93,
        "cpu_pressure_some_avg60_percent": 14.97,
        "cpu_pressure_some_avg300_percent": 3.59,
        "cpu_pressure_full_total_ns": 11_937_187_000,
        "cpu_pressure_full_avg10_percent": 41.93,
        "cpu_pressure_full_avg60_percent": 14.97,
        "cpu_pressure_full_avg300_percent": 3.59,
        "memory_pressure_some_total_ns": 6_957_023_000,
        "memory_pressure_some_avg10_percent": 18.97,
        "memory_pressure_some_avg60_percent": 8.95,
        "memory_pressure_some_avg300_percent": 2.22,
        "memory_pressure_full_total_ns": 6_957_023_000,
        "memory_pressure_full_avg10_percent": 18.97,
        "memory_pressure_full_avg60_percent": 8.95,
        "memory_pressure_full_avg300_percent": 2.22,
        "io_pressure_some_total_ns": 331_070_000,
        "io_pressure_some_avg10_percent": 0.64,
        "io_pressure_some_avg60_percent": 0.29,
        "io_pressure_some_avg300_percent": 0.07,
        "io_pressure_full_total_ns": 331_070_000,
        "io_pressure_full_avg10_percent": 0.64,
        "io_pressure_full_avg60_percent": 0.29,
        "io_pressure_full_avg300_percent": 0.07,
        "hugetlb_current_bytes": {"2MB": 4_194_304},
        "hugetlb_max_bytes": {"2MB": 4_194_304},
        "hugetlb_events_max": {"2MB": 1},
        "nr_descendants": 0,
        "nr_dying_descendants": 0,
    },
    ("v1", BUSY): {
        "cpu_usage_ns": 557_936_067,
        "cpu_system_ns": 56_000_000,
        "cpu_user_ns": 539_975_434,
        "memory_usage_bytes": 40_247_296,
        "anon_bytes": 23_429_120,
        "file_bytes": 16_318_464,
        "memory_peak_bytes": 50_331_648,
        "memory_swap_current_bytes": 0,
        "inactive_anon_bytes": 23_490_560,
        "active_anon_bytes": 4096,
        "inactive_file_bytes": 16_252_928,
        "active_file_bytes": 0,
        "unevictable_bytes": 0,
        "file_mapped_bytes": 1_114_112,
        "file_dirty_bytes": 524_288,
        "file_writeback_bytes": 0,
        "shmem_bytes": 65536,
        "kernel_bytes": 319_488,
        "cpu_quota_us": 30000,
        "cpu_period_us": 100_000,
        "cpu_shares": 204,
        "cpuset_cpus": 2,
        "memory_max_bytes": 50_331_648,
        "memory_soft_limit_bytes": 33_554_432,
        "memory_memsw_limit_bytes": 67_108_864,
        "pids_max": 12,
        "nr_periods": 20,
        "nr_throttled": 15,
        "throttled_ns": 1_657_362_041,
        "nr_bursts": 2,
        "burst_ns": 20_000_000,
        "memory_events_oom_kill": 0,
        "memory_failcnt": 1510,
        "pgfault": 12743,
        "pgmajfault": 0,
        "workingset_refault_anon": 0,
        "workingset_refault_file": 13056,
        "io_rbytes": {"7:0": 107_085_824},
        "io_wbytes": {"7:0": 262_144},
        "io_dbytes": {"7:0": 0},
        "io_rios": {"7:0": 90},
        "io_wios": {"7:0": 4},
        "io_dios": {"7:0": 0},
        "pids_current": 2,
        "pids_peak": 12,
        "pids_events_max": 1,
    },
    ("v2-written", BUSY): {
        "anon_bytes": 4096,
        "pgscan": 56,
        "pgsteal": 7,
        "pswpin": 12,
        "pswpout": 34,
    },
    ("v1-written", BUSY): {
        "cpu_usage_ns": 1000,
        "hugetlb_current_bytes": {"1GB": 0, "2MB": 4_194_304},
        "hugetlb_max_bytes": {"2MB": 8_388_608},
        "hugetlb_events_max": {"1GB": 0, "2MB": 3},
    },
}
"""Fixture and cgroup → all figures that are there."""


def version(fixture: str) -> Literal[1, 2]:
    return 1 if fixture.startswith("v1") else 2


def read(fixture: str, path: str, directory: Path, figures: Sequence[Figure] = FIGURES) -> dict[str, object]:
    """The figures that are there; the first reading, and the two that know what the files look like, must be alike."""
    make(fixture, directory)
    hierarchy = detect(str(directory), v1_controllers(figures))
    assert hierarchy.version == version(fixture)
    directories = {controller: mount and mount + path for controller, mount in hierarchy.directories.items()}
    errors: list[CgroupError] = []
    reader = CgroupReader(Plan(figures, hierarchy.version), directories, OpenFiles(100))
    rows = [reader.read(0, errors.append) for _ in range(3)]
    reader.close()
    assert errors == []
    assert rows == rows[:1] * 3
    return {figure.name: value for figure, value in zip(figures, rows[0], strict=True) if value is not None}


@pytest.mark.parametrize(("fixture", "path"), EXPECTED, ids=[fixture for fixture, _ in EXPECTED])
def test_each_figure_is_what_the_kernel_wrote(fixture: str, path: str, tmp_path: Path) -> None:
    """Every one, and none that the kernel does not have."""
    assert read(fixture, path, tmp_path) == EXPECTED[fixture, path]


@pytest.mark.parametrize("of", [1, 2])
def test_no_row_is_untested(of: Literal[1, 2]) -> None:
    """Each row that has a source in this version has a value in one of its fixtures."""
    tested = {name for (fixture, _), figures in EXPECTED.items() if version(fixture) == of for name in figures}
    rows = [figure.name for figure in FIGURES if (figure.v1 if of == 1 else figure.v2)]
    assert [name for name in rows if name not in tested] == []


def test_figures_of_a_pod_are_its_containers_together(tmp_path: Path) -> None:
    """On v2 the kernel's sums: of two containers one was killed, and the other did everything else."""
    pod = read("v2-6.12", POD, tmp_path, with_descendants(FIGURES))
    busy = EXPECTED["v2-6.12", BUSY]
    assert pod["memory_events_oom_kill"] == 2  # memory.oom.group: the process is counted, and the group
    assert pod["pids_events_max"] == busy["pids_events_max"] == 1
    assert pod["io_rbytes"] == busy["io_rbytes"]
    # Unlimited is absent, in a mapping too.
    assert not {"cpu_quota_us", "memory_max_bytes", "memory_high_bytes", "pids_max"} & pod.keys()
    assert (pod["hugetlb_max_bytes"], pod["hugetlb_current_bytes"]) == ({}, {"2MB": 4 << 20})


def test_what_v1_counts_in_the_process_s_own_cgroup_alone_is_no_figure_of_a_pod(tmp_path: Path) -> None:
    """It would be 0 there, whatever its containers' is."""
    figures = {"memory_events_oom_kill", "pids_events_max"}
    assert not figures & read("v1", POD, tmp_path, with_descendants(FIGURES)).keys()
    assert figures <= read("v1", POD, tmp_path).keys()
    assert read("v1", KILLED, tmp_path)["memory_events_oom_kill"] == 1
    assert EXPECTED["v1", BUSY]["pids_events_max"] == 1


def test_v1_s_ways_to_write_no_limit_are_absent(tmp_path: Path) -> None:
    """-1, and the most that the counter of pages can hold."""
    limits = {"cpu_quota_us", "memory_soft_limit_bytes", "memory_memsw_limit_bytes", "pids_max", "memory_high_bytes"}
    killed = read("v1", KILLED, tmp_path)
    assert not limits & killed.keys()
    assert (killed["cpu_period_us"], killed["memory_max_bytes"]) == (100_000, 24 << 20)


def test_what_a_kernel_was_built_without_is_absent(tmp_path: Path) -> None:
    """User-Mode Linux has neither pressure, nor cpuset, nor hugetlb: no figure of theirs, and no 0."""
    there = read("v2-uml", BUSY, tmp_path)
    lacks = {name for name in EXPECTED["v2-6.12", BUSY] if name not in there}
    assert lacks == {
        name
        for name in EXPECTED["v2-6.12", BUSY]
        if "pressure" in name or name.startswith(("cpuset", "hugetlb")) or name == "memory_swap_peak_bytes"
    }


def test_a_recording_of_a_recording_is_the_same(tmp_path: Path) -> None:
    """What the command writes is what the tests make of it."""
    for fixture in ("v1", "v2-6.12"):
        root = tmp_path / fixture
        make(fixture, root)
        again = files("\n".join(recorded(root, "kubepods.slice")))
        (root.parent / f"{fixture}-again").mkdir()
        assert again == {str(file.relative_to(root)): file.read_text() for file in root.rglob("*") if file.is_file()}
