"""Trees of real kernels → each figure's exact value. tests/fixtures/ tells how they were recorded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pytest

from otel_k8s_cgroup.cgroup import OpenFiles, detect
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import FIGURES, v1_controllers, with_descendants
from tests.fixtures.record import files, make, recorded

from .expected_figures import BUSY, EXPECTED, KILLED, POD

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.figures import Figure


def version(fixture: str) -> Literal[1, 2]:
    return 1 if fixture.startswith("v1") else 2


def read(fixture: str, path: str, directory: Path, figures: Sequence[Figure] = FIGURES) -> dict[str, Any]:
    """The figures that are there; the first reading, and the two that know what the files look like, must be alike.

    Without the name of a fixture ``directory`` has its files.
    """
    if fixture:
        make(fixture, directory)
    hierarchy = detect(str(directory), v1_controllers(figures))
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


def test_without_sums_v1_s_own_figures_count(tmp_path: Path) -> None:
    """memory.use_hierarchy = 0: the keys without total_, each 22 less in this fixture; all else is as it was."""
    there = EXPECTED["v1-written", BUSY]
    keys = {f.name for f in FIGURES for source in f.v1 if source.file == "memory.stat"}
    make("v1-written", tmp_path)
    (tmp_path / f"memory{BUSY}" / "memory.use_hierarchy").write_text("0\n")
    flat = read("", BUSY, tmp_path)
    assert {name for name in there if there[name] != flat[name]} == keys
    assert {name: flat[name] for name in keys} == {name: there[name] - 22 for name in keys}


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
