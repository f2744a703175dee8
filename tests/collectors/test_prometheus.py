"""`run` by examples/cadvisor.toml into a real Prometheus by examples/prometheus.yml: what it has is cAdvisor's."""

from __future__ import annotations

import contextlib
import shutil
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pytest

from otel_k8s_cgroup.check import CHECKS, Bench, Status, run_checks
from otel_k8s_cgroup.settings import load
from tests.collectors.prometheus import Prometheus, prometheus, why_not
from tests.fakes import kube_api
from tests.programs import clean_environ, exporter
from tests.test_cadvisor import DOCUMENTED as ALL_DOCUMENTED

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

EXAMPLES = Path(__file__).parents[2] / "examples"
UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
ID = "fc6e9647769050baf7ea79855ca22b8496ed9b6dd2b7f06c2e583e18a25dc920"
NODE = "/kubepods.slice"
QOS = f"{NODE}/kubepods-burstable.slice"
POD = f"{QOS}/kubepods-burstable-pod{UID.replace('-', '_')}.slice"
CONTAINER = f"{POD}/cri-containerd-{ID}.scope"

# What a scrape of the kubelet would add, as the configuration asks for it.
OF_THE_SCRAPE = {"job": "kubelet", "metrics_path": "/metrics/cadvisor", "cluster": "prod"}
LABELS = {
    NODE: {"id": NODE, "node": "node-1"},
    QOS: {"id": QOS, "node": "node-1"},
    POD: {"id": POD, "node": "node-1", "namespace": "shop", "pod": "cart"},
    CONTAINER: {
        "id": CONTAINER,
        "node": "node-1",
        "namespace": "shop",
        "pod": "cart",
        "container": "app",
        "image": "docker.io/library/nginx:1.29",
        "name": ID,
    },
}

# Without group network, which cadvisor.toml does not ask for: no cgroup knows it.
DOCUMENTED = {name: labels for name, labels in ALL_DOCUMENTED.items() if not name.startswith("container_network_")}
ONLY_V1 = {"container_spec_cpu_shares", "container_memory_failcnt"}
ONLY_V2 = {name for name in DOCUMENTED if name.startswith("container_pressure_")}
# On v1 a kill is counted in the process's own cgroup alone, so of those above it there is no count.
ONLY_BOTTOM_ON_V1 = {"container_oom_events_total"}
NOT_OF_LEVELS = {"container_start_time_seconds"}

VALUES = {
    'container_cpu_usage_seconds_total{cpu="total"}': 90.5,
    "container_cpu_user_seconds_total": 60.25,
    "container_cpu_system_seconds_total": 30.25,
    "container_start_time_seconds": 1_767_323_046,
    "container_memory_usage_bytes": 5000,
    "container_memory_working_set_bytes": 4000,
    "container_memory_max_usage_bytes": 6000,
    "container_memory_rss": 2000,
    "container_memory_cache": 1500,
    "container_memory_mapped_file": 300,
    "container_memory_total_active_file_bytes": 700,
    "container_memory_total_inactive_file_bytes": 1000,
    "container_memory_swap": 400,
    "container_memory_kernel_usage": 500,
    "container_spec_cpu_quota": 50000,
    "container_spec_cpu_period": 100000,
    "container_spec_memory_limit_bytes": 8192,
    "container_spec_memory_reservation_limit_bytes": 4096,
    "container_spec_memory_swap_limit_bytes": 12288,
    "container_threads_max": 77,
    "container_threads": 7,
    "container_cpu_cfs_periods_total": 1000,
    "container_cpu_cfs_throttled_periods_total": 500,
    "container_cpu_cfs_throttled_seconds_total": 12.5,
    "container_oom_events_total": 2,
    'container_memory_failures_total{failure_type="pgfault",scope="container"}': 9000,
    'container_memory_failures_total{failure_type="pgmajfault",scope="hierarchy"}': 90,
    "container_fs_reads_bytes_total": 1024,
    "container_fs_reads_total": 4,
    "container_fs_writes_bytes_total": 2048,
    "container_fs_writes_total": 8,
}
VALUES_V1 = {"container_spec_cpu_shares": 512, "container_memory_failcnt": 3}
VALUES_V2 = {
    "container_pressure_cpu_waiting_seconds_total": 1.5,
    "container_pressure_cpu_stalled_seconds_total": 0.5,
    "container_pressure_memory_waiting_seconds_total": 2.5,
    "container_pressure_memory_stalled_seconds_total": 0.25,
    "container_pressure_io_waiting_seconds_total": 3.5,
    "container_pressure_io_stalled_seconds_total": 0.125,
}


