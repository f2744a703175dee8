"""A tick's columns: figures as they were read, and figures made of figures."""

from __future__ import annotations

import pytest

from otel_k8s_cgroup.figures import (
    DEFAULT_FIGURES,
    DERIVED,
    FIGURES,
    Difference,
    EitherOf,
    Rate,
    figures_named,
    row_type,
    with_descendants,
)
from otel_k8s_cgroup.model import EntityKind, Origin, Reading
from otel_k8s_cgroup.table import Table

SECOND = 10**9
Stats = row_type(FIGURES)


def reading(**figures: object) -> Reading:
    return Reading("uid", EntityKind.POD, "/path", Origin(False, 0, Stats()), SECOND, Stats(**figures), 0, Stats())


def column(name: str, *rows: dict[str, object]) -> list[object]:
    return list(Table([reading(**row) for row in rows]).column(name))


def test_the_working_set_is_usage_without_inactive_file_memory() -> None:
    """Never below 0, as the two are not read at one instant; absent where either is."""
    assert column(
        "memory_working_set_bytes",
        {"memory_usage_bytes": 100, "inactive_file_bytes": 30},
        {"memory_usage_bytes": 100, "inactive_file_bytes": 101},
        {"memory_usage_bytes": 100},
        {"inactive_file_bytes": 30},
    ) == [70, 0, None, None]


def test_what_is_available_is_the_limit_without_the_working_set() -> None:
    """Only where there is a limit."""
    row: dict[str, object] = {"memory_usage_bytes": 100, "inactive_file_bytes": 30}
    assert column("memory_available_bytes", row | {"memory_max_bytes": 170}, row) == [100, None]


def test_the_limit_in_cores_is_quota_per_period() -> None:
    """A row without a quota has none, and a period of 0 divides nothing."""
    assert column(
        "cpu_limit_cores",
        {"cpu_quota_us": 150_000, "cpu_period_us": 100_000},
        {"cpu_period_us": 100_000},
        {"cpu_quota_us": 0, "cpu_period_us": 100_000},
        {"cpu_quota_us": 100_000, "cpu_period_us": 0},
    ) == [1.5, None, 0.0, None]


def test_utilization_is_of_the_limit() -> None:
    """Half a core used of one and a half; made of a rate and of a ratio."""
    zero, full = Stats(cpu_usage_ns=0), Stats(cpu_usage_ns=SECOND // 2, cpu_quota_us=150_000, cpu_period_us=100_000)
    table = Table([Reading("uid", EntityKind.POD, "/path", Origin(False, 0, zero), SECOND, full, 0, zero)])
    assert table.column("cpu_limit_utilization")[0] == pytest.approx(1 / 3)


def test_what_is_made_of_figures_that_are_not_read_is_absent() -> None:
    """Each derived figure, beside a table that lacks what it is made of, and in an empty table."""
    stats = row_type([])()
    nothing = Table([Reading("uid", EntityKind.POD, "/path", Origin(False, 0, stats), SECOND, stats, 0, stats)])
    for derived in DERIVED:
        assert list(nothing.column(derived.name)) == [None]
        assert list(Table(()).column(derived.name)) == []


def test_figures_are_named_by_themselves_or_by_what_is_made_of_them() -> None:
    """In the table's order, each once, with all that a derived figure of derived figures needs."""
    named = figures_named(["memory_available_bytes", "pids_current", "cpu_usage_percent", "memory_usage_bytes"])
    assert [figure.name for figure in named] == [
        "cpu_usage_ns",
        "memory_usage_bytes",
        "inactive_file_bytes",
        "memory_max_bytes",
        "pids_current",
    ]
    with pytest.raises(KeyError, match="'memory_workingset'"):
        figures_named(["memory_workingset"])


def test_every_name_is_given_once() -> None:
    """Of all figures, derived ones included; what these are made of are figures, and rates are of counters."""
    names = [row.name for row in (*FIGURES, *DERIVED)]
    assert len(set(names)) == len(names)
    figures = {figure.name: figure for figure in FIGURES}
    for derived in DERIVED:
        if isinstance(derived, Rate):
            assert figures[derived.counter].is_counter
        elif isinstance(derived, Difference):
            assert {derived.whole, derived.part} <= set(names)
        elif isinstance(derived, EitherOf):
            one, other = figures[derived.one], figures[derived.other]
            assert (one.v1, other.v2) == ((), ())  # never both
        else:
            assert {derived.dividend, derived.divisor} <= {*names, "api_cpu_request_cores"}
        assert figures_named([derived.name])


def test_the_default_figures_are_the_tables_first() -> None:
    """A reading of today's metrics reads no file more than before."""
    assert FIGURES[: len(DEFAULT_FIGURES)] == DEFAULT_FIGURES
    files = {source.file for figure in DEFAULT_FIGURES for source in figure.v2}
    assert files == {"cpu.stat", "memory.current", "memory.stat"}


def test_what_v1_does_not_sum_up_is_no_figure_of_a_pod() -> None:
    """A pod's own oom_kill is 0 whatever its containers' is; a container has the figure, on v2 both have it."""
    rows = figures_named(["memory_events_oom_kill", "pids_events_max", "pgfault"])
    pods = {figure.name: figure for figure in with_descendants(rows)}
    assert [figure.v1 == () for figure in rows] == [False] * 3
    assert {name for name, figure in pods.items() if figure.v1} == {"pgfault"}
    assert all(figure.v2 for figure in pods.values())
