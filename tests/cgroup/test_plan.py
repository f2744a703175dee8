"""Rows of figures → what is read: a row adds a figure in any format; what is absent costs nothing."""

from __future__ import annotations

import errno
import os
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.cgroup import formats
from otel_k8s_cgroup.cgroup.files import OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.errors import MalformedFile
from otel_k8s_cgroup.figures import FIGURES, Figure, Format, Source

if TYPE_CHECKING:
    from types import FrameType

    from otel_k8s_cgroup.errors import CgroupError

pytestmark = pytest.mark.usefixtures("preads_are_seen")

SECOND = 10**9

# Lines of kernel 6.18, shortened.
FILES = {
    "pids.current": "7\n",
    "pids.max": "max\n",
    "cpu.max": "50000 100000\n",
    "memory.stat": "anon 11\nfile 22\nkernel 99\nkernel_stack 33\n",
    "io.stat": "8:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n253:1 rbytes=1 wbytes=0 rios=1 wios=0\n",
    "cpu.pressure": "some avg10=1.50 avg60=0.20 avg300=0.00 total=1234\nfull avg10=0.00 avg60=0.00 avg300=0 total=5\n",
}
V2 = (
    Source("pids.current", format=Format.SINGLE),
    Source("pids.max", format=Format.SINGLE),
    Source("cpu.max", "0", 1000, format=Format.PAIR),
    Source("cpu.max", "1", format=Format.PAIR),
    Source("memory.stat", "kernel_stack"),
    Source("io.stat", "rbytes", format=Format.NESTED),
    Source("cpu.pressure", "some total", 1000, format=Format.PRESSURE),
    Source("cpu.pressure", "some avg10", format=Format.PRESSURE),
)
ROW = (7, None, 50_000_000, 100_000, 33, {"8:0": 4096, "253:1": 1}, 1_234_000, 1.5)
TABLE = [Figure(f"figure_{number}", (source,)) for number, source in enumerate(V2)]


def write(directory: Path, files: dict[str, str]) -> None:
    directory.mkdir(exist_ok=True)
    for name, content in files.items():
        (directory / name).write_text(content)


class Reading:
    """A cgroup's readings, and the system calls of each."""

    def __init__(self, table: list[Figure], directory: Path, version: Any = 2) -> None:
        controllers = {source.controller for figure in table for source in figure.v1} if version == 1 else {""}
        self.reader = CgroupReader(
            Plan(table, version), dict.fromkeys(sorted(controllers), str(directory)), OpenFiles(100)
        )
        self.errors: list[CgroupError] = []
        self.calls: Counter[str] = Counter()

    def __call__(self, seconds: float = 0) -> tuple[object, ...]:
        self.calls = Counter()

        def count(_frame: FrameType, event: str, called: object) -> None:
            if event == "c_call" and getattr(called, "__module__", None) == "posix":
                self.calls[getattr(called, "__name__", "")] += 1

        sys.setprofile(count)
        try:
            return self.reader.read(round(seconds * SECOND), self.errors.append)
        finally:
            sys.setprofile(None)


def test_every_format_is_a_row_away(tmp_path: Path) -> None:
    """The first reading and those that know the files' layout say the same, with one read a file."""
    write(tmp_path, FILES)
    reading = Reading(TABLE, tmp_path)
    assert [reading() for _ in range(3)] == [ROW] * 3
    assert reading.calls == {"pread": len(FILES)}
    write(tmp_path, {"pids.max": "100\n"})
    assert [reading() for _ in range(3)] == [(7, 100, *ROW[2:])] * 3
    assert reading.errors == []
    write(tmp_path, {"pids.max": "max\n", "io.stat": "8:0 rbytes=5000 wbytes=8192\n"})
    assert [reading() for _ in range(3)] == [(*ROW[:5], {"8:0": 5000}, *ROW[6:])] * 3


@pytest.mark.parametrize("number", range(len(V2)))
def test_one_figure_alone(tmp_path: Path, number: int) -> None:
    """A table of one row reads one file, and gives a row of one."""
    write(tmp_path, FILES)
    reading = Reading([TABLE[number]], tmp_path)
    assert [reading() for _ in range(3)] == [(ROW[number],)] * 3
    assert reading.calls["pread"] == 1