def v2_files(cpu_usec: int, periods: int) -> dict[str, str]:
    def pressure(some_usec: int, full_usec: int) -> str:
        averages = "avg10=0.00 avg60=0.00 avg300=0.00"
        return f"some {averages} total={some_usec}\nfull {averages} total={full_usec}\n"

    return {
        "cpu.stat": f"usage_usec {cpu_usec}\nuser_usec 60250000\nsystem_usec 30250000\nnr_periods {periods}\n"
        f"nr_throttled {periods // 2}\nthrottled_usec 12500000\n",
        "cpu.max": "50000 100000\n",
        "memory.current": "5000\n",
        "memory.peak": "6000\n",
        "memory.swap.current": "400\n",
        "memory.max": "8192\n",
        "memory.min": "4096\n",
        "memory.swap.max": "12288\n",
        "memory.stat": "anon 2000\nfile 1500\nkernel 500\nfile_mapped 300\ninactive_file 1000\nactive_file 700\n"
        "pgfault 9000\npgmajfault 90\n",
        "memory.events": "low 0\nhigh 0\nmax 5\noom 2\noom_kill 2\n",
        "io.stat": "8:0 rbytes=1024 wbytes=2048 rios=4 wios=8 dbytes=0 dios=0\n",
        "pids.current": "7\n",
        "pids.max": "77\n",
        "cpu.pressure": pressure(1500000, 500000),
        "memory.pressure": pressure(2500000, 250000),
        "io.pressure": pressure(3500000, 125000),
    }


def v1_files(cpu_usec: int, periods: int) -> dict[str, str]:
    def by_device(reads: int, writes: int) -> str:
        return f"8:0 Read {reads}\n8:0 Write {writes}\n8:0 Discard 0\n8:0 Total {reads + writes}\nTotal 0\n"

    return {
        "cpuacct/cpuacct.usage": f"{cpu_usec * 1000}\n",
        "cpuacct/cpuacct.usage_user": "60250000000\n",
        "cpuacct/cpuacct.usage_sys": "30250000000\n",
        "cpu/cpu.stat": f"nr_periods {periods}\nnr_throttled {periods // 2}\nthrottled_time 12500000000\n",
        "cpu/cpu.cfs_quota_us": "50000\n",
        "cpu/cpu.cfs_period_us": "100000\n",
        "cpu/cpu.shares": "512\n",
        "memory/memory.usage_in_bytes": "5000\n",
        "memory/memory.max_usage_in_bytes": "6000\n",
        "memory/memory.limit_in_bytes": "8192\n",
        "memory/memory.soft_limit_in_bytes": "4096\n",
        "memory/memory.memsw.limit_in_bytes": "12288\n",
        "memory/memory.kmem.usage_in_bytes": "500\n",
        "memory/memory.use_hierarchy": "1\n",
        "memory/memory.failcnt": "3\n",
        "memory/memory.oom_control": "oom_kill_disable 0\nunder_oom 0\noom_kill 2\n",
        "memory/memory.stat": "cache 0\ntotal_cache 1500\ntotal_rss 2000\ntotal_mapped_file 300\ntotal_swap 400\n"
        "total_inactive_file 1000\ntotal_active_file 700\ntotal_pgfault 9000\ntotal_pgmajfault 90\n",
        "blkio/blkio.throttle.io_service_bytes_recursive": by_device(1024, 2048),
        "blkio/blkio.throttle.io_serviced_recursive": by_device(4, 8),
        "pids/pids.current": "7\n",
        "pids/pids.max": "77\n",
    }


def write(root: Path, version: Literal[1, 2], cpu_usec: int = 90_500_000, periods: int = 1000) -> None:
    """The same figures of every cgroup of the node."""
    for path in (NODE, QOS, POD, CONTAINER):
        for name, text in (v1_files if version == 1 else v2_files)(cpu_usec, periods).items():
            controller, _, file = name.rpartition("/")
            directory = root / controller / path.lstrip("/")
            directory.mkdir(parents=True, exist_ok=True)
            # The same file, as it may be open, and not truncated first, as it may be read meanwhile.
            with (directory / file).open("r+" if (directory / file).exists() else "w") as of:
                of.write(text)
    for hierarchy in root.iterdir() if version == 1 else [root]:
        (hierarchy / "cgroup.procs").touch()
    if version == 2:
        (root / "cgroup.controllers").write_text("cpu memory io pids\n")


