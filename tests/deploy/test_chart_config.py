"""What the chart's values may be: settings of `config` as the program reads them, and what Helm refuses."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import jsonschema
import pytest
import yaml

from deploy import helm, render
from otel_k8s_cgroup import settings
from otel_k8s_cgroup.errors import SettingsError
from otel_k8s_cgroup.settings.model import rows
from tests.deploy.files import REPOSITORY, container, of_kind
from tests.deploy.test_chart import NODE, needs_helm, read, refusal, rendered, values_file
from tests.settings.test_order import SAMPLES, needed_by

if TYPE_CHECKING:
    from pathlib import Path

INSTEAD = set(
    re.findall(r'^  "(\w+)" "', (helm.CHART / "templates/_contradictions.tpl").read_text(), flags=re.MULTILINE)
)
"""The settings that other values of the chart set."""


def test_the_schema_knows_each_value_and_no_other() -> None:
    """Objects with set keys are closed, and have the keys of values.yaml."""

    def compare(schema: Any, values: Any, where: str) -> None:
        if schema.get("additionalProperties") is False and where != ".config":
            assert schema["properties"].keys() - {"global"} == values.keys(), where
            for key, value in values.items():
                compare(schema["properties"][key], value, f"{where}.{key}")

    schema = json.loads(render.SCHEMA.read_text())
    assert schema["additionalProperties"] is False
    compare(schema, yaml.safe_load((helm.CHART / "values.yaml").read_text()), "")


ANYTHING: list[Any] = [
    0, 5, -1, 1.5, 1048576, 1e6, True, False, "", " ", "5", "5s", " 1m 30s ", "true", "FALSE", "none", "16 MiB", "n-1",
    "/dev/null", "127.0.0.1:80", "https://x:1", "a=b", [], ["cpu"], ["CPU", "Io"], ["x"], [5], {}, {"file": "/x"},
    {"memory": "10s"}, {"memory": 10}, {"a": "b"}, '{ file = "/x" }', "cadvisor, SEMCONV", "burstable", "x\ny",
    " kubelet\n", "API", " Auto ", " none ", "Grpc\n", " Warning ", "gzip\n", ["cpu "],
]  # fmt: skip


@pytest.mark.parametrize("key", rows())
def test_the_schema_refuses_nothing_that_the_program_takes(key: str) -> None:
    """Of whatever type; where an environment variable is in it, the program alone knows."""
    schema = jsonschema.Draft7Validator(json.loads(render.SCHEMA.read_text()))
    jsonschema.Draft7Validator.check_schema(schema.schema)
    needed = needed_by(key, "/dev/null")
    for value in [*ANYTHING, *SAMPLES[key]]:
        if not schema.is_valid({"config": {key: value}}):
            with pytest.raises(SettingsError):
                settings.load(flags={**needed, key: value}, environ={}, config_file=None)
    assert schema.is_valid({"config": {key: None}})
    assert schema.is_valid({"config": {key: "a ${VARIABLE} in it"}})


@needs_helm
def test_helm_takes_every_setting_as_its_example_has_it(tmp_path: Path) -> None:
    """With the types of YAML, all in one file."""
    file = tmp_path / "values.yaml"
    text = re.sub(r"^# (?=\w+ = )", "", (REPOSITORY / "examples/otel-k8s-cgroup.toml").read_text(), flags=re.MULTILINE)
    others = {key: value for key, value in tomllib.loads(text.replace(r"\${", "${")).items() if key not in INSTEAD}
    file.write_text(yaml.safe_dump({"config": others}))
    (config,) = container(rendered("-f", str(file))).config.values()
    assert others.items() <= tomllib.loads(config["config.toml"]).items()
    assert len(others) + len(INSTEAD) == len(rows())


@needs_helm
def test_a_changed_setting_starts_the_pods_anew(tmp_path: Path) -> None:
    """So does a changed header; nothing else that is rendered twice differs."""

    def annotations(*arguments: str) -> Any:
        return of_kind("DaemonSet", rendered(*arguments))["spec"]["template"]["metadata"]["annotations"]

    assert annotations() == annotations()
    assert annotations() != annotations("--set", "config.poll_interval=1s")
    of_headers = [annotations("--set", f"otlp.headers.a={value}") for value in ("one", "two")]
    assert of_headers[0] != of_headers[1] != annotations()


@needs_helm
@pytest.mark.parametrize("text", ['a"b\\c', "<&>", "é\t\u2028", "a = b # no comment", "\\${HOME}", "'''"])
def test_a_setting_is_read_as_it_is_written(text: str, tmp_path: Path) -> None:
    """Whatever characters it has, at the end of a table in a table."""
    values = tmp_path / "values.yaml"
    values.write_text(json.dumps({"config": {"token_retrieval": {"file": text}}}))
    loaded = read(rendered("-f", str(values)), tmp_path / "read")
    assert loaded.token_retrieval.file == text.replace("\\${", "${")


@needs_helm
@pytest.mark.parametrize("number", [1048576, 67108864, 1073741824])
def test_a_number_stays_one(number: int, tmp_path: Path) -> None:
    """Helm's own numbers of YAML are floating-point, 1e+06."""
    values = tmp_path / "values.yaml"
    values.write_text(f"config: {{queue_bytes: {number}}}\n")
    assert read(rendered("-f", str(values)), tmp_path / "read").queue_bytes == number


