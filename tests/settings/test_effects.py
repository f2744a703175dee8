"""Settings that have an effect only beside others: a warning where they are given without."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from otel_k8s_cgroup.settings import load
from otel_k8s_cgroup.settings.effects import NEEDS
from otel_k8s_cgroup.settings.model import rows

from .test_order import SAMPLES

if TYPE_CHECKING:
    from .conftest import Read

ROOT = Path(__file__).parents[2]
FILE = {"pod_source": '{ file = "pods.json" }'}
KUBELET = {"pod_source": "kubelet"}
NOWHERE = {"otlp_endpoint": "none", "scrape": "true", "health_listen": "8081"}
HTTPS = {"otlp_endpoint": "https://a:4317"}


class Case(NamedTuple):
    """A setting that lacks something."""

    key: str
    text: str
    without: dict[str, str]
    """Beside which it lacks it."""
    needs: str
    """By the warning."""
    with_it: dict[str, str]
    """What gives it that."""


CASES = [
    Case("k8s_api_url", "http://127.0.0.1:1", KUBELET, 'pod_source = "api"', {"pod_source": "api"}),
    Case("token_retrieval", "kubectl", FILE, 'pod_source = "api" or "kubelet"', KUBELET),
    Case("k8s_kubeconfig", "PEM", FILE, 'pod_source = "api" or "kubelet"', KUBELET),
    Case("k8s_ca_file", "PEM", FILE, 'pod_source = "api" or "kubelet"', KUBELET),
    Case("k8s_ca_file", "PEM", {}, "with https://", {"k8s_api_url": "https://a"}),
    Case("k8s_ca_file", "PEM", KUBELET | {"kubelet_ca_file": "PEM"}, "with https://", {"kubelet_ca_file": ""}),
    Case("kubelet_url", "https://10.0.0.1:10250", {}, 'pod_source = "kubelet"', KUBELET),
    Case("kubelet_ca_file", "PEM", {}, 'pod_source = "kubelet"', KUBELET),
    Case("kubelet_tls_server_name", "worker", {}, 'pod_source = "kubelet"', KUBELET),
    Case("kubelet_insecure", "true", {}, 'pod_source = "kubelet"', KUBELET),
    Case(
        "kubelet_insecure",
        "true",
        KUBELET | {"kubelet_url": "http://a:10255"},
        "https://",
        {"kubelet_url": "https://a"},
    ),
    Case("include_containers", "x", {}, "containers = true", {"containers": "true"}),
    Case("exclude_containers", "x", {}, "containers = true", {"containers": "true"}),
    Case("point_attributes", "false", {"schema": "semconv"}, 'schema = "alumet"', {"schema": "alumet,semconv"}),
    Case("cpu_percent_of", "node", {"schema": "cadvisor"}, 'schema = "alumet"', {"schema": "alumet"}),
    Case("cpu_percent_of", "node", {"metrics": "memory"}, 'metrics with "cpu"', {"metrics": ""}),
    Case("otlp_protocol", "http/protobuf", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("otlp_headers", "a=b", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("otlp_timeout", "1s", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("otlp_compression", "gzip", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("export_interval", "1m", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("queue_bytes", "1MiB", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("state_file", "/state", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("otlp_certificate", "PEM", NOWHERE, 'another otlp_endpoint than "none"', HTTPS),
    Case("otlp_certificate", "PEM", {"otlp_endpoint": "http://a:1"}, "an otlp_endpoint with https://", HTTPS),
    Case(
        "otlp_insecure", "true", {"otlp_endpoint": "http://a:4318"}, 'otlp_protocol = "grpc"', {"otlp_endpoint": "a:1"}
    ),
    Case("otlp_insecure", "true", {"otlp_endpoint": "http://a:1"}, "without http://", {"otlp_endpoint": "a:1"}),
    Case("otlp_insecure", "true", {}, "without http://", {"otlp_endpoint": "a:1"}),
    Case("intervals", '{ network = "1m" }', {"metrics": "cpu"}, 'metrics with "network"', {"metrics": "network"}),
    Case("intervals", '{ limits = "1m" }', {}, 'metrics with "limits"', {"metrics": "cpu,limits"}),
    Case("metrics", "cpu,hugetlb", {"schema": "cadvisor"}, "another schema than cadvisor", {"schema": "alumet"}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.key}: {case.needs}")
def test_one_that_has_no_effect_is_one_warning(
    case: Case, read: Read, pem: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With where it is from and what it needs; beside that, or at its default, there is none."""

    def warnings(flags: dict[str, str]) -> list[str]:
        caplog.clear()
        flags = {key: text.replace("PEM", pem) for key, text in flags.items()}
        read(f"{case.key} = '{case.text.replace('PEM', pem)}'", flags=flags)
        return [line for line in caplog.messages if line.startswith(case.key)]

    (line,) = warnings(case.without)
    assert "has no effect (file " in line
    assert case.needs in line
    assert warnings(case.without | case.with_it) == []


