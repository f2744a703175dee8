"""List and watch: the node's pods as the API tells them, well or malformed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.model import Choice, LeftOut
from tests.fakes.kube_api import Exchange, KubeApi, bookmark, event, failing, pod, stream

from .support import Waits, client, comes_to, eventually, names

if TYPE_CHECKING:
    from tests.fakes.kube_api import Answer

    from .conftest import Watch


GONE = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version: 1 (2)"})


# --- the ordinary way ---


def test_list_then_watch(api: KubeApi, watch: Watch) -> None:
    """Born, changed and ended pods are followed; another node's are neither asked for nor taken."""
    api.add(pod("a"), pod("foreign", node="node-2"))
    watcher = watch()
    comes_to(watcher, "a")
    assert watcher.synced.is_set()
    api.add(pod("b"), pod("foreign-2", node="node-2"))
    comes_to(watcher, "a", "b")
    started = pod("b")
    started["status"]["startTime"] = "2026-05-05T05:05:05Z"
    api.add(started)
    eventually(lambda: {each.start_time for each in watcher.pods if each.name == "b"} == {"2026-05-05T05:05:05Z"})
    api.delete("a")
    comes_to(watcher, "b")


def test_what_is_asked(api: KubeApi, watch: Watch) -> None:
    """The list from the API server's cache, for this node alone; the watch from the list's version, with bookmarks."""
    api.add(pod("a"))
    watch(jitter=lambda: 0.5)
    (listed,), (watched,) = api.wait_for("list", 1), api.wait_for("watch", 1)
    assert listed.params == {"resourceVersion": "0", "limit": "500", "fieldSelector": "spec.nodeName=node-1"}
    assert watched.params == {
        "watch": "true",
        "resourceVersion": "101",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "450",
        "fieldSelector": "spec.nodeName=node-1",
    }


def test_a_label_selector_is_the_api_servers_to_evaluate(api: KubeApi, watch: Watch) -> None:
    """In the list, each of its pages, and the watch; a pod that is selected no more is gone."""
    api.add(pod("a", labels={"app": "web"}), pod("b", labels={"app": "db"}), pod("c", labels={"app": "web"}))
    api.on("list", failing(410))
    watcher = watch(choice=Choice(pod_selector="app=web"))
    comes_to(watcher, "a", "c")
    assert watcher.left_out == LeftOut((), hides_others=True)
    api.add(pod("c", labels={"app": "db"}), pod("b", labels={"app": "web"}))
    comes_to(watcher, "a", "b")
    assert {request.params["labelSelector"] for request in api.seen("list") + api.seen("watch")} == {"app=web"}


@pytest.mark.parametrize(
    ("choice", "line"),
    [
        (Choice(exclude_namespaces=("*",)), "the settings leave out all 1 pods of node 'node-1'"),
        (Choice(pod_selector="app=web"), "no pod is on node 'node-1', or of pod_selector"),
    ],
)
def test_where_nothing_is_chosen_the_log_says_so(
    api: KubeApi, watch: Watch, caplog: pytest.LogCaptureFixture, choice: Choice, line: str
) -> None:
    """The node's name is not to blame."""
    api.add(pod("a"))
    comes_to(watch(choice=choice))
    assert line in caplog.text


