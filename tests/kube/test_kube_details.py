"""What is read of a pod's object beside who it is: workload, labels, annotations, service attributes, QoS class, …"""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.identity import pod_resource
from otel_k8s_cgroup.kube.details import MAX_TOTAL_CHARACTERS, MAX_VALUE_CHARACTERS, PodReader
from otel_k8s_cgroup.kube.objects import parse_pod
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.model import NO_DETAILS, Choice, Wanted
from tests.fakes.kube_api import mirror, pod

WORKLOAD = Wanted(attributes=frozenset({"workload"}))
EVERYTHING = Wanted(
    attributes=frozenset({"workload", "qos_class", "priority_class", "ip", "hostname"}),
    labels=("*",),
    annotations=("*",),
    service=True,
    containers=True,
)
IDENTITY = {"k8s.pod.uid", "k8s.pod.name", "k8s.namespace.name", "k8s.node.name", "k8s.pod.start_time", "cgroup.path"}


def resource(obj: dict[str, Any], wanted: Wanted, shared: tuple[tuple[str, str], ...] = ()) -> dict[str, Any]:
    """What the Resource of the pod ``obj`` says beside its identity."""
    listed = parse_pod(json.dumps(obj).encode(), "node-1", reader=PodReader(wanted))
    assert listed is not None
    attributes = pod_resource(listed.pod, "/path", shared)
    assert len(dict(attributes)) == len(attributes)
    return {key: value for key, value in attributes if key not in IDENTITY}


def owned(kind: str, name: str, api: str = "apps/v1", *, pod_name: str = "web-0", **metadata: Any) -> dict[str, Any]:
    """A pod whose controller is that one."""
    owner = {"apiVersion": api, "kind": kind, "name": name, "uid": "o-uid", "controller": True}
    return pod(pod_name, ownerReferences=[owner], **metadata)