def test_the_default_asks_for_nothing(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """A file may have every key."""
    read('kubelet_insecure = false\nkubelet_url = "https://host-1:10250"\ninclude_containers = []\nintervals = ""\n')
    assert caplog.messages == []


def test_no_token_for_a_file(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """Is what is done."""
    read("token_retrieval = 'none'", flags=FILE)
    assert caplog.messages == []


def test_the_standards_variables_are_also_others(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """OTEL_EXPORTER_OTLP_INSECURE=true beside http:// is what many programs are given."""
    read(environ={"OTEL_EXPORTER_OTLP_INSECURE": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://a:4317"})
    assert caplog.messages == []


def test_several_are_a_line_each(read: Read, caplog: pytest.LogCaptureFixture) -> None:
    """In the order of the table."""
    read('intervals = { network = "1m" }\ninclude_containers = ["x"]\nkubelet_insecure = true\nmetrics = ["cpu"]\n')
    assert [line.partition(" has no effect")[0] for line in caplog.messages] == [
        "kubelet_insecure",
        "include_containers",
        "intervals: network",
    ]


def test_the_table_has_settings() -> None:
    """Each key of it is one, and has a case above."""
    keys = {key for row in NEEDS for key in row.keys}
    assert keys <= rows().keys()
    assert keys - {"otlp_client_certificate", "otlp_client_key", "k8s_context"} <= {case.key for case in CASES}


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.toml")), ids=lambda path: path.name)
def test_the_examples_have_none(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each line of them has an effect."""
    environ = {"NODE_NAME": "node-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}
    with caplog.at_level(logging.WARNING):
        load(flags={}, environ=environ, config_file=str(path), service_account_dir=tmp_path)
    assert caplog.messages == []


@pytest.mark.parametrize("key", SAMPLES)
def test_any_setting_may_be_given_alone(key: str, read: Read, pem: str) -> None:
    """The table is no reason to refuse one."""
    for text in SAMPLES[key]:
        flags = {key: text.replace("PEM", pem)}
        flags |= {"k8s_context": {"k8s_kubeconfig": pem}, "scrape": {"health_listen": "8081"}}.get(key, {})
        if key not in ("otlp_client_certificate", "otlp_client_key"):
            read(flags=flags)


@pytest.mark.parametrize(
    ("key", "text", "line"),
    [
        ("export_interval", "12s", "12s is no multiple of poll_interval, which is 5s: it is taken as 10s"),
        (
            "intervals",
            "{memory = '6s'}",
            "memory = 6s is no multiple of poll_interval, which is 5s: it is taken as 5s",
        ),
        ("intervals", "{memory = '1m'}", None),
        ("export_interval", "15s", None),
    ],
)
def test_an_interval_off_the_grid(
    read: Read, caplog: pytest.LogCaptureFixture, key: str, text: str, line: str | None
) -> None:
    """It is rounded to the grid of poll_interval, with a warning that says to what."""
    read(environ={f"OTEL_K8S_CGROUP_{key.upper()}": text})
    lines = [record.getMessage().partition("): ")[2] for record in caplog.records]
    assert lines == ([] if line is None else [line])
