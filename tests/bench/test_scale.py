"""``make scale``: what it says it measured was measured; what it simulates behaves as what it stands for."""

from __future__ import annotations

import json
import logging
import random
import socket
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from bench import scale
from bench.scale_api import Churn, Node, Sent, Server, follow
from bench.scale_cluster import LISTS_AT_ONCE, LISTS_QUEUED, ApiServers, outage, starts, waits_of_one
from bench.scale_collectors import ROUTING
from bench.scale_export import export
from bench.scale_report import text
from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable
from otel_k8s_cgroup.kube import WatchTimes, open_pods
from otel_k8s_cgroup.model import PodSource
from tests.fakes.kube_api import Exchange, KubeApi, event, failing, pod, stream
from tests.kube.support import Waits, client

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bench.scale_cluster import Lists

SIZING = Path(__file__).parents[2] / "deploy" / "sizing.md"
SMALL = scale.Cluster(nodes=40, pods=3, sampled_nodes=2, hours=0.5)
BOOKMARK = event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": "102"}})


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Thousands of simulated outages are not news."""
    with caplog.at_level(logging.CRITICAL, "otel_k8s_cgroup"):
        yield


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    return scale.run(SMALL)


def node(hours: float = 1.0, *, pods: int = 5, churn: Churn = Churn()) -> Node:  # noqa: B008 frozen
    return Node("node-00007", pods, churn, hours, random.Random(7))


def by_verb(sent: list[Sent]) -> Counter[str]:
    return Counter(each.verb for each in sent)


# --- measured ---


def test_what_is_counted_is_what_went_through_the_socket() -> None:
    """A request written by hand: the bytes noted are those sent and those received, to the byte."""
    mine = node()
    server = Server(mine)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    request = b"GET /api/v1/pods?fieldSelector=x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(request)
        received = b"".join(iter(lambda: connection.recv(65536), b""))
    server.shutdown()
    server.server_close()
    assert mine.sent == [Sent(0.0, "list", len(request), len(received))]
    assert len(json.loads(received.partition(b"\r\n\r\n")[2])["items"]) == 5


def test_an_hour_of_a_node() -> None:
    """One list within the start's half second; a stream every five to ten minutes; bookmarks; the churn asked for."""
    sent = follow("api", node(churn=Churn(births_an_hour=20, updates_an_hour=4)))
    verbs = by_verb(sent)
    assert sent[0].verb == "list"
    assert 0 < sent[0].at_seconds < 0.5
    assert verbs["list"] == 1
    assert 6 <= verbs["watch"] <= 12
    assert 40 <= verbs["bookmark"] <= 60
    assert 80 <= verbs["event"] <= 320
    assert all(each.to_agent > 0 for each in sent)


def test_the_pods_are_as_large_as_real_ones() -> None:
    """6 to 10 kB of JSON each, managed fields included; a list is that times its pods."""
    mine = node(hours=0.01, pods=50)
    listed = follow("api", mine)[0]
    assert 6_000 < listed.to_agent / 50 < 10_000
    assert all("managedFields" in each["metadata"] for each in json.loads(mine.listed())["items"])


def test_a_minute_of_a_kubelet() -> None:
    """Its whole list every ten seconds, and nothing else."""
    sent = follow("kubelet", node(hours=1 / 60))
    assert [(each.verb, each.at_seconds) for each in sent] == [("poll", 10.0 * number) for number in range(6)]


@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_what_a_node_sends(compression: Any) -> None:
    """Eleven points a pod on cgroup v2; its attributes on each point cost much, unless it is compressed."""
    lean, rich = (
        export(20, random.Random(1), point_attributes=attributes, compression=compression)
        for attributes in (False, True)
    )
    assert lean.points == rich.points == 20 * 11
    assert rich.wire_bytes > lean.wire_bytes * (2 if compression == "none" else 1)
    if compression == "gzip":
        assert rich.wire_bytes < rich.points * 40


# --- simulated ---


def test_api_servers_take_what_they_have_seats_and_queues_for() -> None:
    """As many at once as have seats, the queued ones after them, 429 beyond; and again when the queue has room."""
    servers = ApiServers(2, 0.1)
    for _ in range(2 * LISTS_AT_ONCE):
        assert servers.list(0.0) == pytest.approx(0.1)
    queued = [servers.list(0.0) for _ in range(2 * LISTS_QUEUED)]
    assert queued == sorted(queued)
    assert queued[0] == pytest.approx(0.2)
    with pytest.raises(ApiStatusError) as refused:
        servers.list(0.0)
    assert (refused.value.status, refused.value.retry_after_seconds) == (429, 1.0)
    assert servers.list(0.15) > queued[-1] - 0.1


def test_retry_after_doubles_under_pressure_and_comes_down_again() -> None:
    """1 s, then 2, 4, … while requests go on being refused; a step down once hardly any are."""
    servers = ApiServers(1, 1e9)
    for _ in range(LISTS_AT_ONCE + LISTS_QUEUED):
        servers.list(0.0)
    told: list[float | None] = []
    for second in [*range(8), 100, 101]:
        for _ in range(50 if second < 100 else 1):
            with pytest.raises(ApiStatusError) as refused:
                servers.list(float(second))
        told.append(refused.value.retry_after_seconds)
    assert told == [1, 2, 2, 4, 4, 4, 4, 8, 7, 6]


