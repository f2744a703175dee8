"""The state file: whatever it holds, it is read exactly or not at all, and it never stops the exporter."""

from __future__ import annotations

import json
import logging
import math
import os
import re
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.export.layout import Layout, Names
from otel_k8s_cgroup.export.ledger import Base, Bases
from otel_k8s_cgroup.export.restart import Restart
from otel_k8s_cgroup.export.state import (
    MAX_BYTES,
    NotOursError,
    Remembered,
    Remnant,
    Waiting,
    encode_state,
    parse_state,
)
from otel_k8s_cgroup.export.state_file import StateFile
from otel_k8s_cgroup.metrics import Instrument, Metric, Point, columns_of
from otel_k8s_cgroup.model import CgroupRoot, Description, EntityKind, Origin, Pod

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COUNTERS = ("cpu total", "cpu system", "cpu user")
NAMES = Names(COUNTERS, ("cpu total", "share", "memory"))
BOOT_ID = "11111111-2222-3333-4444-555555555555"
INT64_MAX = 2**63 - 1

# Of every code point: JSON may hold half of a surrogate pair, and a directory's name bytes that are no UTF-8.
texts = st.text(st.characters(), max_size=8)
numbers = st.integers(0, INT64_MAX)


def remembered(counters: int = len(COUNTERS)) -> st.SearchStrategy[Remembered]:
    """What an exporter may have to remember of so many counters."""
    bases = st.tuples(*[st.none() | st.builds(Base, numbers, numbers, numbers)] * counters).map(Bases.of)
    pods = st.builds(Pod, texts, texts, texts, texts, st.none() | texts, texts)
    by_device = st.frozensets(texts, max_size=2)
    remnants = st.builds(Remnant, texts, numbers, bases, st.none() | pods, by_device, numbers)
    values = texts | st.integers(-(2**63), INT64_MAX) | st.lists(texts, max_size=2).map(tuple)
    attributes = st.lists(st.tuples(texts, values), max_size=2).map(tuple)
    descriptions = st.builds(Description, attributes, st.dictionaries(texts, attributes, max_size=2))
    kinds = st.sampled_from(EntityKind)
    doubles = st.floats(allow_nan=False, allow_infinity=False)
    row = st.tuples(st.none() | numbers, st.none() | doubles, st.none() | numbers)
    waiting = st.lists(st.builds(Waiting, texts, kinds, descriptions, remnants, numbers, numbers, row), max_size=2).map(
        tuple
    )
    return st.builds(
        Remembered,
        numbers,
        numbers,
        st.dictionaries(texts, st.none() | remnants, max_size=4),
        st.none() | st.builds(CgroupRoot, numbers, numbers, numbers),
        st.lists(texts, max_size=2).map(tuple),
        waiting,
        st.frozensets(st.sampled_from(EntityKind)),
        st.just(NAMES),
    )


def parsed(content: bytes, now_ns: int = INT64_MAX) -> Remembered:
    return parse_state(content, boot_id=BOOT_ID, now_ns=now_ns)


def tried(content: bytes, now_ns: int = INT64_MAX) -> Remembered | None:
    """What it says, which is sane then, or None where it is refused in one line; any other exception goes on."""
    found, complaint = None, ""
    try:
        found = parsed(content, now_ns=now_ns)
    except ValueError as error:
        complaint = str(error)
    assert complaint.isprintable()
    assert len(complaint) < 200
    if found is None:
        return None
    assert 0 <= found.mono_ns <= now_ns
    assert 0 <= found.unix_ns <= INT64_MAX
    assert type(found.mono_ns) is type(found.unix_ns) is int
    for uid, remnant in found.cgroups.items():
        assert isinstance(uid, str)
        if remnant is not None:
            assert isinstance(remnant.path, str)
            assert 0 <= remnant.inode <= INT64_MAX
            assert set(remnant.bases.numbers) <= {0, 1, 2}
            for base in filter(None, remnant.bases.each(len(COUNTERS))):
                assert [type(number) for number in base] == [int, int, int]
                assert all(0 <= number <= INT64_MAX for number in base)
                assert base.mono_ns <= now_ns
    for waiting in found.waiting:
        assert 0 <= waiting.mono_ns <= now_ns
        assert 0 <= waiting.unix_ns <= INT64_MAX
        assert len(waiting.values) == len(found.names.values)
        for value in waiting.values:
            assert value is None or (math.isfinite(value) if isinstance(value, float) else 0 <= value <= INT64_MAX)
    return found


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
contents = remembered().map(lambda state: encode_state(state, boot_id=BOOT_ID))


