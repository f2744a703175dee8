"""The manifest is one that a cluster takes, asks for no right that is not needed, and starts the program as it must."""

from __future__ import annotations

import uuid
from pathlib import Path

import kubernetes_validate  # type: ignore[import-untyped]  # it has no types
import pytest
import yaml

from otel_k8s_cgroup import __version__, settings
from otel_k8s_cgroup.model import TokenRetrieval
from tests import otlp
from tests.deploy.files import (
    DEPLOY,
    REPOSITORY,
    Object,
    asking_the_kubelet,
    container,
    kustomized,
    manifest,
    objects_in,
    of_kind,
    why_no_kustomize,
)
from tests.fakes import kube_api
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import clean_environ, exporter

NODE = "worker-7.example.com"


@pytest.mark.parametrize("version", ["1.25", "1.28", "1.31", "1.34", "1.37"])
@pytest.mark.parametrize("obj", manifest(), ids=lambda obj: str(obj["kind"]))
def test_each_object_is_valid(obj: Object, version: str) -> None:
    """The API's own schemas take it, and it has no field that they do not know."""
    kubernetes_validate.validate(obj, version, strict=True)


def test_all_parts_belong_together() -> None:
    """All is in the namespace that the manifest makes; the DaemonSet's account is the one that has the role."""
    namespace = of_kind("Namespace")["metadata"]["name"]
    account, binding, role = of_kind("ServiceAccount"), of_kind("ClusterRoleBinding"), of_kind("ClusterRole")
    daemon_set = of_kind("DaemonSet")
    assert account["metadata"]["namespace"] == daemon_set["metadata"]["namespace"] == namespace
    assert container().pod["serviceAccountName"] == account["metadata"]["name"]
    assert binding["subjects"] == [
        {"kind": "ServiceAccount", "name": account["metadata"]["name"], "namespace": namespace}
    ]
    assert binding["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": role["metadata"]["name"],
    }
    labels = daemon_set["spec"]["template"]["metadata"]["labels"]
    assert daemon_set["spec"]["selector"]["matchLabels"].items() <= labels.items()


def test_the_role_reads_pods_and_nothing_more() -> None:
    """No secret, no node, nothing to write."""
    (rule,) = of_kind("ClusterRole")["rules"]
    assert rule.keys() == {"apiGroups", "resources", "verbs"}
    assert (rule["apiGroups"], rule["resources"]) == ([""], ["pods"])
    assert sorted(rule["verbs"]) == ["list", "watch"]


@pytest.mark.skipif(why_no_kustomize() is not None, reason=str(why_no_kustomize()))
def test_it_is_a_kustomize_base() -> None:
    """`kubectl apply -k deploy` applies the very same objects."""
    assert sorted(kustomized(DEPLOY), key=str) == sorted(manifest(), key=str)


@pytest.mark.skipif(why_no_kustomize() is not None, reason=str(why_no_kustomize()))
def test_it_can_ask_the_kubelet_instead(tmp_path: Path) -> None:
    """With the kustomize component a cluster takes it, too; the right is the least that will do; and the program reads
    the kubelet's address, its certificate and the name in that.
    """
    objects = asking_the_kubelet(tmp_path)
    for obj in objects:
        kubernetes_validate.validate(obj, "1.34", strict=True)
    (rule,) = of_kind("ClusterRole", objects)["rules"]
    assert rule == {"apiGroups": [""], "resources": ["nodes/pods"], "verbs": ["get"]}
    inside = container(objects)
    assert inside.volumes["/host/kubelet.crt"]["hostPath"] == {
        "path": "/var/lib/kubelet/pki/kubelet.crt",
        "type": "File",
    }
    environ = inside.environ(NODE, places := inside.lay_out(tmp_path / "node"), host_ip="fd00::1")
    loaded = settings.load(flags={}, environ=environ, config_file=None, service_account_dir=tmp_path)
    assert loaded.pod_source.method == "kubelet"
    assert loaded.kubelet_url == "https://[fd00::1]:10250"
    assert (loaded.kubelet_tls_server_name, loaded.kubelet_ca_file) == (NODE, str(places["/host/kubelet.crt"]))
    assert not loaded.kubelet_insecure


