"""What waits: small, and the same when it is taken."""

from __future__ import annotations

import tracemalloc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.export.layout import Layout
from otel_k8s_cgroup.export.ledger import Bases
from otel_k8s_cgroup.export.queue import ReadingQueue
from otel_k8s_cgroup.export.series import Readings, Series
from otel_k8s_cgroup.metrics import columns_of
from otel_k8s_cgroup.model import Description, Entity, EntityKind, Origin
from otel_k8s_cgroup.schemas import ALUMET

if TYPE_CHECKING:
    from otel_k8s_cgroup.metrics import Row

LAYOUT = Layout(columns_of(ALUMET))
COUNTS = st.none() | st.integers(0, 2**63 - 1)
NUMBERS = st.none() | st.floats(min_value=0, allow_nan=False)


def series(number: int) -> Series:
    return Series(
        Entity(f"uid-{number}", EntityKind.POD, lambda: Description(())),
        "/",
        Origin(False, 0, ()),
        Bases(0, 0, (), (), {}),
    )


def tick(of: list[Series], number: int) -> Readings:
    """One of large numbers, each an object of its own."""
    counts = [10**15 + number * 1000 + place for place in range(LAYOUT.width)]
    row = tuple(count / 2 if 3 <= place < 6 else count for place, count in enumerate(counts))
    rows: list[Row] = [tuple(value + 0 for value in row) for _ in of]
    return Readings(LAYOUT, of, [10**15 + number] * len(of), 10**18, rows)


def dropped(_series: Series, _row: Row, _full: bool) -> None:
    raise AssertionError("the queue has room")


@pytest.mark.parametrize("entities", [1, 110, 1000])
def test_a_waiting_value_takes_few_bytes(entities: int) -> None:
    """Twelve at most where a node has more than a few pods; and the queue does not count less than there is."""
    of = [series(number) for number in range(entities)]
    queue = ReadingQueue(1 << 30, dropped)
    queue.put(tick(of, 0))
    counted = queue.bytes
    tracemalloc.start()
    try:
        ticks = 3000 // entities + 20
        for number in range(ticks):
            queue.put(tick(of, number + 1))
        taken_bytes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    newest_bytes = entities * LAYOUT.width * 40 + entities * 400  # is not packed yet
    counted = queue.bytes - counted
    assert taken_bytes - newest_bytes <= counted, (taken_bytes - newest_bytes) / counted
    if entities > 1:
        assert counted / (ticks * entities * LAYOUT.width) <= 12


@given(
    st.lists(
        st.tuples(*[NUMBERS if column.point.figure.endswith("percent") else COUNTS for column in columns_of(ALUMET)]),
        min_size=1,
        max_size=5,
    )
)
def test_what_waits_is_what_was_put(rows: list[Row]) -> None:
    """To the last bit, absent values included, in its order."""
    of = [series(number) for number in range(len(rows))]
    queue = ReadingQueue(1 << 20, dropped)
    monos_ns = [7 + number for number in range(len(rows))]
    queue.put(Readings(LAYOUT, of, monos_ns, 100, rows))
    queue.put(tick(of, 1))
    taken, _ = queue.take(10**6)
    parts = taken.parts()
    assert [part.row for part in parts] == rows
    assert [[type(value) for value in part.row] for part in parts] == [[type(value) for value in row] for row in rows]
    assert [(part.mono_ns, part.unix_ns) for part in parts] == [(mono_ns, mono_ns + 100) for mono_ns in monos_ns]
