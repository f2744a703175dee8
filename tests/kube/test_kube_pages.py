"""A PodList is taken apart as it comes, one pod at a time, however it is cut and whatever is in it."""

from __future__ import annotations

import json
import tracemalloc
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import MalformedObject
from otel_k8s_cgroup.kube.pages import split_pods

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from otel_k8s_cgroup.kube.objects import Page

KEYS = st.sampled_from(["items", "metadata", "a", '"items":[{', "\\", '\\"items"', "{", "é"])
LEAVES = (
    st.none() | st.integers() | st.text(st.sampled_from('\\"{}[],: né😀')) | st.sampled_from(["items", '"items":['])
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4), max_leaves=20
)


def split(pieces: Iterable[bytes], **bounds: int) -> tuple[list[bytes], Page, list[str]]:
    """Items, what else the list says, and what was skipped."""
    skipped: list[str] = []
    pods = split_pods(pieces, "here", lambda error: skipped.append(str(error)), **bounds)
    items = []
    while True:
        try:
            items.append(next(pods))
        except StopIteration as end:
            return items, end.value, skipped


@settings(deadline=None)
@given(
    items=st.lists(st.dictionaries(KEYS, VALUES, max_size=4) | VALUES, max_size=5),
    beside=st.dictionaries(st.sampled_from(["x", "y", "kind"]), VALUES),
    first=st.booleans(),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
    data=st.data(),
)
def test_any_list_comes_apart_into_its_items(
    *, items: list[Any], beside: dict[str, Any], first: bool, ascii_only: bool, indent: int | None, data: st.DataObject
) -> None:
    """In whatever pieces it comes and whatever stands around them; those that are no objects are only counted."""
    metadata = {"metadata": {"resourceVersion": "7"}}
    written = {"items": items} | metadata | beside if first else metadata | beside | {"items": items}
    content = json.dumps(written, ensure_ascii=ascii_only, indent=indent).encode()
    cuts = sorted(data.draw(st.sets(st.integers(0, len(content)), max_size=8)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    found, page, skipped = split(pieces)
    assert [json.loads(each) for each in found] == [each for each in items if isinstance(each, dict | list)]
    assert page.resource_version == "7"
    assert len(skipped) == len([each for each in items if not isinstance(each, dict | list)])


@settings(deadline=None)
@given(content=st.binary() | st.text(st.sampled_from('{}[]":,\\ax1 ')).map(str.encode), cut=st.integers(0, 100))
def test_any_bytes_come_apart_or_are_malformed(content: bytes, cut: int) -> None:
    """Never another exception, and it ends."""
    complaint = ""
    try:
        split([content[:cut], content[cut:]])
    except MalformedObject as error:
        complaint = str(error)
    assert complaint.isprintable()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b'{"items":[{}',
        b'{"items":[{}]',
        b'{"items":[{"a":1',
        b'{"items":[{}]}]',
        b'{"items":[{}]}{}',
        b'{"items":[{}}',
    ],
)
def test_a_list_that_is_cut_or_goes_on_is_malformed(content: bytes) -> None:
    """Its pods were given before: who takes them waits for the end."""
    with pytest.raises(MalformedObject, match="here: not JSON"):
        split([content])


def test_a_pod_that_is_too_large_costs_itself() -> None:
    """It is passed over without being held; the others are there."""
    large = json.dumps({"x": "y" * 5000, "z": [{}] * 5000}).encode()
    content = b'{"items":[{"a":1},' + large + b',{"b":2}]}'
    pieces = [content[start : start + 100] for start in range(0, len(content), 100)]
    items, _, skipped = split(pieces, max_pod_bytes=5000)
    assert items == [b'{"a":1}', b'{"b":2}']
    assert skipped == ["here: a pod of over 5000 bytes"]


def test_what_is_no_pod_is_bounded_too() -> None:
    """A list whose metadata never ends."""
    with pytest.raises(MalformedObject, match="beside the pods"):
        split([b'{"metadata":{"x":"', *[b"y" * 65_536] * 20, b'"},"items":[]}'])
    with pytest.raises(MalformedObject):
        split([b'{"items":["', *[b"\\" * 65_536] * 20, b'"]}'], max_pod_bytes=65_536)


def test_what_is_held_is_one_pod() -> None:
    """Of a list of 100 MB with pods of 1 MB: as Python objects a single one of them would be 11 MB."""
    tiny = b'{"metadata":{"uid":"u"},"spec":{"env":[' + b",".join([b'{"name":"A"}'] * 80_000) + b"]}}"

    def pieces() -> Iterator[bytes]:
        yield b'{"items":['
        for number in range(100):
            yield b"," if number else b""
            yield from (tiny[start : start + 65_536] for start in range(0, len(tiny), 65_536))
        yield b"]}"

    tracemalloc.start()
    try:
        count = sum(1 for _ in split_pods(pieces(), "here", lambda _error: None))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 100
    assert peak < 4 * len(tiny)
