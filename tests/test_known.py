"""Which pod a cgroup is named after, from tick to tick."""

from __future__ import annotations

from dataclasses import replace

import pytest

from otel_k8s_cgroup.known import KnownPods
from otel_k8s_cgroup.model import Details, LeftOut, Pod


def pod(uid: str, *, cgroup_uid: str | None = None, started: str | None = "2026-01-01T00:00:00Z") -> Pod:
    return Pod(uid, f"name-{uid}", "ns", "node", started, cgroup_uid or uid)


def test_a_pod_that_the_api_has_forgotten_is_known_while_it_runs() -> None:
    """A pod that was deleted by force goes on being measured until its cgroup is gone."""
    known = KnownPods()
    a, b = pod("a"), pod("b")
    known.update((a, b), set())
    told = (b,)
    known.update(told, {"a", "b"})
    assert known.by_cgroup_uid == {"a": a, "b": b}
    known.update(told, {"a", "b"})
    assert known.by_cgroup_uid == {"a": a, "b": b}
    known.update(told, {"b"})
    assert known.by_cgroup_uid == {"b": b}


def test_a_static_pod_is_known_by_the_uid_of_its_cgroup() -> None:
    """The mirror pod's own uid is not in the path."""
    known = KnownPods()
    mirror = pod("mirror", cgroup_uid="hash")
    known.update((mirror,), set())
    assert known.by_cgroup_uid == {"hash": mirror}


def test_a_pod_is_named_once_its_start_time_is_known() -> None:
    """Until then nothing of it is sent, so that its Resource is one from the first point on."""
    known = KnownPods(wait_ns=10)
    early, late = pod("a", started=None), pod("a")
    known.update((early,), set(), 0)
    known.update((early,), {"a"}, 5)
    assert known.by_cgroup_uid == {}
    known.update((late,), {"a"}, 6)
    assert known.by_cgroup_uid == {"a": late}


def test_a_start_time_that_does_not_come_is_left_out_for_good() -> None:
    """After the wait, which begins with the cgroup: a pod may be listed long before it runs."""
    known = KnownPods(wait_ns=10)
    early, late = pod("a", started=None), pod("a")
    known.update((early,), set(), 0)
    known.update((early,), set(), 1000)
    known.update((early,), {"a"}, 2000)
    known.update((early,), {"a"}, 2009)
    assert known.by_cgroup_uid == {}
    known.update((early,), {"a"}, 2010)
    assert known.by_cgroup_uid == {"a": early}
    known.update((late,), {"a"}, 2011)
    assert known.by_cgroup_uid == {"a": early}
    known.update((late,), set(), 2012)
    assert known.by_cgroup_uid == {"a": late}


def test_a_source_that_has_no_start_times_is_not_waited_for() -> None:
    """A file of pods has what it has."""
    known = KnownPods(wait_ns=0)
    known.update((pod("a", started=None),), set(), 0)
    assert known.by_cgroup_uid.keys() == {"a"}


@pytest.mark.parametrize(
    "later",
    [
        Pod("m", "etcd", "ns", "node", "2026-02-02T00:00:00Z", "hash"),
        Pod("new", "etcd", "ns", "node", "2026-02-02T00:00:00Z", "hash"),
    ],
    ids=["the kubelet restarts", "its mirror is made anew"],
)
def test_a_static_pods_resource_stays_while_its_cgroup_lives(later: Pod) -> None:
    """Its start time and its mirror's uid change in the API meanwhile; what begins after that is another series."""
    known = KnownPods()
    first = Pod("m", "etcd", "ns", "node", "2026-01-01T00:00:00Z", "hash")
    known.update((first,), set(), 0)
    for listed in ((first,), (), (later,), (later,)):
        known.update(listed, {"hash"}, 0)
        assert known.by_cgroup_uid == {"hash": first}
    known.update((later,), set(), 0)
    assert known.by_cgroup_uid == {"hash": later}
    assert known.refused_claims == 0


