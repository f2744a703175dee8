"""Bytes → values: no input does harm, and no figure is wrong."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.cgroup import formats
from otel_k8s_cgroup.cgroup.files import OpenFiles, StatFile
from otel_k8s_cgroup.errors import MalformedFile
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.model import INT64_MAX

from .support import reader
from .trees import v1_files, v2_files

if TYPE_CHECKING:
    from collections.abc import Mapping

    from otel_k8s_cgroup.errors import CgroupError

Files = dict[str, bytes]

# No deadline: how long an example takes is the machine's affair.
thorough = settings(deadline=None, max_examples=300)

V2_FILES: Files = {name: text.encode() for name, text in v2_files().items()}
V1_FILES: Files = {name: text.encode() for files in v1_files().values() for name, text in files.items()}
US = 1000
TICK = 10**7


# --- the model: slow, short, and written without a look at the parsers -----------------------------------------------


def model_number(text: bytes, factor: int = 1) -> int | None:
    if re.fullmatch(rb"[0-9]{1,19}", text) and int(text) * factor <= INT64_MAX:
        return int(text) * factor
    return None


def model_single(data: bytes) -> int | None:
    return model_number(data[:-1]) if data.endswith(b"\n") else None


def model_keyed(data: bytes, key: bytes, factor: int = 1) -> int | None:
    lines = data.split(b"\n")[:-1]
    values = [line[len(key) + 1 :] for line in lines if line == key or line.startswith(key + b" ")]
    return model_number(values[0], factor) if values else None


def model_v2(files: Mapping[str, bytes]) -> Stats:
    cpu, memory = files["cpu.stat"], files["memory.stat"]
    cpu_ns = [model_keyed(cpu, key, US) for key in (b"usage_usec", b"system_usec", b"user_usec")]
    parts = [model_keyed(memory, key) for key in (b"anon", b"file", b"kernel_stack", b"pagetables")]
    return Stats._make([*cpu_ns, model_single(files["memory.current"]), *parts])


def model_v1(files: Mapping[str, bytes]) -> Stats:
    usage, system, user = (model_single(files[f"cpuacct.{name}"]) for name in ("usage", "usage_sys", "usage_user"))
    total = b"" if model_single(files["memory.use_hierarchy"]) == 0 else b"total_"
    rss, cache = (model_keyed(files["memory.stat"], total + key) for key in (b"rss", b"cache"))
    return Stats(usage, system, user, model_single(files["memory.usage_in_bytes"]), rss, cache)


# --- what files may hold ---------------------------------------------------------------------------------------------

KEYS = (
    *(b"usage_usec", b"user_usec", b"system_usec", b"nr_periods"),
    *(b"anon", b"file", b"kernel", b"kernel_stack", b"pagetables", b"sock"),
    *(b"cache", b"rss", b"total_cache", b"total_rss", b"total_swap", b"user", b"system", b"total_", b"max", b""),
)
ODD_VALUES = (
    *(b"", b"-1", b"+1", b"1_0", b" 1", b"1 ", b"1 2", b"1.5", b"0x1", b"max", b"00", b"1\r", b"\xb2", b"\xff\xfe"),
    *(b"9" * 18, b"9" * 19, b"9" * 5000, b"%d" % INT64_MAX, b"%d" % (INT64_MAX + 1), b"%d" % (INT64_MAX // 1000 + 1)),
)
values = st.one_of(st.integers(0, INT64_MAX).map(lambda value: b"%d" % value), st.sampled_from(ODD_VALUES))
lines = st.builds(
    lambda key, space, value, end: key + space + value + end,
    st.sampled_from(KEYS),
    st.sampled_from([b" "] * 8 + [b"", b"\t", b"  "]),
    values,
    st.sampled_from([b"\n"] * 12 + [b"", b"\r\n", b"\r", b"\0\n"]),
)


def contents(well_formed: bytes) -> st.SearchStrategy[bytes]:
    """Any bytes; lines as above; and a kernel's file, shortened, or with something put into it."""

    def put(cut: int, what: bytes, until: int) -> bytes:
        return well_formed[:cut] + what + well_formed[cut:until]

    places = st.integers(0, len(well_formed))
    return st.one_of(
        st.binary(max_size=60),
        st.lists(lines, max_size=12).map(b"".join),
        st.builds(put, places, st.one_of(st.just(b""), lines, st.binary(max_size=3)), places),
        st.sampled_from([m.start() for m in re.finditer(rb"(?m)^", well_formed)]).flatmap(
            lambda start: lines.map(lambda line: put(start, line, len(well_formed)))
        ),
    )


