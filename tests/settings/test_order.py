"""Flags, environment, file, defaults: in that order, for every key, and each value knows where it is from."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import SettingsError

if TYPE_CHECKING:
    from .conftest import Read, Refused

# Two ways to write each setting; PEM stands for a file that is there, and may be a kubeconfig.
SAMPLES = {
    "k8s_node": ("node-1", "node-2.example.com"),
    "k8s_api_url": ("https://10.0.0.1:6443", "https://[fd00::1]:443"),
    "k8s_ca_file": ("PEM", "/dev/null"),
    "token_retrieval": ("none", '{ kubectl = { service_account = "a", namespace = "b" } }'),
    "k8s_kubeconfig": ("PEM", "PEM"),
    "k8s_context": ("a", "b"),
    "poll_interval": ("500ms", "1m30s"),
    "export_interval": ("6s", "1h"),
    "schema": ("semconv", "alumet,CADVISOR"),
    "metrics": ("cpu, io", "pressure"),
    "intervals": ('{ memory = "10s" }', '{ io = "1m", limits = "1h" }'),
    "containers": ("true", "false"),
    "include_containers": ("web,app-*", "app"),
    "exclude_containers": ("istio-*", "a,b"),
    "node_totals": ("true", "false"),
    "cpu_percent_of": ("node", "core"),
    "point_attributes": ("false", "true"),
    "include_namespaces": ("team-*,shop", "prod"),
    "exclude_namespaces": ("kube-*", "a, b"),
    "pod_selector": ("app=web,tier!=cache", "env in (prod, test)"),
    "qos_classes": ("Guaranteed, burstable", "BestEffort"),
    "pod_attributes": ("none", "workload,ip"),
    "pod_labels": ("app.kubernetes.io/*", "team,app"),
    "pod_annotations": ("example.com/*", "owner"),
    "service_attributes": ("true", "false"),
    "cluster_name": ("prod", "test"),
    "cgroup_root": ("/mnt/cgroup", "tree"),
    "pod_source": ("kubelet", '{ file = "pods.json" }'),
    "kubelet_url": ("https://10.0.0.2:10250", "http://127.0.0.1:10255"),
    "kubelet_ca_file": ("PEM", "/dev/null"),
    "kubelet_tls_server_name": ("worker-1", "10.0.0.2"),
    "kubelet_insecure": ("true", "false"),
    "log_level": ("debug", "error"),
    "metric_prefix": ("my.", "other_"),
    "metric_suffix": ("_alumet", "-x"),
    "queue_bytes": ("64KiB", "1000000"),
    "state_file": ("/state/a.json", "/state/b.json"),
    "health_listen": ("127.0.0.1:8081", "[::]:8081"),
    "scrape": ("true", "false"),
    "otlp_endpoint": ("http://a:4317", "https://b:4317"),
    "otlp_protocol": ("grpc", "http/protobuf"),
    "otlp_headers": ("a=b", "c=d,e=f"),
    "otlp_timeout": ("3s", "100ms"),
    "otlp_compression": ("gzip", "none"),
    "otlp_certificate": ("PEM", "/dev/null"),
    "otlp_client_certificate": ("PEM", "/dev/null"),
    "otlp_client_key": ("PEM", "/dev/null"),
    "otlp_insecure": ("true", "false"),
}
# What another setting has to be for these to be right.
NEEDS = {
    "k8s_context": "k8s_kubeconfig",
    "otlp_client_key": "otlp_client_certificate",
    "otlp_client_certificate": "otlp_client_key",
    "scrape": "health_listen",
}


def needed_by(key: str, pem: str) -> dict[str, object]:
    """The settings that have to be there for a key's samples to be right."""
    return {NEEDS[key]: SAMPLES[NEEDS[key]][0].replace("PEM", pem)} if key in NEEDS else {}


def attribute(settings: object, key: str) -> object:
    return getattr(settings, "schemas" if key == "schema" else key)


def test_samples_are_complete(read: Read) -> None:
    """The table above has every key there is."""
    assert list(read().sources) == list(SAMPLES)


@pytest.mark.parametrize("key", SAMPLES)
def test_flags_win_over_environment_over_file_over_default(key: str, read: Read, pem: str, config_file: Path) -> None:
    """Each place wins over the ones after it, with the whole value, and `sources` names it as one would look for it."""
    first, second = (pem if text == "PEM" else text for text in SAMPLES[key])
    needed = needed_by(key, pem)
    variable = f"OTEL_K8S_CGROUP_{key.upper()}"
    file = f"{key} = '{first}'"

    def value(text: str) -> object:
        return attribute(read(flags={key: text, **needed}), key)

    assert read().sources[key] == ("host name" if key == "k8s_node" else "default")
    settings = read(file, flags=needed)
    assert (attribute(settings, key), settings.sources[key]) == (value(first), f"file {config_file}")
    settings = read(file, environ={variable: second}, flags=needed)
    assert (attribute(settings, key), settings.sources[key]) == (value(second), f"environment {variable}")
    settings = read(file, environ={variable: second}, flags={key: first, **needed})
    flag = f"flag --{key.replace('_', '-')}"
    assert (attribute(settings, key), settings.sources[key]) == (value(first), flag)