def test_a_cgroup_that_lives_is_given_to_no_other_claimant(caplog: pytest.LogCaptureFixture) -> None:
    """Though the mirror that holds it was deleted; it is counted and logged once."""
    known = KnownPods()
    first = Pod("m", "etcd", "kube-system", "node", "2026-01-01T00:00:00Z", "hash")
    thief = Pod("t", "thief", "ns", "node", "2026-01-01T00:00:00Z", "hash")
    known.update((first,), set(), 0)
    known.update((first,), {"hash"}, 0)
    for listed in ((), (thief,), (thief, pod("b")), (thief,)):
        known.update(listed, {"hash"}, 0)
        assert known.by_cgroup_uid["hash"] == first
    assert known.refused_claims == 1
    assert [record.getMessage()[:40] for record in caplog.records] == ["pod ns/thief claims the cgroup of hash b"]


def test_a_pods_own_uid_has_precedence_over_a_claim() -> None:
    """A claim on a pod that was not listed yet is over as soon as it is."""
    known = KnownPods()
    thief = Pod("t", "thief", "ns", "node", "2026-01-01T00:00:00Z", "a")
    known.update((thief,), set(), 0)
    known.update((thief,), {"a"}, 0)
    known.update((pod("a"),), {"a"}, 0)
    assert known.by_cgroup_uid == {"a": pod("a")}


def test_one_that_waits_and_one_that_is_forgotten_do_not_hide_each_other() -> None:
    """As many are known as are listed, and they are others."""
    known = KnownPods(wait_ns=10)
    known.update((pod("old"),), set(), 0)
    listed = (pod("a", started=None),)
    known.update(listed, {"old", "a"}, 0)
    assert known.by_cgroup_uid.keys() == {"old"}
    known.update(listed, {"a"}, 10)
    assert known.by_cgroup_uid.keys() == {"a"}


def test_a_pod_that_waits_for_its_start_time_is_listed_all_the_same() -> None:
    """Its cgroup is not one that nobody lists a pod for; nor is that of one that the API has forgotten."""
    known = KnownPods(wait_ns=10)
    known.update((pod("old"),), set(), 0)
    known.update((pod("a", started=None),), {"old", "a"}, 0)
    assert known.by_cgroup_uid.keys() == {"old"}
    assert known.expected({"old", "a"}) == {"old", "a"}


def test_a_finished_pod_is_not_expected_to_have_a_cgroup() -> None:
    """The API lists it for days; its cgroup may be there for another moment."""
    known = KnownPods()
    known.update((replace(pod("a"), finished=True), pod("b")), set(), 0)
    assert known.expected(set()) == {"b"}
    assert known.expected({"a"}) == {"a", "b"}


def test_who_held_a_cgroup_before_a_restart_holds_it_on() -> None:
    """Whatever is listed of it now, or nothing."""
    before = Pod("m", "etcd", "ns", "node", "2026-01-01T00:00:00Z", "hash")
    later = Pod("new", "etcd", "ns", "node", "2026-02-02T00:00:00Z", "hash")
    known = KnownPods()
    known.update((later,), set(), 0)
    known.hold({"hash": before, "gone": pod("gone")})
    known.update((later,), {"hash", "gone"}, 0)
    assert known.by_cgroup_uid == {"hash": before, "gone": pod("gone")}
    known.update((later,), set(), 1)
    assert known.by_cgroup_uid == {"hash": later}


def test_what_may_change_follows_and_identity_stays() -> None:
    """Labels and containers are as they are listed now; start time and uid as the cgroup was named."""
    first = Pod("m", "etcd", "ns", "node", "2026-01-01T00:00:00Z", "hash", details=Details(b"1"))
    anew = Pod("new", "etcd", "ns", "node", "2026-02-02T00:00:00Z", "hash", details=Details(b"2"))
    known = KnownPods()
    known.update((first,), set(), 0)
    changed = replace(first, details=Details(b"3"))
    known.update((changed,), {"hash"}, 0)
    assert known.by_cgroup_uid == {"hash": changed}
    known.update((anew,), {"hash"}, 0)
    kept = known.by_cgroup_uid["hash"]
    assert kept == replace(first, details=Details(b"2"))
    known.update((anew,), {"hash"}, 1)
    assert known.by_cgroup_uid["hash"] is kept