def places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place of a JSON document that has a value: (list or dict, index or key)."""
    inside: list[tuple[Any, Any]] = (
        list(value.items()) if isinstance(value, dict) else list(enumerate(value)) if isinstance(value, list) else []
    )
    for key, inner in inside:
        yield value, key
        yield from places(inner)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """A good file in which one value, anywhere, is another one, or is not there."""
    state = json.loads(draw(contents))
    container, key = draw(st.sampled_from(list(places(state))))
    if draw(st.booleans()):
        container[key] = draw(json_values)
    else:
        del container[key]
    return json.dumps(state).encode()


@st.composite
def with_other_bytes(draw: st.DrawFn) -> bytes:
    """A good file in which some bytes, anywhere, are others."""
    content = draw(contents)
    start, end = sorted(draw(st.tuples(*[st.integers(0, len(content))] * 2)))
    return content[:start] + draw(st.binary(max_size=4)) + content[min(end, start + 4) :]


any_json = json_values.map(lambda value: json.dumps(value).encode())
any_content = st.binary(max_size=200) | any_json | mutated() | mutated() | with_other_bytes()


@given(remembered())
def test_what_is_remembered_is_read_back(state: Remembered) -> None:
    """To the nanosecond, whatever the pods' uids and paths are."""
    assert parsed(encode_state(state, boot_id=BOOT_ID)) == state


@given(state=remembered(), wanted=st.lists(st.sampled_from([*COUNTERS, "new"]), unique=True))
def test_counters_are_found_by_their_names(state: Remembered, wanted: list[str]) -> None:
    """In another order, or fewer of them: each has its own bases; one that the file does not have has none."""
    metrics = [Metric(name, Instrument.COUNTER, "", "", (Point("cpu_usage_ns"),)) for name in wanted]
    layout = Layout(columns_of(metrics))
    restart = Restart(parsed(encode_state(state, boot_id=BOOT_ID)), layout)
    for key, remnant in state.cgroups.items():
        if remnant is not None and not remnant.bases.numbers:
            continue
        if remnant is not None:
            origin = Origin(False, 0, (), remnant.inode)
            found = restart.beginning(layout, key, remnant.path, origin, wall_offset_ns=0, not_before=(0, 0)).bases
            bases = dict(zip(COUNTERS, remnant.bases.each(3), strict=True))
            assert found.each(len(wanted)) == tuple(bases.get(name) for name in wanted)
    assert restart.remembers


@given(content=any_content, now_ns=st.just(INT64_MAX) | numbers)
def test_any_content_is_sane_or_refused(content: bytes, now_ns: int) -> None:
    """ValueError, in one line, or numbers that a delta can be made of; never another exception."""
    tried(content, now_ns)


def test_every_value_may_be_another_one() -> None:
    """Each by itself is what is likeliest to be taken for a number, a text, a list or an object."""
    bases = Bases.of([Base(1, 2, 3), None, Base(4, 5, 6)])
    pod = Pod("u", "n", "ns", "node", None, "a")
    said = Description((("a", "b"), ("c", 1), ("d", ("e",))), {"alumet": (("f", "g"),)})
    wait = Waiting("u", EntityKind.POD, said, Remnant("/a", 9, bases, pod), 10, 11, (12, 1.5, None))
    good = encode_state(
        Remembered(
            7, 8, {"a": Remnant("/a", 9, bases), "b": None}, CgroupRoot(1, 2, 2), ("/u/",), (wait,), names=NAMES
        ),
        boot_id=BOOT_ID,
    )
    number_of_places = len(list(places(json.loads(good))))
    assert number_of_places > 20
    for number in range(number_of_places):
        for other in (
            True,
            -1,
            1.0,
            2**63,
            "1",
            None,
            [],
            {},
            [1],
            [1, 2, -3],
            [1, 2, 2**63],
            {"path": 1, "inode": 1, "bases": []},
            {"path": "/p", "inode": -1, "bases": [None, None, None]},
        ):
            state = json.loads(good)
            container, key = list(places(state))[number]
            container[key] = other
            tried(json.dumps(state).encode())


@given(contents.flatmap(lambda content: st.tuples(st.just(content), st.integers(0, len(content) - 1))))
def test_what_is_not_whole_is_refused(cut: tuple[bytes, int]) -> None:
    """Wherever it ends."""
    content, size = cut
    assert tried(content[:size]) is None


@given(contents)
def test_another_boot_or_version_is_refused(content: bytes) -> None:
    """Its clocks and counters are others."""
    with pytest.raises(ValueError, match="of another boot"):
        parse_state(content, boot_id=BOOT_ID.replace("1", "9"), now_ns=INT64_MAX)
    with pytest.raises(ValueError, match="its version is '1', not 3"):
        parsed(content.replace(b'"version":3', b'"version":1', 1))
    with pytest.raises(ValueError, match="out of date"):
        parsed(content.replace(b'"version":3', b'"version":0', 1))