HASH = {"pod-template-hash": "7d4b9c6f5d"}
ROLLOUT_HASH = {"rollouts-pod-template-hash": "7d4b9c6f5d"}
OURS = "otel_k8s_cgroup.workload"
CHAINS: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "Deployment": (
        owned("ReplicaSet", "checkout-7d4b9c6f5d", labels=HASH),
        {
            "k8s.deployment.name": "checkout",
            "k8s.replicaset.name": "checkout-7d4b9c6f5d",
            "k8s.replicaset.uid": "o-uid",
        },
    ),
    "Deployment whose name has dashes": (
        owned("ReplicaSet", "a-7d4b9c6f5d-7d4b9c6f5d", labels=HASH),
        {
            "k8s.deployment.name": "a-7d4b9c6f5d",
            "k8s.replicaset.name": "a-7d4b9c6f5d-7d4b9c6f5d",
            "k8s.replicaset.uid": "o-uid",
        },
    ),
    "ReplicaSet of nobody": (
        owned("ReplicaSet", "frontend-v1"),
        {"k8s.replicaset.name": "frontend-v1", "k8s.replicaset.uid": "o-uid"},
    ),
    "ReplicaSet whose name does not end in the hash": (
        owned("ReplicaSet", "frontend-v1", labels=HASH),
        {"k8s.replicaset.name": "frontend-v1", "k8s.replicaset.uid": "o-uid"},
    ),
    "Argo Rollout": (
        owned("ReplicaSet", "checkout-7d4b9c6f5d", labels=ROLLOUT_HASH),
        {
            "k8s.replicaset.name": "checkout-7d4b9c6f5d",
            "k8s.replicaset.uid": "o-uid",
            f"{OURS}.kind": "Rollout",
            f"{OURS}.name": "checkout",
        },
    ),
    "StatefulSet": (
        owned("StatefulSet", "db"),
        {"k8s.statefulset.name": "db", "k8s.statefulset.uid": "o-uid"},
    ),
    "DaemonSet": (owned("DaemonSet", "agent"), {"k8s.daemonset.name": "agent", "k8s.daemonset.uid": "o-uid"}),
    "DaemonSet of a later version": (
        owned("DaemonSet", "agent", "apps/v2"),
        {"k8s.daemonset.name": "agent", "k8s.daemonset.uid": "o-uid"},
    ),
    "Job": (owned("Job", "import", "batch/v1"), {"k8s.job.name": "import", "k8s.job.uid": "o-uid"}),
    "Job named by a day": (
        owned("Job", "import-20261125", "batch/v1"),
        {"k8s.job.name": "import-20261125", "k8s.job.uid": "o-uid"},
    ),
    "Job named by seconds": (
        owned("Job", "import-1795651200", "batch/v1"),
        {"k8s.job.name": "import-1795651200", "k8s.job.uid": "o-uid"},
    ),
    "CronJob": (
        owned("Job", "nightly-report-29184015", "batch/v1"),
        {
            "k8s.cronjob.name": "nightly-report",
            "k8s.job.name": "nightly-report-29184015",
            "k8s.job.uid": "o-uid",
        },
    ),
    "ReplicationController": (
        owned("ReplicationController", "old", "v1"),
        {"k8s.replicationcontroller.name": "old", "k8s.replicationcontroller.uid": "o-uid"},
    ),
    "another kind": (
        owned("RayCluster", "ray", "ray.io/v1"),
        {f"{OURS}.kind": "RayCluster", f"{OURS}.name": "ray", f"{OURS}.uid": "o-uid"},
    ),
    "a kind of our name in another group": (
        owned("StatefulSet", "db", "apps.kruise.io/v1beta1"),
        {f"{OURS}.kind": "StatefulSet", f"{OURS}.name": "db", f"{OURS}.uid": "o-uid"},
    ),
    "a bare pod": (pod("bare"), {}),
    "a static pod's mirror": (
        pod("etcd-node-1", **mirror("3e61c214bc3ed9ff81e21474dd6cba17")),
        {"k8s.pod.annotation.kubernetes.io/config.hash": "3e61c214bc3ed9ff81e21474dd6cba17"},
    ),
    "one owner that is no controller": (
        pod("a", ownerReferences=[{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db"}]),
        {"k8s.statefulset.name": "db"},
    ),
    "two owners that are no controllers": (
        pod("a", ownerReferences=[{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": name} for name in "ab"]),
        {},
    ),
    "the controller among other owners": (
        pod(
            "a",
            ownerReferences=[
                {"apiVersion": "v1", "kind": "ConfigMap", "name": "c", "uid": "c"},
                {"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d", "controller": True},
            ],
        ),
        {"k8s.daemonset.name": "agent", "k8s.daemonset.uid": "d"},
    ),
}


@pytest.mark.parametrize("chain", CHAINS)
def test_a_pods_workload(chain: str) -> None:
    """From its owner references alone; no other object is asked for."""
    obj, attributes = CHAINS[chain]
    assert resource(obj, WORKLOAD) == attributes


@pytest.mark.parametrize(
    "owners",
    [
        None,
        7,
        "x",
        {},
        [7],
        [{"kind": "StatefulSet"}],
        [{"kind": 7, "name": "a"}],
        [{"kind": "StatefulSet", "name": "a\nb"}],
        [{"kind": "StatefulSet", "name": ""}],
        [{"kind": "StatefulSet", "name": "a" * 254}],
        [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "a"}] * 100,
        [{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "a", "controller": True, "x": "y" * 4096}],
    ],
)
def test_an_owner_that_none_writes_costs_the_workload_alone(owners: object) -> None:
    """Malformed, or larger than any controller makes it: the pod is there without one."""
    assert resource(pod("a", ownerReferences=owners), WORKLOAD) == {}


def test_nothing_is_kept_that_is_not_asked_for() -> None:
    """By default a pod is its identity: one object without details, whatever its author wrote."""
    obj = owned("ReplicaSet", "web-7d4b9c6f5d", labels=HASH, annotations={"a": "b"})
    for reader in (PodReader(), PodReader(Wanted(labels=("other",)))):
        listed = parse_pod(json.dumps(obj).encode(), "node-1", reader=reader)
        assert listed is not None
        assert listed.pod.details is NO_DETAILS


def test_labels_and_annotations_by_pattern() -> None:
    """With their own keys, empty values included, as the conventions say; nothing of the rest."""
    obj = pod(
        "a",
        labels={"app": "web", "app.kubernetes.io/name": "checkout", "tier": "", "secret": "x"},
        annotations={"example.com/owner": "team ä\n", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
    )
    wanted = Wanted(labels=("app*", "tier"), annotations=("example.com/*",))
    assert resource(obj, wanted) == {
        "k8s.pod.label.app": "web",
        "k8s.pod.label.app.kubernetes.io/name": "checkout",
        "k8s.pod.label.tier": "",
        "k8s.pod.annotation.example.com/owner": "team ä\n",
    }


def test_the_other_attributes_of_a_pod() -> None:
    """Each only where it is asked for and the API has it."""
    obj = pod("a")
    obj["spec"] |= {"priorityClassName": "system-node-critical", "hostname": "db-0"}
    obj["status"] |= {"podIP": "10.1.2.3", "qosClass": "Burstable"}
    expected = {
        "qos_class": ("otel_k8s_cgroup.qos_class", "Burstable"),
        "priority_class": ("otel_k8s_cgroup.priority_class", "system-node-critical"),
        "ip": ("k8s.pod.ip", "10.1.2.3"),
        "hostname": ("k8s.pod.hostname", "db-0"),
    }
    for name, (attribute, value) in expected.items():
        wanted = Wanted(attributes=frozenset({name}))  # type: ignore[arg-type] # one of the table
        assert resource(obj, wanted) == {attribute: value}
        assert resource(pod("b"), wanted) == ({attribute: "BestEffort"} if name == "qos_class" else {})


SERVICE = Wanted(service=True)
NAMED = {"app.kubernetes.io/name": "checkout", "app.kubernetes.io/version": "1.2"}
ANNOTATED = {f"resource.opentelemetry.io/service.{key}": f"my-{key}" for key in ("name", "version", "instance.id")}


@pytest.mark.parametrize(
    ("obj", "name", "version", "instance"),
    [
        (pod("a"), "a", None, "default.a"),
        (owned("ReplicaSet", "web-7d4b9c6f5d", labels=HASH), "web", None, "default.web-0"),
        (owned("ReplicaSet", "web"), "web", None, "default.web-0"),
        (owned("Job", "report-29184015", "batch/v1"), "report", None, "default.web-0"),
        (owned("Job", "report", "batch/v1"), "report", None, "default.web-0"),
        (owned("RayCluster", "ray", "ray.io/v1"), "web-0", None, "default.web-0"),
        (owned("StatefulSet", "db", labels=NAMED), "checkout", "1.2", "default.web-0"),
        (
            owned("StatefulSet", "db", labels=NAMED | {"app.kubernetes.io/instance": "checkout-eu"}),
            "checkout-eu",
            "1.2",
            "default.web-0",
        ),
        (
            owned("StatefulSet", "db", labels=NAMED, annotations=ANNOTATED),
            "my-name",
            "my-version",
            "default.web-0",
        ),
    ],
)
def test_service_attributes(obj: dict[str, Any], name: str, version: str | None, instance: str) -> None:
    """The first value of each that the conventions' list has; without labels and annotations that are not asked for."""
    expected = {"service.name": name, "service.namespace": "default", "service.instance.id": instance}
    assert resource(obj, SERVICE) == expected | ({"service.version": version} if version else {})


def test_annotations_become_attributes_but_say_nothing_of_who_the_pod_is() -> None:
    """An author's word counts for its own attributes; not for identity, nor against the operator's."""
    annotations = {
        f"resource.opentelemetry.io/{key}": "evil"
        for key in [
            *("k8s.pod.uid", "k8s.namespace.name", "k8s.cluster.name", "container.id", "cgroup.path", "process.pid"),
            *("otel_k8s_cgroup.qos_class", "telemetry.sdk.name", "k8s", "", "a b", "é", "x" * 129, "team"),
            *("k8s_pod_name", "K8s.pod.name", "k8s-pod-name", "container_id", "otel.k8s.cgroup.qos_class"),
            *("service.instance.id", "service_instance_id", "Service.Instance.Id"),
        ]
    } | {"resource.opentelemetry.io/deployment.environment.name": "prod", "opentelemetry.io/x": "y"}
    shared = (("team", "ours"), ("service.name", "of all"), ("k8s.cluster.name", "c1"))
    found = resource(pod("a", annotations=annotations), SERVICE, shared)
    assert found == {
        "deployment.environment.name": "prod",
        "team": "ours",
        "k8s.cluster.name": "c1",
        "service.name": "a",
        "service.namespace": "default",
        "service.instance.id": "default.a",
    }
    assert resource(pod("a", annotations=annotations), WORKLOAD, shared) == dict(shared)


def test_an_annotation_alone_makes_no_static_pod() -> None:
    """``config.hash`` is said of a pod whose cgroup is named after it, and of no other."""
    obj = pod("a", annotations={"kubernetes.io/config.hash": "3e61c214bc3ed9ff81e21474dd6cba17"})
    assert resource(obj, Wanted(annotations=("*",))) == {}


def test_what_is_kept_of_a_hostile_pod_is_bounded() -> None:
    """Values are cut, keys that no API takes are left out, and in sum no more than 16 KiB are kept of each kind."""
    hostile = {"a": "x" * 65_536, "b\n": "1", "c" * 318: "1", "d": "☃" * 2000, "e": "\x00\u2028"}
    found = resource(pod("a", labels=hostile, annotations=hostile), Wanted(labels=("*",), annotations=("*",)))
    for kind in ("label", "annotation"):
        assert found[f"k8s.pod.{kind}.a"] == "x" * MAX_VALUE_CHARACTERS
        assert found[f"k8s.pod.{kind}.d"] == "☃" * MAX_VALUE_CHARACTERS
        assert found[f"k8s.pod.{kind}.e"] == "\x00\u2028"
    assert len(found) == 6
    many = {f"key-{number:05}": "x" * 500 for number in range(1000)}
    kept = resource(pod("a", annotations=many), Wanted(annotations=("*",)))
    assert [key.rpartition(".")[2] for key in kept] == sorted(many)[: len(kept)]
    assert MAX_TOTAL_CHARACTERS - 1000 < sum(map(len, kept.values())) <= MAX_TOTAL_CHARACTERS


def test_a_map_that_no_api_takes_is_as_if_there_was_none() -> None:
    """A hundred thousand tiny labels would cost many times their bytes while they are decoded; the rest is there."""
    many = {f"{number:x}": "" for number in range(100_000)}
    obj = owned("ReplicaSet", "web-7d4b9c6f5d", labels=many | HASH, annotations={"a": "b"})
    found = resource(obj, Wanted(attributes=frozenset({"workload"}), labels=("*",), annotations=("*",)))
    assert found["k8s.deployment.name"] == "web"
    assert found["k8s.pod.annotation.a"] == "b"
    assert not any(key.startswith("k8s.pod.label.") for key in found)


FLOATS = st.floats(allow_nan=False, allow_infinity=False)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | FLOATS | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(), max_size=9), inner, max_size=3)
    ),
    max_leaves=10,
)
KEYS = st.sampled_from(
    ["app", "pod-template-hash", "app.kubernetes.io/name", "resource.opentelemetry.io/service.name", "\ud800", "é"]
)
TEXT = st.text(st.characters(), max_size=99)
FIELDS = {
    "metadata": ("labels", "annotations", "ownerReferences"),
    "spec": ("hostname", "priorityClassName", "containers", "initContainers", "ephemeralContainers", "resources"),
    "status": ("qosClass", "podIP", "containerStatuses", "initContainerStatuses", "resources"),
}


@st.composite
def hostile(draw: st.DrawFn) -> dict[str, Any]:
    """A pod of a proper identity; what is read beside it may be anything."""
    obj = pod("evil", uid="evil")
    for part, fields in FIELDS.items():
        for field in fields:
            if draw(st.booleans()):
                named = st.dictionaries(KEYS, ANY | TEXT, max_size=6)
                # Annotations decide which cgroup is a pod's: where they are none, there is no pod.
                obj[part][field] = draw(named if field == "annotations" else ANY | named)
    return obj


@given(hostile())
def test_whatever_a_pod_says_it_is_there_and_changes_nobody_else(obj: dict[str, Any]) -> None:
    """Its identity is what it was, its attributes are texts that UTF-8 has, and its neighbour is untouched."""
    good = owned("StatefulSet", "db", pod_name="good", uid="good", labels={"app": "web"})
    alone, together = (PodStore("node-1", reader=PodReader(EVERYTHING)) for _ in range(2))
    alone.replace([json.dumps(good).encode()])
    together.replace([json.dumps(each).encode() for each in (obj, good)])
    assert together.skipped_objects == 0
    evil, neighbour = together.pods
    assert (neighbour,) == alone.pods
    attributes = dict(pod_resource(evil, "/path"))
    assert [attributes[key] for key in ("k8s.pod.uid", "k8s.pod.name", "cgroup.path")] == ["evil", "evil", "/path"]
    for key, value in attributes.items():
        assert isinstance(value, str)
        (key + value).encode()


# --- which pods are measured ---


def chosen(choice: Choice, *objects: dict[str, Any]) -> tuple[set[str], set[str]]:
    """The names of those that are measured, and of those that are left out."""
    store = PodStore("node-1", reader=PodReader(choice=choice))
    store.replace([json.dumps(each).encode() for each in objects])
    return {each.name for each in store.pods}, {each.name for each in store.excluded}


def of_class(name: str, qos: str | None, **resources: Any) -> dict[str, Any]:
    obj = pod(name)
    obj["spec"]["containers"] = [{"name": "main", "resources": resources}]
    obj["status"] |= {"qosClass": qos} if qos else {}
    return obj


FULL = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("choice", "taken"),
    [
        (Choice(), "abcd"),
        (Choice(include_namespaces=("team-*",)), "ab"),
        (Choice(exclude_namespaces=("team-b", "kube-*")), "ac"),
        (Choice(include_namespaces=("team-*",), exclude_namespaces=("*-b",)), "a"),
        (Choice(pod_selector="app=web"), "ac"),
        (Choice(pod_selector="app!=web"), "bd"),
        (Choice(pod_selector="app=web", exclude_namespaces=("shop",)), "a"),
        (Choice(exclude_namespaces=("*",)), ""),
    ],
)
def test_pods_are_chosen_by_namespace_and_label(choice: Choice, taken: str) -> None:
    """What is excluded is still known, so that its cgroup is nobody else's and no surprise."""
    namespaces = {"a": "team-a", "b": "team-b", "c": "shop", "d": "kube-system"}
    labels = {"a": {"app": "web"}, "b": {}, "c": {"app": "web"}, "d": {"app": "dns"}}
    objects = [pod(name, namespace=namespaces[name], labels=labels[name]) for name in "abcd"]
    assert chosen(choice, *objects) == (set(taken), set("abcd") - set(taken))