def test_a_refused_claim_changes_no_details() -> None:
    """A thief's labels are not those of the pod that holds the cgroup."""
    first = Pod("m", "etcd", "kube-system", "node", "2026-01-01T00:00:00Z", "hash", details=Details(b"1"))
    thief = Pod("t", "thief", "ns", "node", "2026-01-01T00:00:00Z", "hash", details=Details(b"2"))
    known = KnownPods()
    known.update((first,), set(), 0)
    known.update((thief,), {"hash"}, 0)
    assert known.by_cgroup_uid == {"hash": first}


def test_a_pod_that_is_left_out_is_set_aside_and_comes_back_as_it_was() -> None:
    """Set aside as long as its cgroup is there, so that nothing of its CPU time is counted twice."""
    known = KnownPods()
    a, later = pod("a"), pod("a", started="2026-02-02T00:00:00Z")
    known.update((a,), set(), 0)
    left_out = LeftOut((later,))
    known.update((), {"a"}, 1, left_out)
    assert (known.by_cgroup_uid, known.set_aside) == ({}, {"a": a})
    assert known.left_out == {"a"}
    assert known.expected({"a"}) == {"a"}
    known.update((later,), {"a"}, 2, LeftOut())
    assert (known.by_cgroup_uid, known.set_aside) == ({"a": a}, {})
    known.update((), {"a"}, 3, left_out)
    known.update((), set(), 4, left_out)
    assert (known.by_cgroup_uid, known.set_aside) == ({}, {})


def test_a_pod_that_is_neither_listed_nor_left_out_stays_what_it_was() -> None:
    """Forgotten by the API, or between two lists: measured where it was, set aside where it was."""
    known = KnownPods()
    a, b = pod("a"), pod("b")
    known.update((a, b), set(), 0)
    known.update((a,), {"a", "b"}, 1, LeftOut((b,)))
    known.update((), {"a", "b"}, 2, LeftOut())
    assert (known.by_cgroup_uid, known.set_aside) == ({"a": a}, {"b": b})
    assert (known.left_out, known.expected(set())) == ({"b"}, {"a", "b"})


def test_behind_a_selector_what_is_not_listed_is_left_out() -> None:
    """The API server tells of a pod that is selected no more as of one that is gone."""
    known = KnownPods()
    a, b = pod("a"), pod("b")
    known.update((a, b), set(), 0)
    known.update((a,), {"a", "b"}, 1, LeftOut(hides_others=True))
    assert (known.by_cgroup_uid, known.set_aside) == ({"a": a}, {"b": b})
    known.update((a, b), {"a", "b"}, 2, LeftOut(hides_others=True))
    assert (known.by_cgroup_uid, known.set_aside) == ({"a": a, "b": b}, {})


def test_nobody_ends_the_measuring_of_anothers_pod() -> None:
    """A pod that is left out and claims a static pod's cgroup leaves it measured."""
    known = KnownPods()
    etcd = Pod("m", "etcd", "kube-system", "node", "2026-01-01T00:00:00Z", "hash")
    thief = Pod("t", "thief", "ns", "node", "2026-01-01T00:00:00Z", "hash")
    known.update((etcd,), set(), 0)
    known.update((), {"hash"}, 1, LeftOut((thief,)))
    assert (known.by_cgroup_uid, known.set_aside) == ({"hash": etcd}, {})
    assert known.left_out == set()


def test_who_is_left_out_takes_its_own_cgroup_from_a_claimant() -> None:
    """A claim on a pod that was not listed yet is over as soon as it is, measured or not."""
    thief = Pod("t", "thief", "ns", "node", "2026-01-01T00:00:00Z", "a")
    known = KnownPods()
    known.update((thief,), set(), 0)
    known.update((thief,), {"a"}, 0)
    known.update((), {"a"}, 1, LeftOut((pod("a"),)))
    assert (known.by_cgroup_uid, known.set_aside) == ({}, {"a": pod("a")})