@needs_helm
def test_a_kubelet_is_asked_where_nodes_have_ipv6_alone(tmp_path: Path) -> None:
    """At the node's address, whose certificate is for the node's name."""
    loaded = read(rendered("-f", values_file("kubelet")), tmp_path, host_ip="fd00::1")
    assert (loaded.kubelet_url, loaded.kubelet_tls_server_name) == ("https://[fd00::1]:10250", NODE)


@needs_helm
def test_what_is_null_is_not_written(tmp_path: Path) -> None:
    """As Helm has it for its own values: the default, also of one entry of a table; nothing is in a list for it."""
    nulls = ("config.poll_interval=null", "config.intervals.memory=null", "config.intervals.io=10s")
    objects = rendered("-f", values_file("kubelet"), "--set", ",".join([*nulls, "config.kubelet_tls_server_name=null"]))
    assert "null" not in container(objects).config["otel-k8s-cgroup"]["config.toml"]
    loaded = read(objects, tmp_path / "some")
    assert [group for group, _ in loaded.intervals] == ["io"]
    assert loaded.kubelet_tls_server_name == NODE
    unchecked = ("--skip-schema-validation", "--set", "config.metrics={cpu,null,io}")
    assert read(rendered(*unchecked), tmp_path / "list").metrics == ("cpu", "io")
    assert read(rendered("--set", "config=null"), tmp_path / "none").sources["poll_interval"] == "default"


@needs_helm
def test_a_setting_wins_over_what_the_chart_makes_of_it(tmp_path: Path) -> None:
    """Also one that is empty."""
    objects = rendered("-f", values_file("kubelet"), "--set-string", "config.kubelet_tls_server_name=")
    assert read(objects, tmp_path).kubelet_tls_server_name is None


