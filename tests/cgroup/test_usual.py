"""The short way of a reading (all files open, all as they nearly always are) says what the long way says."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.cgroup import OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.errors import CgroupError, CgroupGone
from otel_k8s_cgroup.figures import FIGURES, v1_controllers
from tests.fixtures import record

from .support import reader

if TYPE_CHECKING:
    from otel_k8s_cgroup.cgroup.formats import Value

V1 = {
    "cpuacct.usage": b"3000\n",
    "cpuacct.usage_sys": b"1000\n",
    "cpuacct.usage_user": b"2000\n",
    "memory.usage_in_bytes": b"8192\n",
    "memory.stat": b"cache 1\nrss 2\ntotal_cache 300\ntotal_rss 400\ntotal_shmem 5\n",
}
V2 = {
    "cpu.stat": b"usage_usec 3\nuser_usec 2\nsystem_usec 1\nnr_periods 0\n",
    "memory.current": b"8192\n",
    "memory.stat": b"anon 1\nfile 2\nkernel 3\nkernel_stack 4\npagetables 5\n",
}

PIECES = st.sampled_from(
    [
        b"",
        b"\n",
        b"/",
        b" ",
        b"-1",
        b"0",
        b"_",
        b"max",
        b"9" * 18,
        b"9" * 20,
        b"7\n",
        b"rss",
        b"total_",
        b"\xff",
        b"0" * 70,
    ]
)


def reading(files: CgroupReader) -> tuple[tuple[Value, ...] | None, list[str]]:
    reports: list[CgroupError] = []
    try:
        return files.read(0, reports.append), [str(report) for report in reports]
    except CgroupGone:
        return None, []


@pytest.mark.parametrize(("version", "contents"), [(1, V1), (2, V2)])
@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_the_second_reading_of_anything_is_what_a_first_one_would_be(
    version: int, contents: dict[str, bytes], data: st.DataObject
) -> None:
    """Whatever the files turn into between two readings, the figures and the complaints are those of a new look."""
    with tempfile.TemporaryDirectory() as directory:
        for name, content in contents.items():
            (Path(directory) / name).write_bytes(content)
        kept = reader(version, directory)
        assert None not in (reading(kept)[0] or (None,))[:6]
        for name, content in contents.items():
            at = data.draw(st.integers(0, len(content)))
            cut = data.draw(st.integers(at, len(content)))
            if data.draw(st.booleans()):
                (Path(directory) / name).write_bytes(content[:at] + data.draw(PIECES) + content[cut:])
        assert reading(kept) == reading(reader(version, directory))
        assert reading(kept) == reading(reader(version, directory))


@pytest.mark.parametrize(
    ("version", "changed"),
    [
        (1, {"cpuacct.usage": b"", "cpuacct.usage_sys": b"7\n8\n"}),
        (1, {"cpuacct.usage": b"3000", "cpuacct.usage_sys": b"\n1000\n"}),
        (1, {"memory.stat": b"total_rss 9\ncache 1\ntotal_cache 300\ntotal_rss 400\n"}),
        (1, {"memory.stat": b"cache 1\ntotal_cache 300\ntotal_rss 400"}),
        (1, {"memory.stat": b"rss 1\n" * 2000 + b"total_cache 300\ntotal_rss 400\n"}),
        (2, {"memory.current": b"8192"}),
        (2, {"memory.stat": b"anon 1\nfile 2\nkernel_stack 4\npagetables 5"}),
        (2, {"cpu.stat": b"usage_usec 3\nuser_usec 2\nsystem_usec 1"}),
    ],
)
def test_what_only_looks_as_usual_is_looked_at_closely(version: int, changed: dict[str, bytes], tmp_path: Path) -> None:
    """Figures that run over from one file into the next, keys that stand twice, and ends that are missing."""
    for name, content in (V1 if version == 1 else V2).items():
        (tmp_path / name).write_bytes(content)
    kept = reader(version, str(tmp_path))
    reading(kept)
    for name, content in changed.items():
        (tmp_path / name).write_bytes(content)
    assert reading(kept) == reading(reader(version, str(tmp_path)))


def everything(version: int) -> dict[str, bytes]:
    """All files that are read of a busy container, as a kernel wrote them; of v1's all controllers'."""
    wanted = {source.file for figure in FIGURES for source in (figure.v1 if version == 1 else figure.v2)}
    wanted |= {"memory.use_hierarchy", "hugetlb.2MB.current", "hugetlb.2MB.max", "hugetlb.2MB.events"}
    name = "v1" if version == 1 else "v2-6.12"
    text = Path(record.__file__).with_name(f"{name}.txt").read_text()
    contents = {Path(path).name: data.encode() for path, data in record.files(text).items() if "1c33afbc" in path}
    return {name: data for name, data in contents.items() if name in wanted}


EVERYTHING = {version: everything(version) for version in (1, 2)}
EVERY_PLAN = {version: Plan(FIGURES, version) for version in (1, 2)}
ODD = st.sampled_from(
    [b"", b"\n", b"/", b" ", b"-1\n", b"max", b"=", b":", b"0", b"7", b"9" * 18, b".5", b"some ", b"8:0 ", b"\xff"]
)


@pytest.mark.parametrize("version", [1, 2])
@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_the_second_reading_of_everything_is_what_a_first_one_would_be(version: int, data: st.DataObject) -> None:
    """As above, of every file that any figure is in, one or two of which turn into something else."""

    def new(directory: str) -> CgroupReader:
        controllers = v1_controllers(FIGURES) if version == 1 else ("",)
        return CgroupReader(EVERY_PLAN[version], dict.fromkeys(controllers, directory), OpenFiles(1000))

    with tempfile.TemporaryDirectory() as directory:
        for name, content in EVERYTHING[version].items():
            (Path(directory) / name).write_bytes(content)
        kept = new(directory)
        assert reading(kept)[1] == []
        for name in data.draw(st.lists(st.sampled_from(sorted(EVERYTHING[version])), min_size=1, max_size=2)):
            content = EVERYTHING[version][name]
            at = data.draw(st.integers(0, len(content)))
            cut = data.draw(st.integers(at, min(len(content), at + 9)))
            (Path(directory) / name).write_bytes(content[:at] + data.draw(ODD) + content[cut:])
        assert reading(kept) == reading(new(directory))
        assert reading(kept) == reading(new(directory))