def trees(well_formed: Files) -> st.SearchStrategy[Files]:
    return st.fixed_dictionaries({name: contents(data) for name, data in well_formed.items()})


class Reader:
    """Reads files as those of one pod, anew each time."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.path = directory

    def __call__(self, files: Files, version: int) -> tuple[Stats, list[CgroupError]]:
        for name, data in files.items():
            (self.path / name).write_bytes(data)
        cgroup = reader(version, self.directory)
        errors: list[CgroupError] = []
        try:
            first = Stats._make(cgroup.read(0, errors.append))
            again = Stats._make(cgroup.read(0, lambda _error: None))
        finally:
            cgroup.close()
        assert first == again, "the files are open now, which must make no difference"
        return first, errors


@pytest.fixture(scope="module")
def read(tmp_path_factory: pytest.TempPathFactory) -> Reader:
    return Reader(tmp_path_factory.mktemp("pod"))


@thorough
@given(files=trees(V2_FILES))
def test_v2_says_what_the_files_say(read: Reader, files: Files) -> None:
    """The quick way and the general one are the model's, whatever stands where; and nothing escapes but figures."""
    stats, errors = read(files, 2)
    assert stats == model_v2(files)
    assert all(isinstance(error, MalformedFile) and "\n" not in str(error) for error in errors)


@thorough
@given(files=trees(V1_FILES))
def test_v1_says_what_the_files_say(read: Reader, files: Files) -> None:
    """As above, with both settings of the hierarchy."""
    stats, errors = read(files, 1)
    assert stats == model_v1(files)
    assert all(isinstance(error, MalformedFile) and "\n" not in str(error) for error in errors)


