"""The chart, by real Helm: each values file below ci/ is taken by a cluster and read by the program as it is meant."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest

from deploy import helm, render
from otel_k8s_cgroup import settings
from otel_k8s_cgroup.settings.model import rows
from tests.deploy.files import Container, Object, container, objects_in, of_kind

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from otel_k8s_cgroup.settings import Settings

    Expect = Callable[[list[Object], Settings], None]
    """Asserts what one values file is for: the objects, and what the program reads of its configuration."""

NODE = "worker-7.example.com"
CI = helm.CHART / "ci"

needs_helm = pytest.mark.skipif(not helm.helm().exists(), reason="Helm is not built: `make helm` does so (it needs Go)")


def rendered(*arguments: str, kube_version: str = "1.37.0") -> list[Object]:
    return objects_in(helm.template("--kube-version", kube_version, *arguments))


def refusal(*arguments: str, kube_version: str = "1.37.0") -> str:
    """What Helm complains of."""
    with pytest.raises(subprocess.CalledProcessError) as error:
        rendered(*arguments, kube_version=kube_version)
    return str(error.value.stderr)


def read(objects: list[Object], directory: Path, host_ip: str = "10.0.0.7") -> Settings:
    """The settings that the program has in the pod, on a node with the address ``host_ip``."""
    inside = container(objects)
    secrets = {"otlp-credentials": {"otlp-headers": "authorization=Basic%20eA"}, **inside.secrets}
    inside = Container(inside.pod, inside.spec, inside.config, secrets)
    service_account = directory / "account"
    service_account.mkdir(parents=True)
    (service_account / "ca.crt").write_text("PEM")
    environ = inside.environ(NODE, inside.lay_out(directory / "node"), host_ip)
    return settings.load(flags={}, environ=environ, config_file=None, service_account_dir=service_account)


# --- one a values file ----------------------------------------------------------------------------------------------


def kinds(objects: list[Object]) -> list[str]:
    return sorted(each["kind"] for each in objects)


ALWAYS = ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "ServiceAccount"]


def expect_default(objects: list[Object], loaded: Settings) -> None:
    assert kinds(objects) == ALWAYS
    assert of_kind("ClusterRole", objects)["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]}
    ]
    assert loaded.k8s_node == NODE
    assert "hostPID" not in container(objects).pod
    assert loaded.state_file is not None
    (config,), spec = container(objects).config.values(), container(objects).spec
    assert 'health_listen = "0.0.0.0:8080"' in config["config.toml"]
    assert spec["ports"] == [{"name": "health", "containerPort": 8080}]
    probes = {name: spec[name]["httpGet"] for name in ("livenessProbe", "readinessProbe")}
    assert probes == {
        "livenessProbe": {"path": "/livez", "port": "health"},
        "readinessProbe": {"path": "/readyz", "port": "health"},
    }


def expect_kubelet(objects: list[Object], loaded: Settings) -> None:
    assert of_kind("ClusterRole", objects)["rules"] == [
        {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}
    ]
    assert (loaded.pod_source.method, loaded.kubelet_url) == ("kubelet", "https://10.0.0.7:10250")
    assert loaded.kubelet_tls_server_name == NODE
    assert str(loaded.kubelet_ca_file).endswith("kubelet-certificate")
    assert container(objects).volumes["/host/kubelet.crt"]["hostPath"]["type"] == "File"


def expect_kubelet_cluster_ca(objects: list[Object], loaded: Settings) -> None:
    assert loaded.pod_source.method == "kubelet"
    assert loaded.kubelet_ca_file is None  # so it is the API's
    assert "/host/kubelet.crt" not in container(objects).mounts


def expect_headers(objects: list[Object], loaded: Settings) -> None:
    assert loaded.otlp.headers == (("authorization", "Bearer a,b=c+d"), ("x-scope-orgid", "team 1"))
    assert kinds(objects) == sorted([*ALWAYS, "Secret"])
    others = [each for each in objects if each["kind"] != "Secret"]
    assert "Bearer" not in json.dumps(others)


def expect_headers_secret(objects: list[Object], loaded: Settings) -> None:
    assert loaded.otlp.headers == (("authorization", "Basic eA"),)
    assert kinds(objects) == ALWAYS


def expect_tls(objects: list[Object], loaded: Settings) -> None:
    target = loaded.plain().otlp
    assert target.protocol == "http/protobuf"
    files = (target.certificate_file, target.client_certificate_file, target.client_key_file)
    assert [str(path).rpartition("/")[2] for path in files] == ["ca.crt", "tls.crt", "tls.key"]
    assert container(objects).volumes["/etc/otel-k8s-cgroup/otlp-tls"]["secret"] == {"secretName": "otlp-tls"}


def expect_state_host_path(objects: list[Object], loaded: Settings) -> None:
    """One who may only give the directory away makes it the exporter's; the exporter itself stays who it is."""
    assert loaded.state_file is not None
    inside = container(objects)
    state = inside.volumes["/var/lib/otel-k8s-cgroup"]
    assert state["hostPath"] == {"path": "/var/lib/otel-k8s-cgroup", "type": "DirectoryOrCreate"}
    (first,) = inside.pod["initContainers"]
    assert first["securityContext"]["runAsUser"] == 0
    assert first["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN"]}
    assert [mount["name"] for mount in first["volumeMounts"]] == ["state"]
    assert inside.pod["securityContext"]["runAsNonRoot"] is True
    assert "runAsUser" not in inside.spec["securityContext"]


