"""The files under examples/ are read as they are, and say what is true."""

from __future__ import annotations

import re
import tomllib
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.model import TokenRetrieval
from otel_k8s_cgroup.schemas import cadvisor, select
from otel_k8s_cgroup.settings import Settings, load

from .test_order import attribute

if TYPE_CHECKING:
    from .conftest import Refused

EXAMPLES = Path(__file__).parents[2] / "examples"
IN_A_POD = {"NODE_NAME": "node-1", "KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def load_example(path: Path, service_account_dir: Path, environ: dict[str, str] = IN_A_POD) -> Settings:
    return load(
        flags={},
        environ=environ,
        config_file=str(path),
        hostname=lambda: "host",
        service_account_dir=service_account_dir,
    )


def test_next_to_minikube(tmp_path: Path) -> None:
    """Alumet's documented case, through kubectl proxy."""
    settings = load_example(EXAMPLES / "alumet-minikube.toml", tmp_path, environ={})
    assert (settings.k8s_node, settings.k8s_api_url) == ("minikube", "http://127.0.0.1:8080")
    assert (settings.token_retrieval, settings.k8s_ca_file) == (TokenRetrieval("auto"), None)
    assert settings.poll_interval == settings.export_interval == timedelta(seconds=5)


def test_in_a_cluster(tmp_path: Path) -> None:
    """Alumet's documented case in a pod, with the service account's CA."""
    (tmp_path / "ca.crt").write_text("PEM")
    settings = load_example(EXAMPLES / "alumet-in-cluster.toml", tmp_path)
    assert (settings.k8s_node, settings.k8s_api_url) == ("node-1", "https://kubernetes.default.svc:443")
    assert (settings.token_retrieval, settings.k8s_ca_file) == (TokenRetrieval("file"), str(tmp_path / "ca.crt"))


def test_cadvisors_names(tmp_path: Path) -> None:
    """All that the schema has of cgroups, of all that the kubelet has it of, to Prometheus' own path."""
    settings = load_example(EXAMPLES / "cadvisor.toml", tmp_path).plain()
    assert (settings.containers, settings.node_totals) == (True, True)
    assert select(settings.schemas, settings.metrics) == tuple(m for m in cadvisor.METRICS if m.group != "network")
    assert settings.otlp.protocol == "http/protobuf"
    assert settings.otlp.endpoint == "http://prometheus.monitoring.svc:9090/api/v1/otlp/v1/metrics"


@pytest.mark.parametrize("name", sorted({path.name for path in EXAMPLES.glob("*.toml")} - {"alumet-in-cluster.toml"}))
def test_an_example_is_read_outside_a_pod(name: str, tmp_path: Path) -> None:
    """With no variable set, as the README types it; Alumet's own file for a pod alone needs one."""
    assert load_example(EXAMPLES / name, tmp_path, environ={}).k8s_node in {"host", "minikube"}


def test_in_a_cluster_without_its_variable(refused: Refused) -> None:
    """Where the manifest does not set NODE_NAME, the message names it."""
    assert "NODE_NAME is not: set it" in refused((EXAMPLES / "alumet-in-cluster.toml").read_text())


def uncommented() -> str:
    """The example of every setting with each setting switched on."""
    text = (EXAMPLES / "otel-k8s-cgroup.toml").read_text()
    return re.sub(r"^# (?=\w+ = )", "", text, flags=re.MULTILINE)


def test_the_example_has_every_key(tmp_path: Path) -> None:
    """And nothing else; switched on, each is a line that the program reads."""
    settings = load_example(EXAMPLES / "otel-k8s-cgroup.toml", tmp_path)
    assert sorted(tomllib.loads(uncommented().replace(r"\${", ""))) == sorted(settings.sources)


# What is decided otherwise where nothing is written, as the example says beside it.
DECIDED = {"otlp_endpoint": "http://localhost:4317", "otlp_protocol": "grpc"}


@pytest.mark.parametrize("key", tomllib.loads(uncommented()))
def test_the_example_states_the_defaults(key: str, tmp_path: Path) -> None:
    """Each line, switched on, changes nothing: inside a pod, as the machine's own defaults are those of a pod."""
    (tmp_path / "ca.crt").write_text("PEM")
    example = tmp_path / "example.toml"
    example.write_text(uncommented().replace("/var/run/secrets/kubernetes.io/serviceaccount", str(tmp_path)))
    default = load(flags={}, environ=IN_A_POD, config_file=None, service_account_dir=tmp_path)
    written = load_example(example, tmp_path)
    assert written.sources[key] == f"file {example}"
    assert attribute(written, key) == DECIDED.get(key, attribute(default, key))
    assert written.otlp == default.otlp


def test_the_example_is_all_comments() -> None:
    """So that one can start from it without setting anything by chance."""
    assert tomllib.loads((EXAMPLES / "otel-k8s-cgroup.toml").read_text()) == {}