def pod() -> dict[str, Any]:
    found = kube_api.pod("cart", uid=UID) | {"spec": {"nodeName": "node-1"}}
    found["metadata"]["namespace"] = "shop"
    found["spec"]["containers"] = [{"name": "app", "image": "nginx:1.29"}]
    running = {"running": {"startedAt": "2026-01-02T03:04:06Z"}}
    status = {"name": "app", "containerID": f"containerd://{ID}", "state": running, "image": "nginx:1.29"}
    found["status"]["containerStatuses"] = [status]
    return found


RULES = """
groups:
- name: cadvisor
  interval: 1s
  rules:
  # In a cluster, kube-state-metrics has it.
  - record: kube_pod_info
    expr: vector(1)
    labels: {cluster: prod, namespace: shop, pod: cart, node: node-1}
  - record: cpu_cores:by_container
    expr: |
      sum by (cluster, namespace, pod, container) (
        rate(container_cpu_usage_seconds_total{job="kubelet", metrics_path="/metrics/cadvisor", image!=""}[5m])
      )
      * on (cluster, namespace, pod) group_left (node)
      topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))
  - record: working_set_bytes:by_container
    expr: |
      container_memory_working_set_bytes{job="kubelet", metrics_path="/metrics/cadvisor", image!=""}
      * on (cluster, namespace, pod) group_left (node)
      topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))
  - record: working_set_of_limit:ratio
    expr: |
      container_memory_working_set_bytes{job="kubelet", container!=""}
      / (container_spec_memory_limit_bytes{job="kubelet", container!=""} > 0)
  - alert: ThrottledOften
    for: 1s
    expr: |
      sum by (cluster, namespace, pod, container) (
        increase(container_cpu_cfs_throttled_periods_total{job="kubelet", container!=""}[5m])
      )
      / sum by (cluster, namespace, pod, container) (
        increase(container_cpu_cfs_periods_total{job="kubelet", container!=""}[5m])
      )
      > 0.25
  - alert: KilledForMemory
    expr: increase(container_oom_events_total{job="kubelet", container!=""}[5m]) > 0
"""


@dataclass(frozen=True, slots=True)
class Running:
    prometheus: Prometheus
    root: Path
    version: Literal[1, 2]


@contextmanager
def running(
    directory: Path, version: Literal[1, 2], rules: str = "", schema: str = "cadvisor", features: str = ""
) -> Iterator[Running]:
    """The node's exporter, and the Prometheus that it sends to, with ``features`` of its that are off by default."""
    root = directory / "cgroup"
    root.mkdir()
    write(root, version)
    config_file = directory / "prometheus.yml"
    shutil.copy(EXAMPLES / "prometheus.yml", config_file)
    if rules:
        (directory / "rules").mkdir()
        (directory / "rules/rules.yml").write_text(rules)
    attributes = ",".join(f"{'service.name' if key == 'job' else key}={value}" for key, value in OF_THE_SCRAPE.items())
    more_flags = [f"--enable-feature={features}"] if features else []
    with prometheus(config_file, directory / "data", *more_flags) as receiver, kube_api.KubeApi() as api:
        api.add(pod())
        flags = {
            "--config": EXAMPLES / "cadvisor.toml",
            "--k8s-api-url": api.url,
            "--token-retrieval": "none",
            "--cgroup-root": root,
            "--poll-interval": "100ms",
            "--export-interval": "300ms",
            "--otlp-endpoint": f"{receiver.url}/api/v1/otlp",
            "--schema": schema,
        }
        argv = [str(word) for flag in flags.items() for word in flag]
        environ = {
            "NODE_NAME": "node-1",
            "OTEL_RESOURCE_ATTRIBUTES": attributes,
            "OTEL_SERVICE_NAME": "otel-k8s-cgroup",
        }
        with exporter(*argv, environ=clean_environ(**environ)):
            yield Running(receiver, root, version)