def expect_state_none(objects: list[Object], loaded: Settings) -> None:
    assert loaded.state_file is None
    assert "/var/lib/otel-k8s-cgroup" not in container(objects).mounts


def expect_network_policy(objects: list[Object], loaded: Settings) -> None:
    spec = of_kind("NetworkPolicy", objects)["spec"]
    labels = of_kind("DaemonSet", objects)["spec"]["template"]["metadata"]["labels"]
    assert spec["podSelector"]["matchLabels"].items() <= labels.items()
    assert (sorted(spec["policyTypes"]), spec["ingress"]) == (["Egress", "Ingress"], [])
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 6443, 4317, 14317]
    assert loaded.otlp.endpoint.endswith(":4317")


def expect_config(objects: list[Object], loaded: Settings) -> None:
    assert loaded.poll_interval.total_seconds() == 0.5
    assert loaded.export_interval.total_seconds() == 2
    assert (loaded.point_attributes, loaded.queue_bytes, loaded.metric_prefix) == (False, 33554432, "k8s.")
    assert loaded.token_retrieval.method == "file"
    (config,) = container(objects).config.values()
    assert 'include_namespaces = ["team-*", "default"]' in config["config.toml"]


def expect_resource_attributes(objects: list[Object], loaded: Settings) -> None:
    wanted = {"k8s.cluster.name": "prod, west", "deployment.environment.name": "production"}
    assert wanted.items() <= dict(loaded.plain().resource_attributes).items()


def expect_scheduling(objects: list[Object], loaded: Settings) -> None:
    daemon_set = of_kind("DaemonSet", objects)["spec"]
    pod, metadata = daemon_set["template"]["spec"], daemon_set["template"]["metadata"]
    assert pod["priorityClassName"] == "system-node-critical"
    assert pod["nodeSelector"] == {"kubernetes.io/os": "linux", "node-role.kubernetes.io/worker": ""}
    assert pod["tolerations"] == [{"key": "dedicated", "operator": "Exists", "effect": "NoSchedule"}]
    assert "nodeAffinity" in pod["affinity"]
    assert (metadata["labels"]["team"], metadata["annotations"]["example.com/owner"]) == ("observability",) * 2
    assert daemon_set["updateStrategy"]["type"] == "OnDelete"
    assert container(objects).spec["resources"]["requests"] == {"cpu": "20m", "memory": "80Mi"}
    assert container(objects).spec["resources"]["limits"] == {"memory": "256Mi"}


def expect_image(objects: list[Object], loaded: Settings) -> None:
    inside = container(objects)
    image = f"registry.example.com:5000/observability/otel-k8s-cgroup@sha256:{'0123456789abcdef' * 4}"
    assert (inside.spec["image"], inside.spec["imagePullPolicy"]) == (image, "Always")
    assert inside.pod["imagePullSecrets"] == [{"name": "registry-credentials"}]


def expect_namespace(objects: list[Object], loaded: Settings) -> None:
    metadata = of_kind("Namespace", objects)["metadata"]
    assert metadata["name"] == of_kind("DaemonSet", objects)["metadata"]["namespace"]
    assert metadata["labels"]["pod-security.kubernetes.io/enforce"] == "privileged"


