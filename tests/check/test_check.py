"""``check``: a world in which all is well, and a fault a test, each found by its code with the way out."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from functools import partial
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml
from google.rpc.status_pb2 import Status as Status_
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsPartialSuccess,
    ExportMetricsServiceResponse,
)

from otel_k8s_cgroup.check import CHECKS, Bench, Result, Status, run_checks
from otel_k8s_cgroup.check.outcomes import Skipped
from otel_k8s_cgroup.check.sending import clock
from otel_k8s_cgroup.settings import load
from tests.fakes.faulty_otlp import FaultyServer, free_port
from tests.fakes.kube_api import KubeApi, failing, pod
from tests.fakes.otlp_receiver import Answer, OtlpReceiver
from tests.kube.support import SECRET, jwt, server_tls
from tests.programs import clean_environ, started
from tests.test_cli import POD_DIRECTORY, UID
from tests.test_cli import node as node  # noqa: PLC0414 a fixture

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.fakes.kube_api import Exchange
    from tests.fakes.otlp_receiver import Received


@dataclass
class World:
    """A node, its API and a receiver; ``flags`` are those that fit them."""

    root: Path
    api: KubeApi
    receiver: OtlpReceiver
    flags: dict[str, object]
    environ: dict[str, str] = field(default_factory=dict)

    def results(self, *, before_install: bool = False) -> dict[str, Result]:
        """What comes of each check, by its code."""
        settings = load(
            flags=self.flags,
            environ=self.environ,
            config_file=None,
            service_account_dir=self.root,
            before_install=before_install,
        )
        bench = Bench(settings.plain(), origins=settings.sources, before_install=before_install)
        with contextlib.closing(bench):
            return {result.check.code: result for result in run_checks(bench)}

    def fault(self, code: str, status: Status = Status.FAILED) -> Result:
        """The one thing that is wrong."""
        results = self.results()
        wrong = {key: each for key, each in results.items() if each.status in (Status.FAILED, Status.WARNING)}
        assert list(wrong) == [code], wrong
        assert wrong[code].status is status
        assert wrong[code].remedy
        assert SECRET not in wrong[code].evidence
        return wrong[code]

    def program(self, *arguments: str) -> tuple[int, str]:
        """The command itself: its exit code and what it prints."""
        words = [f"--{key.replace('_', '-')}={value}" for key, value in self.flags.items()]
        argv = [sys.executable, "-m", "otel_k8s_cgroup", "check", *words, *arguments]
        with started(argv, clean_environ(**self.environ)) as program:
            return program.wait(60), program.output


@pytest.fixture
def world(node: Path, tmp_path: Path) -> Iterator[World]:
    token = tmp_path / "token"
    token.write_text(SECRET)
    with KubeApi(token=SECRET) as api, OtlpReceiver("grpc") as receiver:
        api.add(pod("cart", uid=UID))
        flags: dict[str, object] = {
            "k8s_node": "node-1",
            "k8s_api_url": api.url,
            "token_retrieval": f'{{ file = "{token}" }}',
            "cgroup_root": str(node),
            "otlp_endpoint": receiver.endpoint,
        }
        yield World(node, api, receiver, flags)


def test_all_is_well(world: World) -> None:
    """Nothing fails, nothing is doubted, and what is skipped says why."""
    results = world.results()
    assert list(results) == [check.code for check in CHECKS]
    assert {each.status for each in results.values()} == {Status.OK, Status.SKIPPED}
    skipped = {code for code, each in results.items() if each.status is Status.SKIPPED}
    assert skipped == {
        "api-verified",
        "otlp-private",
        "processes-visible",
        "clock-receiver",
        "state-file",
        "exporter-ready",
    }
    assert all(results[code].evidence for code in results)
    empty, delta = world.receiver.messages
    assert len(empty.resource_metrics) == 0
    (metric,) = delta.resource_metrics[0].scope_metrics[0].metrics
    assert (metric.name, len(metric.sum.data_points)) == ("cpu_time_delta", 0)  # nothing of it is stored
    assert "watch" in [each.verb for each in world.api.requests]


# --- the three scenes of the issue, by the command itself ---


def test_a_token_that_lacks_watch(world: World) -> None:
    """Named with the verb, the resource, and what to bind."""
    world.api.always("watch", failing(403, 'pods is forbidden: User "x" cannot watch resource "pods"'))
    code, output = world.program()
    assert code == 1
    line, remedy = output.splitlines()[output.splitlines().index("api") :][4:6]
    assert "× pods can be watched" in line
    assert 'cannot watch resource "pods"' in line
    assert "Grant the verb 'watch' on 'pods' by a ClusterRole and its binding." in remedy
    assert remedy.endswith("[api-watch]")
    assert output.splitlines()[-2] == "For a [code], see the README, section `check`."
    assert SECRET not in output


def test_a_mount_that_is_missing(world: World, tmp_path: Path) -> None:
    """An empty directory is no cgroup root; pods and cgroups are then not compared."""
    (tmp_path / "empty").mkdir()
    world.flags["cgroup_root"] = str(tmp_path / "empty")
    code, output = world.program()
    assert code == 1
    assert "× a cgroup hierarchy is there" in output
    assert "Mount the host's /sys/fs/cgroup into the pod (hostPath, read-only)" in output
    assert "– they can be read: skipped: it needs cgroup-pods" in output


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_an_endpoint_without_a_scheme(world: World, protocol: str) -> None:
    """gRPC would try TLS at a port that speaks none; over HTTP it is no URL. Both say http://."""
    world.flags |= {"otlp_endpoint": f"127.0.0.1:{world.receiver.port}", "otlp_protocol": protocol}
    code, output = world.program()
    assert code == 1
    (line,) = [line for line in output.splitlines() if "×" in line]
    assert "otlp_endpoint" in line
    assert "http://" in line


