"""Names and precedence of what a Resource says, apart from any encoding."""

from __future__ import annotations

import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.semconv._incubating.attributes import container_attributes, k8s_attributes, service_attributes

from otel_k8s_cgroup.identity import container_resource, node_resource, pod_resource
from otel_k8s_cgroup.model import Container, Details, Pod
from otel_k8s_cgroup.pod_attributes import Owner, packed, unpacked, workload_attributes

# The package has each name as a constant; of a template the constant is what stands before the key.
_CONVENTIONS = {
    value
    for module in (container_attributes, k8s_attributes, service_attributes)
    for name, value in vars(module).items()
    if name.isupper() and isinstance(value, str)
}
POD = Pod("u", "web-0", "shop", "node-1", "2026-01-01T00:00:00Z", "u")
TEXTS = st.text(max_size=300)


def _is_known(name: str) -> bool:
    return (
        name in _CONVENTIONS
        or re.match(r"k8s\.pod\.(label|annotation)\.", name) is not None
        or name.startswith("otel_k8s_cgroup.")
        or name == "cgroup.path"
    )


def test_every_name_is_one_of_the_conventions_or_of_ours() -> None:
    """As the package of the conventions has them; ours are under our prefix."""
    owners = [
        Owner(group, kind, "a-1", "u")
        for group, kinds in {
            "": ["ReplicationController"],
            "apps": ["DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"],
            "batch": ["CronJob", "Job"],
            "argoproj.io": ["Rollout"],
        }.items()
        for kind in kinds
    ]
    workloads: dict[str, str] = {}
    for owner in owners:
        workloads |= workload_attributes(owner, "1", None)
    others = {"k8s.pod.ip": "1", "k8s.pod.hostname": "h", "service.name": "a", "service.namespace": "b"}
    details = Details(packed({"": workloads | others, "k8s.pod.label.": {"app": "web"}}))
    container = Container("app", "app", "id", "containerd", None, 1, "image", ("v1",), ("image@sha256:0",))
    names = {
        name
        for resource in (
            container_resource(replace(POD, details=details, config_hash="h"), container, "/path"),
            node_resource("node-1", "/kubepods", "Burstable"),
        )
        for name, _ in resource
    }
    assert len(names) > 30
    assert [name for name in names if not _is_known(name)] == []


def test_the_node_and_its_qos_levels() -> None:
    """The node's name, the path, and of a level its class; what is true of all is there too."""
    shared = (("k8s.cluster.name", "c1"), ("empty", ""))
    root = {"k8s.node.name": "node-1", "cgroup.path": "/kubepods", "k8s.cluster.name": "c1"}
    assert dict(node_resource("node-1", "/kubepods", shared=shared)) == root
    level = dict(node_resource("node-1", "/kubepods/burstable", "burstable", shared))
    assert level == dict(node_resource("node-1", "/kubepods/burstable", "Burstable", shared))
    assert level == root | {"cgroup.path": "/kubepods/burstable", "otel_k8s_cgroup.qos_class": "Burstable"}


@given(st.dictionaries(st.sampled_from(["", "k8s.pod.label."]), st.dictionaries(TEXTS, TEXTS, max_size=20)))
def test_what_is_packed_is_unpacked(by_prefix: dict[str, dict[str, str]]) -> None:
    """Of any texts and any length; nothing is nothing."""
    names = [prefix + key for prefix, attributes in by_prefix.items() for key in attributes]
    values = [value for attributes in by_prefix.values() for value in attributes.values()]
    assert list(unpacked(packed(by_prefix))) == list(zip(names, values, strict=True))
    assert (packed(by_prefix) == b"") is (names == [])


@given(st.dictionaries(st.sampled_from(["k8s.pod.uid", "cgroup.path", "k8s.node.name", "team"]), TEXTS))
def test_nothing_says_who_a_pod_is_but_its_identity(claimed: dict[str, str]) -> None:
    """Whatever its details or the settings have under those names."""
    for pod, shared in ((replace(POD, details=Details(packed({"": claimed}))), ()), (POD, tuple(claimed.items()))):
        attributes = pod_resource(pod, "/path", shared)
        assert len(dict(attributes)) == len(attributes)
        found = dict(attributes)
        assert (found["k8s.pod.uid"], found["cgroup.path"], found["k8s.node.name"]) == ("u", "/path", "node-1")
