"""The API server is away, slow, or does not let us: the pods that are known stay, and it is said once."""

from __future__ import annotations

import itertools
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.kube import WatchTimes, open_pods
from otel_k8s_cgroup.model import PodSource
from tests.fakes.kube_api import Exchange, KubeApi, bookmark, event, failing, pod, stream

from .support import Waits, client, comes_to, eventually, names

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.kube_api import Answer

    from .conftest import Watch


class Leaps:
    """A clock on which everything takes twenty seconds."""

    def __init__(self) -> None:
        self._moments = itertools.count(0, 20)

    def __call__(self) -> float:
        return float(next(self._moments))


HALF_OPEN = WatchTimes(watch_seconds=0, grace_seconds=-0.9, start_seconds=0)
"""A stream that is open for 0.1 s is open for too long."""


# --- the API server is not well ---


def test_another_server_at_the_start(watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    """What answers 200 and is no API: the setting that leads there is named."""
    with KubeApi() as api:
        api.always("list", lambda exchange: exchange.answer(200, b"welcome"))
        waits.hold()
        watch(client=client(api.url))
        waits.reached(1)
    assert "/api/v1/pods (k8s_api_url): not JSON" in caplog.text


def test_down_at_the_start(watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture) -> None:
    """Waits, says so once with the way out, and once that it works; no pods until then."""
    with KubeApi() as api:
        api.add(pod("a"))
        api.always("list", Exchange.reset)
        waits.hold()
        watcher = watch(client=client(api.url))
        for _ in range(5):
            waits.let_go(1)
        waits.reached(6)
        assert watcher.pods == ()
        assert not watcher.synced.is_set()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
        assert "cannot list the pods: http://127.0.0.1" in caplog.text
        assert "trying again" in caplog.text
        api.always("list", None)
        waits.let_go()
        comes_to(watcher, "a")
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert caplog.records[-1].getMessage() == "can list the pods again"
        watcher.stop(10)


def test_backoff_doubles_and_is_bounded(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """5xx: from half a second to half a minute; a list that works starts it anew."""
    api.on("list", *[failing(500)] * 9)
    watch()
    api.wait_for("watch", 1)
    assert waits.seconds == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_backoff_is_spread(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """Each wait is random from nothing on, so that a cluster's nodes do not all come back at once."""
    api.on("list", *[failing(500)] * 3)
    jitter = iter([0.0, 0.5, 1.0, 0.0, 0.0])
    watch(jitter=lambda: next(jitter, 0.0))
    api.wait_for("watch", 1)
    assert waits.seconds == [0.0, 0.5, 2.0]


def test_retry_after_is_respected_and_capped(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """429 and 503 wait what they ask for, and the random time on top (all were told the same); no year is waited."""
    api.on("list", failing(429, Retry_After="7"), failing(503, Retry_After="0"), failing(429, Retry_After="31536000"))
    watch()
    api.wait_for("watch", 1)
    assert waits.seconds == [7.5, 1.0, 302.0]


def test_known_pods_stay_while_the_api_is_down(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """Hours of outage: the pods stay, one warning a cause, and afterwards what happened meanwhile is known."""
    api.add(pod("a"), pod("b"))
    api.on("watch", stream(bookmark(102), then=Exchange.reset))
    api.always("watch", Exchange.reset)
    api.always("list", failing(503, "etcd is down"))
    api.on("list", Exchange.usual)
    watcher = watch()
    waits.reached(40)
    assert names(watcher) == {"a", "b"}
    waits.hold()
    messages = [record.getMessage() for record in caplog.records]
    assert len([message for message in messages if message.startswith("cannot list the pods")]) == 1
    assert len([message for message in messages if message.startswith("cannot watch the pods")]) <= 1
    api.delete("a")
    api.add(pod("c"))
    api.always("watch", None)
    api.always("list", None)
    waits.let_go()
    comes_to(watcher, "b", "c")


def test_a_stream_that_breaks_now_and_then_is_no_news(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """A gateway that cuts every stream: resumed after a moment, with nothing in the log and no new list."""
    api.on("watch", *(stream(bookmark(200 + number), then=Exchange.reset) for number in range(20)))
    watcher = watch()
    watched = api.wait_for("watch", 21)
    assert watched[-1].params["resourceVersion"] == "219"
    assert waits.seconds == [0.5] * 20
    assert [record.getMessage() for record in caplog.records if record.name.endswith("retry")] == []
    assert len(api.seen("list")) == 1
    assert watcher.stats.watch_restarts == {"unreachable": 20}


def test_a_half_open_stream_is_noticed(api: KubeApi, watch: Watch) -> None:
    """Nothing comes and nothing closes (a NAT forgot us): the stream has a time limit, and the next one is whole."""
    api.on("watch", stream(bookmark(100), then=Exchange.hang))
    watcher = watch(times=HALF_OPEN)
    api.wait_for("watch", 2)
    api.add(pod("a"))
    comes_to(watcher, "a")
    assert watcher.stats.watch_restarts["unreachable"] >= 1


@pytest.mark.parametrize("stray", [b"\n", b" ", b"{", b"\r\n\r\n"], ids=["blank", "space", "brace", "blanks"])
def test_a_stream_that_is_kept_open_by_stray_bytes_is_not_believed(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture, stray: bytes
) -> None:
    """Only events count as heard: such streams are ended, are failures, and the pods are listed after three of them."""

    def play(exchange: Exchange) -> None:
        exchange.stream_head()
        while not exchange.is_over(10):
            exchange.chunk(stray)

    api.always("watch", play)
    times = WatchTimes(watch_seconds=10_000, grace_seconds=0.1 - 20_000, start_seconds=0)
    watcher = watch(times=times, clock=Leaps())
    api.wait_for("list", 3)
    assert waits.seconds[:4] == [0.5, 1, 2, 4]
    assert len(api.seen("watch")) >= 4
    assert "cannot watch the pods: " in caplog.text
    api.add(pod("a"))
    comes_to(watcher, "a")


def test_a_stream_of_blank_lines_that_closes_did_not_work(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """However long it was open; as little as one of events that are none of the API's."""
    blank, foreign = stream(b"\n\n", b"\r\n"), stream(event("PING", {"metadata": {"resourceVersion": "900"}}))
    api.on("watch", blank, foreign, blank, foreign, blank)
    watch(clock=Leaps())
    watched = api.wait_for("watch", 6)  # the last one stays open
    assert waits.seconds == [0.5, 1, 2, 4, 8]
    assert len(api.seen("list")) == 4
    assert {request.params["resourceVersion"] for request in watched} == {"100"}


def test_streams_that_close_at_once_are_no_busy_loop(api: KubeApi, watch: Watch, waits: Waits) -> None:
    """An empty stream that ends in order, again and again: waits longer each time, and lists anew after three."""
    api.on("watch", *[stream()] * 5)
    watch(clock=lambda: 0.0)
    api.wait_for("watch", 6)
    assert waits.seconds == [0.5, 1, 2, 4, 8]
    assert len(api.seen("list")) == 4


@pytest.mark.parametrize("end", [Exchange.finish, Exchange.reset])
def test_a_quiet_stream_that_was_open_for_long_is_no_fault(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture, end: Answer
) -> None:
    """On a quiet node nothing comes before the server, or a gateway that cuts after a minute, ends the stream. As the
    streams might be mute, the pods are listed every five minutes.
    """
    api.on("watch", *[stream(then=end)] * 10)
    clock = iter(range(0, 10_000, 20))  # asked three times a stream
    watch(clock=lambda: float(next(clock)))
    api.wait_for("watch", 11)
    assert set(waits.seconds) <= {0.5}
    assert len(api.seen("list")) == 3
    assert [record.getMessage() for record in caplog.records if record.name.endswith("retry")] == []


# --- permissions and tokens ---


FORBIDDEN = (
    'pods is forbidden: User "system:serviceaccount:otel-k8s-cgroup:otel-k8s-cgroup" cannot list resource "pods" in '
    'API group "" at the cluster scope'
)


def test_a_passing_denial_is_no_reason_to_grant(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """An API server that has just started refuses lists and watches which it grants a moment later: tried again within
    seconds, listed at each try, and nobody is told to grant what is granted.
    """
    api.add(pod("a"))
    api.on("list", *[failing(403, FORBIDDEN)] * 5)
    api.on("watch", *[failing(403, FORBIDDEN)] * 5)
    watcher = watch(clock=waits.clock)
    api.wait_for("watch", 6)
    comes_to(watcher, "a")
    assert waits.seconds == [0.5, 1, 2, 4, 5] * 2
    assert len(api.seen("list")) == 5 + 1 + 5
    shown = FORBIDDEN.removeprefix("pods is forbidden: ")[:90] + "…"
    assert [record.getMessage() for record in caplog.records] == [
        f"cannot list the pods: {api.url}/api/v1/pods: HTTP 403: {shown!r}; trying again",
        "can list the pods again",
    ]
    assert watcher.stats.watch_restarts == {"denied": 5}


def test_a_denied_list_that_lasts_names_the_verb(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """After a minute, once for all the tries, with since when; and it goes on by itself once it is granted."""
    api.add(pod("a"))
    api.on("list", *[failing(403, FORBIDDEN)] * 20)
    comes_to(watch(clock=waits.clock), "a")
    assert waits.seconds == [0.5, 1, 2, 4, *[5] * 11, *[30] * 5]
    first, lasting = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert "grant" not in first
    assert lasting.endswith(", for 62 s now; grant the verb 'list' on 'pods' by a ClusterRole and its binding")
    assert len(lasting) < 260


@pytest.mark.parametrize("status", [403, 405])
def test_where_only_list_is_allowed_it_polls(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    """At short intervals for a minute, then twice a minute, said once with the missing verb; a watch is tried after
    each list, and used once it is allowed.
    """
    api.add(pod("a"))
    api.always("watch", failing(status, "no watching here"))
    watcher = watch(clock=waits.clock)
    api.wait_for("list", 25)
    waits.hold()
    api.add(pod("b"))
    waits.let_go(2)
    comes_to(watcher, "a", "b")
    waits.let_go()
    api.wait_for("watch", 30)
    assert waits.seconds[:20] == [0.5, 1, 2, 4, *[5] * 11, *[30] * 5]
    assert set(waits.seconds[20:]) == {30}
    assert all(request.params.get("resourceVersion") == "0" for request in api.seen("list"))
    assert len(api.seen("list")) - len(waits.seconds) <= 1  # before every list but the first there is a wait
    (warning,) = (record.getMessage() for record in caplog.records if record.levelname == "WARNING")
    assert warning.startswith("cannot watch the pods: ")
    assert "'no watching here', for 62 s now; " in warning
    assert warning.endswith("; listing every 30 s")
    assert ("'watch' on 'pods'" in warning) == (status == 403)
    api.always("watch", None)
    api.wait_for("watch", len(api.seen("watch")) + 1)
    api.add(pod("c"))
    comes_to(watcher, "a", "b", "c")
    eventually(lambda: "can watch the pods again" in caplog.text)


@pytest.mark.parametrize(("jitter", "seconds"), [(0.0, 20.0), (0.5, 25.0), (1.0, 30.0)])
def test_polls_of_a_denied_watch_are_spread(
    api: KubeApi, watch: Watch, waits: Waits, jitter: float, seconds: float
) -> None:
    """The nodes of a cluster do not ask in step, and none waits for longer than a new pod may wait for its name."""
    api.always("watch", failing(403))
    watch(clock=Leaps(), jitter=lambda: jitter)
    assert waits.reached(5)[2:] == [seconds] * 3


def test_a_denial_that_is_broken_by_an_outage_begins_anew(
    api: KubeApi, watch: Watch, waits: Waits, caplog: pytest.LogCaptureFixture
) -> None:
    """403, an API server that is away, 403: each of its starts may be the reason."""
    for _ in range(5):
        api.on("watch", *[failing(403)] * 10, Exchange.reset)
    watch(clock=waits.clock)
    api.wait_for("watch", 56)
    assert "now;" not in caplog.text


def test_a_401_until_the_token_file_changes(api: KubeApi, watch: Watch, waits: Waits, tmp_path: Path) -> None:
    """Waits with the pods it has; the new token in the file is enough."""
    token = tmp_path / "token"
    token.write_text("old")
    api.token = "new"
    api.add(pod("a"))
    waits.hold()
    watcher = watch(client=client(api.url, token_file=token))
    for count in range(1, 4):
        waits.reached(count)
        waits.let_go(1)
    waits.reached(4)
    assert watcher.pods == ()
    token.write_text("new")
    waits.let_go()
    comes_to(watcher, "a")


def test_a_replaced_token_ends_the_wait(api: KubeApi, watch: Watch, tmp_path: Path) -> None:
    """The file is looked at each second of a wait of up to half a minute, or of minutes that the API asked for."""
    token = tmp_path / "token"
    token.write_text("old")
    api.token = "new"
    api.add(pod("a"))
    refused = failing(401, "Unauthorized", Retry_After="200")
    api.on("list", refused, refused)
    passed: list[float] = []

    def wait(seconds: float) -> None:
        passed.append(seconds)
        if len(passed) == 7:
            token.write_text("new")

    comes_to(watch(client=client(api.url, token_file=token), wait=wait), "a")
    assert passed == [1.0] * 7
    assert len(api.seen("list")) == 3


def test_no_token_is_waited_for(api: KubeApi, watch: Watch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The token file is not there yet (a slow mount): said once, then it works."""
    token = tmp_path / "token"
    api.token = "late"
    api.add(pod("a"))
    tries: list[float] = []

    def wait(seconds: float) -> None:
        tries.append(seconds)
        if len(tries) == 4:
            token.write_text("late")

    watcher = watch(client=client(api.url, token_file=token), wait=wait)
    comes_to(watcher, "a")
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert str(token) in caplog.text


def test_a_token_file_that_is_gone_for_a_while(api: KubeApi, watch: Watch, waits: Waits, token_file: Path) -> None:
    """The stream that is open goes on; the next one waits for the file, with the pods known so far."""

    def unmount(exchange: Exchange) -> None:
        token_file.rename(token_file.with_suffix(".away"))
        waits.hold()
        stream(bookmark(150))(exchange)

    api.add(pod("a"))
    api.on("watch", unmount)
    watcher = watch(client=client(api.url, token_file=token_file))
    waits.reached(1)
    assert names(watcher) == {"a"}
    assert watcher.stats.watch_restarts == {"closed": 1, "token": 1}
    token_file.with_suffix(".away").rename(token_file)
    waits.let_go()
    assert api.wait_for("watch", 2)[1].params["resourceVersion"] == "150"


# --- what is said, counted, and the end ---


def test_a_node_without_pods_is_pointed_out(api: KubeApi, watch: Watch, caplog: pytest.LogCaptureFixture) -> None:
    """The exporter's own pod is on its node, so an empty list mostly is a k8s_node that is not the node's name."""
    api.add(pod("a", node="node-1.example"))
    watcher = watch()
    assert watcher.synced.wait(20)
    assert [record.getMessage() for record in caplog.records] == [
        "no pod is on node 'node-1': is k8s_node one of those that `kubectl get nodes` shows?"
    ]


def test_stats(api: KubeApi, watch: Watch) -> None:
    """Requests by verb and result, streams by why they ended: for the exporter's own metrics."""
    api.on("list", failing(500), Exchange.reset)
    api.on("watch", failing(410), stream(bookmark(150)))
    watcher = watch()
    api.wait_for("watch", 3)
    eventually(lambda: watcher.stats.api_requests.get(("watch", "200")) == 2)
    assert watcher.stats.api_requests == {
        ("list", "500"): 1,
        ("list", "unreachable"): 1,
        ("list", "200"): 2,
        ("watch", "410"): 1,
        ("watch", "200"): 2,
    }
    assert watcher.stats.watch_restarts == {"gone": 1, "closed": 1}
    assert watcher.stats.skipped_objects == 0


@pytest.mark.parametrize("hanging", ["list", "watch", "body", "wait"])
def test_stop_ends_whatever_hangs(api: KubeApi, watch: Watch, hanging: str, caplog: pytest.LogCaptureFixture) -> None:
    """A request without an answer, a silent stream, half a list, a wait of minutes: the thread is over, and quiet."""
    if hanging == "list":
        api.on("list", Exchange.hang)
    elif hanging == "body":
        api.on("list", stream(b'{"items": [', then=Exchange.hang))
    elif hanging == "wait":
        api.on("list", failing(429, Retry_After="300"))
    watcher = watch(wait=None)
    if hanging == "watch":
        api.wait_for("watch", 1)
    else:
        api.wait_for("list", 1)
    if hanging == "wait":
        eventually(lambda: len(caplog.records) == 1)
    caplog.clear()
    assert watcher.stop(10)
    assert [record.getMessage() for record in caplog.records if record.name.endswith("retry")] == []
    assert watcher.stats.watch_restarts == {}


def test_stop_before_start_and_twice(api: KubeApi) -> None:
    """Neither hangs nor fails."""
    watcher = open_pods(PodSource("api"), node="node-1", client=client(api.url))
    assert watcher.stop()
    assert watcher.stop()


def test_list_and_watch_over_tls(watch: Watch, tmp_path: Path) -> None:
    """The whole of it over https, with a token and the cluster's CA; the stream over TLS is closed by stop as well."""
    ca = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("127.0.0.1").configure_cert(tls)
    ca.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    (tmp_path / "token").write_text("the-token")
    with KubeApi(tls=tls, token="the-token") as api:
        api.add(pod("a"))
        watcher = watch(client=client(api.url, token_file=tmp_path / "token", ca_file=str(tmp_path / "ca.crt")))
        api.wait_for("watch", 1)
        api.add(pod("b"))
        comes_to(watcher, "a", "b")
        assert watcher.stop(10)


def test_a_source_without_its_client_is_a_mistake_of_the_caller() -> None:
    """Not something to wait for."""
    for source in (PodSource("api"), PodSource("kubelet"), PodSource("file")):
        with pytest.raises(ValueError, match="pod_source"):
            open_pods(source, node="node-1")
    with pytest.raises(KubeError):
        client("not a url")