def test_servers_that_are_down_take_nothing() -> None:
    """Not even a place in a queue."""
    servers = ApiServers(1, 0.1, (5.0, 6.0))
    with pytest.raises(ApiUnreachable):
        servers.list(5.0)
    assert servers.list(6.0) == pytest.approx(6.1)


def test_each_agent_gets_one_list() -> None:
    """However crowded it is: as many answers as agents, and all others were refused or came in vain."""
    for lists in (
        starts([0.0] * 2000, ApiServers(1, 0.05), random.Random(1).random),
        outage(2000, ApiServers(1, 0.05, (0.0, 10.0)), random.Random(1).random),
    ):
        assert len(lists.answered) == 2000
        assert len(lists.asked) == 2000 + lists.refused
    assert lists.in_vain > 2000


def test_spreading_is_worth_its_while() -> None:
    """What the jitter is for: fewer refusals and an earlier end, at a start and after an outage."""

    def start(jitter: Callable[[], float]) -> Lists:
        return starts([0.0] * 2000, ApiServers(1, 0.1), jitter)

    def after_an_outage(jitter: Callable[[], float]) -> Lists:
        return outage(2000, ApiServers(1, 0.1, (0.0, 10.0)), jitter)

    for run in (start, after_an_outage):
        together, spread = run(lambda: 1.0), run(random.Random(1).random)
        assert spread.refused < together.refused * 0.75
        assert max(spread.answered) < max(together.answered) / 2


def _waits_of_the_client(api: KubeApi, count: int, lists: int) -> list[float]:
    """Of the real client, once its stream has broken, and until it has asked for so many lists."""
    waits = Waits()
    watcher = open_pods(
        PodSource("api"),
        node="node-1",
        client=client(api.url),
        wait=waits,
        jitter=lambda: 1.0,
        times=WatchTimes(start_seconds=0),
    )
    watcher.start()
    seconds = waits.reached(count)
    assert len(api.wait_for("list", lists)) >= lists
    assert watcher.stop(10)
    return seconds


def test_a_simulated_agent_waits_as_the_client_does_in_an_outage() -> None:
    """The same waits in the same order, with nobody there for long."""
    with KubeApi() as api:
        api.add(pod("a"))
        api.on("watch", stream(BOOKMARK, then=Exchange.reset))
        api.on("list", Exchange.usual)
        api.always("watch", Exchange.reset)
        api.always("list", Exchange.reset)
        real = _waits_of_the_client(api, 10, lists=7)
    assert waits_of_one(ApiServers(1, 0.1, (0.0, 1e6)), 10) == real


def test_a_simulated_agent_waits_as_the_client_does_at_a_restarted_server() -> None:
    """It is told that its version is too old, and lists."""
    with KubeApi() as api:
        api.add(pod("a"))
        api.on("watch", stream(BOOKMARK, then=Exchange.reset), failing(410))
        real = _waits_of_the_client(api, 2, lists=2)
    assert waits_of_one(ApiServers(1, 0.1, (0.0, 0.1)), 2) == real


# --- told ---


def test_the_result_is_complete(result: dict[str, Any]) -> None:
    """All parts, for both sources, as JSON too; lists that are answered carry their bytes."""
    assert json.loads(json.dumps(result)) == result
    messages, api = result["measured"]["messages"], result["simulated"]["api"]
    assert set(messages) >= {"list", "watch", "bookmark", "poll"}
    cold = api["cold start, all in one moment"]
    a_list = messages["list"]["to_agent_bytes"] + messages["watch"]["to_agent_bytes"]
    total = cold["bytes_a_second"] * cold["all_listed_after_seconds"]
    assert total == pytest.approx(SMALL.nodes * a_list, rel=0.01)
    assert api["steady state"]["bytes_a_second"] < cold["bytes_a_second"]
    assert result["simulated"]["kubelet"]["api_requests_a_second"] == pytest.approx(40 / 120 + 40 / 300)
    for row in result["simulated"]["collectors"]:
        assert row["points_a_second"] == pytest.approx(SMALL.nodes * SMALL.pods * 11 / SMALL.poll_seconds)


def test_the_report_says_what_is_measured_and_what_is_not(result: dict[str, Any]) -> None:
    """Every table is headed by one of three words, and has its rows."""
    report = text(result)
    assert all(f"\n{word}" in report for word in ("MEASURED", "SIMULATED", "COMPUTED"))
    for name in result["simulated"]["api"]:
        assert f"\n{name}" in report


def test_the_page_on_sizing_has_what_the_command_prints(result: dict[str, Any]) -> None:
    """Each row of its tables is one of the report's, under the same name."""
    page = SIZING.read_text()
    for name in [*result["simulated"]["api"], *(row["spread"] for row in result["simulated"]["jitter"])]:
        assert f"| {name} |" in page
    assert "make scale" in page


def test_the_page_on_sizing_routes_as_it_was_measured() -> None:
    """Its collector's configuration is YAML and has the routing that ``bench.scale_collectors`` runs with."""
    block = SIZING.read_text().partition("```yaml\n")[2].partition("```")[0]
    exporter = yaml.safe_load(block)["exporters"]["load_balancing"]
    assert {key: exporter[key] for key in ROUTING} == ROUTING
    assert exporter["sending_queue"]["enabled"]
