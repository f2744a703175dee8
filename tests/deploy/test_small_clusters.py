"""The values files of examples/ for kind, minikube and k3s: rendered, read by the program, pods found in each layout.

The clusters themselves are not run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.model import EntityKind
from tests.cgroup.layouts import LAYOUTS
from tests.cgroup.support import Node
from tests.cgroup.trees import Tree
from tests.deploy.files import container, of_kind
from tests.deploy.test_chart import needs_helm, read, rendered
from tests.settings.test_examples import EXAMPLES

if TYPE_CHECKING:
    from pathlib import Path

# cluster → the layouts that its nodes have, seen from where the DaemonSet mounts /sys/fs/cgroup.
OF_CLUSTER = {
    "kind": ("kind, seen from its node", "kind with the cgroupfs driver, seen from its node"),
    "minikube": ("systemd driver, Docker", "systemd driver, containerd", "cgroupfs driver, containerd"),
    "k3s": ("systemd driver, containerd", "cgroupfs driver, containerd"),
}
LAYOUT = {layout.name: layout for layout in LAYOUTS}


def values(cluster: str) -> tuple[str, str]:
    return "-f", str(EXAMPLES / f"{cluster}-values.yaml")


def test_each_values_file_is_of_a_cluster() -> None:
    """So that no values file is below examples/ that nothing renders."""
    files = EXAMPLES.glob("*-values.yaml")
    assert sorted(OF_CLUSTER) == sorted(path.name.removesuffix("-values.yaml") for path in files)


@needs_helm
@pytest.mark.parametrize(("cluster", "layout"), [(name, each) for name, of in OF_CLUSTER.items() for each in of])
def test_the_pods_of_a_node_are_found(cluster: str, layout: str, tmp_path: Path) -> None:
    """With the image that `make image` builds, never pulled, and the cgroup root that the program reads in the pod."""
    objects = rendered(*values(cluster))
    spec = container(objects).spec
    assert (spec["image"], spec["imagePullPolicy"]) == (f"otel-k8s-cgroup:{__version__}", "Never")
    assert f" {spec['image']}" in (EXAMPLES / f"{cluster}-values.yaml").read_text(), "what its header loads"
    assert container(objects).volumes["/host/sys/fs/cgroup"]["hostPath"]["path"] == "/sys/fs/cgroup"
    loaded = read(objects, tmp_path)
    assert loaded.cluster_name == cluster
    assert ("k8s.cluster.name", cluster) in loaded.plain().resource_attributes

    tree = Tree(tmp_path / "node" / "cgroup")
    assert str(tree.root) == loaded.cgroup_root
    tree.make_all(LAYOUT[layout].pods.values())
    readings = Node(tree.root).read_well()
    assert {uid: (each.kind, each.path) for uid, each in readings.items()} == {
        uid: (EntityKind.POD, path) for uid, path in LAYOUT[layout].pods.items()
    }


@needs_helm
def test_the_kubelet_of_k3s_is_verified_by_the_clusters_ca(tmp_path: Path) -> None:
    """Nothing is mounted that a node of k3s does not have."""
    objects = rendered(*values("k3s"), "--set", "podSource=kubelet")
    assert of_kind("ClusterRole", objects)["rules"][0]["resources"] == ["nodes/pods"]
    loaded = read(objects, tmp_path)
    assert (loaded.pod_source.method, loaded.kubelet_ca_file) == ("kubelet", None)
    paths = [each["hostPath"]["path"] for each in container(objects).volumes.values() if "hostPath" in each]
    assert paths == ["/sys/fs/cgroup"]
