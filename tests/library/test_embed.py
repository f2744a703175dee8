"""examples/embed.py as a process of its own: what a receiver gets."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import PATIENCE_SECONDS

from .test_read_pods import A

EMBED = Path(__file__).parents[2] / "examples/embed.py"


def run(environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "KUBERNETES_"))}
    return subprocess.run(
        [sys.executable, str(EMBED), "0.01"],
        env=kept | {"NODE_NAME": "node-1", "OTEL_K8S_CGROUP_TOKEN_RETRIEVAL": "none"} | environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def test_the_pods_come_beside_the_programs_own_metric(tmp_path: Path) -> None:
    """From a fake API and tree by a real SDK to a real socket: who each pod is stands on its points."""
    CgroupTree(tmp_path).write(A, Figures(user_usec=1_500_000, anon=4096))
    with KubeApi() as api, OtlpReceiver("http/protobuf") as receiver:
        api.add(pod("web", uid=A))
        done = run(
            {
                "OTEL_K8S_CGROUP_K8S_API_URL": api.url,
                "OTEL_K8S_CGROUP_CGROUP_ROOT": str(tmp_path),
                "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint,
            }
        )
        messages = receiver.messages
    assert (done.returncode, done.stderr) == (0, "")
    metrics = {
        metric.name: metric
        for message in messages
        for resource in message.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }
    (turns,) = metrics["embed.turns"].sum.data_points
    assert turns.as_int == 1
    cpu = metrics["k8s.pod.cpu.time"]
    (point,) = cpu.sum.data_points
    assert (cpu.unit, cpu.sum.is_monotonic, point.as_double) == ("s", True, 1.5)
    assert {attribute.key: attribute.value.string_value for attribute in point.attributes} == {
        "k8s.pod.uid": A,
        "k8s.pod.name": "web",
        "k8s.namespace.name": "default",
        "k8s.node.name": "node-1",
    }
    (rss,) = metrics["k8s.pod.memory.rss"].sum.data_points
    assert rss.as_int == 4096


def test_a_problem_ends_it_with_one_line(tmp_path: Path) -> None:
    """The error is the package's, and names the setting's value."""
    done = run({"OTEL_K8S_CGROUP_CGROUP_ROOT": str(tmp_path / "nowhere")})
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("embed: ")
    assert "nowhere" in line