@pytest.mark.parametrize("version", [1, 2])
def test_names_labels_and_values_are_cadvisors(tmp_path: Path, version: Literal[1, 2]) -> None:
    """Every documented metric that this kernel has the figure for, with the documented labels and no others."""
    absent = ONLY_V2 if version == 1 else ONLY_V1
    names = set(DOCUMENTED) - absent
    with running(tmp_path, version) as node:
        # All of a cgroup's are sent at once.
        node.prometheus.wait_for(lambda: {each["id"] for each in node.prometheus.series('{id!=""}')} == set(LABELS))
        for path, labels in LABELS.items():
            found = node.prometheus.series(f'{{id="{path}"}}')
            expected = names - (ONLY_BOTTOM_ON_V1 if version == 1 and path != CONTAINER else set())
            expected -= NOT_OF_LEVELS if path in (NODE, QOS) else set()
            assert {series["__name__"] for series in found} == expected
            for series in found:
                name = series.pop("__name__")
                assert all(series.pop(label) for label in DOCUMENTED[name]), name
                assert series == labels | OF_THE_SCRAPE, name
        values = VALUES | (VALUES_V1 if version == 1 else VALUES_V2)
        for query, value in values.items():
            selector = query if "{" in query else f"{query}{{}}"
            selector = selector.replace("{", f'{{id="{CONTAINER}",', 1)
            assert [number for _, number in node.prometheus.query(selector)] == [pytest.approx(value, rel=1e-9)], query
        # The rest of what the Resource says stands apart.
        targets = [labels for labels, _ in node.prometheus.query("target_info")]
        assert {labels["k8s_container_name"] for labels in targets if "k8s_container_name" in labels} == {"app"}
        assert {labels["job"] for labels in targets if "cgroup_path" in labels} == {"kubelet"}
        # The exporter's own metrics go by its own name.
        own_series = node.prometheus.wait_for(lambda: node.prometheus.series('{__name__=~"otel_k8s_cgroup_.+"}'))
        assert {labels["job"] for labels in own_series} == {"otel-k8s-cgroup"}


def test_rules_and_alerts_written_for_the_kubelet_work(tmp_path: Path) -> None:
    """Recording rules join cAdvisor's series with others by their labels; an alert on throttling fires."""
    with running(tmp_path, 2, RULES) as node:
        prometheus = node.prometheus
        prometheus.wait_for(lambda: prometheus.query(f'container_cpu_cfs_periods_total{{id="{CONTAINER}"}}'))
        cpu_usec, periods = 90_500_000, 1000

        def throttled() -> list[dict[str, Any]]:
            nonlocal cpu_usec, periods
            cpu_usec, periods = cpu_usec + 50_000, periods + 10
            write(node.root, 2, cpu_usec, periods)
            return [alert for alert in prometheus.alerts() if alert["state"] == "firing"]

        (alert,) = prometheus.wait_for(throttled)
        of_container = {"cluster": "prod", "namespace": "shop", "pod": "cart", "container": "app"}
        assert alert["labels"] == of_container | {"alertname": "ThrottledOften"}
        assert float(alert["value"]) == pytest.approx(0.5)
        ((labels, cores),) = prometheus.wait_for(lambda: prometheus.query("cpu_cores:by_container"))
        assert labels == of_container | {"node": "node-1", "__name__": "cpu_cores:by_container"}
        assert cores > 0
        ((labels, used_bytes),) = prometheus.query("working_set_bytes:by_container")
        assert (labels["container"], labels["node"], used_bytes) == ("app", "node-1", 4000)
        ((labels, ratio),) = prometheus.query("working_set_of_limit:ratio")
        assert labels["container"] == "app"
        assert ratio == pytest.approx(4000 / 8192)
        assert prometheus.rule_errors() == []


def test_alumets_deltas_beside_need_a_feature_of_prometheus(tmp_path: Path) -> None:
    """Then both schemas arrive; without it Prometheus refuses what has deltas in it."""
    with running(tmp_path, 2, schema="alumet,cadvisor", features="otlp-deltatocumulative") as node:
        query = node.prometheus.query
        node.prometheus.wait_for(lambda: query("cgroup_memory_anonymous_bytes") and query("container_memory_rss"))
        periods = node.prometheus.wait_for(lambda: query(f'container_cpu_cfs_periods_total{{id="{CONTAINER}"}}'))
        assert [value for _, value in periods] == [1000]
        node.prometheus.wait_for(lambda: node.prometheus.series('{__name__=~"cpu_time_delta.+"}'))


def test_check_finds_a_prometheus_that_takes_no_deltas(tmp_path: Path) -> None:
    """Before a request is lost by it; with the feature that the remedy names, all is well, and nothing was stored."""
    config = tmp_path / "prometheus.yml"
    config.write_text("{}\n")
    found = []
    for number, flags in enumerate(([], ["--enable-feature=otlp-deltatocumulative"])):
        with prometheus(config, tmp_path / str(number), *flags) as server:
            endpoint = f"{server.url}/api/v1/otlp"
            settings = load(
                flags={"otlp_endpoint": endpoint, "otlp_protocol": "http/protobuf"}, environ={}, config_file=None
            )
            with contextlib.closing(Bench(settings.plain(), origins=settings.sources)) as bench:
                wanted = [check._replace(needs=()) for check in CHECKS if check.code in ("otlp-send", "otlp-deltas")]
                found.append([result.status for result in run_checks(bench, wanted)])
            assert server.series('{__name__=~"cpu.*"}') == []
    assert found == [[Status.OK, Status.FAILED], [Status.OK, Status.OK]]
