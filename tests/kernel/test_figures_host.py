"""Figures against what processes did, on this machine's own kernel."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import FIGURES
from tests.kernel.box import Box
from tests.kernel.box import box as made_box
from tests.kernel.figure_scenarios import FigureScenarios
from tests.kernel.sandbox import ROOT, why_not

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_k8s_cgroup.errors import CgroupError


@pytest.fixture
def box() -> Iterator[Box]:
    if reason := why_not():
        pytest.skip(reason)
    with made_box() as made:
        yield made


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file as a block device."""
    if shutil.which("losetup") is None:
        pytest.skip("losetup is not installed")
    image = tmp_path / "disk"
    image.touch()
    os.truncate(image, 4 << 20)
    made = subprocess.run(["losetup", "--find", "--show", image], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"no block device can be made of a file: {made.stderr.strip()}")
    try:
        yield Path(made.stdout.strip())
    finally:
        subprocess.run(["losetup", "--detach", made.stdout.strip()], check=True)


class TestHost(FigureScenarios):
    """What must hold, here."""


@pytest.fixture
def pressed() -> Iterator[Path]:
    """A cgroup of v2 whose pressure the kernel tells; of the hybrid layout it is the hierarchy without controllers."""
    root = ROOT if (ROOT / "cgroup.controllers").exists() else ROOT / "unified"
    directory = root / f"otel-k8s-cgroup-pressed-{os.getpid()}"
    try:
        directory.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup of v2 can be made in {root}: {error.strerror}")
    try:
        if not (directory / "cpu.pressure").exists():
            pytest.skip("the kernel tells no pressure")
        yield directory
    finally:
        (directory / "cgroup.kill").write_text("1")
        while (directory / "cgroup.procs").read_text():
            time.sleep(0.01)
        directory.rmdir()


def test_pressure_is_what_processes_waited(pressed: Path) -> None:
    """Two burn on one CPU: one of them always waits, which is some pressure of the CPU, and none of memory or io."""
    names = ("cpu_pressure_some_total_ns", "memory_pressure_some_total_ns", "io_pressure_full_total_ns")
    figures = [figure for figure in FIGURES if "pressure" in figure.name]
    reader = CgroupReader(Plan(figures, 2), {"": str(pressed)}, OpenFiles(10))

    errors: list[CgroupError] = []

    def read() -> dict[str, float]:
        row = zip(figures, reader.read(0, errors.append), strict=True)
        return {figure.name: value for figure, value in row if isinstance(value, int | float)}

    before = read()
    assert before.keys() == {figure.name for figure in figures}
    code = (
        "import os, time\n"
        f"open('{pressed}/cgroup.procs', 'w').write('0')\n"
        "os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "os.fork()\n"
        "end = time.process_time() + 0.25\n"
        "while time.process_time() < end: pass\n"
    )
    begun = time.monotonic()
    subprocess.run([sys.executable, "-I", "-c", code], check=True)
    after = read()
    elapsed_ns = (time.monotonic() - begun) * 1e9
    grown = {name: after[name] - before[name] for name in names}
    # Each of the two waits while the other burns its quarter of a second, but for what is left over at the ends.
    assert 0.1e9 < grown["cpu_pressure_some_total_ns"] <= elapsed_ns
    assert grown["memory_pressure_some_total_ns"] < 0.1e9
    assert all(0 <= after[name] <= 100 for name in after if name.endswith("percent"))
    assert errors == []
    reader.close()