def test_a_row_adds_a_figure_of_a_controller_of_its_own_on_v1(tmp_path: Path) -> None:
    """The row says which hierarchy the file is in; nothing else knows the controller."""
    write(tmp_path, {"pids.current": "7\n"})
    table = [Figure("pids", (), (Source("pids.current", controller="pids", format=Format.SINGLE),))]
    reading = Reading(table, tmp_path, 1)
    assert [reading() for _ in range(2)] == [(7,)] * 2


def test_what_was_never_there_costs_nothing_until_it_is_looked_for_again(tmp_path: Path) -> None:
    """A file that this kernel or cgroup lacks: no call for it at the next reading, and found within a minute."""
    write(tmp_path, {"pids.current": "7\n", "memory.stat": "anon 1\n"})
    table = [TABLE[0], TABLE[4], *TABLE[5:]]
    reading = Reading(table, tmp_path)
    nothing = (7, None, None, None, None)
    assert reading() == nothing
    for second in (1, 30, 59):
        assert reading(second) == nothing
        assert reading.calls == {"pread": 2}
    write(tmp_path, FILES)
    assert reading(59.9) == nothing
    assert reading(60) == (7, *ROW[4:])
    assert reading(61) == (7, *ROW[4:])
    assert reading.calls == {"pread": 4}
    assert reading.errors == []


def test_what_was_there_is_looked_for_at_each_reading(tmp_path: Path) -> None:
    """A file or key that vanished may come back at once."""
    write(tmp_path, FILES)
    reading = Reading(TABLE, tmp_path)
    assert reading() == ROW
    for name in ("pids.current", "memory.stat", "io.stat"):
        (tmp_path / name).write_text("")
        reading()
        reading()
        write(tmp_path, FILES)
        assert reading() == ROW
        (tmp_path / name).rename(tmp_path / "aside")
        reading.reader.close()
        reading()
        reading()
        (tmp_path / "aside").rename(tmp_path / name)
        assert reading() == ROW


@pytest.mark.parametrize("first", [b"", b"anon 11\nker"], ids=["empty", "cut"])
def test_a_first_reading_of_half_a_file_hides_nothing_of_the_next(tmp_path: Path, first: bytes) -> None:
    """It does not tell which keys there are, so it is not taken for the file's layout."""
    stat = tmp_path / "memory.stat"
    stat.write_bytes(first)
    plan = Plan([Figure("kernel_stack", (Source("memory.stat", "kernel_stack"),))], 2)
    reader = CgroupReader(plan, {"": str(tmp_path)}, OpenFiles(9))
    errors: list[CgroupError] = []
    assert reader.read(0, errors.append) == (None,)
    stat.write_text(FILES["memory.stat"])
    assert reader.read(SECOND, errors.append) == (33,)
    reader.close()


def test_the_next_source_counts_where_the_first_file_is_absent(tmp_path: Path) -> None:
    """Not where it cannot be read: a counter must not change from one source to the other and back."""
    table = [figure for figure in FIGURES if figure.name in ("cpu_system_ns", "cpu_user_ns")]
    ticks = 10**9 // os.sysconf("SC_CLK_TCK")
    write(tmp_path, {"cpuacct.stat": "user 7\nsystem 3\n"})
    reading = Reading(table, tmp_path, 1)
    assert [reading() for _ in range(2)] == [(3 * ticks, 7 * ticks)] * 2
    assert reading.calls == {"pread": 1}
    write(tmp_path, {"cpuacct.usage_sys": "5\n", "cpuacct.usage_user": "x\n"})
    reading = Reading(table, tmp_path, 1)
    assert [reading() for _ in range(2)] == [(5, None)] * 2
    assert [type(error) for error in reading.errors] == [MalformedFile] * 2