# --- every other fault ---


def test_wrong_settings_are_a_result(world: World) -> None:
    """Exit code 1, each key in a line, all else skipped."""
    world.flags |= {"poll_interval": "5", "log_level": "loud"}
    code, output = world.program("--json")
    assert code == 1
    checks = {each["code"]: each for each in json.loads(output)["checks"]}
    assert checks["settings-valid"]["status"] == "failed"
    assert "poll_interval" in checks["settings-valid"]["evidence"]
    assert "log_level" in checks["settings-valid"]["evidence"]
    assert {each["status"] for code, each in checks.items() if code != "settings-valid"} == {"skipped"}


def test_a_variable_without_an_effect(world: World) -> None:
    """What `run` would warn of is a doubt here."""
    world.environ["OTEL_EXPORTER_OTLP_ENDPIONT"] = "http://x"
    code, output = world.program()
    assert code == 0
    assert "‼ each setting has an effect" in output
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in output


def test_a_switched_off_exporter(world: World) -> None:
    """OTEL_SDK_DISABLED."""
    world.environ["OTEL_SDK_DISABLED"] = "true"
    assert "OTEL_SDK_DISABLED" in world.fault("settings-effect", Status.WARNING).evidence


def test_a_controller_that_is_off(world: World) -> None:
    """Its figures are absent, and the rest is there."""
    (world.root / "cgroup.controllers").write_text("cpu pids\n")
    assert "memory" in world.fault("cgroup-controllers", Status.WARNING).evidence


def test_no_pods_cgroup(world: World) -> None:
    """A root of a machine that is no node, or of the container itself."""
    shutil.rmtree(world.root / POD_DIRECTORY)
    found = world.fault("cgroup-pods")
    assert str(world.root) in found.evidence
    assert "hostPath" in found.remedy


def test_figures_that_cannot_be_read(world: World) -> None:
    """The first of them is named, with the user that tried."""
    (world.root / POD_DIRECTORY / "memory.current").unlink()
    (world.root / POD_DIRECTORY / "memory.current").mkdir()
    found = world.fault("cgroup-readable")
    assert "memory.current" in found.evidence
    assert f"user {os.getuid()}" in found.evidence


