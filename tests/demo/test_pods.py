"""The demo's pods are pods: the API's schema takes them, and the exporter finds their cgroups."""

from __future__ import annotations

import json

import kubernetes_validate  # type: ignore[import-untyped] # it has no stubs
import pytest

from otel_k8s_cgroup.cgroup.locate import pod_uid
from otel_k8s_cgroup.demo.pods import NODE, PODS, DemoPod
from otel_k8s_cgroup.kube.objects import parse_pod


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.container)
@pytest.mark.parametrize(("running", "ending"), [(False, False), (True, False), (True, True)])
def test_each_state_of_a_pod_is_valid(pod: DemoPod, running: bool, ending: bool) -> None:
    """What the demo's API server tells is a v1.Pod by the API's own schema, on the demo's node."""
    told = pod.as_object(now="2026-08-01T12:00:00Z", running=running, ending=ending)
    kubernetes_validate.validate({"apiVersion": "v1", "kind": "Pod", **told}, "1.34", strict=True)
    assert told["spec"]["nodeName"] == NODE


@pytest.mark.parametrize("pod", PODS, ids=lambda pod: pod.container)
def test_cgroup_path_tells_the_uid(pod: DemoPod) -> None:
    """The exporter takes the directory for this pod's: by its uid, or the hash of a static pod's manifest."""
    assert pod_uid(pod.levels[-1]) == pod.cgroup_uid
    assert (pod.cgroup_uid != pod.uid) == pod.static


def test_the_table_has_every_kind_of_pod() -> None:
    """All three QoS classes, a static pod, one that is born and one that ends; no two with one identity."""
    assert {pod.qos for pod in PODS} == {"Guaranteed", "Burstable", "BestEffort"}
    assert [pod.static for pod in PODS].count(True) == 1
    assert [pod.born_at for pod in PODS].count(None) == len(PODS) - 1
    assert [pod.ended_at for pod in PODS].count(None) == len(PODS) - 1
    assert len({pod.uid for pod in PODS} | {pod.container_id for pod in PODS}) == 2 * len(PODS)


def test_a_mirror_pod_says_so() -> None:
    """The annotations by which a static pod's cgroup is found, and what only a kubelet writes beside them."""
    (static,) = (pod for pod in PODS if pod.static)
    written = static.as_object(now="2026-08-01T12:00:00Z", running=True)
    listed = parse_pod(json.dumps(written).encode(), NODE)
    assert listed is not None
    assert (listed.pod.uid, listed.pod.cgroup_uid) == (static.uid, static.cgroup_uid)