MALFORMED = [
    (formats.pair, b"0", b"1 2 3\n"),
    (formats.pair, b"1", b"1 x\n"),
    (formats.pair, b"0", b"1 2"),
    (formats.limit, b"", b"-2\n"),
    (formats.limit, b"", b"-1"),
    (formats.limit, b"", b"9223372036854775808\n"),
    (formats.cpus, b"", b"0-\n"),
    (formats.cpus, b"", b"0, 1\n"),
    (formats.cpus, b"", b"0-3"),
    (formats.cpus, b"", b"0-99999999999\n"),
    (formats.blkio, b"Read", b"8:0 Read -1\nTotal 0\n"),
    (formats.blkio, b"Read", b"8:0 Read 1\nTotal"),
    (formats.nested_keyed, b"rbytes", b"8:0 rbytes=-1\n"),
    (formats.nested_keyed, b"rbytes", b"8:16 rbytes=1\n8:0 rbytes=-1\n"),
    (formats.nested_keyed, b"rbytes", b"8:0 rbytes=1"),
    (formats.pressure, b"some total", b"some avg10=0.00 total=1.5\n"),
    (formats.pressure, b"some avg10", b"some avg10=nan total=1\n"),
    (formats.pressure, b"some avg10", b"some avg10=0.00 total=1"),
]


WELL_FORMED = [
    (formats.limit, b"", b"50000\n", 50_000),
    (formats.limit, b"", b"0\n", 0),
    (formats.limit, b"", b"-1\n", None),
    (formats.limit, b"", b"9223372036854771712\n", None),  # pages of 4 KiB
    (formats.limit, b"", b"9223372036854710272\n", None),  # pages of 64 KiB
    (formats.limit, b"", b"9223372035781033984\n", None),  # huge pages of 1 GiB
    (formats.limit, b"", b"4611686018427387903\n", 2**62 - 1),
    (formats.cpus, b"", b"0-3,8\n", 5),
    (formats.cpus, b"", b"7\n", 1),
    (formats.cpus, b"", b"\n", None),
    (formats.blkio, b"Read", b"Total 0\n", {}),
    (formats.blkio, b"Read", b"8:0 Read 1\n8:0 Write 2\n8:0 Total 3\n8:16 Read 0\nTotal 3\n", {"8:0": 1, "8:16": 0}),
    (formats.blkio, b"Write", b"(unknown) Write 1\n8:0 Write 2\n", {"8:0": 2}),
    (formats.nested_keyed, b"rbytes", b"", {}),
    (formats.nested_keyed, b"rbytes", b"8:0 \n8:16 rbytes=1 wbytes=2\n", {"8:16": 1}),
    (formats.nested_keyed, b"rbytes", b"7:7 7:6 7:5 rbytes=1 wbytes=2\n", {"7:5": 1}),
    (formats.nested_keyed, b"rbytes", b"8:16 rbytes=1 wbytes=2\n252:0 ", {"8:16": 1}),
    (formats.nested_keyed, b"rbytes", b"252:0 ", {}),
    (formats.nested_keyed, b"rbytes", b"(unknown) rbytes=5\n8:16 rbytes=1\n", {"8:16": 1}),
]


@pytest.mark.parametrize(("parser", "key", "data", "value"), WELL_FORMED)
def test_what_kernels_write(parser: Any, key: bytes, data: bytes, value: object) -> None:
    """Each value as it is, no limit as None, and what has no device as an empty mapping; nothing is reported."""
    errors: list[CgroupError] = []
    assert parser(data, (key,), "/the/file", errors.append) == [value]
    assert errors == []


@pytest.mark.parametrize(("parser", "key", "data"), MALFORMED)
def test_a_malformed_line_is_reported_and_costs_its_value(parser: Any, key: bytes, data: bytes) -> None:
    """None, never 0, and one line that names the file."""
    errors: list[CgroupError] = []
    assert parser(data, (key,), "/the/file", errors.append) == [None]
    assert [str(error).startswith("/the/file: line ") for error in errors] == [True]


