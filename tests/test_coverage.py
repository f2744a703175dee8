"""Pods that are known against cgroups that are there: what is counted, what is reported, and when."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.coverage import UNMATCHED_SECONDS, Coverage

if TYPE_CHECKING:
    from collections.abc import Callable

SECOND = 10**9


@pytest.fixture
def coverage() -> Coverage:
    return Coverage(root="/host/sys/fs/cgroup", source="the API")


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """What was logged so far."""
    caplog.set_level("INFO")
    return lambda: [record.getMessage() for record in caplog.records]


def found(*uids: str) -> dict[str, str]:
    return {uid: f"/kubepods/pod{uid}" for uid in uids}


def test_pods_without_any_cgroup(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """At the second tick: how many pods, below which root, the way out; once, and once when it is over."""
    coverage.update(0, {"a", "b"}, {})
    assert lines() == []
    for second in (1, 2, 3):
        coverage.update(second * SECOND, {"a", "b"}, {})
    missing = (
        "none of the pods that the API lists (2) has a cgroup below /host/sys/fs/cgroup: mount the host's "
        "/sys/fs/cgroup there, or set cgroup_root to where it is"
    )
    assert lines() == [missing]
    coverage.update(4 * SECOND, {"a", "b"}, found("a"))
    coverage.update(5 * SECOND, {"a", "b"}, found("a"))
    assert lines() == [missing, "pods with a cgroup: 1 of 2"]


def test_one_tick_without_a_cgroup_is_normal(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """The API may list a pod before its cgroup is made; and a node may have no pod at all."""
    for second, (pods, cgroups) in enumerate([({"a"}, {}), ({"a"}, found("a")), ({"a"}, {}), (set(), {}), (set(), {})]):
        coverage.update(second * SECOND, pods, cgroups)
    assert lines() == []


def test_only_others_have_a_cgroup(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """The root is right then, so it is the node's name that is asked about."""
    for second in (0, 1):
        coverage.update(second * SECOND, {"a"}, found("x", "y"))
    misplaced = (
        "none of the pods that the API lists (1) has a cgroup below /host/sys/fs/cgroup, but other pods have (2): "
        "is k8s_node this node's name in the cluster?"
    )
    assert lines() == [misplaced]


def test_cgroups_that_nobody_named(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """They are counted at once and reported once they last, once until there are none any more."""
    last = round(UNMATCHED_SECONDS)
    for second in range(last + 3):
        coverage.update(second * SECOND, {"a"}, found("a", "x", *(["y"] if second > 1 else [])))
        assert coverage.unnamed == (2 if second > 1 else 1)
        if second < last:
            assert lines() == []
    reported = (
        "cgroups of pods that are not measured: 1; for 60 s the API has listed no pod for them (such as /kubepods/podx)"
    )
    assert lines() == [reported]
    coverage.update((last + 3) * SECOND, {"a", "x", "y"}, found("a", "x", "y"))
    assert coverage.unnamed == 0
    for second in (last + 4, 2 * last + 4):
        coverage.update(second * SECOND, {"a"}, found("a", "x"))
    assert lines() == [reported, reported]


def test_a_cgroup_that_is_named_in_time_is_not_reported(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """Its time begins anew when it is without a name again."""
    for second in (0, 59):
        coverage.update(second * SECOND, {"a"}, found("a", "x"))
    coverage.update(60 * SECOND, {"a", "x"}, found("a", "x"))
    for second in (61, 120):
        coverage.update(second * SECOND, {"a"}, found("a", "x"))
    assert lines() == []


def test_containers_that_have_no_cgroup(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """They are reported once they last, once until all have one: not each start of a container is one."""
    for second in range(59):
        coverage.update(second * SECOND, {"a"}, found("a"), containers_without_cgroup={f"a/{second}"})
    coverage.update(59 * SECOND, {"a"}, found("a"), containers_without_cgroup={"a/x"})
    for second in (118, 119, 120, 200):
        coverage.update(second * SECOND, {"a"}, found("a"), containers_without_cgroup={"a/y", "a/x"})
        assert len(lines()) == (second > 118)
    reported = (
        "containers that are not measured: 1; for 60 s the API has listed them as running, but they have no cgroup of "
        "their own (such as a/x), as where a pod is a virtual machine"
    )
    assert lines() == [reported]
    coverage.update(201 * SECOND, {"a"}, found("a"))
    for second in (202, 262):
        coverage.update(second * SECOND, {"a"}, found("a"), containers_without_cgroup={"a/x"})
    assert lines() == [reported, reported]


def test_what_the_settings_leave_out_is_counted_and_is_no_surprise(
    coverage: Coverage, lines: Callable[[], list[str]]
) -> None:
    """Listed and left out, or hidden by a selector: neither is a cgroup that nobody named."""
    for second in range(0, 200, 50):
        coverage.update(second * SECOND, {"a", "b"}, found("a", "b"), excluded={"b", "gone"})
        assert (coverage.excluded, coverage.unnamed) == (1, 0)
    for second in range(200, 400, 50):
        coverage.update(second * SECOND, {"a"}, found("a", "b", "c"), hides_others=True)
        assert (coverage.excluded, coverage.unnamed) == (2, 0)
    assert lines() == []


def test_behind_a_selector_a_wrong_node_is_noticed(coverage: Coverage, lines: Callable[[], list[str]]) -> None:
    """Pods are listed, and the cgroups that are there are all of others."""
    for second in (0, 1):
        coverage.update(second * SECOND, {"a"}, found("x", "y"), hides_others=True)
    assert "is k8s_node this node's name" in lines()[0]