@pytest.mark.parametrize(
    ("qos", "resources", "is_of"),
    [
        ("Guaranteed", {}, "Guaranteed"),
        (None, {}, "BestEffort"),
        (None, {"limits": FULL, "requests": FULL}, "Guaranteed"),
        (None, {"limits": FULL}, "Guaranteed"),
        (None, {"limits": FULL, "requests": {"cpu": "500m"}}, "Burstable"),
        (None, {"limits": {"cpu": "1"}}, "Burstable"),
        (None, {"requests": {"memory": "1"}}, "Burstable"),
        ("nonsense", {"requests": {"memory": "1"}}, "Burstable"),
    ],
)
def test_pods_are_chosen_by_qos_class(qos: str | None, resources: dict[str, Any], is_of: str) -> None:
    """As the API says it; where it does not, as Kubernetes derives it."""
    for each in ("Guaranteed", "Burstable", "BestEffort"):
        taken, _ = chosen(Choice(qos_classes=(each,)), of_class("a", qos, **resources))
        assert bool(taken) is (each == is_of)


def test_a_change_of_labels_moves_a_pod_between_the_two() -> None:
    """With the next event."""
    store = PodStore("node-1", reader=PodReader(choice=Choice(pod_selector="app=web")))
    for labels, counts in (({"app": "web"}, (1, 0)), ({"app": "db"}, (0, 1)), ({"app": "web"}, (1, 0))):
        store.put(json.dumps(pod("a", labels=labels)).encode())
        assert (len(store.pods), len(store.excluded)) == counts