@thorough
@given(figures=st.lists(st.integers(0, INT64_MAX // US), min_size=8, max_size=8), newer=st.booleans())
def test_well_formed_files(read: Reader, figures: list[int], newer: bool) -> None:
    """What kernels write, old (no `kernel` line) and new, comes out as it went in: no error and no figure left out."""
    usage, system, user, current, anon, file, stack, tables = figures
    kernel = b"kernel 5\n" if newer else b""
    files = {
        "cpu.stat": b"usage_usec %d\nuser_usec %d\nsystem_usec %d\nnr_periods 0\n" % (usage, user, system),
        "memory.current": b"%d\n" % current,
        "memory.stat": b"anon %d\nfile %d\n%bkernel_stack %d\npagetables %d\nsock 0\n"
        % (anon, file, kernel, stack, tables),
    }
    stats = Stats(usage * US, system * US, user * US, current, anon, file, stack, tables)
    assert read(files, 2) == (stats, [])


@st.composite
def keyed(draw: st.DrawFn, figures: Mapping[bytes, int]) -> bytes:
    """A flat keyed file with these figures in any order, and lines that a later kernel may put between them."""
    later = draw(
        st.dictionaries(st.from_regex(rb"(x_|total_x)[a-z_]{0,9}", fullmatch=True), st.integers(0), max_size=4)
    )
    return b"".join(b"%b %d\n" % line for line in draw(st.permutations([*figures.items(), *later.items()])))


@settings(deadline=None)
@given(st.data(), st.lists(st.integers(0, INT64_MAX // US), min_size=8, max_size=8))
def test_well_formed_v2_files_of_any_kernel(read: Reader, data: st.DataObject, figures: list[int]) -> None:
    """Keys in another order, and with others between them."""
    cpu = dict(zip((b"usage_usec", b"system_usec", b"user_usec"), figures, strict=False))
    memory = dict(zip((b"anon", b"file", b"kernel_stack", b"pagetables"), figures[4:], strict=True))
    files = {"cpu.stat": data.draw(keyed(cpu)), "memory.stat": data.draw(keyed(memory))}
    stats = Stats._make([*(usec * US for usec in figures[:3]), *figures[3:]])
    assert read(files | {"memory.current": b"%d\n" % figures[3]}, 2) == (stats, [])


@settings(deadline=None)
@given(st.data(), st.lists(st.integers(0, INT64_MAX // TICK), min_size=6, max_size=6), st.booleans(), st.booleans())
def test_well_formed_v1_files_of_any_kernel(
    data: st.DataObject, figures: list[int], total: bool, in_ticks: bool
) -> None:
    """The same, with hierarchical accounting or not, and the kinds in ns or in ticks."""
    usage, system, user, current, rss, cache = figures
    plain, wanted = {b"rss": rss, b"cache": cache}, {b"total_rss": rss, b"total_cache": cache}
    other = dict.fromkeys(plain if total else wanted, 7)
    files = {
        "cpuacct.usage": b"%d\n" % usage,
        "cpuacct.stat": data.draw(keyed({b"user": user, b"system": system} if in_ticks else {b"user": 1})),
        "memory.usage_in_bytes": b"%d\n" % current,
        "memory.use_hierarchy": b"%d\n" % total,
        "memory.stat": data.draw(keyed((wanted if total else plain) | other)),
    }
    if not in_ticks:
        files |= {"cpuacct.usage_sys": b"%d\n" % system, "cpuacct.usage_user": b"%d\n" % user}
    factor = TICK if in_ticks else 1
    stats = Stats(usage, system * factor, user * factor, current, rss, cache)
    with tempfile.TemporaryDirectory() as directory:  # not one that has a file that this kernel lacks
        assert Reader(Path(directory))(files, 1) == (stats, [])


# --- one by one, each for what a user sees ---------------------------------------------------------------------------


def malformed(files: Files, version: int, read: Reader) -> tuple[Stats, list[str]]:
    stats, errors = read(files, version)
    return stats, [str(error).removeprefix(f"{read.directory}/") for error in errors]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "memory.current: line '': the file is empty"),
        (b"12", "memory.current: line '12': the line does not end (truncated?)"),
        (b"-1\n", "memory.current: line '-1': a whole number is expected"),
        (b"+1\n", "memory.current: line '+1': a whole number is expected"),
        (b"1_0\n", "memory.current: line '1_0': a whole number is expected"),
        (b"1\n2\n", r"memory.current: line '1\n2': a whole number is expected"),
        (b"\xff\n", r"memory.current: line '\\xff': a whole number is expected"),
        (b"%d\n" % 2**63, f"memory.current: line '{2**63}': a number of at most {2**63 - 1} is expected"),
        (b"9" * 10**6 + b"\n", f"memory.current: line '{'9' * 80}': a number of at most {2**63 - 1} is expected"),
    ],
)
def test_a_malformed_number_costs_itself(read: Reader, content: bytes, message: str) -> None:
    """One line that names file and line; every other figure is there."""
    stats, messages = malformed(V2_FILES | {"memory.current": content}, 2, read)
    assert messages == [message]
    assert stats == Stats(300_000, 100_000, 200_000, None, 11, 22, 33, 44)


def test_max_is_no_number_and_no_error(read: Reader) -> None:
    """There is no limit, so there is no figure."""
    assert read(V2_FILES | {"memory.current": b"max\n"}, 2)[1] == []
    assert formats.single(b"max\n", (b"",), "file", lambda error: pytest.fail(str(error))) == [None]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"file -1\n", "memory.stat: line 'file -1': a whole number is expected"),
        (b"file\n", "memory.stat: line 'file': a whole number is expected"),
        (b"file 1 2\n", "memory.stat: line 'file 1 2': a whole number is expected"),
        (b"file " + b"7" * 100_000 + b"\n", f"memory.stat: line 'file {'7' * 75}': a number of at most"),
    ],
)
def test_a_malformed_line_costs_its_figure(read: Reader, line: bytes, message: str) -> None:
    """The lines around it count, those after a line of 100 kB too."""
    stats, messages = malformed(
        V2_FILES | {"memory.stat": V2_FILES["memory.stat"].replace(b"file 22\n", line)}, 2, read
    )
    assert [told.startswith(message) for told in messages] == [True]
    assert stats[4:] == (11, None, 33, 44)


def test_a_truncated_file_costs_what_is_missing(read: Reader) -> None:
    """Of `kernel_stack 33` only `kernel_stack 3` is there: a digit may be missing, so it is no figure."""
    cut = V2_FILES["memory.stat"].partition(b"3\npagetables")[0]
    stats, messages = malformed(V2_FILES | {"memory.stat": cut}, 2, read)
    assert messages == ["memory.stat: line 'kernel_stack 3': the line does not end (truncated?)"]
    assert stats[4:] == (11, 22, None, None)


def test_a_key_that_stands_twice_counts_as_it_stands_first(read: Reader) -> None:
    """On both versions, also where the second stands in the kernel's order."""
    v2 = V2_FILES | {"memory.stat": V2_FILES["memory.stat"] + b"anon 999\nfile 999\n"}
    assert read(v2, 2)[0][4:6] == (11, 22)
    v2 = V2_FILES | {"memory.stat": V2_FILES["memory.stat"].replace(b"kernel 99", b"kernel_stack 999")}
    assert read(v2, 2)[0][6] == 999
    v1 = V1_FILES | {"memory.stat": b"total_rss 11\ntotal_cache 22\ntotal_cache 999\ntotal_rss 999\n"}
    assert read(v1, 1)[0][4:6] == (11, 22)


def test_thousands_of_lines(read: Reader) -> None:
    """A file of 200 kB is read to its end."""
    many = b"".join(b"key_%d 1\n" % number for number in range(15_000))
    assert read(V2_FILES | {"memory.stat": many + V2_FILES["memory.stat"]}, 2)[0][4:] == (11, 22, 33, 44)


def test_an_endless_file_is_read_up_to_a_bound(tmp_path: Path) -> None:
    """1 MiB, however much there is."""
    (tmp_path / "memory.stat").write_bytes(b"x" * (5 << 20))
    data = StatFile(str(tmp_path / "memory.stat"), OpenFiles(1)).read(lambda _error: None)
    assert data is not None
    assert len(data) == 1 << 20


def test_an_order_that_no_kernel_has_yet(read: Reader) -> None:
    """The quick way knows the kernel's order of today; another one is read all the same."""
    turned = {name: b"\n".join(reversed(data.rstrip().split(b"\n"))) + b"\n" for name, data in V2_FILES.items()}
    assert read(turned, 2) == (Stats(300_000, 100_000, 200_000, 4096, 11, 22, 33, 44), [])
    turned = V1_FILES | {"memory.stat": b"total_rss 11\ntotal_cache 22\n"}
    assert read(turned, 1)[0][4:6] == (11, 22)


def test_v1_without_hierarchical_accounting(read: Reader) -> None:
    """`memory.use_hierarchy` = 0: the plain keys are the pod's."""
    assert read(V1_FILES | {"memory.use_hierarchy": b"0\n"}, 1)[0][4:6] == (2, 1)


@pytest.mark.parametrize("content", [b"1\n", b"", b"x\n"])
def test_v1_with_hierarchical_accounting(read: Reader, content: bytes) -> None:
    """What is not 0 is taken for it; what is wrong with that file is no news to the user."""
    stats, errors = read(V1_FILES | {"memory.use_hierarchy": content}, 1)
    assert (stats[4:6], errors) == ((11, 22), [])


def test_v1_kernels_that_tell_the_kinds_in_ticks(tmp_path: Path) -> None:
    """Before 4.7 there is only `cpuacct.stat`, in hundredths of a second; the total is in ns all the same."""
    reader = Reader(tmp_path)
    files = {name: data for name, data in V1_FILES.items() if name not in ("cpuacct.usage_sys", "cpuacct.usage_user")}
    stats, errors = reader(files, 1)
    assert (stats[:3], errors) == ((300_000, 3 * TICK, 7 * TICK), [])


@pytest.mark.parametrize("version", [1, 2])
def test_absent_files_are_absent_figures(tmp_path: Path, version: int) -> None:
    """The controller is off, or the kernel is older: None, and nothing to complain of."""
    assert Reader(tmp_path)({}, version) == (Stats(), [])


def test_absent_keys_are_absent_figures(read: Reader) -> None:
    """Never 0."""
    assert read(V2_FILES | {"memory.stat": b"anon 11\nsock 5\n"}, 2)[0][4:] == (11, None, None, None)


@pytest.mark.parametrize(("key", "at"), [(b"usage_usec", 0), (b"system_usec", 1), (b"user_usec", 2)])
def test_a_time_that_does_not_fit_nanoseconds(read: Reader, key: bytes, at: int) -> None:
    """It would be beyond OTLP's integers: left out, and said. The other two are there."""
    too_much = b"%b %d" % (key, INT64_MAX // US + 1)
    content = re.sub(rb"(?m)^%b .*" % key, too_much, V2_FILES["cpu.stat"])
    stats, messages = malformed(V2_FILES | {"cpu.stat": content}, 2, read)
    times = [300_000, 100_000, 200_000]
    assert list(stats[:3]) == [None if place == at else value for place, value in enumerate(times)]
    assert messages == [f"cpu.stat: line '{too_much.decode()}': a number of at most {INT64_MAX // US} is expected"]


@thorough
@given(data=st.binary(max_size=100), keys=st.lists(st.sampled_from(KEYS), max_size=5, unique=True))
def test_any_bytes_with_any_keys(data: bytes, keys: list[bytes]) -> None:
    """The general parser by itself, one value a key."""
    values = formats.flat_keyed(data, tuple(keys), "file", lambda _error: None)
    assert values == [model_keyed(data, key) for key in keys]
