"""What others write harms nobody: hostile pods, answers without end, links and modes where a file of ours is to be."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceResponse

from otel_k8s_cgroup.export import StateFile, open_transport
from otel_k8s_cgroup.export.state import Remembered
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.model import OtlpTarget
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.faulty_otlp import FaultyServer
from tests.fakes.kube_api import KubeApi, pod
from tests.fakes.otlp_receiver import Answer, OtlpReceiver
from tests.otlp import cpu_time, defects, points
from tests.programs import started

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from tests.fakes.faulty_otlp import Connection

SECRET = "s3cret-token-of-this-test"
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} (DEBUG|INFO|WARNING|ERROR) .+")

PRINTABLE = ["пёс", "𝔘𝔫𝔦𝔠𝔬𝔡𝔢", "名前" * 126, "a\u0301", "\"'\\", "$(reboot) `reboot` ${HOME} %s {0}", "%0aINFO", "ـعرب"]
NOT_PRINTABLE = [
    "line\n2026-01-01 00:00:00,000 INFO forged",
    "line\r\n\r\nforged: header",
    "\x1b[2J\x1b]0;title\x07",
    "\0",
    "\u2028\u2029\x85",
    "\u202eright to left",
    "\ud800",
    "\udfff\ud800",
    "",
    "x" * 254,
]


def hostile(number: int, name: str) -> dict[str, Any]:
    """Nobody's idea of metadata."""
    annotations = {f"note-{n}": "\u0007\ud800\n\x1b[31m" * 4096 for n in range(3)} | {"\ud800": "x" * 65536}
    made = pod(name, uid=str(UUID(int=number)), annotations=annotations, labels={"\n": "\0", "\ud800": "\udfff"})
    if name not in PRINTABLE:  # a pod without a start time waits for it before it is measured
        made["status"]["startTime"] = "2026-01-02T03:04:05Z\nINFO forged"
    nested: list[Any] = []
    for _ in range(200):
        nested = [nested]
    return made | {"spec": {"nodeName": "node-1", "nested": nested, "containers": 7}}


def names(messages: Iterable[ExportMetricsServiceRequest]) -> dict[str, set[str]]:
    """Of each pod by its uid."""
    found: dict[str, set[str]] = {}
    for point in points(messages):
        if point.pod:
            found.setdefault(point.pod, set()).add(point.resource["k8s.pod.name"])
    return found


@pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
def test_hostile_pods_beside_an_honest_one(tmp_path: Path, protocol: Literal["grpc", "http/protobuf"]) -> None:
    """Of any Unicode, with 64 kB annotations, in the list and in the watch: those whose name is one are measured under
    it, the others are left out, and neither a line of the log nor the honest pod's points are other than without them.
    """
    tree = CgroupTree(tmp_path / "cgroup")
    honest = str(UUID(int=1))
    token = tmp_path / "token"
    token.write_text(SECRET)
    pods = [hostile(100 + number, name) for number, name in enumerate([*PRINTABLE, *NOT_PRINTABLE])]
    for each in pods:
        tree.write(each["metadata"]["uid"], Figures(user_usec=7))
    # It says that the honest pod's cgroup is its own.
    theft = {"kubernetes.io/config.mirror": "x", "kubernetes.io/config.hash": honest}
    thieves = [pod(f"thief-{number}", uid=str(UUID(int=number)), annotations=theft) for number in (10, 11)]
    tree.write(honest, Figures(user_usec=1000))
    with KubeApi(token=SECRET) as api, OtlpReceiver(protocol) as receiver:
        api.add(thieves[0], *pods[::2], pod("honest", uid=honest), thieves[1])
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "100ms"),
            *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--log-level", "debug"),
            *("--token-retrieval", f'{{ file = "{token}" }}'),
            *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", protocol),
        ]
        with started(argv) as program:
            api.wait_for("watch", 1)
            api.add(*pods[1::2])
            expected = {str(UUID(int=100 + number)): {name} for number, name in enumerate(PRINTABLE)}
            expected[honest] = {"honest"}
            receiver.wait_for(lambda messages: names(messages).keys() >= expected.keys())
            tree.write(honest, Figures(user_usec=9000))
            assert program.stop() == 0
        received = points(receiver.messages)
    assert names(receiver.messages) == expected
    assert defects(point for point in received if point.pod) == []
    assert cpu_time(received, honest)["total"] == 8_000_000
    (resource,) = {tuple(sorted(point.resource.items())) for point in received if point.pod == honest}
    assert dict(resource) == {
        "k8s.pod.uid": honest,
        "k8s.pod.name": "honest",
        "k8s.namespace.name": "default",
        "k8s.node.name": "node-1",
        "k8s.pod.start_time": "2026-01-02T03:04:05Z",
        "cgroup.path": tree.path(honest),
    }
    assert not any("INFO" in value for point in received for value in point.resource.values() if value != "%0aINFO")
    skipped = [line for line in program.lines if "skipped" in line]
    assert 0 < len(skipped) <= len(NOT_PRINTABLE)
    for line in program.lines:
        assert LOG_LINE.fullmatch(line)
        assert line.isprintable()
        assert len(line) < 1000
    assert SECRET not in program.output