def test_an_excluded_pods_figures_go_to_nobody() -> None:
    """A pod that is measured cannot claim the cgroup of one that is not; nor the other way round."""
    uid = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
    victim, thief = pod("victim", namespace="a", uid=uid), pod("thief-node-1", namespace="b", uid="t", **mirror(uid))
    for excluded, measured in (("a", ("t", "t")), ("b", (uid, uid))):
        store = PodStore("node-1", reader=PodReader(choice=Choice(exclude_namespaces=(excluded,))))
        store.replace([json.dumps(each).encode() for each in (thief, victim)])
        assert [(each.uid, each.cgroup_uid) for each in store.pods] == [measured]
        assert store.refused_claims == 1


def test_behind_a_selector_only_what_a_kubelet_reports_of_may_claim() -> None:
    """The API server hides whose cgroup it may be: a mirror is believed once it has a start time."""
    store = PodStore("node-1", hides_others=True)
    static = pod("etcd-node-1", uid="m", **mirror("3e61c214bc3ed9ff81e21474dd6cba17"))
    store.put(json.dumps(static | {"status": {}}).encode())
    assert [each.cgroup_uid for each in store.pods] == []
    store.put(json.dumps(static).encode())
    assert [each.cgroup_uid for each in store.pods] == ["3e61c214bc3ed9ff81e21474dd6cba17"]


@pytest.mark.parametrize(
    ("value", "wanted", "expected"),
    [
        (True, Wanted(network=True), True),
        (True, Wanted(network=True, containers=True), True),
        (True, Wanted(containers=True), False),
        (False, Wanted(network=True), False),
        ("true", Wanted(network=True), False),
        (None, Wanted(network=True), False),
    ],
)
def test_that_a_pod_is_on_the_hosts_network(value: object, wanted: Wanted, expected: bool) -> None:
    """Known where it is asked for; a value of another type is as if it was absent."""
    obj = pod("web-0")
    obj["spec"]["hostNetwork"] = value
    listed = parse_pod(json.dumps(obj).encode(), "node-1", reader=PodReader(wanted))
    assert listed is not None
    assert listed.pod.details.host_network is expected
