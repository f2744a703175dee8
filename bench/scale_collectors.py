"""What a point costs the collectors of deploy/sizing.md: a balancer by pod, and gateways that add up the deltas.

    python -m bench.scale_collectors .cache/otelcol-scale/otelcol

The collector is the OpenTelemetry Collector, built as bench/scale_collectors.yaml says. All is on loopback.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.scale_export import Agent, decoded, points
from bench.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable

ROUTING = {"routing_key": "attributes", "routing_attributes": ["k8s.pod.uid"]}
_GATEWAYS = 2
_LIMIT = {"memory_limiter": {"check_interval": "1s", "limit_percentage": 80, "spike_limit_percentage": 20}}
_PATIENCE_SECONDS = 30.0


def _pipeline(receiver: dict[str, Any], processors: dict[str, Any], exporter: dict[str, Any]) -> dict[str, Any]:
    return {
        "receivers": {"otlp": {"protocols": receiver}},
        "processors": processors,
        "exporters": exporter,
        "service": {
            "telemetry": {"metrics": {"level": "none"}},
            "pipelines": {
                "metrics": {"receivers": ["otlp"], "processors": list(processors), "exporters": list(exporter)}
            },
        },
    }


def balancer(port: int, gateways: Iterable[int]) -> dict[str, Any]:
    """Its configuration: each pod's points go to one of ``gateways`` (ports), always the same."""
    to_gateways = {
        **ROUTING,
        "protocol": {"otlp": {"tls": {"insecure": True}}},
        "resolver": {"static": {"hostnames": [f"127.0.0.1:{gateway}" for gateway in gateways]}},
        "sending_queue": {"enabled": True},
        "retry_on_failure": {"enabled": True},
    }
    return _pipeline({"http": {"endpoint": f"127.0.0.1:{port}"}}, _LIMIT, {"load_balancing": to_gateways})


def gateway(port: int, to: str) -> dict[str, Any]:
    """Its configuration: deltas become running totals, and go on to ``to``."""
    return _pipeline(
        {"grpc": {"endpoint": f"127.0.0.1:{port}"}},
        {**_LIMIT, "delta_to_cumulative": {}},
        {"otlp_http": {"endpoint": to}},
    )


class Collector:
    """A running one, on one CPU."""

    def __init__(self, program: Path, configuration: dict[str, Any], port: int, folder: Path) -> None:
        file = folder / f"{port}.json"  # JSON is YAML
        file.write_text(json.dumps(configuration))
        self.log = folder / f"{port}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "--config", file], env=os.environ | {"GOMAXPROCS": "1"}, stdout=log, stderr=log
            )
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while socket.socket().connect_ex(("127.0.0.1", port)):
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"{program} does not listen on port {port}: {self.log.read_text()[-2000:]}")
            time.sleep(0.05)
        self._before = self._cpu()

    def _cpu(self) -> float:
        stat = Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(stat[11]) + int(stat[12])) / os.sysconf("SC_CLK_TCK")

    @property
    def cpu_seconds(self) -> float:
        """Since it was ready."""
        return self._cpu() - self._before

    @property
    def rss_mb(self) -> float:
        pages = int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(_PATIENCE_SECONDS)


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def measure(program: Path, *, nodes: int, pods: int, ticks: int, point_attributes: bool) -> dict[str, float]:
    """CPU a point of each tier, while ``nodes`` agents send ``ticks`` readings each. Raises where a point got lost."""
    rng = random.Random(1)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="scale-collectors-")))
        sinks = [stack.enter_context(Sink("http/protobuf")) for _ in range(_GATEWAYS)]
        entry, *ports = _free_ports(1 + _GATEWAYS)

        def run(configuration: dict[str, Any], port: int) -> Collector:
            collector = Collector(program, configuration, port, folder)
            stack.callback(collector.stop)
            return collector

        gateways = [run(gateway(port, sink.endpoint), port) for port, sink in zip(ports, sinks, strict=True)]
        first = run(balancer(entry, ports), entry)
        endpoint = f"http://127.0.0.1:{entry}"
        agents = [
            Agent(pods, rng, endpoint, point_attributes=point_attributes, compression="gzip") for _ in range(nodes)
        ]
        for _ in range(ticks):
            for agent in agents:
                agent.tick()
        sent = sum(agent.close() for agent in agents)
        arrived, counted = 0, [0] * _GATEWAYS
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while arrived < sent:
            for number, sink in enumerate(sinks):
                bodies = sink.bodies[counted[number] :]
                counted[number] += len(bodies)
                arrived += sum(map(points, bodies))
            if time.monotonic() > deadline:
                raise RuntimeError(f"{arrived} of {sent} points arrived: {first.log.read_text()[-2000:]}")
            time.sleep(0.1)
        took = {"balancer": first.cpu_seconds, "gateways": sum(each.cpu_seconds for each in gateways)}
        rss = {"balancer": first.rss_mb, "gateways": max(each.rss_mb for each in gateways)}
        split = _gateways_of_pods([sink.bodies for sink in sinks])
    return {
        "points": sent,
        "pods": len(split),
        "pods_at_two_gateways": sum(len(seen) > 1 for seen in split.values()),
        "largest_share_percent": max(
            100 * sum(n in seen for seen in split.values()) / len(split) for n in range(_GATEWAYS)
        ),
        **{f"{tier}_us_a_point": seconds / sent * 1e6 for tier, seconds in took.items()},
        **{f"{tier}_rss_mb": megabytes for tier, megabytes in rss.items()},
    }


def _gateways_of_pods(bodies: Iterable[Iterable[bytes]]) -> dict[str, set[int]]:
    seen = defaultdict(set)
    for number, of_one in enumerate(bodies):
        for pod in (each for body in of_one for each in decoded(body).resource_metrics):
            uids = [each.value.string_value for each in pod.resource.attributes if each.key == "k8s.pod.uid"]
            seen[uids[0]].add(number)
    return seen


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.scale_collectors", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument(
        "collector", type=Path, help="an OpenTelemetry Collector, built as bench/scale_collectors.yaml says"
    )
    parser.add_argument("--nodes", type=int, default=20)
    parser.add_argument("--pods", type=int, default=110, help="on each node (110)")
    parser.add_argument("--ticks", type=int, default=30, help="readings of each node (30)")
    arguments = parser.parse_args()
    for point_attributes in (False, True):
        result = measure(
            arguments.collector,
            nodes=arguments.nodes,
            pods=arguments.pods,
            ticks=arguments.ticks,
            point_attributes=point_attributes,
        )
        sys.stdout.write(f"point_attributes = {str(point_attributes).lower()}\n")
        sys.stdout.writelines(f"  {name:24} {value:,.1f}\n" for name, value in result.items())


if __name__ == "__main__":
    main()