@pytest.mark.parametrize("empty", ["", "  \n"])
def test_an_empty_variable_is_none(empty: str, read: Read) -> None:
    """As the standard has it for its own, also for ours, for NODE_NAME and for the cluster's."""
    settings = read(
        environ={
            "OTEL_K8S_CGROUP_POLL_INTERVAL": empty,
            "OTEL_EXPORTER_OTLP_ENDPOINT": empty,
            "NODE_NAME": empty,
            "HOST_IP": empty,
            "KUBERNETES_SERVICE_HOST": empty,
        }
    )
    assert settings == read()


def test_unknown_variable_is_refused(refused: Refused) -> None:
    """A misspelt variable of ours must not be passed over in silence."""
    message = refused(environ={"OTEL_K8S_CGROUP_POL_INTERVAL": "5s", "OTEL_K8S_CGROUP_LOG": "debug"})
    assert message == (
        "OTEL_K8S_CGROUP_POL_INTERVAL: unknown setting (environment); "
        "the nearest known one is OTEL_K8S_CGROUP_POLL_INTERVAL\n"
        "OTEL_K8S_CGROUP_LOG: unknown setting (environment); the nearest known one is OTEL_K8S_CGROUP_LOG_LEVEL"
    )


def test_variables_of_a_service_of_our_name_are_none_of_ours(read: Read) -> None:
    """Kubernetes sets such variables in every pod beside a service called otel-k8s-cgroup (or otel-k8s-cgroup-x)."""
    links = (
        "SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_METRICS", "PORT", "PORT_8080_TCP", "PORT_8080_TCP_PROTO",
        "PORT_8080_TCP_PORT", "PORT_8080_TCP_ADDR", "X_SERVICE_HOST", "X_PORT_53_UDP_ADDR",
    )  # fmt: skip
    assert read(environ={f"OTEL_K8S_CGROUP_{link}": "10.0.0.7" for link in links}) == read()


def test_unknown_flag_is_refused(refused: Refused) -> None:
    """The command line's own parser finds it first; a caller's slip is found here."""
    assert refused(flags={"nod": "x"}) == "--nod: unknown setting (flag); the nearest known one is --k8s-node"


