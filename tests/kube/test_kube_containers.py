"""The containers of a pod, and what it asks for: of the spec, of the kubelet, after an in-place resize."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from otel_k8s_cgroup.identity import container_resource
from otel_k8s_cgroup.kube.details import PodReader
from otel_k8s_cgroup.kube.objects import parse_pod
from otel_k8s_cgroup.model import Container, Pod, Resources, Wanted
from tests.fakes.kube_api import pod

ID, OLD_ID = "d2bd18310b0f469c" * 4, "fc6e9647769050ba" * 4
DIGEST = f"sha256:{'0a' * 32}"
MI = 2**20


def parsed(obj: dict[str, Any], **wanted: Any) -> Pod:
    listed = parse_pod(json.dumps(obj).encode(), "node-1", reader=PodReader(Wanted(containers=True, **wanted)))
    assert listed is not None
    return listed.pod


def with_containers(*specs: dict[str, Any], statuses: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    obj = pod("web-0")
    obj["spec"]["containers"] = list(specs)
    obj["status"]["containerStatuses"] = statuses or []
    return obj


def test_a_container() -> None:
    """Every field from where the API has it."""
    spec = {
        "name": "app",
        "image": "registry:5000/team/app:v1",
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": 1, "memory": "128Mi"}},
    }
    status = {
        "name": "app",
        "containerID": f"containerd://{ID}",
        "image": "registry:5000/team/app:v1",
        "imageID": f"registry:5000/team/app@{DIGEST}",
        "ready": True,
        "restartCount": 3,
        "state": {"running": {"startedAt": "2026-01-02T03:04:05Z"}},
        "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "containerID": f"containerd://{OLD_ID}"}},
        "allocatedResources": {"cpu": "250m", "memory": "64Mi"},
        "resources": {"requests": {"cpu": "250m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "128Mi"}},
    }
    resources = Resources(250_000_000, 10**9, 64 * MI, 128 * MI)
    (container,) = parsed(with_containers(spec, statuses=[status])).containers
    assert container == Container(
        name="app",
        kind="app",
        id=ID,
        runtime="containerd",
        previous_id=OLD_ID,
        restart_count=3,
        image_name="registry:5000/team/app",
        image_tags=("v1",),
        image_repo_digests=(f"registry:5000/team/app@{DIGEST}",),
        ready=True,
        started_at="2026-01-02T03:04:05Z",
        state="running",
        state_reason=None,
        last_terminated_reason="OOMKilled",
        desired=resources,
        actual=resources,
        allocated=Resources(cpu_request_nanocores=250_000_000, memory_request_bytes=64 * MI),
    )


def test_the_resource_of_a_container() -> None:
    """The pod's identity and attributes, and its own; types as the conventions have them."""
    known = Pod("u", "web-0", "shop", "node-1", "2026-01-01T00:00:00Z", "u")
    container = Container(
        "app", "app", ID, "cri-o", None, 2, "registry:5000/app", ("v1",), (f"registry:5000/app@{DIGEST}",)
    )
    own = {
        "k8s.container.name": "app",
        "k8s.container.restart_count": 2,
        "container.id": ID,
        "container.runtime.name": "cri-o",
        "container.image.name": "registry:5000/app",
        "container.image.tags": ("v1",),
        "container.image.repo_digests": (f"registry:5000/app@{DIGEST}",),
    }
    identity = {
        "k8s.pod.uid": "u",
        "k8s.pod.name": "web-0",
        "k8s.namespace.name": "shop",
        "k8s.node.name": "node-1",
        "k8s.pod.start_time": "2026-01-01T00:00:00Z",
        "cgroup.path": "/pod/app",
    }
    assert dict(container_resource(known, container, "/pod/app")) == identity | own
    service = replace(known, details=parsed(pod("web-0"), service=True).details)
    found = dict(container_resource(service, container, "/pod/app"))
    assert found["service.instance.id"] == "shop.web-0.app"
    assert found["service.version"] == f"v1@{DIGEST}"
    bare = dict(container_resource(service, Container("app"), "/pod/app"))
    assert bare["k8s.container.restart_count"] == 0
    assert {"container.id", "container.image.tags", "service.version"}.isdisjoint(bare)