@pytest.mark.parametrize(
    ("pids", "status"),
    [("0\n0\n", Status.FAILED), ("", Status.FAILED), ("0\n1\n", Status.OK), (f"{os.getpid()}\n", Status.OK)],
    ids=["v2, hidden", "v1, hidden", "v2, one visible", "its own pod"],
)
def test_processes_that_cannot_be_seen(world: World, pids: str, status: Status) -> None:
    """Without the host's PID namespace the kernel writes 0 for each (v2) or lists none (v1). One that is hidden
    otherwise is no matter; nor is it that the exporter can see itself.
    """
    container = world.root / POD_DIRECTORY / "container"
    container.mkdir()
    (container / "cgroup.procs").write_text(pids)
    world.flags |= {"metrics": "cpu,network"}
    found = world.results()["processes-visible"]
    assert found.status is status
    assert ("hostPID: true" in found.remedy) == (status is Status.FAILED)
    if str(os.getpid()) in pids:
        assert found.evidence == "no other pod has a container"


def test_no_token(world: World, tmp_path: Path) -> None:
    """What is asked with it is skipped."""
    (tmp_path / "token").unlink()
    assert "No such file" in world.fault("token").evidence


def test_an_expired_token(world: World, tmp_path: Path) -> None:
    """By its own words, before anybody is asked."""
    (tmp_path / "token").write_text(jwt(exp=1000, iat=1))
    assert "expired" in world.fault("token").evidence


def test_a_token_that_is_not_taken(world: World) -> None:
    """Where it is from."""
    world.api.token = "another"
    results = world.results()
    assert results["api-list"].status is Status.FAILED
    assert "token file" in results["api-list"].evidence


def test_an_api_that_is_not_there(world: World) -> None:
    """The setting that says where it is."""
    world.flags["k8s_api_url"] = f"http://127.0.0.1:{free_port()}"
    found = world.fault("api-reachable")
    assert "connection refused" in found.evidence
    assert "k8s_api_url" in found.remedy


def test_an_api_with_another_ca(world: World, tmp_path: Path) -> None:
    """And with the right one it is verified."""
    ca, other = trustme.CA(), trustme.CA()
    for name, each in (("ca", ca), ("other", other)):
        each.cert_pem.write_to_path(str(tmp_path / name))
    with KubeApi(tls=server_tls(ca), token=SECRET) as api:
        api.add(pod("cart", uid=UID))
        world.flags |= {"k8s_api_url": api.url, "k8s_ca_file": str(tmp_path / "other")}
        assert "not signed by a CA we trust" in world.fault("api-reachable").evidence
        world.flags["k8s_ca_file"] = str(tmp_path / "ca")
        assert world.results()["api-verified"].status is Status.OK


def test_a_list_that_is_denied(world: World) -> None:
    """The verb and the resource."""
    world.api.always("list", failing(403, "pods is forbidden"))
    assert "'list' on 'pods'" in world.fault("api-list").remedy


def test_a_node_that_the_api_does_not_know(world: World) -> None:
    """Its pods are nobody's: the name is what is wrong."""
    world.flags["k8s_node"] = "node-2"
    results = world.results()
    assert results["node-known"].status is Status.FAILED
    assert "'node-2'" in results["node-known"].evidence
    assert "k8s_node" in results["node-known"].remedy