def test_the_container_is_confined() -> None:
    """Not privileged, not root, no capability, nothing of the node's but its cgroups, and those read-only."""
    pod, spec = container().pod, container().spec
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    assert spec["securityContext"]["privileged"] is False
    assert spec["securityContext"]["allowPrivilegeEscalation"] is False
    assert spec["securityContext"]["readOnlyRootFilesystem"] is True
    assert spec["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    of_node = {path: volume for path, volume in container().volumes.items() if "hostPath" in volume}
    assert [volume["hostPath"]["path"] for volume in of_node.values()] == ["/sys/fs/cgroup"]
    for path in of_node:
        assert container().mounts[path]["readOnly"] is True
        # A runtime mounts the container's own hierarchy at /sys/fs/cgroup, over or under this one.
        assert not Path(path).is_relative_to("/sys")
        # A v1 controller that is mounted later is seen too.
        assert container().mounts[path]["mountPropagation"] == "HostToContainer"


def test_every_node_has_one_and_it_may_end_in_order() -> None:
    """Tainted nodes have pods too; the last export has the 5 s that it may take, with room; memory is bounded."""
    pod, spec = container().pod, container().spec
    assert {"operator": "Exists"} in pod["tolerations"]
    assert pod["terminationGracePeriodSeconds"] >= 10
    assert {"requests", "limits"} <= spec["resources"].keys()
    assert {"cpu", "memory"} <= spec["resources"]["requests"].keys()
    assert "memory" in spec["resources"]["limits"]
    assert spec["image"].rpartition(":")[2] == __version__


def test_the_program_reads_its_configuration_as_it_is_meant(tmp_path: Path) -> None:
    """On a node: the node's name, the cluster's API with its CA, the mounted cgroups, a place to write that exists."""
    (tmp_path / "ca.crt").write_text("the cluster's")
    places = container().lay_out(tmp_path / "node")
    environ = container().environ(NODE, places)
    loaded = settings.load(flags={}, environ=environ, config_file=None, service_account_dir=tmp_path)
    assert loaded.k8s_node == NODE
    assert loaded.k8s_api_url == "https://10.96.0.1:443"
    assert loaded.k8s_ca_file == str(tmp_path / "ca.crt")
    assert loaded.token_retrieval == TokenRetrieval("auto")
    assert loaded.pod_source.method == "api"
    cgroup, state = places["/host/sys/fs/cgroup"], places["/var/lib/otel-k8s-cgroup"]
    assert (loaded.cgroup_root, loaded.state_file) == (str(cgroup), str(state / "state.json"))
    assert container().volumes["/host/sys/fs/cgroup"]["hostPath"]["path"] == "/sys/fs/cgroup"
    assert "readOnly" not in container().mounts["/var/lib/otel-k8s-cgroup"]
    assert "emptyDir" in container().volumes["/var/lib/otel-k8s-cgroup"]
    assert (loaded.otlp.endpoint, loaded.otlp.protocol) == ("http://otel-collector.observability:4317", "grpc")


def test_the_program_runs_in_it(tmp_path: Path) -> None:
    """Started with the manifest's arguments, environment and mounts, with no home, it ships the pods of the node that
    the downward API names, and writes nowhere but to its state file.
    """
    directories = container().lay_out(tmp_path)
    tree = CgroupTree(directories["/host/sys/fs/cgroup"])
    here, elsewhere = str(uuid.uuid4()), str(uuid.uuid4())
    for uid in (here, elsewhere):
        tree.write(uid, Figures(anon=1))
    assert container().spec["args"] == ["run"]
    with kube_api.KubeApi() as api, OtlpReceiver("grpc") as receiver:
        api.add(kube_api.pod("here", node=NODE, uid=here), kube_api.pod("elsewhere", node="worker-8", uid=elsewhere))
        environ = {name: value for name, value in clean_environ().items() if name != "HOME"} | container().environ(
            NODE, directories
        )
        environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.endpoint
        files_before = files_below(tmp_path)
        with exporter(
            "--k8s-api-url", api.url, "--token-retrieval", "none", "--poll-interval", "50ms", environ=environ
        ) as program:
            receiver.wait_for(lambda messages: here in {point.pod for point in otlp.points(messages)})
            assert program.stop() == 0
    points = [point for point in otlp.points(receiver.messages) if point.pod]
    assert {point.pod for point in points} == {here}
    assert {point.resource["k8s.node.name"] for point in points} == {NODE}
    state = directories["/var/lib/otel-k8s-cgroup"] / "state.json"
    assert files_below(tmp_path) - files_before <= {state, state.with_name(state.name + ".lock")}


def files_below(directory: Path) -> set[Path]:
    return {path for path in directory.rglob("*") if path.is_file()}


def test_the_collector_of_the_examples_is_where_the_exporter_sends(tmp_path: Path) -> None:
    """A cluster takes it, Pod Security restricted included; its Service is the default endpoint, and leads to
    a receiver.
    """
    objects = objects_in((REPOSITORY / "examples/collector.yaml").read_text())
    for obj in objects:
        kubernetes_validate.validate(obj, "1.37", strict=True)
    service, deployment = of_kind("Service", objects), of_kind("Deployment", objects)
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    environ = container().environ(NODE, container().lay_out(tmp_path))
    endpoint = settings.load(flags={}, environ=environ, config_file=None, service_account_dir=tmp_path).otlp.endpoint
    assert endpoint == f"http://{name}.{namespace}:{service['spec']['ports'][0]['port']}"
    template = deployment["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    config = yaml.safe_load(of_kind("ConfigMap", objects)["data"]["config.yaml"])
    listening = config["receivers"]["otlp"]["protocols"]
    ports = {port["name"]: port["port"] for port in service["spec"]["ports"]}
    assert {name: int(each["endpoint"].rpartition(":")[2]) for name, each in listening.items()} == ports
    assert template["spec"]["securityContext"]["runAsNonRoot"] is True
