"""The package as a library: pods that a Python program reads."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Any

import pytest

import otel_k8s_cgroup
from otel_k8s_cgroup import CgroupRootError, ExporterError, KubeError, PodReader, SettingsError, read_pods
from tests.cgroup.expected_figures import BUSY, EXPECTED, POD
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, failing, pod
from tests.fixtures.record import make

if TYPE_CHECKING:
    from pathlib import Path

UID = "7922aa99-d4aa-4885-a953-82976860b23a"
CONTAINER = "1c33afbc" * 8
A, B = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"
PUBLIC = ["CgroupRootError", "ExporterError", "KubeError", "ObservedPods", "PodReader", "PodReading", "SettingsError"]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a program's own, with nothing of a cluster."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setenv("NODE_NAME", "node-1")


def pods_file(directory: Path, *pods: dict[str, Any]) -> str:
    file = directory / "pods.json"
    file.write_text(json.dumps({"kind": "PodList", "apiVersion": "v1", "items": list(pods)}))
    return str(file)


def busy_pod() -> dict[str, Any]:
    found = pod("busy", uid=UID)
    found["spec"]["containers"] = [{"name": "app", "image": "app:1"}]
    found["status"]["containerStatuses"] = [
        {"name": "app", "containerID": f"containerd://{CONTAINER}", "image": "app:1", "state": {"running": {}}}
    ]
    return found


@pytest.mark.parametrize("fixture", ["v1", "v2-6.12"])
def test_one_reading_of_a_recorded_tree(fixture: str, tmp_path: Path) -> None:
    """A pod's container has the figures that the kernel wrote, by names with units, and who it is."""
    root = tmp_path / "cgroup"
    make(fixture, root)
    before_ns = time.time_ns()
    readings = read_pods(cgroup_root=str(root), pods_file=pods_file(tmp_path, busy_pod()), containers=True)
    of_kind = {reading.kind: reading for reading in readings}
    assert {"pod", "container"} == set(of_kind)
    whole, container = of_kind["pod"], of_kind["container"]
    assert (whole.uid, whole.name, whole.namespace, whole.node, whole.container) == (
        UID, "busy", "default", "node-1", None,
    )  # fmt: skip
    assert whole.cgroup_path == POD
    assert (container.uid, container.container, container.cgroup_path) == (UID, "app", BUSY)
    assert container.resource["container.id"] == CONTAINER
    assert before_ns <= whole.time_unix_ns <= time.time_ns()
    expected = EXPECTED[fixture, BUSY]
    same = [name for name in container.figures if name in expected]
    assert {"cpu_usage_ns", "memory_usage_bytes", "anon_bytes", "file_bytes"} <= set(same)
    assert {name: container.figures[name] for name in same} == {name: expected[name] for name in same}
    # What needs a reading before is absent.
    assert "cpu_usage_percent" not in container.figures


def test_a_reader_reads_again_without_listing_again(tmp_path: Path) -> None:
    """Rates are there from the second reading on; pods come and go with their cgroups; the API is asked once."""
    tree = CgroupTree(tmp_path)
    tree.write(A, Figures(user_usec=1_000, anon=4096))
    with KubeApi() as api:
        api.add(pod("a", uid=A), pod("b", uid=B), pod("elsewhere", node="node-2"))
        with PodReader(cgroup_root=str(tmp_path), api_url=api.url, token="none") as reader:
            (first,) = reader.read()
            tree.write(A, Figures(user_usec=3_000, anon=8192))
            tree.write(B, Figures(user_usec=5))
            readings = {reading.name: reading for reading in reader.read()}
            tree.remove(A)
            (last,) = reader.read()
        lists = len(api.seen("list"))
    assert (first.figures["cpu_usage_ns"], first.figures["anon_bytes"]) == (1_000_000, 4096)
    assert readings["a"].figures["cpu_usage_ns"] == 3_000_000
    percent = readings["a"].figures["cpu_usage_percent"]
    assert isinstance(percent, float)
    assert percent > 0
    assert readings["b"].figures["cpu_usage_ns"] == 5_000
    assert last.name == "b"
    assert lists == 1


def test_groups_are_what_is_read(tmp_path: Path) -> None:
    """Only their figures are there."""
    CgroupTree(tmp_path).write(A, Figures(user_usec=1, anon=4096))
    (reading,) = read_pods(cgroup_root=str(tmp_path), pods_file=pods_file(tmp_path, pod("a", uid=A)), groups=["cpu"])
    assert all(name.startswith("cpu_") for name in reading.figures)
    assert reading.figures["cpu_usage_ns"] == 1_000


def test_errors_are_one_line_that_names_the_cause(tmp_path: Path) -> None:
    """Each is an ``ExporterError``, and of a class that says what is wrong."""
    listed = pods_file(tmp_path, pod("a", uid=A))
    with pytest.raises(SettingsError, match=r"api_url: found 'ftp://x' \(parameter api_url\); allowed: ") as refused:
        read_pods(api_url="ftp://x")
    assert refused.value.key == "api_url"
    with pytest.raises(CgroupRootError, match="nowhere"):
        read_pods(cgroup_root=str(tmp_path / "nowhere"), pods_file=listed)
    root = tmp_path / "root"
    CgroupTree(root)
    with pytest.raises(KubeError, match=r"no list of pods within 0\.2 s"):
        read_pods(cgroup_root=str(root), api_url="http://127.0.0.1:9", token="none", wait_seconds=0.2)
    with pytest.raises(ExporterError, match="`with` statement"):
        PodReader(cgroup_root=str(root), pods_file=listed).read()


