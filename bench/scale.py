"""``make scale``: what a large cluster's agents ask of the API servers, and what they send to collectors.

    python -m bench.scale [--nodes N] [--pods N] [--json FILE] […]

Measured: the bytes of each request, by the exporter's own client and encoder (``scale_api``, ``scale_export``).
Simulated: when thousands of agents make them (``scale_cluster``). All traffic is between this process and itself.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import random
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.scale_api import Churn, Node, Sent, follow, parse_seconds
from bench.scale_cluster import LISTS_AT_ONCE, LISTS_QUEUED, ApiServers, Lists, outage, starts
from bench.scale_export import export
from bench.scale_report import text
from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.kube import WatchTimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

# A kubelet asks the API who its client is and what that may, and remembers: KubeletConfiguration,
# authentication.webhook.cacheTTL and authorization.webhook.cacheAuthorizedTTL.
_TOKEN_REVIEW_SECONDS = 120
_ACCESS_REVIEW_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Cluster:
    """What is assumed; each is a flag. Defaults: the largest cluster that Kubernetes is tested at."""

    nodes: int = 5000
    pods: int = 110
    poll_seconds: float = 5.0
    births_an_hour: float = 6.0
    updates_an_hour: float = 0.5
    api_servers: int = 3
    list_seconds: float = 0.05
    restart_percent: int = 10
    restart_seconds: float = 30.0
    sampled_nodes: int = 8
    hours: float = 1.0
    seed: int = 1


_HELP = {
    "pods": "on each node",
    "births_an_hour": "pods that come (and as many that go) on a node",
    "updates_an_hour": "other changes of a pod",
    "list_seconds": "what an API server takes for one node's list",
    "restart_percent": "how many agents a rolling restart has down together (maxUnavailable)",
    "restart_seconds": "from one such part to the next",
    "sampled_nodes": "how many nodes' hours are played through with the real client",
    "hours": "how long a sampled node is followed",
}


def sizes(sent: Iterable[Sent]) -> dict[str, dict[str, float]]:
    """By verb: how many there were, and the mean bytes of one in each direction."""
    count: Counter[str] = Counter()
    from_agent: Counter[str] = Counter()
    to_agent: Counter[str] = Counter()
    for each in sent:
        count[each.verb] += 1
        from_agent[each.verb] += each.from_agent
        to_agent[each.verb] += each.to_agent
    return {
        verb: {"count": n, "from_agent_bytes": from_agent[verb] / n, "to_agent_bytes": to_agent[verb] / n}
        for verb, n in count.items()
    }


def measured(cluster: Cluster) -> tuple[dict[str, Any], list[list[Sent]]]:
    """The sizes, and each sampled node's messages."""
    rng = random.Random(cluster.seed)
    churn = Churn(cluster.births_an_hour, cluster.updates_an_hour)

    def node(number: int, hours: float) -> Node:
        return Node(f"node-{number:05d}", cluster.pods, churn, hours, rng)

    samples = [follow("api", node(number, cluster.hours)) for number in range(cluster.sampled_nodes)]
    polled = follow("kubelet", node(0, 1 / 60))
    one = node(0, 0)
    result: dict[str, Any] = {
        "pod_bytes": len(one.listed()) / cluster.pods,
        "messages": sizes(sent for sample in samples for sent in sample) | sizes(polled),
        "parse_a_list_ms": parse_seconds(one) * 1e3,
        "export": [],
    }
    for point_attributes in (True, False):
        for compression in ("none", "gzip"):
            sent = export(cluster.pods, rng, point_attributes=point_attributes, compression=compression)
            result["export"].append(
                {"point_attributes": point_attributes, "compression": compression, **sent._asdict()}
            )
    return result, samples


class Load:
    """Requests and bytes, second by second."""

    def __init__(self) -> None:
        self._requests: Counter[int] = Counter()
        self._bytes: Counter[int] = Counter()

    def add(self, at_seconds: float, *, requests: int = 0, size: float = 0.0) -> None:
        self._requests[int(at_seconds)] += requests
        self._bytes[int(at_seconds)] += round(size)

    def over(self, seconds: float) -> dict[str, float]:
        """Mean over so many seconds, and the busiest one. Bytes are those that the API servers send."""
        return {
            "requests_a_second": self._requests.total() / seconds,
            "peak_requests_a_second": max(self._requests.values(), default=0),
            "bytes_a_second": self._bytes.total() / seconds,
            "peak_bytes_a_second": max(self._bytes.values(), default=0),
        }


