"""The soak's own books: what they count, and what they would not let pass."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.fakes.otlp_receiver import Received
from tests.soak.arrivals import Absence, Arrivals, Delta, Series, told
from tests.soak.balance import balance
from tests.soak.faults import Window
from tests.soak.lives import Life, slope

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.programs import Program

SECOND = 10**9
SERIES = Series("/kubepods/pod1", "total")
STEPS = [Delta(0, 1, 10, 1), Delta(1, 2, 20, 2), Delta(2, 3, 30, 3)]


def test_what_follows_without_a_gap_is_told_once() -> None:
    """In whatever order it came."""
    found = told([STEPS[2], STEPS[0], STEPS[1]])
    assert (found.sum, found.twice, found.gaps) == (60, [], [])


@pytest.mark.parametrize(
    ("again", "twice"),
    [
        (Delta(1, 2, 20, 9), [STEPS[1]]),
        (Delta(1, 3, 50, 9), [STEPS[2], STEPS[1]]),
        (Delta(0, 3, 60, 9), [STEPS[2], STEPS[1], STEPS[0]]),
    ],
    ids=["the same", "wider at its end", "wider than all"],
)
def test_what_is_sent_again_counts_once(again: Delta, twice: list[Delta]) -> None:
    """The same point, or one that covers several: of what overlaps, what came later counts."""
    found = told([*STEPS, again])
    assert (found.sum, found.twice, found.gaps) == (60, twice, [])


def test_a_cgroup_made_anew_covers_nothing_of_the_one_before() -> None:
    """Its sender counts it from a look that is older than what arrived of the other."""
    anew = Delta(1, 9, 40, 9)
    assert told([*STEPS, anew]).sum == 10 + 40
    found = told([*STEPS, anew], [Absence(4, 6)])
    assert (found.sum, found.twice, found.gaps) == (100, [], [(STEPS[2], anew._replace(start_ns=6))])


def test_time_that_no_delta_covers_is_told() -> None:
    """A point that never came leaves a gap."""
    found = told([STEPS[0], STEPS[2]])
    assert (found.sum, found.gaps) == (40, [(STEPS[0], STEPS[2])])


def request(*deltas: Delta) -> Received:
    message = ExportMetricsServiceRequest()
    of_pod = message.resource_metrics.add()
    for key, value in (("k8s.pod.uid", "1"), ("cgroup.path", SERIES.path)):
        of_pod.resource.attributes.append(KeyValue(key=key, value=AnyValue(string_value=value)))
    metric = of_pod.scope_metrics.add().metrics.add(name="cpu_time_delta")
    metric.sum.aggregation_temporality = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
    for delta in deltas:
        point = metric.sum.data_points.add(
            start_time_unix_nano=delta.start_ns, time_unix_nano=delta.time_ns, as_int=delta.value
        )
        point.attributes.append(KeyValue(key="kind", value=AnyValue(string_value=SERIES.kind)))
    return Received(message, {})


def books(
    deltas: Sequence[Delta],
    *,
    used: int = 60,
    absences: Mapping[str, Sequence[Absence]] | None = None,
    lost: Sequence[Window] = (),
    lives: Sequence[Life] = (),
) -> tuple[int, int, list[str]]:
    """What is lost, what is counted twice, and how many things are wrong."""
    came_ns = 0
    arrivals = Arrivals(clock=lambda: came_ns)
    for delta in deltas:
        came_ns = delta.came_ns
        arrivals.respond(request(delta))
    found = balance({SERIES: used}, absences or {}, arrivals, lost, lives)
    return found.lost_ns, found.surplus_ns, found.defects


def test_books_that_balance() -> None:
    assert books(STEPS) == (0, 0, [])


def test_one_nanosecond_less_or_more_is_found() -> None:
    lost, surplus, defects = books(STEPS, used=61)
    assert (lost, surplus, len(defects)) == (1, 0, 1)
    lost, surplus, defects = books(STEPS, used=59)
    assert (lost, surplus, len(defects)) == (0, 1, 1)


def test_a_request_that_never_came_is_found() -> None:
    """Its time is not covered, and its nanoseconds are missing."""
    lost, _, defects = books([STEPS[0], STEPS[2]])
    assert (lost, len(defects)) == (20, 2)


def test_time_without_a_cgroup_need_not_be_covered() -> None:
    """A static pod that was put back: from the last reading of the one to the look before the other."""
    lives = [Delta(0, 1, 10, 1), Delta(5, 6, 50, 6)]
    assert books(lives, absences={SERIES.path: [Absence(2, 5)]}) == (0, 0, [])
    _, _, defects = books(lives, absences={SERIES.path: [Absence(2, 4)]})
    assert len(defects) == 1


def test_a_point_twice_needs_an_answer_that_was_lost() -> None:
    """When the first of the two came."""
    deltas = [*STEPS, STEPS[1]._replace(came_ns=9)]
    assert books(deltas, lost=[Window(1, 2)]) == (0, 0, [])
    _, _, defects = books(deltas, lost=[Window(4, 10)])
    assert len(defects) == 1


@pytest.mark.parametrize(
    ("noted_ns", "killed_ns", "explained"),
    [
        (1, 4, True),  # it was not noted yet
        (2, 4, False),  # it was, and was sent again all the same
        (1, 0, False),  # SIGTERM: all that was delivered has to be noted
        (1, 60 * SECOND, False),  # long before the kill
    ],
)
def test_or_a_process_that_was_killed_before_it_was_noted(noted_ns: int, killed_ns: int, *, explained: bool) -> None:
    """By what its state file says."""
    life = Life(cast("Program", None), began=0.0, killed_ns=killed_ns, ended_ns=max(killed_ns, 5))
    life.remembered = {SERIES.path: [noted_ns, 9, 9]}
    deltas = [*STEPS[:2], Delta(1, 3, 50, 4 * SECOND)]
    _, _, defects = books(deltas, lives=[life])
    assert (defects == []) == explained


def test_slope() -> None:
    """Of a straight line it is exact, and one odd sample is no slope."""
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 1), (1, 4), (2, 1)]) == pytest.approx(0)


def test_growth_is_along_the_slope_of_a_warm_process() -> None:
    """What it takes to get warm is none, and a process that has hardly lived has none."""
    life = Life(cast("Program", None), began=0.0)
    life.rss_mb = [(second, min(second, 60) + second / 60) for second in range(60)]
    assert (life.slope_mb_per_hour, life.growth_mb) == (None, 0)
    life.rss_mb += [(second, 60 + second / 60) for second in range(60, 181)]
    assert life.slope_mb_per_hour == pytest.approx(60)
    assert life.growth_mb == pytest.approx(2)