@pytest.mark.parametrize(
    ("container_id", "found"),
    [
        (f"containerd://{ID}", ("containerd", ID)),
        (f"cri-o://{ID}", ("cri-o", ID)),
        (f"docker://{ID}", ("docker", ID)),
        ("", (None, None)),
        (None, (None, None)),
        (ID, (None, None)),
        ("containerd://../../x", (None, None)),
        ("containerd://a/b", (None, None)),
        (f"containerd://{'a' * 129}", (None, None)),
        (f"containerd://{ID}\n", (None, None)),
    ],
)
def test_runtime_and_id(container_id: str | None, found: tuple[str | None, str | None]) -> None:
    """The id becomes a part of a path: it is nothing but a word."""
    obj = with_containers({"name": "app"}, statuses=[{"name": "app", "containerID": container_id}])
    (container,) = parsed(obj).containers
    assert (container.runtime, container.id) == found


@pytest.mark.parametrize(
    ("written", "running", "image"),
    [
        ("nginx:1.25", "docker.io/library/nginx:1.25", ("nginx", ("1.25",))),
        ("nginx", "docker.io/library/nginx:latest", ("nginx", ("latest",))),
        ("nginx", None, ("nginx", ())),
        (f"nginx@{DIGEST}", "docker.io/library/nginx:1.25", ("nginx", ())),
        (f"nginx:1.25@{DIGEST}", DIGEST, ("nginx", ("1.25",))),
        (None, "docker.io/library/nginx:1.25", ("docker.io/library/nginx", ("1.25",))),
        (None, DIGEST, (None, ())),
    ],
)
def test_the_image_is_the_one_that_its_author_names(
    written: str | None, running: str | None, image: tuple[str | None, tuple[str, ...]]
) -> None:
    """What the runtime made of it says what the author left out."""
    obj = with_containers({"name": "app", "image": written}, statuses=[{"name": "app", "image": running}])
    (container,) = parsed(obj).containers
    assert (container.image_name, container.image_tags) == image


@pytest.mark.parametrize(
    ("state", "found"),
    [
        ({"waiting": {"reason": "CrashLoopBackOff"}}, ("waiting", "CrashLoopBackOff")),
        ({"waiting": {}}, ("waiting", None)),
        ({"running": {"startedAt": "x"}}, ("running", None)),
        ({"terminated": {"reason": "Completed", "exitCode": 0}}, ("terminated", "Completed")),
        ({"terminated": {"reason": "x" * 129}}, ("terminated", None)),
        ({}, (None, None)),
        (None, (None, None)),
    ],
)
def test_the_state(state: object, found: tuple[str | None, str | None]) -> None:
    """And its reason, as long as the API's reasons are."""
    (container,) = parsed(with_containers({"name": "a"}, statuses=[{"name": "a", "state": state}])).containers
    assert (container.state, container.state_reason) == found


def test_every_kind_of_container() -> None:
    """In the order of the spec; an init container that is restarted always is a sidecar."""
    obj = with_containers({"name": "app"}, statuses=[{"name": "app", "restartCount": 1}])
    obj["spec"] |= {
        "initContainers": [{"name": "setup"}, {"name": "proxy", "restartPolicy": "Always"}],
        "ephemeralContainers": [{"name": "debugger-x7"}],
    }
    obj["status"] |= {
        "initContainerStatuses": [{"name": "proxy", "restartCount": 2}],
        "ephemeralContainerStatuses": [{"name": "debugger-x7", "restartCount": 3}],
    }
    kinds = [(each.name, each.kind, each.restart_count) for each in parsed(obj).containers]
    assert kinds == [("setup", "init", 0), ("proxy", "sidecar", 2), ("app", "app", 1), ("debugger-x7", "ephemeral", 3)]


def test_containers_are_left_out_by_name() -> None:
    """They are known all the same: their cgroups wait for nobody."""
    obj = with_containers({"name": "app"}, {"name": "istio-proxy"}, {"name": "istio-init"})
    pod_ = parsed(obj, include_containers=("app", "istio-*"), exclude_containers=("*-proxy",))
    assert [(each.name, each.excluded) for each in pod_.containers] == [
        ("app", False),
        ("istio-proxy", True),
        ("istio-init", False),
    ]


def test_a_malformed_container_costs_itself() -> None:
    """A name that is none, a field of another type, a status of nobody; at most 256 are taken."""
    bad: list[Any] = [7, {}, {"name": 7}, {"name": "a/b"}, {"name": "x", "image": 7}, {"name": "y"}]
    obj = with_containers({"name": "app"}, *bad, statuses=[{"name": "app", "ready": "yes"}, {"name": "nobody"}])
    assert [(each.name, each.ready) for each in parsed(obj).containers] == [("app", None), ("y", None)]
    assert len(parsed(with_containers(*({"name": f"c-{n}"} for n in range(1000)))).containers) == 256


