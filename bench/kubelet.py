"""The exporter beside the kubelet's own endpoints, on a real node, in the same windows: CPU and memory of each.

Run in a node: `make bench-kubelet`. Each window scrapes one endpoint (or none) at the exporter's interval, while the
exporter runs through all of them. What an endpoint costs is the kubelet's CPU time in its window above the first one's.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench.process import cpu_seconds, status
from bench.sink import Sink
from tests.cluster import control
from tests.cluster.api import Api
from tests.cluster.cluster import Cluster
from tests.cluster.layout import API_URL, CA, KUBELET_CERTIFICATE, KUBELET_URL, NODE
from tests.cluster.pods import container, pod

if TYPE_CHECKING:
    from collections.abc import Sequence

ENDPOINTS = (None, "/stats/summary", "/metrics/cadvisor", "/metrics/resource")
_MAY_READ_PODS = "bench-reader"


class Window(NamedTuple):
    """What one window cost: % of a core, MB, and of the scrapes the answer's size and duration."""

    scraped: str
    kubelet_cpu: float
    kubelet_rss: float
    answer_kb: float
    answer_ms: float
    exporter_cpu: float
    exporter_rss: float


def measure(pods: int, seconds: float, interval_seconds: float) -> list[Window]:
    cluster = Cluster()
    cluster.clear()
    names = [f"bench-{number}" for number in range(pods)]
    for name in names:
        cluster.create(pod(name, container("pause")))
    for name in names:
        cluster.wait_for_phase(name, "Running", seconds=300)
    with Sink("http/protobuf") as sink:
        exporter = subprocess.Popen(_command(cluster, sink.endpoint, interval_seconds))
        try:
            sink.wait_for(3)
            return [_window(exporter.pid, endpoint, seconds, interval_seconds) for endpoint in ENDPOINTS]
        finally:
            exporter.terminate()
            exporter.wait(20)
            cluster.clear()


def _command(cluster: Cluster, endpoint: str, interval_seconds: float) -> Sequence[str]:
    namespace = cluster.namespace("bench")
    cluster.api.apply(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": _MAY_READ_PODS}})
    rbac = "/apis/rbac.authorization.k8s.io/v1"
    role = {
        "metadata": {"name": _MAY_READ_PODS},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}],
    }
    cluster.api.apply(f"{rbac}/clusterroles", role)
    cluster.kubectl(
        *("create", "clusterrolebinding", _MAY_READ_PODS, f"--clusterrole={_MAY_READ_PODS}"),
        f"--serviceaccount={namespace}:{_MAY_READ_PODS}",
    )
    token = Path("/run/bench-token")
    token.write_text(cluster.token(_MAY_READ_PODS, namespace))
    return [
        *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--log-level", "warning", "--k8s-node", NODE),
        *("--k8s-api-url", API_URL, "--k8s-ca-file", str(CA), "--token-retrieval", f'{{ file = "{token}" }}'),
        *("--poll-interval", f"{interval_seconds:g}s", "--otlp-endpoint", endpoint),
        *("--otlp-protocol", "http/protobuf"),
    ]


def _window(exporter: int, endpoint: str | None, seconds: float, interval_seconds: float) -> Window:
    kubelet = control.ask("pid", "kubelet")
    api = Api(KUBELET_URL, KUBELET_CERTIFICATE)
    if endpoint:
        api.text(endpoint)
    before = cpu_seconds(kubelet), cpu_seconds(exporter), time.monotonic()
    sizes, durations = [], []
    while (elapsed := time.monotonic() - before[2]) < seconds:
        if endpoint:
            began = time.monotonic()
            sizes.append(len(api.text(endpoint)))
            durations.append(time.monotonic() - began)
        time.sleep(interval_seconds - (time.monotonic() - before[2]) % interval_seconds)
    elapsed = time.monotonic() - before[2]
    return Window(
        endpoint or "nothing",
        100 * (cpu_seconds(kubelet) - before[0]) / elapsed,
        status(kubelet)["VmRSS"] / 1024,
        max(sizes, default=0) / 1000,
        1000 * sorted(durations or [0])[len(durations) // 2],
        100 * (cpu_seconds(exporter) - before[1]) / elapsed,
        status(exporter)["VmRSS"] / 1024,
    )


def report(windows: Sequence[Window]) -> str:
    """A line a window, as a table of Markdown."""
    names = ("scraped", "kubelet, % of a core", "for the scrapes", "RSS, MB", "answer, kB", "ms")
    lines = [f"| {' | '.join((*names, 'exporter, % of a core', 'RSS, MB'))} |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|---:|")
    for each in windows:
        above = each.kubelet_cpu - windows[0].kubelet_cpu
        figures = (each.kubelet_cpu, above, each.kubelet_rss, each.answer_kb, each.answer_ms, *each[5:])
        lines.append(f"| {each.scraped} | " + " | ".join(f"{figure:.1f}" for figure in figures) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.kubelet", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each window")
    parser.add_argument("--interval", type=float, default=1.0, help="of the scrapes and of the exporter, in seconds")
    parser.add_argument("--json", type=Path, help="where this run's JSON goes")
    arguments = parser.parse_args()
    windows = measure(arguments.pods, arguments.seconds, arguments.interval)
    sys.stdout.write(report(windows))
    if arguments.json:
        arguments.json.write_text(json.dumps([each._asdict() for each in windows], indent=2) + "\n")


if __name__ == "__main__":
    main()