def test_a_host_name_inside_a_pod(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """There it is mostly the pod's."""
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.96.0.1")
    del world.flags["k8s_node"]
    found = world.results()["node-name"]
    assert (found.status, "NODE_NAME" in found.remedy) == (Status.WARNING, True)


def test_a_pod_without_a_cgroup(world: World) -> None:
    """Named; a cgroup without a pod, too."""
    world.api.add(pod("lonely", uid="00000000-0000-0000-0000-000000000001"))
    assert "default/lonely" in world.fault("pods-cgroups", Status.WARNING).evidence
    world.api.delete("cart")
    found = world.fault("pods-cgroups")
    assert "k8s_node" in found.evidence


def test_a_cgroup_without_a_pod(world: World) -> None:
    """As of another node on the same machine."""
    other = "11111111-9bb2-4b9c-8ce2-7868eb91e665"
    shutil.copytree(world.root / POD_DIRECTORY, world.root / POD_DIRECTORY.replace("d75d892c", "11111111"))
    assert other in world.fault("pods-cgroups", Status.WARNING).evidence


LEAVE_OUT_CART = [
    {"include_namespaces": "nosuch"},
    {"exclude_namespaces": "def*"},
    {"pod_selector": "app=nosuch"},
    {"qos_classes": "Guaranteed"},
]


@pytest.mark.parametrize("flags", LEAVE_OUT_CART, ids=[next(iter(each)) for each in LEAVE_OUT_CART])
@pytest.mark.parametrize("source", ["api", "file"])
def test_settings_that_leave_out_every_pod(world: World, tmp_path: Path, flags: dict[str, object], source: str) -> None:
    """`run` would send none: in doubt, with the settings to look at; the pods are still compared with the cgroups."""
    world.flags |= flags
    if source == "file":
        (tmp_path / "pods.json").write_text(json.dumps({"kind": "List", "items": [pod("cart", uid=UID)]}))
        world.flags |= {"pod_source": f'{{ file = "{tmp_path / "pods.json"}" }}'}
    found = world.fault("pods-chosen", Status.WARNING)
    assert found.evidence == "the settings leave out all 1 pod of 'node-1'"
    assert next(iter(flags)) in found.remedy
    assert world.results()["pods-cgroups"].evidence == "1 pod, each with its cgroup"


def test_settings_that_leave_out_some(world: World) -> None:
    """Nothing is in doubt, and how many is said."""
    other = "11111111-9bb2-4b9c-8ce2-7868eb91e665"
    shutil.copytree(world.root / POD_DIRECTORY, world.root / POD_DIRECTORY.replace("d75d892c", "11111111"))
    world.api.add(pod("web", uid=other, namespace="shop"))
    world.flags["include_namespaces"] = "shop"
    results = world.results()
    assert {each.status for each in results.values()} == {Status.OK, Status.SKIPPED}
    assert results["pods-chosen"].evidence == "1 pod; the settings leave out 1 pod"
    assert results["api-list"].evidence == "2 pods on 'node-1'"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"otlp_endpoint": "http://127.0.0.1:9"}, "does the OTLP receiver run there?"),
        ({"otlp_endpoint": "http://no-such-host.invalid:4317"}, "does not resolve"),
        ({"otlp_protocol": "http/protobuf", "otlp_timeout": "2s"}, "otlp_protocol"),
    ],
)
def test_a_receiver_that_is_not_there(world: World, flags: dict[str, object], words: str) -> None:
    """Refused, no such name, the other protocol: in words, with the setting."""
    world.flags |= flags
    assert words in world.fault("otlp-send").evidence


def refuse(answer: Answer, _request: Received) -> Answer:
    """Whatever is sent."""
    return answer


def test_a_receiver_that_refuses(world: World) -> None:
    """Credentials, a path."""
    for answer, words in ((Answer(401), "otlp_headers"), (Answer(404), "is the path right?")):
        with OtlpReceiver("http/protobuf", respond=partial(refuse, answer)) as receiver:
            world.flags |= {"otlp_endpoint": receiver.endpoint, "otlp_protocol": "http/protobuf"}
            assert words in world.fault("otlp-send").evidence


def test_a_receiver_that_does_not_answer(world: World) -> None:
    """Within otlp_timeout."""
    with FaultyServer("black hole") as server:
        world.flags |= {
            "otlp_endpoint": f"http://127.0.0.1:{server.port}",
            "otlp_protocol": "http/protobuf",
            "otlp_timeout": "200ms",
        }
        assert "no answer within 0.2 s" in world.fault("otlp-send").evidence


