"""The soak's own books: what they count, and what they would not let pass."""

from __future__ import annotations

import random
import subprocess
import sys
from typing import TYPE_CHECKING, cast

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from tests.fakes import kube_api
from tests.fakes.otlp_receiver import Received
from tests.programs import clean_environ
from tests.soak.arrivals import Absence, Arrivals, Delta, Series, told
from tests.soak.balance import Truth, balance
from tests.soak.disk import SmallDisk
from tests.soak.faults import Window
from tests.soak.lives import Life, Pulse, Stallable, slope
from tests.soak.tenants import forged

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

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


def request(*deltas: Delta, name: str = "cart") -> Received:
    message = ExportMetricsServiceRequest()
    of_pod = message.resource_metrics.add()
    for key, value in (("k8s.pod.uid", "1"), ("k8s.pod.name", name), ("cgroup.path", SERIES.path)):
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
    pauses: Sequence[Window] = (),
) -> tuple[int, int, list[str]]:
    """What is lost, what is counted twice, and how many things are wrong."""
    came_ns = 0
    arrivals = Arrivals(clock=lambda: came_ns)
    for delta in deltas:
        came_ns = delta.came_ns
        arrivals.respond(request(delta))
    found = balance(Truth({SERIES: used}, absences or {}, pauses=pauses), arrivals, lost, lives)
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
    life = Life(cast("Stallable", None), began=0.0, killed_ns=killed_ns, ended_ns=max(killed_ns, 5))
    life.remembered = {SERIES.path: [noted_ns, 9, 9]}
    deltas = [*STEPS[:2], Delta(1, 3, 50, 4 * SECOND)]
    _, _, defects = books(deltas, lives=[life])
    assert (defects == []) == explained


def test_a_kill_whose_file_was_not_to_be_believed_excuses_nothing() -> None:
    """Its successor knows nothing of it, so it repeats nothing."""
    life = Life(cast("Stallable", None), began=0.0, killed_ns=4, ended_ns=5, may_forget=False)
    _, _, defects = books([*STEPS[:2], Delta(1, 3, 50, 4 * SECOND)], lives=[life])
    assert len(defects) == 1


def test_time_in_which_no_pod_used_anything_need_not_be_covered() -> None:
    """A process that knows nothing of the one before begins with its own first reading, in the pause."""
    lives = [Delta(0, 1, 10, 1), Delta(5, 6, 50, 6)]
    assert books(lives, pauses=[Window(1, 5)]) == (0, 0, [])
    assert books(lives, used=61, pauses=[Window(1, 5)])[:2] == (1, 0)
    _, _, defects = books(lives, pauses=[Window(1, 4)])
    assert len(defects) == 1


def test_a_cgroup_that_is_sent_as_another_pods_is_found() -> None:
    """Each nanosecond arrived, under the name of a pod that claims the cgroup."""
    arrivals = Arrivals()
    arrivals.respond(request(*STEPS))
    assert balance(Truth({SERIES: 60}, names={SERIES.path: {"cart"}}), arrivals, (), ()).defects == []
    arrivals.respond(request(Delta(3, 4, 0, 4), name="thief"))
    (defect,) = balance(Truth({SERIES: 60}, names={SERIES.path: {"cart"}}), arrivals, (), ()).defects
    assert "thief" in defect


@pytest.mark.parametrize(("counted", "lost", "counted_lost"), [(0, 7, 0), (6, 7, 0), (7, 0, 7)])
def test_what_a_pod_used_that_ended_in_an_outage_is_delivered_or_counted(
    counted: int, lost: int, counted_lost: int
) -> None:
    """By ``export.lost``: a nanosecond that is in neither is lost."""
    arrivals = Arrivals()
    arrivals.respond(request(*STEPS))
    own = ExportMetricsServiceRequest()
    of_exporter = own.resource_metrics.add()
    of_exporter.resource.attributes.append(KeyValue(key="service.instance.id", value=AnyValue(string_value="1")))
    metric = of_exporter.scope_metrics.add().metrics.add(name="otel_k8s_cgroup.export.lost")
    metric.sum.data_points.add(as_int=counted)
    arrivals.respond(Received(own, {}))
    found = balance(Truth({SERIES: 67}, ended_in_outage={SERIES.path}), arrivals, (), ())
    assert (found.lost_ns, found.counted_lost_ns) == (lost, counted_lost)
    assert bool(found.defects) == bool(lost)


def test_a_process_that_does_not_tick_is_found() -> None:
    """Once it knows the canary, and unless it has nothing to read."""
    now = 0.0
    pulse = Pulse(clock=lambda: now)
    for ticks in range(10, 14):
        assert pulse.missing(ticks, ticks=True) is None
    now = 5.0
    assert pulse.missing(13, ticks=True) is None
    now = 7.0
    assert pulse.missing(13, ticks=False) is None
    now = 12.0
    assert pulse.missing(13, ticks=True) is None
    now = 14.0
    assert pulse.missing(13, ticks=True) is not None


WRITER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
print("first", flush=True)
signal.sigwait([signal.SIGTERM])
print("more", flush=True)
"""


def test_a_program_whose_output_nobody_reads_waits_to_write() -> None:
    """Until it is read again; nothing of what it wrote is lost, and nothing is added."""
    program = Stallable([sys.executable, "-c", WRITER], clean_environ())
    try:
        program.wait_for_line(lambda line: line == "first")
        program.stall()
        program.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            program.process.wait(0.5)
        program.read_on()
        assert program.wait() == 0
    finally:
        program.process.kill()
        program.read_on()
    assert program.lines == ["first", "more"]


def test_a_small_disk_can_be_full(tmp_path: Path) -> None:
    """For a new file as for an old one; afterwards there is room again."""
    try:
        disk = SmallDisk(tmp_path / "disk")
    except OSError as error:
        pytest.skip(f"no tmpfs can be mounted: {error.strerror}")
    try:
        disk.fill()
        with pytest.raises(OSError, match="No space left"):
            (tmp_path / "disk/state").write_bytes(b"x")
        disk.empty()
        (tmp_path / "disk/state").write_bytes(b"x")
    finally:
        disk.close()


def test_a_forged_mirror_lacks_a_mark() -> None:
    """Each of what a kubelet writes is left out at some time, and what is left claims the cgroup."""
    chance = random.Random(1)
    seen = dict(forged(chance, "n1", "0123") for _ in range(200))
    assert len(seen) == 6
    for metadata in seen.values():
        assert metadata != kube_api.mirror("0123", node="n1")
        assert metadata["annotations"]["kubernetes.io/config.hash"] == "0123"


def test_slope() -> None:
    """Of a straight line it is exact, and one odd sample is no slope."""
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(0, 1), (1, 4), (2, 1)]) == pytest.approx(0)


def test_growth_is_along_the_slope_of_a_warm_process() -> None:
    """What it takes to get warm is none, and a process that has hardly lived has none."""
    life = Life(cast("Stallable", None), began=0.0)
    life.rss_mb = [(second, min(second, 60) + second / 60) for second in range(60)]
    assert (life.slope_mb_per_hour, life.growth_mb) == (None, 0)
    life.rss_mb += [(second, 60 + second / 60) for second in range(60, 181)]
    assert life.slope_mb_per_hour == pytest.approx(60)
    assert life.growth_mb == pytest.approx(2)