def cpu(request: str | None, limit: str | None = None) -> dict[str, Any]:
    amounts = {"requests": request, "limits": limit}
    return {key: {"cpu": value} for key, value in amounts.items() if value}


@pytest.mark.parametrize(
    ("init", "sidecars", "apps", "total"),
    [
        ([], [], [cpu("1", "2")], (1, 2)),
        ([], [], [cpu("1", "2"), cpu("500m", "1")], (1.5, 3)),
        ([], [], [cpu("1", "2"), cpu("500m")], (1.5, None)),
        ([], [], [cpu(None), cpu(None)], (None, None)),
        ([cpu("3", "3")], [], [cpu("1", "1"), cpu("1", "1")], (3, 3)),
        ([cpu("1", "1")], [], [cpu("1", "1"), cpu("1", "1")], (2, 2)),
        ([], [cpu("1", "1")], [cpu("1", "1"), cpu("1", "1")], (3, 3)),
        ([cpu("3", "3")], [cpu("1", "1")], [cpu("1", "1")], (4, 4)),
        ([cpu("3")], [cpu("1", "1")], [cpu("1", "1")], (4, None)),
    ],
)
def test_what_a_pod_asks_for_is_what_the_scheduler_counts(
    init: list[dict[str, Any]],
    sidecars: list[dict[str, Any]],
    apps: list[dict[str, Any]],
    total: tuple[float | None, float | None],
) -> None:
    """Init containers run one by one beside the sidecars before them; a limit is one where all have one."""
    obj = with_containers(*({"name": f"a{n}", "resources": each} for n, each in enumerate(apps)))
    obj["spec"]["initContainers"] = [
        *({"name": f"s{n}", "resources": each, "restartPolicy": "Always"} for n, each in enumerate(sidecars)),
        *({"name": f"i{n}", "resources": each} for n, each in enumerate(init)),
    ]
    nanocores = tuple(None if cores is None else round(cores * 10**9) for cores in total)
    desired = parsed(obj).details.desired
    assert (desired.cpu_request_nanocores, desired.cpu_limit_nanocores) == nanocores


def test_a_limit_of_0_is_none() -> None:
    """As the kubelet applies it. A request of 0 is one."""
    amounts = {"limits": {"cpu": "0", "memory": 0}, "requests": {"cpu": "0", "memory": "0"}}
    (container,) = parsed(with_containers({"name": "app", "resources": amounts})).containers
    assert container.desired == Resources(0, None, 0, None)


def test_pod_level_resources_and_overhead() -> None:
    """What the pod itself specifies counts, whatever its containers have; overhead joins what is there."""
    obj = with_containers({"name": "app", "resources": {"requests": {"cpu": "1", "memory": "1Mi"}}})
    obj["spec"] |= {
        "resources": {"limits": {"cpu": "4"}, "requests": {"cpu": "3"}},
        "overhead": {"cpu": "250m", "memory": "16Mi"},
    }
    assert parsed(obj).details.desired == Resources(3_250_000_000, 4_250_000_000, 17 * MI, None)


def test_a_resize_shows_what_is_wanted_and_what_is_so() -> None:
    """In place, the spec is ahead of the kubelet: a limit of 5 GB beside 255 MB that are applied."""
    spec = {"name": "app", "resources": {"limits": {"memory": "5G"}, "requests": {"memory": "5G"}}}
    status = {
        "name": "app",
        "resources": {"limits": {"memory": "255M"}, "requests": {"memory": "255M"}},
        "allocatedResources": {"memory": "255M"},
    }
    pod_ = parsed(with_containers(spec, statuses=[status]))
    (container,) = pod_.containers
    assert container.desired.memory_limit_bytes == 5 * 10**9
    assert container.actual is not None
    assert container.allocated is not None
    assert container.actual.memory_limit_bytes == container.allocated.memory_request_bytes == 255 * 10**6
    assert pod_.details.desired.memory_limit_bytes == 5 * 10**9
    assert pod_.details.actual.memory_limit_bytes == 255 * 10**6


@pytest.mark.parametrize("amount", ["lots", "-1", "9Ei", 1e300, [], {}, None, True, "1\\u0030", "9" * 100])
def test_an_amount_that_is_none_is_absent(amount: object) -> None:
    """Never 0, and the other amounts stay."""
    obj = with_containers({"name": "app", "resources": {"limits": {"cpu": amount, "memory": "1Mi", "gpu": {}}}})
    (container,) = parsed(obj).containers
    assert container.desired == Resources(memory_limit_bytes=MI)