@given(remembered())
def test_version_2_is_read(state: Remembered) -> None:
    """It tells of no root: what it does not name may have been anywhere, and nothing waits."""
    old = json.loads(encode_state(state, boot_id=BOOT_ID)) | {"version": 2}
    old["pods"] = old["cgroups"]
    for key in ("root", "unlisted", "values", "waiting", "cgroups", "kinds", "by_device"):
        del old[key]
    for remnant in filter(None, old["pods"].values()):
        del remnant["by_device"], remnant["start_unix_ns"]
    cgroups = {
        key: remnant and remnant._replace(by_device=frozenset(), start_unix_ns=0)
        for key, remnant in state.cgroups.items()
    }
    assert parsed(json.dumps(old).encode()) == Remembered(
        state.mono_ns, state.unix_ns, cgroups, unlisted=("",), names=Names(COUNTERS, ())
    )


@pytest.mark.parametrize("place", ["version", "mono_ns", "base"])
def test_a_value_of_any_depth_is_refused(place: str) -> None:
    """From what the interpreter reads with ease to what it can read no more: a message shows a part of each."""
    base = [1, 2, 3]
    state = {"format": "otel-k8s-cgroup state", "version": 3, "boot_id": BOOT_ID, "mono_ns": 1, "unix_ns": 2}
    whole = state | {
        "root": None,
        "unlisted": [],
        "kinds": ["pod"],
        "values": [],
        "waiting": [],
        "counters": list(COUNTERS),
        "cgroups": {"uid": {"path": "/p", "inode": 1, "bases": [base, None, "HERE"]}},
    }
    if place != "base":
        whole |= {place: "HERE", "cgroups": {}}
    text = json.dumps(whole)
    assert tried(text.replace('"HERE"', {"version": "3", "mono_ns": "2", "base": "null"}[place]).encode()) is not None
    for depth in [*range(1, 1100), 10_000, 1_000_000]:
        assert tried(text.replace('"HERE"', "[" * depth + "]" * depth).encode()) is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])  # the file is written anew each time
@given(content=any_content | contents, state=remembered())
def test_any_file_is_used_set_aside_or_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: bytes, state: Remembered
) -> None:
    """Ours is used or set aside with one line, and the next save and load are as ever; another's is left alone."""
    path, bad, boot_id_file = tmp_path / "state.json", tmp_path / "state.json.bad", tmp_path / "boot_id"
    bad.unlink(missing_ok=True)
    boot_id_file.write_text(BOOT_ID + "\n")
    path.write_bytes(content)
    caplog.clear()
    file = StateFile(str(path), boot_id_file=str(boot_id_file), mono_clock=lambda: INT64_MAX)
    expected, is_ours = None, True
    try:
        expected = parsed(content)
    except NotOursError:
        is_ours = False
    except ValueError:
        pass
    try:
        if not is_ours and content.strip(b"\0"):
            with pytest.raises(SettingsError, match=r"state_file: found .*; allowed is a path where nothing is yet"):
                file.load()
            assert path.read_bytes() == content
            assert not bad.exists()
            return
        assert file.load() == expected
        if expected is None and content.strip(b"\0"):
            assert bad.read_bytes() == content
            assert not path.exists()
            assert [record.levelno for record in caplog.records] == [logging.WARNING]
            assert caplog.records[0].getMessage().isprintable()
        else:
            assert not caplog.records
        file.save(state)
        assert file.load() == state
    finally:
        file.close()


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_plain_file_is_refused(tmp_path: Path, kind: str) -> None:
    """A path of somebody else's (a volume's directory, /dev/null) is neither moved nor replaced."""
    path = tmp_path / "state"
    path.mkdir() if kind == "directory" else os.mkfifo(path)
    before = path.stat()
    file = StateFile(str(path))
    with pytest.raises(SettingsError) as refused:
        file.load()
    file.save(Remembered(1, 2, {}))
    assert list(tmp_path.iterdir()) == [path]
    assert (path.stat().st_ino, path.stat().st_mode) == (before.st_ino, before.st_mode)
    assert str(refused.value) == (
        f"state_file: found {str(path)!r}: it is no plain file; allowed is a path where nothing is yet"
    )


def test_a_state_that_is_too_large_to_be_read_is_not_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line; the old one is out of date."""
    path, boot_id_file = tmp_path / "state.json", tmp_path / "boot_id"
    boot_id_file.write_text(f"{BOOT_ID}\n")
    file = StateFile(str(path), boot_id_file=str(boot_id_file))
    file.load()
    file.save(Remembered(1, 2, {}))
    file.save(Remembered(1, 2, {"uid": Remnant("/" + "x" * MAX_BYTES, 1, Bases.of([]))}))
    (line,) = [record.getMessage() for record in caplog.records]
    assert re.search(rf"is not used: it would have \d{{8}} bytes, and may have {MAX_BYTES}; ", line)
    assert file.load() is None
    file.close()