def of_lists(lists: Lists, since: float, messages: dict[str, dict[str, float]]) -> dict[str, float]:
    """The load of ``lists``, each with the watch that follows it, and how it went. ``since``: when it could begin."""
    load = Load()
    for at in lists.asked:
        load.add(at, requests=1)
    for at in lists.answered:
        load.add(at, requests=1, size=sum(messages[verb]["to_agent_bytes"] for verb in ("list", "watch")))
    ended = sorted(at - since for at in lists.answered)
    return load.over(ended[-1]) | {
        "peak_lists_a_second": max(Counter(int(at) for at in lists.asked).values()),
        "refused": lists.refused,
        "connections_in_vain": lists.in_vain,
        "half_listed_after_seconds": ended[len(ended) // 2],
        "all_listed_after_seconds": ended[-1],
    }


def steady(cluster: Cluster, samples: Sequence[Sequence[Sent]], rng: random.Random) -> dict[str, float]:
    """Each node does what one of the sampled ones did after its start, shifted in time at random."""
    load, seconds = Load(), cluster.hours * 3600
    for _ in range(cluster.nodes):
        shift = rng.uniform(0, seconds)
        for sent in rng.choice(samples)[2:]:  # after the first list and watch
            at = (sent.at_seconds + shift) % seconds
            load.add(at, requests=sent.verb in ("list", "watch"), size=sent.to_agent)
    return load.over(seconds)


def simulated(cluster: Cluster, samples: Sequence[Sequence[Sent]], messages: dict[str, Any]) -> dict[str, Any]:
    """The load on the API servers, by what happens, for ``pod_source`` api."""
    rng = random.Random(cluster.seed)

    def servers(down_seconds: float = 0.0) -> ApiServers:
        return ApiServers(cluster.api_servers, cluster.list_seconds, (0.0, down_seconds))

    part = max(1, cluster.nodes * cluster.restart_percent // 100)
    rolling = [number // part * cluster.restart_seconds for number in range(cluster.nodes)]
    lists = {
        "cold start, all in one moment": (0.0, starts([0.0] * cluster.nodes, servers(), rng.random)),
        "cold start, 20 pods made a second": (
            0.0,
            starts([number / 20 for number in range(cluster.nodes)], servers(), rng.random),
        ),
        f"rolling restart, {cluster.restart_percent} % at a time": (0.0, starts(rolling, servers(), rng.random)),
        "API servers down for 10 s": (10.0, outage(cluster.nodes, servers(10.0), rng.random)),
        "API servers down for 10 min": (600.0, outage(cluster.nodes, servers(600.0), rng.random)),
    }
    return {
        "steady state": steady(cluster, samples, rng),
        **{name: of_lists(each, since, messages) for name, (since, each) in lists.items()},
    }


def jitter(cluster: Cluster) -> list[dict[str, Any]]:
    """What each kind of spreading is worth: the worst start, and the worst outage (short: all retry together)."""
    built_in = WatchTimes().start_seconds
    # Of the name, the seconds in which the first list is asked for, and the share of each retry's wait that is random.
    kinds = [
        ("none", 0.0, 0.0),
        (f"first list within {built_in:g} s", built_in, 0.0),
        ("… and half of each retry at random", built_in, 0.5),
        ("… and all of each retry (built in)", built_in, 1.0),
        ("first list within 4 s, all of each retry", 4.0, 1.0),
    ]
    rows = []
    for name, spread, share in kinds:
        rng = random.Random(cluster.seed)

        def retries(rng: random.Random = rng, share: float = share) -> float:
            return 1.0 - share + share * rng.random()

        down = outage(cluster.nodes, ApiServers(cluster.api_servers, cluster.list_seconds, (0.0, 10.0)), retries)
        at = [spread * rng.random() for _ in range(cluster.nodes)]
        start = starts(at, ApiServers(cluster.api_servers, cluster.list_seconds), retries, 0.0)
        rows.append(
            {
                "spread": name,
                "start_peak_lists_in_100_ms": max(Counter(int(at * 10) for at in start.asked).values()),
                "start_refused": start.refused,
                "start_all_listed_after_seconds": max(start.answered),
                "outage_peak_lists_a_second": max(Counter(int(at) for at in down.asked).values()),
                "outage_refused": down.refused,
                "outage_all_listed_after_seconds": max(down.answered) - 10.0,
            }
        )
    return rows


def collectors(cluster: Cluster, exports: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """What all agents send together; the peak is where all of them tick in the same second."""
    return [
        {
            **each,
            "requests_a_second": cluster.nodes / cluster.poll_seconds,
            "peak_requests_a_second": cluster.nodes * max(1.0, 1 / cluster.poll_seconds),
            "points_a_second": cluster.nodes * each["points"] / cluster.poll_seconds,
            "bytes_a_second": cluster.nodes * each["wire_bytes"] / cluster.poll_seconds,
            "bytes_a_point": each["wire_bytes"] / each["points"],
        }
        for each in exports
    ]


def run(cluster: Cluster) -> dict[str, Any]:
    """All of it, as the JSON has it."""
    sizes_of, samples = measured(cluster)
    kubelet_poll_seconds = WatchTimes().poll_seconds
    return {
        "on": {"exporter": __version__, "python": platform.python_version()},
        "assumed": asdict(cluster) | {"lists_at_once_a_server": LISTS_AT_ONCE, "lists_queued_a_server": LISTS_QUEUED},
        "measured": sizes_of,
        "simulated": {
            "api": simulated(cluster, samples, sizes_of["messages"]),
            "kubelet": {
                "api_requests_a_second": cluster.nodes * (1 / _TOKEN_REVIEW_SECONDS + 1 / _ACCESS_REVIEW_SECONDS),
                "bytes_a_second_on_each_node": sizes_of["messages"]["poll"]["to_agent_bytes"] / kubelet_poll_seconds,
                "parsing_percent_of_a_core": sizes_of["parse_a_list_ms"] / 10 / kubelet_poll_seconds,
            },
            "jitter": jitter(cluster),
            "collectors": collectors(cluster, sizes_of["export"]),
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=(__doc__ or "").splitlines()[0])
    for name, default in asdict(Cluster()).items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"{_HELP.get(name, '')} ({default})")
    parser.add_argument("--json", type=Path, help="where the JSON goes")
    arguments = vars(parser.parse_args())
    json_file: Path | None = arguments.pop("json")
    # Thousands of simulated outages are not news.
    logging.getLogger("otel_k8s_cgroup").setLevel(logging.CRITICAL)
    result = run(Cluster(**arguments))
    sys.stdout.write(text(result))
    if json_file is not None:
        json_file.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
