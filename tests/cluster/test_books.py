"""The last of the tests: all that was exported while the others ran, against the kernel, the kubelet and the API."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests import otlp
from tests.cluster.api import eventually
from tests.cluster.conftest import POLL_SECONDS
from tests.cluster.exported import ALL_METRICS, PodPoints
from tests.cluster.kernel import Life, is_v2

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer

IDLE_SECONDS = 25.0
"""The kubelet's figures are not older."""
_START_TIME_SECONDS = 13.0
"""A Resource waits 15 s for the API to have its start time; what the tests list is a moment older."""
_LONG_ENOUGH_SECONDS = 3.0
"""A pod whose cgroup was there for so long was read, and named, at least once; see test_faults for what is excepted."""


@pytest.fixture(scope="module")
def exported(cluster: Cluster, observer: Observer) -> Mapping[str, PodPoints]:
    uid = observer.idle
    eventually(lambda: uid in observer.kernel.lives and observer.kernel.lives[uid].usage_ns_for(IDLE_SECONDS))
    return observer.exported.pods()


def lives(observer: Observer) -> dict[str, Life]:
    """Of the pods that were there long enough, and that the API has listed."""
    return {
        uid: life
        for uid, life in dict(observer.kernel.lives).items()
        if uid in observer.listed.pods
        and life.samples[-1].after_ns - life.samples[0].before_ns > _LONG_ENOUGH_SECONDS * 1e9
    }


def test_each_pod_is_there(observer: Observer, exported: Mapping[str, PodPoints]) -> None:
    """Every pod that ran, by the kernel and the API, was exported; and nothing else was."""
    assert lives(observer).keys() <= exported.keys()
    assert exported.keys() <= observer.listed.pods.keys()
    assert exported.keys() <= observer.kernel.lives.keys()


def test_each_pod_is_one_resource_for_its_life(observer: Observer, exported: Mapping[str, PodPoints]) -> None:
    """Whole from the first point on, the same to the last, and as the API has it."""
    wrong = []
    for uid, of_pod in exported.items():
        life = observer.kernel.lives[uid]
        expected = observer.listed.resource(uid, life.path)
        if of_pod.resources != [expected]:
            waited_seconds = (observer.listed.first_ns[uid] - life.samples[0].before_ns) / 1e9
            if waited_seconds > _START_TIME_SECONDS:
                del expected["k8s.pod.start_time"]  # for good
        if of_pod.resources != [expected]:
            wrong.append(f"{of_pod.resources} is not {expected}")
    assert "\n".join(wrong) == ""


def test_no_series_has_a_defect(exported: Mapping[str, PodPoints]) -> None:
    """No gap, overlap or step back in any of them; every metric of every pod, and no other."""
    assert "\n".join(otlp.defects(point for of_pod in exported.values() for point in of_pod.points)) == ""
    expected = ALL_METRICS | ({"cgroup_memory_kernel_stack", "cgroup_memory_pagetables"} if is_v2() else set())
    for of_pod in exported.values():
        assert {point.metric for point in of_pod.points} <= expected


def test_each_point_is_the_kernels_counter(observer: Observer, exported: Mapping[str, PodPoints]) -> None:
    """The CPU time that was sent of a pod up to any of its points is what the kernel's counter was then."""
    wrong = []
    for uid, life in lives(observer).items():
        if uid in exported:
            from_zero = uid not in observer.there_before
            wrong += exported[uid].disagreements(life, counted_from_zero=from_zero)
    assert "\n".join(wrong[:20]) == ""


def test_to_the_nanosecond_where_the_counter_stands_still(observer: Observer) -> None:
    """A pod that runs, and has used nothing for a while: the sum of its deltas is its counter."""

    def settled() -> bool:
        quiet = {
            uid: usage_ns
            for uid, life in lives(observer).items()
            if uid in observer.kernel.running - observer.there_before
            and (usage_ns := life.usage_ns_for(4 * POLL_SECONDS)) is not None
        }
        pods = observer.exported.pods()
        return bool(quiet) and {uid: pods[uid].cpu_time_ns for uid in quiet} == quiet

    # One of them may use a little at any time.
    eventually(settled, 10)


def test_the_kubelets_summary_agrees(cluster: Cluster, observer: Observer, exported: Mapping[str, PodPoints]) -> None:
    """Of pods that stand still for as long as the kubelet's figures are old."""
    idle = {
        uid: usage_ns
        for uid, life in lives(observer).items()
        if (usage_ns := life.usage_ns_for(IDLE_SECONDS)) is not None and uid in observer.kernel.running
    }
    in_summary = {}
    for each in cluster.summary()["pods"]:
        (uid,) = {uid for uid, ids in observer.listed.uids.items() if each["podRef"]["uid"] in ids | {uid}}
        if uid in idle and "usageCoreNanoSeconds" in each.get("cpu", {}):
            in_summary[uid] = each["cpu"]["usageCoreNanoSeconds"], each["memory"]["rssBytes"]
    assert in_summary
    ours = {
        uid: (exported[uid].cpu_time_ns, exported[uid].of("cgroup_memory_anonymous")[-1].value)
        for uid in in_summary
        if uid not in observer.there_before
    }
    assert ours == {uid: figures for uid, figures in in_summary.items() if uid in ours}