def test_the_first_list_is_spread(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """All agents of a cluster may start at once: each asks for its first list at its own moment in half a second."""
    waits.hold()
    watcher = watch(times=None, jitter=lambda: 0.5)
    assert waits.reached(1) == [0.25]
    assert api.requests == []
    waits.let_go(1)
    assert watcher.synced.wait(20)
    assert waits.seconds == [0.25]


def test_stop_while_the_first_list_is_waited_for(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """It ends without having asked."""
    waits.hold()
    watcher = watch(times=None)
    waits.reached(1)
    assert not watcher.stop(0)
    waits.let_go()
    assert watcher.stop(10)
    assert api.requests == []


def test_a_closed_stream_goes_on_from_where_it_was(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """The server's timeoutSeconds ran out: no new list, no wait, and bookmarks count as a place to go on from."""
    api.on("watch", stream(event("ADDED", pod("a", resourceVersion="205"))), stream(bookmark(300)))
    watcher = watch()
    watched = api.wait_for("watch", 3)
    assert [each.params["resourceVersion"] for each in watched] == ["100", "205", "300"]
    assert len(api.seen("list")) == 1
    assert waits.seconds == []
    assert names(watcher) == {"a"}
    assert watcher.stats.watch_restarts == {"closed": 2}


def test_a_list_of_5000_pods_in_pages(api: KubeApi, watch: Watch) -> None:
    """Where the API does give pages (here: it does not take resourceVersion=0), all are put together."""
    api.add(*(pod(f"p-{number}") for number in range(5000)))
    api.on("list", failing(410, "no cache"))
    watcher = watch()
    assert watcher.synced.wait(20)
    assert len(watcher.pods) == 5000
    listed = api.seen("list")[1:]
    assert len(listed) == 10
    assert all("resourceVersion" not in each.params for each in listed)
    assert [each.params.get("continue") for each in listed] == [None, *(str(500 * page) for page in range(1, 10))]


def test_a_410_on_a_continue_starts_the_list_anew(api: KubeApi, watch: Watch) -> None:
    """The pages' state was compacted: again consistent, and where that expires too, in one answer."""
    api.add(*(pod(f"p-{number}") for number in range(700)))
    first_page = {"metadata": {"resourceVersion": "7", "continue": "expired"}, "items": [pod("half-a-list")]}
    api.on("list", lambda exchange: exchange.json(first_page), failing(410, "expired"))
    api.on("list", lambda exchange: exchange.json(first_page), failing(410, "expired"))
    watcher = watch()
    assert watcher.synced.wait(20)
    assert len(watcher.pods) == 700
    assert [{"resourceVersion", "limit", "continue"} & set(each.params) for each in api.seen("list")] == [
        {"resourceVersion", "limit"},
        {"limit", "continue"},
        {"limit"},
        {"limit", "continue"},
        set(),
    ]


def test_a_list_that_never_ends_is_given_up(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """A server whose every page names another one."""
    api.always("list", lambda exchange: exchange.json({"metadata": {"continue": "more"}, "items": []}))
    waits.hold()
    watcher = watch()
    waits.reached(1)
    assert len(api.seen("list")) == 200
    assert not watcher.synced.is_set()


# --- 410 ---


@pytest.mark.parametrize("gone", [failing(410, "too old"), stream(GONE)], ids=["status", "event"])
def test_a_410_lists_anew(api: KubeApi, watch: Watch, gone: Answer) -> None:
    """As a status and as an ERROR event; what ended meanwhile is gone from the tuple."""

    def after_a_compaction(exchange: Exchange) -> None:
        api.delete("a")
        api.compact()
        gone(exchange)

    api.add(pod("a"), pod("b"))
    api.on("watch", after_a_compaction)
    watcher = watch()
    comes_to(watcher, "b")
    assert len(api.seen("list")) == 2
    assert api.seen("list")[1].params["resourceVersion"] == "0"
    assert watcher.stats.watch_restarts == {"gone": 1}


def test_a_storm_of_410(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """One is everyday; from the second in a row the list is consistent (the cache itself is behind), with backoff."""
    api.add(pod("a"))
    api.on("watch", *[failing(410)] * 4)
    watcher = watch()
    api.wait_for("watch", 5)
    assert ["resourceVersion" in each.params for each in api.seen("list")] == [True, True, False, False, False]
    assert waits.seconds == [0.5, 1, 2, 4]
    api.add(pod("b"))
    comes_to(watcher, "a", "b")


def test_a_stream_that_works_ends_a_storm(api: KubeApi, watch: Watch) -> None:
    """The next 410 is the first one again, and costs etcd nothing."""
    api.on("watch", failing(410), failing(410), stream(bookmark(400)), failing(410))
    watch()
    api.wait_for("watch", 5)
    assert ["resourceVersion" in each.params for each in api.seen("list")] == [True, True, False, True]


def test_other_error_events_are_errors_of_that_stream(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """An ERROR event of code 500: resumed from the last version, no list."""
    api.on("watch", stream(bookmark(150), event("ERROR", {"code": 500, "message": "etcd\nis\x1b[0m down"})))
    watcher = watch()
    assert api.wait_for("watch", 2)[1].params["resourceVersion"] == "150"
    assert watcher.stats.watch_restarts == {"status": 1}
    assert len(api.seen("list")) == 1


# --- hostile answers ---


@pytest.mark.parametrize(
    "garbage",
    [b"\n{not json\n", b"[]\n", b"{}\n", b'{"type": 5}\n', b"\xff\xfe\n", b"[" * 50_000 + b"\n", b'{"type":"ADDED"'],
)
def test_a_garbage_line_ends_only_its_stream(api: KubeApi, watch: Watch, garbage: bytes) -> None:
    """What came before it counts, and the next stream goes on from there."""
    api.on("watch", stream(event("ADDED", pod("a", resourceVersion="150")), garbage))
    watcher = watch()
    assert api.wait_for("watch", 2)[1].params["resourceVersion"] == "150"
    assert names(watcher) == {"a"}
    assert watcher.stats.watch_restarts == {"malformed": 1}


def test_a_line_that_stays_poisonous_is_passed_by_a_new_list(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """The same event, too long for us, at every resume from that version: three tries, then the list goes past it."""
    poison = event("MODIFIED", pod("a", annotations={"x": "y" * 10_000}))
    api.add(pod("a"))
    api.on("watch", *[stream(poison)] * 3)
    watcher = watch(client=client(api.url, max_line_bytes=5_000))
    api.wait_for("watch", 4)
    assert len(api.seen("list")) == 2
    api.add(pod("b"))
    comes_to(watcher, "a", "b")


def test_an_object_that_does_not_parse_is_skipped(api: KubeApi, watch: Watch) -> None:
    """In a list and in a stream: counted, and the stream goes on, past its version."""
    api.add(pod("bad\nname"), pod("a"))
    api.on(
        "watch",
        stream(
            event("ADDED", {"metadata": {"name": "no uid", "resourceVersion": "150"}}),
            event("ADDED", None),
            event("DELETED", {"metadata": {}}),
            event("FANCY", pod("b")),
            event("ADDED", pod("c", resourceVersion="160")),
            event("ADDED", {"metadata": {"resourceVersion": 7}}),
        ),
    )
    watcher = watch()
    comes_to(watcher, "a", "c")
    assert api.wait_for("watch", 2)[1].params["resourceVersion"] == "160"
    assert watcher.skipped_objects == 6


def test_a_deleted_pod_needs_only_its_uid(api: KubeApi, watch: Watch) -> None:
    """Whatever else of it is malformed by now."""
    api.add(pod("a"), pod("b"))
    api.on("watch", stream(event("DELETED", {"metadata": {"uid": "uid-a"}}), then=Exchange.hang))
    comes_to(watch(), "b")


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b'{"items": 7}', b"<html>log in</html>", b"\x00" * 100])
def test_garbage_for_a_list(api: KubeApi, watch: Watch, waits: Waits, answer: bytes) -> None:
    """Said, waited for, and over with the next good list."""
    api.add(pod("a"))
    api.on("list", lambda exchange: exchange.answer(200, answer))
    comes_to(watch(), "a")
    assert waits.seconds == [0.5]


def test_a_defect_of_ours_does_not_freeze_the_pods(
    api: KubeApi, watch: Watch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception that nobody thought of (here: of the clock) is said in one line, and the thread goes on."""
    api.add(pod("a"))
    faults = iter([ZeroDivisionError("clock\nbroke")])

    def clock() -> float:
        for fault in faults:
            raise fault
        return 0.0

    watcher = watch(clock=clock)
    api.wait_for("watch", 1)
    api.add(pod("b"))
    comes_to(watcher, "a", "b")
    assert r"unexpected ZeroDivisionError: 'clock\nbroke'" in caplog.text