def test_no_receiver_that_is_wanted(world: World) -> None:
    """Where what is measured is scraped alone."""
    world.flags |= {"otlp_endpoint": "none", "scrape": "true", "health_listen": str(free_port())}
    for code in ("otlp-send", "otlp-deltas", "otlp-private", "clock-receiver"):
        found = world.results()[code]
        assert (found.status, found.evidence) == (Status.SKIPPED, "otlp_endpoint is none: nothing is sent")


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        # As Prometheus 3.16 answers without its feature otlp-deltatocumulative.
        (Answer(500, body=Status_(message='invalid temporality and type combination for metric "x"')), Status.FAILED,
         "it takes no deltas"),
        (Answer(body=ExportMetricsServiceResponse(
            partial_success=ExportMetricsPartialSuccess(error_message="delta is not supported"))),
         Status.FAILED, "'delta is not supported'"),
        (Answer(400, body=Status_(message="no points")), Status.WARNING, "'no points'"),
        (Answer(503), Status.WARNING, "not known"),
    ],
)  # fmt: skip
def test_a_receiver_that_takes_no_deltas(world: World, answer: Answer, status: Status, words: str) -> None:
    """Found by a counter that has no points; cumulative counters are not tried."""

    def respond(request: Received) -> Answer:
        return answer if request.message.resource_metrics else Answer()

    with OtlpReceiver("http/protobuf", respond=respond) as receiver:
        world.flags |= {"otlp_endpoint": receiver.endpoint, "otlp_protocol": "http/protobuf"}
        found = world.fault("otlp-deltas", status)
        assert words in found.evidence
        assert "otlp-deltatocumulative" in found.remedy
        world.flags["schema"] = "semconv"
        assert world.results()["otlp-deltas"].evidence == "no counter is sent as deltas"
        world.environ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"] = "delta"
        assert world.fault("otlp-deltas", status)


def test_credentials_over_plain_http(world: World) -> None:
    """To another machine; here to a name that is not there."""
    world.flags |= {"otlp_headers": f"authorization=Bearer {SECRET}", "otlp_endpoint": "http://otlp.invalid:4317"}
    found = world.results()["otlp-private"]
    assert (found.status, found.remedy) == (Status.WARNING, "Begin otlp_endpoint with https://.")


@pytest.mark.parametrize(("seconds", "status"), [(-20, Status.WARNING), (20, Status.WARNING), (3600, Status.FAILED)])
def test_a_clock_that_is_off(world: World, seconds: float, status: Status) -> None:
    """By the API's Date."""

    def later(exchange: Exchange) -> None:
        exchange._handler.date_time_string = lambda *_: formatdate(time.time() + seconds, usegmt=True)  # type: ignore[method-assign]
        exchange.usual()

    for verb in ("list", "watch", "other"):
        world.api.always(verb, later)
    found = world.fault("clock", status)
    assert ("behind" if seconds > 0 else "ahead of") in found.evidence
    assert "NTP" in found.remedy


@pytest.mark.parametrize(("seconds", "status"), [(-20, Status.WARNING), (3600, Status.FAILED)])
def test_a_clock_that_is_not_the_receivers(world: World, seconds: float, status: Status) -> None:
    """By its Date, over HTTP; gRPC has none, and some servers send none."""
    assert world.results()["clock-receiver"].evidence == "answers over gRPC have no date"

    def later(_request: Received) -> Answer:
        return Answer(headers={"Date": formatdate(time.time() + seconds, usegmt=True)})

    with OtlpReceiver("http/protobuf") as receiver:
        world.flags |= {"otlp_endpoint": receiver.endpoint, "otlp_protocol": "http/protobuf"}
        assert world.results()["clock-receiver"].evidence == f"within 5 s of {receiver.endpoint}/v1/metrics"
        receiver.respond = later
        found = world.fault("clock-receiver", status)
        assert f"{'behind' if seconds > 0 else 'ahead of'} {receiver.endpoint}" in found.evidence
        assert "NTP" in found.remedy
        receiver.respond = lambda _request: Answer(headers={"Date": "soon"})
        assert world.results()["clock-receiver"].status is Status.SKIPPED


def test_a_clock_is_compared_when_the_answer_came(world: World) -> None:
    """Not later, after a receiver has been waited for."""
    settings = load(flags=world.flags, environ={}, config_file=None)
    with contextlib.closing(Bench(settings.plain(), origins=settings.sources, wall_clock=lambda: 9e9)) as bench:
        bench.client.server_date = formatdate(1000, usegmt=True), 1000.7
        assert clock(bench).startswith("within 5 s")
        bench.client.server_date = "", 1000.7
        with pytest.raises(Skipped):
            clock(bench)


def test_a_terminal_without_the_signs(world: World) -> None:
    """They are written as ASCII; no traceback."""
    world.environ["PYTHONIOENCODING"] = "ascii"
    code, output = world.program()
    assert code == 0
    assert "\\u221a the settings can be read" in output
    assert "[code]" not in output