def test_an_answer_without_end_is_not_read_to_its_end() -> None:
    """Of a receiver that took the request: what it said first is enough, and the next request is a new one."""
    sent = []

    def behave(connection: Connection) -> None:
        connection.read_request()
        connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n")
        sent.append(0)
        with suppress(OSError):
            for _ in range(1000):
                connection.send(bytes(1_000_000))
                sent[-1] += 1_000_000

    with FaultyServer(behave) as server:
        transport = open_transport(OtlpTarget("http/protobuf", f"http://127.0.0.1:{server.port}/v1/metrics"))
        for _ in range(2):
            transport.send(b"")
        transport.close()
    assert len(sent) == 2
    assert max(sent) < 50_000_000


def test_an_answer_that_is_too_large_for_grpc_is_no_refusal() -> None:
    """The receiver took the request: to send it again, in halves, would count it twice."""
    answer = ExportMetricsServiceResponse()
    answer.partial_success.error_message = "x" * (5 << 20)
    with OtlpReceiver("grpc", respond=lambda _request: Answer(body=answer)) as receiver:
        transport = open_transport(OtlpTarget("grpc", receiver.endpoint))
        assert transport.send(b"") == Receipt()
        transport.close()
        assert len(receiver.requests) == 1


def test_the_state_file_is_its_owners_alone(tmp_path: Path) -> None:
    """Whatever the umask, and whatever mode an older one or one that was left behind has."""
    path, left_behind = tmp_path / "state", tmp_path / "state.tmp"
    umask = os.umask(0)
    try:
        for _ in range(2):
            file = StateFile(str(path))
            file.load()
            file.save(Remembered(1, 2, {}))
            assert path.stat().st_mode & 0o777 == 0o600
            assert (tmp_path / "state.lock").stat().st_mode & 0o777 == 0o600
            assert not left_behind.exists()
            file.close()
            path.chmod(0o666)
            left_behind.write_text("left behind")
            left_behind.chmod(0o666)
    finally:
        os.umask(umask)


def test_a_link_in_the_place_of_the_state_file_is_not_followed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Who may write beside it cannot have another file overwritten: not by the new file's name, its own, the lock's."""
    victim = tmp_path / "victim"
    victim.write_text("precious")
    path = tmp_path / "state"
    file = StateFile(str(path))
    lock = tmp_path / "state.lock"
    lock.symlink_to(victim)
    file.load()
    assert "state.lock cannot be made" in caplog.text
    lock.unlink()
    (tmp_path / "state.tmp").symlink_to(victim)
    file.save(Remembered(1, 2, {}))
    assert json.loads(path.read_text())["mono_ns"] == 1
    path.unlink()
    path.symlink_to(victim)
    file.save(Remembered(1, 2, {}))
    assert victim.read_text() == "precious"
    assert not path.is_symlink()
    assert json.loads(path.read_text())["mono_ns"] == 1