def expect_existing_account(objects: list[Object], loaded: Settings) -> None:
    assert kinds(objects) == ["ConfigMap", "DaemonSet"]
    assert container(objects).pod["serviceAccountName"] == "metrics"


def expect_pod_monitor(objects: list[Object], loaded: Settings) -> None:
    monitor, pod = of_kind("PodMonitor", objects), of_kind("DaemonSet", objects)["spec"]["template"]
    assert monitor["metadata"]["labels"]["release"] == "prometheus"
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "health", "path": "/metrics", "interval": "15s"}
    assert container(objects).spec["ports"] == [{"name": "health", "containerPort": 9100}]
    (ingress,) = of_kind("NetworkPolicy", objects)["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [9100]
    (config,) = container(objects).config.values()
    assert 'health_listen = "[::]:9100"' in config["config.toml"]


def expect_pod_monitor_scrape(objects: list[Object], loaded: Settings) -> None:
    """Labels of who is measured are not overwritten by those of the exporter's own pod."""
    assert (loaded.scrape, loaded.schemas) == (True, ("cadvisor",))
    (endpoint,) = of_kind("PodMonitor", objects)["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "health", "path": "/metrics", "interval": "30s", "honorLabels": True}
    (ingress,) = of_kind("NetworkPolicy", objects)["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [8080]


def expect_scrape_alone(objects: list[Object], loaded: Settings) -> None:
    assert (loaded.scrape, loaded.otlp.endpoint, loaded.state_file) == (True, "", None)
    spec = of_kind("NetworkPolicy", objects)["spec"]
    assert [port["port"] for rule in spec["egress"] for port in rule["ports"]] == [53, 53, 443, 6443]


def expect_network(objects: list[Object], loaded: Settings) -> None:
    """Every process of the node is seen, and nothing else is allowed that was not."""
    assert container(objects).pod["hostPID"] is True
    assert loaded.metrics == ("cpu", "memory", "network")
    assert "hostNetwork" not in container(objects).pod


def expect_health_off(objects: list[Object], loaded: Settings) -> None:
    assert not container(objects).spec.keys() & {"ports", "livenessProbe", "readinessProbe"}
    (config,) = container(objects).config.values()
    assert "health_listen" not in config["config.toml"]


def expect_extra(objects: list[Object], loaded: Settings) -> None:
    _, rule = of_kind("ClusterRole", objects)["rules"]
    assert rule == {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}
    assert container(objects).volumes["/host/sys/fs/cgroup"]["hostPath"]["path"] == "/mnt/cgroup"
    assert container(objects).volumes["/etc/ca"] == {"name": "ca", "configMap": {"name": "ca"}}
    assert loaded.otlp.compression == "gzip"


EXPECTED: dict[str, Expect] = {
    name.removeprefix("expect_").replace("_", "-"): value
    for name, value in globals().items()
    if name.startswith("expect_")
}


def values_file(name: str) -> str:
    return str(CI / f"{name}-values.yaml")


def test_each_values_file_has_its_test() -> None:
    """And each test its file."""
    assert sorted(EXPECTED) == sorted(path.name.removesuffix("-values.yaml") for path in CI.iterdir())


@needs_helm
@pytest.mark.parametrize("name", EXPECTED)
def test_a_values_file(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Renders objects that the API's own schemas take, a pod in which the program finds its settings, and what the file
    is for; of no setting it warns that it has no effect. Everything but the extra and the asked-for stays confined as
    the plain manifest is.
    """
    objects = rendered("-f", values_file(name))
    for obj in objects:
        for version in ("1.33", "1.37"):
            if obj["kind"] != "PodMonitor":  # is none of Kubernetes' own kinds
                kubernetes_validate.validate(obj, version, strict=True)
    account = container(objects).pod["serviceAccountName"]
    for binding in (each for each in objects if each["kind"] == "ClusterRoleBinding"):
        assert [subject["name"] for subject in binding["subjects"]] == [account]
        assert binding["roleRef"]["name"] == of_kind("ClusterRole", objects)["metadata"]["name"]
    assert container(objects).spec["securityContext"] == container().spec["securityContext"]
    assert container(objects).pod["securityContext"] == container().pod["securityContext"]
    EXPECTED[name](objects, read(objects, tmp_path))
    assert caplog.messages == []


# --- all of it ------------------------------------------------------------------------------------------------------


@needs_helm
def test_the_manifest_is_the_chart_with_its_defaults() -> None:
    """To the letter; `make chart` writes it."""
    assert render.MANIFEST.read_text() == render.manifest()


def test_what_follows_from_the_program_is_written() -> None:
    """The chart's and the image's versions are the program's, and `config` may have each of its settings; `make chart`
    writes them.
    """
    assert render.DOCKERFILE.read_text() == render.dockerfile(render.DOCKERFILE.read_text())
    assert render.CHART_FILE.read_text() == render.chart_file(render.CHART_FILE.read_text())
    assert render.SCHEMA.read_text() == render.schema(render.SCHEMA.read_text())
    properties = json.loads(render.SCHEMA.read_text())["properties"]
    assert properties["config"]["properties"].keys() == rows().keys()


@needs_helm
def test_what_is_scraped_alone_has_no_state_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever state says: there is nothing to remember, and no setting without an effect."""
    objects = rendered("--set", "otlp.endpoint=none,health.scrape=true,state.kind=hostPath")
    assert read(objects, tmp_path).state_file is None
    assert caplog.messages == []


@needs_helm
def test_two_releases_do_not_share_what_has_no_namespace() -> None:
    """Of one name in two namespaces; every object but those of the cluster is in the release's namespace."""
    names = set()
    for namespace in ("team-a", "team-b"):
        objects = objects_in(helm.template(release="metrics", namespace=namespace))
        names.add(of_kind("ClusterRole", objects)["metadata"]["name"])
        for obj in objects:
            assert obj["metadata"].get("namespace") == (None if obj["kind"].startswith("Cluster") else namespace)
    assert len(names) == 2


@needs_helm
def test_pods_that_are_replaced_by_hand_have_no_roll_out() -> None:
    """The default's part for a roll-out is left out with OnDelete."""
    strategies = [
        of_kind("DaemonSet", rendered("--set", f"updateStrategy.type={each}"))["spec"]["updateStrategy"]
        for each in ("OnDelete", "RollingUpdate", "null")
    ]
    rolling = {"rollingUpdate": {"maxUnavailable": "10%"}}
    assert strategies == [{"type": "OnDelete"}, {"type": "RollingUpdate", **rolling}, rolling]


@needs_helm
@pytest.mark.parametrize("name", EXPECTED)
def test_helm_finds_nothing_to_complain_of(name: str) -> None:
    """`helm lint --strict`, with each values file."""
    command = [str(helm.helm()), "lint", "--strict", "--quiet", str(helm.CHART), "-f", values_file(name)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def notes(*arguments: str) -> str:
    """What Helm prints after an installation."""
    command = [str(helm.helm()), "install", "metrics", str(helm.CHART), "-n", "ns", "--dry-run=client", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.partition("NOTES:")[2]


@needs_helm
def test_the_notes_say_how_to_see_that_it_works() -> None:
    """With the names of this release; that headers go in plain text is a warning."""
    text = notes("--set", "otlp.endpoint=http://gateway:4318,image.repository=r.example.com/x")
    assert "to http://gateway:4318" in text
    assert "kubectl -n ns rollout status daemonset/metrics-otel-k8s-cgroup" in text
    assert "kubectl -n ns exec daemonset/metrics-otel-k8s-cgroup -- otel-k8s-cgroup check" in text
    assert "WARNING" not in text
    assert "has to be on the nodes" not in text
    assert "WARNING" in notes("--set", "otlp.headers.authorization=x")
    assert "WARNING: whatever reaches port 8080" in notes("--set", "health.scrape=true")
    assert "WARNING" not in notes("-f", values_file("pod-monitor-scrape"))
    assert "at /metrics of port 8080.\n" in notes("-f", values_file("scrape-alone"))
    assert "has to be on the nodes" in notes()


@needs_helm
@pytest.mark.parametrize("health", [True, False])
@pytest.mark.parametrize("strategy", ["RollingUpdate", "OnDelete"])
def test_the_notes_promise_what_is_so(health: bool, strategy: str) -> None:
    """A roll-out has a status only where there is one, and a pod that is ready says something only by a probe."""
    text = notes("--set", f"health.enabled={str(health).lower()},updateStrategy.type={strategy}")
    assert ("rollout status" in text) is (strategy == "RollingUpdate")
    assert ("kubectl -n ns get daemonset metrics-otel-k8s-cgroup" in text) is (strategy == "OnDelete")
    assert ("the receiver takes them" in text) is health
    assert ("health.enabled is false" in text) is not health