REFUSED = {
    "config.metrics={cpu,network}": "config.metrics has network, but hostPID is false",
    "config.metrics=network": "config.metrics has network, but hostPID is false",
    "config.metrics={Network}": "config.metrics has network, but hostPID is false",
    "config.metrics=CPU\\, NetWork": "config.metrics has network, but hostPID is false",
    "hostPID=true": "hostPID is set, but config.metrics has no network",
    "config.k8s_node=x": "config.k8s_node: leave it out: it is the pod's own node",
    "config.cgroup_root=/x": "config.cgroup_root: set cgroupRoot instead",
    "config.state_file=/x": "config.state_file: set state instead",
    "config.pod_source=kubelet": "config.pod_source: set podSource instead",
    "config.otlp_endpoint=http://x": "config.otlp_endpoint: set otlp.endpoint instead",
    "config.otlp_headers=a=b": "config.otlp_headers: set otlp.headers or otlp.headersSecret instead",
    "config.poll_interval=5": "'/config/poll_interval': got number, want null or string",
    "config.poll_interval=5 parsecs": "'/config/poll_interval'",
    "config.metrics={cpus}": "'/config/metrics/0': 'cpus' does not match",
    "config.point_attributes=1": "'/config/point_attributes'",
    "config.point_attributes=yes": "'/config/point_attributes'",
    "config.log_level=loud": "'/config/log_level'",
    "config.poll_intervall=1s": "additional properties 'poll_intervall' not allowed",
    "podSources=kubelet": "additional properties 'podSources' not allowed",
    "podSource=file": "'/podSource'",
    "state.kind=pvc": "'/state/kind'",
    "otlp.endpoint=collector:4317": 'otlp.endpoint is "collector:4317": give a URL that begins with http:// or https://',
    "otlp.endpoint=": 'otlp.endpoint is ""',
    "otlp.endpoint=http://user:word@collector:4317": "has no user",
    "otlp.headers.a=é": "'/otlp/headers/a'",
    "otlp.headers.a=b,otlp.headersSecret.name=x": "otlp.headers and otlp.headersSecret.name are both set: keep one",
    "otlp.tls.secret=x": "otlp.tls.secret is set, but otlp.endpoint is http://",
    "otlp.tls.secret=x,otlp.tls.ca=,otlp.endpoint=https://x": "neither otlp.tls.ca nor otlp.tls.certificate",
    "otlp.tls.certificate=tls.crt": "otlp.tls.certificate and otlp.tls.key belong together",
    "otlp.tls.certificate=a,otlp.tls.key=b": "otlp.tls.certificate is set without otlp.tls.secret",
    "kubelet.nodesProxy=true": "kubelet.nodesProxy is set, but podSource is api",
    "rbac.create=false,rbac.extraRules[0].verbs[0]=get": "rbac.extraRules is set, but rbac.create is false",
    "podMonitor.create=true,health.enabled=false": "podMonitor.create is set, but health.enabled is false",
    "podMonitor.create=true,networkPolicy.create=true": "name in networkPolicy.scrapeFrom who may scrape",
    "config.health_listen=:1": "config.health_listen: set health instead",
    "otlp.endpoint=none": "otlp.endpoint is none, but health.scrape is not set",
    "otlp.endpoint=none,health.scrape=true,otlp.headers.a=b": "otlp.headers, otlp.headersSecret or otlp.tls is set",
    "config.scrape=true": "config.scrape: set health.scrape instead",
    "health.scrape=true,health.enabled=false": "health.scrape is set, but health.enabled is false",
    "health.address=localhost": "'/health/address'",
    "updateStrategy.type=onDelete": "'/updateStrategy/type'",
    r"podLabels.app\.kubernetes\.io/name=x": "podLabels has app.kubernetes.io/name, which the chart sets itself",
    r"podLabels.app\.kubernetes\.io/instance=x": "podLabels has app.kubernetes.io/instance, which",
    r"podLabels.app\.kubernetes\.io/version=x": "podLabels has app.kubernetes.io/version, which the chart sets itself",
    r"podMonitor.labels.app\.kubernetes\.io/name=x": "podMonitor.labels has app.kubernetes.io/name, which",
    "podAnnotations.otel-k8s-cgroup/config=x": "podAnnotations has otel-k8s-cgroup/config, which the chart sets itself",
    "serviceAccount.create=false": "serviceAccount.create is false: name the account",
}


@needs_helm
@pytest.mark.parametrize("arguments", REFUSED)
def test_a_contradiction_is_refused(arguments: str) -> None:
    """In one line that names the value, and what to set."""
    assert REFUSED[arguments] in refusal("--set", arguments)


@needs_helm
def test_an_older_cluster_gets_the_larger_right_only_by_name() -> None:
    """Before 1.33 a kubelet asks for nodes/proxy, which runs commands in pods, too."""
    kubelet = ("--set", "podSource=kubelet")
    assert "allow it by kubelet.nodesProxy=true" in refusal(*kubelet, kube_version="1.32.4")
    objects = rendered(*kubelet, "--set", "kubelet.nodesProxy=true", kube_version="1.32.4")
    (rule,) = of_kind("ClusterRole", objects)["rules"]
    assert rule == {"apiGroups": [""], "resources": ["nodes/proxy"], "verbs": ["get"]}
    assert "kubeVersion" in refusal(kube_version="1.24.0")