def test_a_state_file(world: World, tmp_path: Path) -> None:
    """That can be made, that is somebody else's, whose directory is not there; nothing is changed by looking."""
    world.flags["state_file"] = str(tmp_path / "state.json")
    assert world.results()["state-file"].status is Status.OK
    assert not (tmp_path / "state.json").exists()
    (tmp_path / "state.json").write_text("my thesis")
    assert "not ours" in world.fault("state-file").evidence
    assert (tmp_path / "state.json").read_text() == "my thesis"
    world.flags["state_file"] = str(tmp_path / "none/state.json")
    assert "cannot be written to" in world.fault("state-file").evidence


def test_an_exporter_that_is_not_ready(world: World) -> None:
    """What its /readyz says is handed on."""
    port = free_port()
    world.flags["health_listen"] = f"127.0.0.1:{port}"
    assert world.results()["exporter-ready"].status is Status.SKIPPED
    argv = [sys.executable, "-m", "otel_k8s_cgroup", "run", "--health-listen", str(port), "--k8s-api-url"]
    with started([*argv, "http://127.0.0.1:9", "--otlp-endpoint", "http://127.0.0.1:9"]) as program:
        program.wait_for_line(lambda line: "health:" in line)
        assert "not ready; pods: missing" in world.fault("exporter-ready").evidence


# --- a file of pods, --pre, --wait, output ---


def test_a_file_of_pods(world: World, tmp_path: Path) -> None:
    """Nobody is asked, and pods and cgroups are compared all the same."""
    world.flags |= {"pod_source": f'{{ file = "{tmp_path / "pods.json"}" }}', "k8s_node": "n1"}
    results = world.results()
    assert results["api-list"].status is Status.SKIPPED
    assert results["pods-cgroups"].status is Status.OK
    assert world.api.requests == []
    (tmp_path / "pods.json").unlink()
    found = world.fault("pods-chosen")
    assert "No such file" in found.evidence
    assert "kubectl get pods -A -o json" in found.remedy


@pytest.fixture
def laptop(world: World, tmp_path: Path) -> World:
    """The same cluster from a machine that is no node, with a kubeconfig."""
    kube = tmp_path / ".kube"
    kube.mkdir()
    config = {
        "current-context": "x",
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": world.api.url}}],
        "users": [{"name": "u", "user": {"token": SECRET}}],
    }
    (kube / "config").write_text(yaml.safe_dump(config))
    world.environ["HOME"] = str(tmp_path)
    world.flags = {}
    return world


def checks_of(output: str) -> dict[str, dict[str, str]]:
    """What `--json` has, by code."""
    return {each["code"]: each for each in json.loads(output)["checks"]}


def test_before_installing(laptop: World) -> None:
    """From a laptop: the user's own kubeconfig, list and watch of the cluster, nothing of a node."""
    code, output = laptop.program("--pre", "--json")
    checks = checks_of(output)
    assert code == 0, output
    assert checks["api-list"]["status"] == checks["api-watch"]["status"] == "ok"
    assert not any(code.startswith(("cgroup", "node", "pods", "state")) for code in checks)
    for each in ("otlp-send", "otlp-deltas", "otlp-private", "clock-receiver"):
        assert checks[each]["evidence"] == "otlp_endpoint is not set"
    assert SECRET not in output
    assert not any("fieldSelector" in request.params for request in laptop.api.requests)


def test_before_installing_with_a_receiver_inside_the_cluster(laptop: World) -> None:
    """Its name resolves in pods alone: that is no failure here."""
    laptop.flags["otlp_endpoint"] = "http://otel-collector.invalid:4317"
    found = laptop.results(before_install=True)["otlp-send"]
    assert found.status is Status.SKIPPED
    assert "a name inside the cluster" in found.evidence


