"""A real Prometheus by examples/scrape.yml scrapes what it also gets over OTLP: the two are the same series."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml

from otel_k8s_cgroup.settings import load
from tests.collectors.programs import free_ports
from tests.collectors.prometheus import prometheus, why_not
from tests.collectors.test_prometheus import CONTAINER, DOCUMENTED, EXAMPLES, LABELS, NODE, ONLY_V1, POD, pod, write
from tests.fakes import kube_api
from tests.programs import clean_environ, exporter

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))

SCRAPED, SENT = 'job="otel-k8s-cgroup"', 'job="kubelet"'
OF_THE_TARGET = {"job", "instance"}


def test_what_is_scraped_is_what_is_sent(tmp_path: Path) -> None:
    """By each schema's names; by cAdvisor's and Alumet's labels too, where those of the target give way. A container
    that has ended is gone with the next scrape, and not five minutes later.
    """
    root = tmp_path / "cgroup"
    root.mkdir()
    write(root, 2)
    (port,) = free_ports(1)
    config = yaml.safe_load((EXAMPLES / "scrape.yml").read_text())
    (job,) = config["scrape_configs"]
    labels = {"namespace": "monitoring", "pod": "otel-k8s-cgroup-x", "container": "exporter"}
    job |= {"scrape_interval": "1s", "scrape_timeout": "1s"}
    job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"], "labels": labels}]
    config_file = tmp_path / "prometheus.yml"
    config_file.write_text(yaml.safe_dump(config))
    with (
        prometheus(config_file, tmp_path / "data", "--enable-feature=otlp-deltatocumulative") as receiver,
        kube_api.KubeApi() as api,
    ):
        api.add(pod())
        flags = {
            "--config": EXAMPLES / "cadvisor.toml",
            "--k8s-api-url": api.url,
            "--token-retrieval": "none",
            "--cgroup-root": root,
            "--poll-interval": "250ms",
            "--otlp-endpoint": f"{receiver.url}/api/v1/otlp",
            "--schema": "alumet,semconv,cadvisor",
            "--health-listen": f"127.0.0.1:{port}",
            "--scrape": "true",
        }
        environ = clean_environ(NODE_NAME="node-1", OTEL_RESOURCE_ATTRIBUTES="service.name=kubelet")
        with exporter(*(str(word) for flag in flags.items() for word in flag), environ=environ):
            receiver.wait_for(lambda: receiver.query(f'container_threads{{{SCRAPED},id="{CONTAINER}"}}'))
            receiver.wait_for(lambda: receiver.query(f'cpu_time_delta_nanoseconds_total{{{SENT},container="app"}}'))
            of_scrape, of_otlp = (
                [
                    {key: value for key, value in each.items() if key not in OF_THE_TARGET}
                    for each in receiver.series(f"{{{which},__name__!~'.+_info|otel_k8s_cgroup_.+|up|scrape_.+'}}")
                ]
                for which in (SCRAPED, SENT)
            )
            assert {each["__name__"] for each in of_scrape} == {each["__name__"] for each in of_otlp}
            for path, expected in LABELS.items():
                found = [each for each in of_scrape if each.get("id") == path]
                sent = [each for each in of_otlp if each.get("id") == path]
                assert sorted(found, key=str) == sorted(sent, key=str)
                if path == CONTAINER:
                    assert {each["__name__"] for each in found} == DOCUMENTED.keys() - ONLY_V1
                assert all(expected.items() <= each.items() for each in found)
            of_alumet = [[each for each in which if "resource_kind" in each] for which in (of_scrape, of_otlp)]
            without_pod = [{key: value for key, value in each.items() if key != "pod"} for each in of_alumet[0]]
            assert sorted(without_pod, key=str) == sorted(of_alumet[1], key=str) != []
            for query, value in {
                f'container_cpu_usage_seconds_total{{{SCRAPED},id="{CONTAINER}"}}': 90.5,
                f'cpu_time_delta_nanoseconds_total{{{SCRAPED},name="cart",container="",kind="total"}}': 90.5e9,
                f"k8s_pod_memory_usage_bytes{{{SCRAPED}}} * on (k8s_pod_uid) k8s_pod_info": 5000,
                f"otel_k8s_cgroup_pods{{{SCRAPED}}}": 1,
            }.items():
                assert [number for _, number in receiver.query(query)] == [pytest.approx(value)], query
            shutil.rmtree(root / CONTAINER.lstrip("/"))
            # After a scrape that failed there would be nothing at all.
            receiver.wait_for(
                lambda: (
                    not receiver.query(f'{{{SCRAPED},container_id!=""}}')
                    and receiver.query(f'container_threads{{{SCRAPED},id="{POD}"}}')
                    and receiver.query(f'container_threads{{{SCRAPED},id="{NODE}"}}')
                )
            )


def test_the_example_is_what_it_says() -> None:
    """Its file for Prometheus is about these settings."""
    text = (EXAMPLES / "scrape.yml").read_text()
    assert 'health_listen = "0.0.0.0:8081" and scrape = true' in text
    loaded = load(flags={"health_listen": "0.0.0.0:8081", "scrape": "true"}, environ={}, config_file=None)
    assert (loaded.health_listen, loaded.scrape) == ("0.0.0.0:8081", True)