def test_what_is_public_is_named_and_cheap() -> None:
    """``__all__`` is all that is public; importing the package imports nothing of it yet."""
    assert otel_k8s_cgroup.__all__ == [*PUBLIC, "__version__", "observe_pods", "pod_view", "read_pods"]
    assert [getattr(otel_k8s_cgroup, name).__name__ for name in PUBLIC] == PUBLIC
    with pytest.raises(AttributeError, match="has no attribute 'read_pod'"):
        _ = otel_k8s_cgroup.read_pod
    program = "import sys, otel_k8s_cgroup; print([n for n in sys.modules if n.startswith('otel_k8s_cgroup.')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_program_stays_as_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limit of open files is its own, and where it exports to is nothing that could be refused here."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "one-of-its-own")
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    CgroupTree(tmp_path).write(A, Figures())
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limit[1]))
    try:
        assert len(read_pods(cgroup_root=str(tmp_path), pods_file=pods_file(tmp_path, pod("a", uid=A)))) == 1
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (256, limit[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


def test_an_error_shows_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even where the API server writes it back."""
    root = tmp_path / "root"
    CgroupTree(root)
    (tmp_path / "token").write_text("s3cr3t-of-the-node")
    monkeypatch.setenv("OTEL_K8S_CGROUP_TOKEN_RETRIEVAL", f'{{ file = "{tmp_path}/token" }}')
    with KubeApi() as api:
        api.always("list", failing(500, "who sends s3cr3t-of-the-node?"))
        with pytest.raises(KubeError, match=r"who sends \*\*\*\?"):
            read_pods(cgroup_root=str(root), api_url=api.url, wait_seconds=2)


@pytest.mark.parametrize(
    ("parameter", "value", "line"),
    [
        ("node", "", "node: found '' (parameter node); allowed: "),
        ("token", "secret", "token: found 'secret' (parameter token); allowed: "),
        ("groups", ["cpus"], "groups: found ['cpus'] (parameter groups); allowed: "),
        ("containers", "maybe", "containers: found 'maybe' (parameter containers); allowed: "),
        ("pods_file", "", "pods_file: found {'file': ''} (parameter pods_file); allowed: "),
    ],
)
def test_a_parameter_that_cannot_be_used_is_named_as_the_program_wrote_it(
    parameter: str, value: object, line: str
) -> None:
    """Not as the setting that it becomes, and not as a flag of the command."""
    arguments: dict[str, Any] = {parameter: value}
    with pytest.raises(SettingsError) as refused:
        read_pods(**arguments)
    assert str(refused.value).startswith(line)
    assert "flag" not in str(refused.value)


def test_two_parameters_that_cannot_be_used_are_a_line_each() -> None:
    """What the environment says wrong is named as it is there."""
    with pytest.raises(SettingsError) as refused:
        read_pods(api_url="ftp://x", groups=["cpus"])  # type: ignore[list-item]
    assert [line.partition(":")[0] for line in str(refused.value).splitlines()] == ["api_url", "groups"]


def test_a_variable_that_cannot_be_used_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is no parameter."""
    monkeypatch.setenv("OTEL_K8S_CGROUP_K8S_API_URL", "ftp://x")
    with pytest.raises(SettingsError) as refused:
        read_pods()
    assert str(refused.value).startswith("k8s_api_url: found 'ftp://x' (environment OTEL_K8S_CGROUP_K8S_API_URL); ")


def test_a_log_line_shows_no_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever handler the program has: not even where the API server writes it back."""
    root = tmp_path / "root"
    CgroupTree(root)
    (tmp_path / "token").write_text("s3cr3t-of-the-node")
    monkeypatch.setenv("OTEL_K8S_CGROUP_TOKEN_RETRIEVAL", f'{{ file = "{tmp_path}/token" }}')
    with KubeApi() as api:
        api.always("list", failing(500, "who sends s3cr3t-of-the-node?"))
        with pytest.raises(KubeError):
            read_pods(cgroup_root=str(root), api_url=api.url, wait_seconds=0.5)
    assert "who sends ***?" in caplog.text
    assert "s3cr3t" not in caplog.text


def test_all_loggers_are_there_before_the_reader_opens(tmp_path: Path) -> None:
    """What is imported later would have a logger that hides no token."""
    CgroupTree(tmp_path).write(A, Figures())
    program = """
import logging
from otel_k8s_cgroup import observe_pods, pod_view, PodReader
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
def loggers():
    return [name for name in logging.root.manager.loggerDict if name.startswith("otel_k8s_cgroup")]
reader = InMemoryMetricReader()
provider = MeterProvider([reader], views=[pod_view()], shutdown_on_exit=False)
with PodReader() as pods:
    before = loggers()
    pods.read()
    with observe_pods(provider):
        reader.get_metrics_data()
assert len(before) > 5, before
assert loggers() == before
"""
    with KubeApi() as api:
        api.add(pod("a", uid=A))
        given = {"CGROUP_ROOT": str(tmp_path), "K8S_API_URL": api.url, "TOKEN_RETRIEVAL": "none"}
        environ = os.environ | {f"OTEL_K8S_CGROUP_{name}": value for name, value in given.items()}
        subprocess.run([sys.executable, "-c", program], env=environ, check=True)