def test_before_installing_with_the_pods_configuration(laptop: World, tmp_path: Path) -> None:
    """The chart's own file: what only the pod has is skipped with the reason, and the rest is tried."""
    config = tmp_path / "config.toml"
    config.write_text(
        f'cgroup_root = "/host/sys/fs/cgroup"\notlp_endpoint = "{laptop.receiver.endpoint}"\n'
        'otlp_certificate = "/etc/otel-k8s-cgroup/none/ca.crt"\nk8s_node = "${NO_NODE_NAME}"\n'
    )
    code, output = laptop.program("--pre", "--json", f"--config={config}")
    checks = checks_of(output)
    assert code == 0, output
    why = "otlp_certificate: /etc/otel-k8s-cgroup/none/ca.crt is not on this machine"
    assert (checks["otlp-send"]["status"], checks["otlp-send"]["evidence"]) == ("skipped", why)
    assert "k8s_node (NO_NODE_NAME is not set)" in checks["settings-valid"]["evidence"]
    assert checks["api-list"]["status"] == "ok"


def test_before_installing_with_the_kubelet_as_the_source(laptop: World, tmp_path: Path) -> None:
    """Only a pod of its node asks a kubelet."""
    config = tmp_path / "config.toml"
    config.write_text('pod_source = "kubelet"\nkubelet_url = "https://${NO_HOST_IP}:10250"\n')
    code, output = laptop.program("--pre", "--json", f"--config={config}")
    checks = checks_of(output)
    assert code == 0, output
    assert {checks[each]["status"] for each in ("token", "api-reachable", "api-list", "api-watch")} == {"skipped"}
    assert "pod_source is kubelet" in checks["api-list"]["evidence"]


def test_before_installing_without_a_kubeconfig(laptop: World, tmp_path: Path) -> None:
    """One that is named and not there is wrong; where there is none at all, the way out names it."""
    laptop.environ["KUBECONFIG"] = str(tmp_path / "none")
    code, output = laptop.program("--pre")
    assert code == 1
    assert f"KUBECONFIG: no such file: {tmp_path / 'none'}" in output
    del laptop.environ["KUBECONFIG"]
    (tmp_path / ".kube/config").unlink()
    settings = load(flags={}, environ=laptop.environ, config_file=None, before_install=True)
    plain = replace(settings.plain(), k8s_api_url=f"http://127.0.0.1:{free_port()}")
    with contextlib.closing(Bench(plain, origins=settings.sources, before_install=True)) as bench:
        (found,) = [each for each in run_checks(bench) if each.check.code == "api-reachable"]
    assert (found.status, "KUBECONFIG" in found.remedy) == (Status.FAILED, True)


def test_warnings_of_settings_are_in_the_report_alone(laptop: World) -> None:
    """Not on standard error, too, which the program's output has here."""
    laptop.environ["OTEL_EXPORTER_OTLP_ENDPIONT"] = "http://x"
    _, output = laptop.program("--pre")
    assert output.count("OTEL_EXPORTER_OTLP_ENDPIONT") == 1


def test_wrong_settings_end_the_wait(world: World) -> None:
    """They are read once, as `run` does; were they waited for, this would fail after a minute."""
    world.flags["poll_interval"] = "5"
    code, output = world.program("--wait", "1h")
    assert code == 1
    assert "poll_interval" in output


def test_wait_tries_until_nothing_fails(world: World) -> None:
    """As after an installation: an API that denies for a moment what it grants."""
    world.api.on("watch", failing(403, "not yet"))
    world.flags["include_containers"] = "x"
    code, output = world.program("--wait", "1m")
    assert code == 0
    assert "include_containers has no effect (flag --include-containers): it needs containers = true" in output
    assert len([each for each in world.api.requests if each.verb == "watch"]) == 2


def test_json_is_the_same(world: World) -> None:
    """Each check with its code, status, evidence and link."""
    code, output = world.program("--json")
    found = json.loads(output)
    assert (code, found["failed"]) == (0, False)
    assert [each["code"] for each in found["checks"]] == [check.code for check in CHECKS]
    assert all(each["link"] == f"README.md#check-{each['code']}" for each in found["checks"])


def test_needs_are_there_and_come_before() -> None:
    """A check is tried after those that it needs; codes are unique."""
    seen: set[str] = set()
    for check in CHECKS:
        assert set(check.needs) <= seen
        assert check.code not in seen
        assert check.remedy.endswith(".")
        seen.add(check.code)