def test_the_process_environment_is_not_read(tmp_path: Path) -> None:
    """Only the ``environ`` that is passed counts: neither our variables nor pydantic's guesses (``SCHEMA``)."""
    script = tmp_path / "script.py"
    script.write_text(
        "from otel_k8s_cgroup.settings import load\n"
        "settings = load(flags={}, environ={}, config_file=None, hostname=lambda: 'host')\n"
        "print(settings.k8s_node, settings.schemas, settings.poll_interval, settings.otlp.endpoint)\n"
    )
    environ = {
        "K8S_NODE": "wrong", "SCHEMA": "wrong", "NODE_NAME": "wrong", "POLL_INTERVAL": "wrong",
        "OTEL_K8S_CGROUP_POLL_INTERVAL": "wrong", "OTEL_EXPORTER_OTLP_ENDPOINT": "wrong",
    }  # fmt: skip
    repository = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, script],
        env={**environ, "PYTHONPATH": str(repository)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("host ('alumet',) 0:00:05 http://localhost:4317\n", "")


def test_settings_are_frozen(read: Read) -> None:
    """Nobody changes a setting behind another's back, nor where it is from."""
    settings = read()
    with pytest.raises(ValueError, match="frozen"):
        settings.k8s_node = "other"
    with pytest.raises(TypeError):
        settings.sources["k8s_node"] = "x"  # type: ignore[index] # that it is an error is the point


# --- defaults that hang on the machine ------------------------------------------------------------------------------


def test_the_node_is_node_name_else_the_host(read: Read) -> None:
    """The host's name is taken in lower case, as the kubelet registers it."""
    assert read().k8s_node == "host-1"
    settings = read(environ={"NODE_NAME": "node-7"})
    assert (settings.k8s_node, settings.sources["k8s_node"]) == ("node-7", "environment NODE_NAME")
    assert settings.kubelet_url == "https://node-7:10250"
    assert read(environ={"NODE_NAME": "node-7"}, flags={"k8s_node": "x"}).kubelet_url == "https://x:10250"


@pytest.mark.parametrize(
    ("environ", "url"),
    [
        ({}, "http://127.0.0.1:8080"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "6443"}, "https://10.96.0.1:6443"),
        ({"KUBERNETES_SERVICE_HOST": "10.96.0.1"}, "https://10.96.0.1:443"),
        ({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, "https://[fd00::1]:443"),
    ],
)
def test_the_api_is_the_clusters_own_inside_a_pod(environ: dict[str, str], url: str, read: Read) -> None:
    """Else it is where kubectl proxy serves it. An IPv6 address gets its brackets."""
    settings = read(environ=environ)
    where = "environment KUBERNETES_SERVICE_HOST" if environ else "default"
    assert (settings.k8s_api_url, settings.sources["k8s_api_url"]) == (url, where)


def test_a_wrong_address_of_the_cluster_names_the_variable(refused: Refused) -> None:
    """A default can be wrong too where the environment makes it."""
    message = refused(environ={"KUBERNETES_SERVICE_HOST": "10.96.0.1", "KUBERNETES_SERVICE_PORT": "tcp://x"})
    assert message.startswith("k8s_api_url: found 'https://10.96.0.1:tcp://x' (environment KUBERNETES_SERVICE_HOST);")


@pytest.mark.parametrize(
    ("address", "url"), [("10.0.0.7", "https://10.0.0.7:10250"), (" fd00::1\n", "https://[fd00::1]:10250")]
)
def test_the_kubelet_is_at_the_address_of_the_host(address: str, url: str, read: Read) -> None:
    """HOST_IP, as the downward API gives it, of either family; a kubelet's own setting wins."""
    settings = read(environ={"NODE_NAME": "node-7", "HOST_IP": address})
    assert (settings.kubelet_url, settings.sources["kubelet_url"]) == (url, "environment HOST_IP")
    assert read(environ={"HOST_IP": address}, flags={"kubelet_url": "https://x:1"}).kubelet_url == "https://x:1"


def test_a_wrong_address_of_the_host_names_the_variable(refused: Refused) -> None:
    """As one of the cluster's does."""
    message = refused(environ={"HOST_IP": "10.0.0.7,fd00::1"})
    assert message.startswith("kubelet_url: found 'https://[10.0.0.7,fd00::1]:10250' (environment HOST_IP);")


def test_the_ca_is_the_service_accounts_where_it_is_there(read: Read, tmp_path: Path) -> None:
    """Only for https, and ``""`` says: the system's all the same."""
    https = "https://10.96.0.1"
    assert read(flags={"k8s_api_url": https}, service_account_dir=tmp_path).k8s_ca_file is None
    (tmp_path / "ca.crt").write_text("PEM")
    settings = read(flags={"k8s_api_url": https}, service_account_dir=tmp_path)
    assert settings.k8s_ca_file == str(tmp_path / "ca.crt")
    assert settings.sources["k8s_ca_file"] == "service account"
    assert read(service_account_dir=tmp_path).k8s_ca_file is None
    assert read(flags={"k8s_api_url": https, "k8s_ca_file": ""}, service_account_dir=tmp_path).k8s_ca_file is None


def test_export_interval_follows_poll_interval(read: Read, refused: Refused) -> None:
    """It is poll_interval unless given, and may not be less."""
    settings = read(flags={"poll_interval": "7s"})
    assert settings.export_interval == settings.poll_interval
    assert read(flags={"poll_interval": "7s", "export_interval": "7000ms"}).export_interval == settings.poll_interval
    message = refused(environ={"OTEL_K8S_CGROUP_EXPORT_INTERVAL": "4999ms"})
    assert message == (
        "export_interval: found '4s999ms' (environment OTEL_K8S_CGROUP_EXPORT_INTERVAL); "
        "allowed: at least poll_interval, which is 5s (default)"
    )


def test_what_follows_from_a_wrong_setting_is_not_told_twice(refused: Refused) -> None:
    """export_interval and kubelet_url are made of these two, which is no second mistake."""
    message = refused(flags={"poll_interval": "5", "k8s_node": "a b"})
    assert [line.partition(":")[0] for line in message.split("\n")] == ["k8s_node", "poll_interval"]


def test_the_environment_may_name_the_file(read: Read, tmp_path: Path) -> None:
    """So a command beside `run` in a container has its settings; a flag's file wins; a missing one is refused."""
    named = tmp_path / "named.toml"
    named.write_text('metric_prefix = "named."\n')
    environ = {"OTEL_K8S_CGROUP_CONFIG": str(named)}
    assert read(environ=environ).metric_prefix == "named."
    assert read('metric_prefix = "flag."\n', environ=environ).metric_prefix == "flag."
    assert read(environ={"OTEL_K8S_CGROUP_CONFIG": " "}).metric_prefix == ""
    with pytest.raises(SettingsError, match=r"cannot read the configuration file"):
        read(environ={"OTEL_K8S_CGROUP_CONFIG": str(tmp_path / "none.toml")})