@settings(deadline=None)
@given(
    data=st.one_of(st.binary(max_size=60), st.sampled_from(list(FILES.values())).map(str.encode)), cut=st.integers(0)
)
def test_no_bytes_do_harm(data: bytes, cut: int) -> None:
    """Whatever stands there, each parser gives a value or None for each key, and raises nothing."""
    for parser, keys in (
        (formats.single, (b"",)),
        (formats.limit, (b"",)),
        (formats.cpus, (b"",)),
        (formats.blkio, (b"Read",)),
        (formats.pair, (b"0", b"1")),
        (formats.flat_keyed, (b"anon", b"some")),
        (formats.nested_keyed, (b"rbytes", b"wios")),
        (formats.pressure, (b"some total", b"full avg10")),
    ):
        for content in (data, data[: cut % (len(data) + 1)]):
            assert len(parser(content, keys, "file", lambda _error: None)) == len(keys)


HUGE = [
    Figure("current", (Source("hugetlb.*.current", format=Format.SINGLE),), by="page size"),
    Figure("max", (Source("hugetlb.*.max", format=Format.SINGLE),), by="page size"),
    Figure("events", (Source("hugetlb.*.events", "max"),), is_counter=True, by="page size"),
]


def huge(size: str, current: int) -> dict[str, str]:
    return {
        f"hugetlb.{size}.current": f"{current}\n",
        f"hugetlb.{size}.max": "max\n",
        f"hugetlb.{size}.events": "max 3\n",
        f"hugetlb.{size}.rsvd.current": "1\n",
    }


def test_a_star_stands_for_what_the_cgroup_has_a_file_of_each(tmp_path: Path) -> None:
    """One value a page size; a size whose limit is max has none; other files of like names are left alone."""
    write(tmp_path, huge("2MB", 4096) | huge("1GB", 0))
    reading = Reading(HUGE, tmp_path)
    row: tuple[dict[str, int], ...] = ({"1GB": 0, "2MB": 4096}, {}, {"1GB": 3, "2MB": 3})
    assert [reading() for _ in range(3)] == [row] * 3
    assert reading.calls == {"pread": 6}
    write(tmp_path, {"hugetlb.2MB.max": "8192\n"})
    assert [reading() for _ in range(2)] == [(row[0], {"2MB": 8192}, row[2])] * 2
    assert reading.errors == []


def test_files_with_a_star_are_looked_for_again(tmp_path: Path) -> None:
    """Where the cgroup has none yet: it costs one look a minute, and the figures are there then."""
    write(tmp_path, {"pids.current": "7\n"})
    reading = Reading([TABLE[0], *HUGE], tmp_path)
    assert reading() == (7, None, None, None)
    write(tmp_path, huge("2MB", 4096))
    assert reading(59) == (7, None, None, None)
    assert reading.calls == {"pread": 1}
    assert [reading(61), reading(62)] == [(7, {"2MB": 4096}, {}, {"2MB": 3})] * 2


def test_a_malformed_counter_of_one_member_costs_the_whole_mapping(tmp_path: Path) -> None:
    """A member that is missing for one reading would count anew at the next."""
    write(tmp_path, huge("2MB", 1) | huge("1GB", 2) | {"hugetlb.1GB.events": "max -3\n"})
    reading = Reading(HUGE, tmp_path)
    assert reading()[2] is None
    assert [str(error).startswith(f"{tmp_path}/hugetlb.1GB.events: ") for error in reading.errors] == [True]


def test_pressure_that_the_kernel_does_not_support_is_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started with psi=0 it has the files, and answers EOPNOTSUPP: nothing to report, nor to ask for each time."""
    write(tmp_path, FILES)
    reading = Reading(TABLE, tmp_path)
    real, asked, is_supported = os.pread, [""], False

    def pread(fd: int, size: int, offset: int) -> bytes:
        asked.append(Path(f"/proc/self/fd/{fd}").readlink().name)
        if asked[-1] == "cpu.pressure" and not is_supported:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        return real(fd, size, offset)

    monkeypatch.setattr(os, "pread", pread)
    assert reading() == (*ROW[:6], None, None)
    asked.clear()
    assert [reading(), reading()] == [(*ROW[:6], None, None)] * 2
    assert "cpu.pressure" not in asked
    is_supported = True
    assert reading(60) == ROW
    assert reading.errors == []
