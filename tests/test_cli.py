"""The commands: what they print, and what they exit with."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import shutil
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup import __version__, snapshot
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.logs import OneLine
from otel_k8s_cgroup.model import Pod
from otel_k8s_cgroup.schemas import ALUMET
from tests.fakes.faulty_otlp import FaultyServer
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import points
from tests.programs import clean_environ, exporter, started

if TYPE_CHECKING:
    from pathlib import Path

    from otel_k8s_cgroup.errors import CgroupError
    from tests.fakes.faulty_otlp import Connection

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
POD_DIRECTORY = f"kubepods.slice/kubepods-pod{UID.replace('-', '_')}.slice"


def cli(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, with nothing of this one's environment but the path."""
    return subprocess.run(
        [sys.executable, "-m", "otel_k8s_cgroup", *arguments],
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.fixture
def node(tmp_path: Path) -> Path:
    """A cgroup root with one pod of 1 CPU second and 4 KiB, and beside it ``pods.json`` that names it."""
    root = tmp_path / "cgroup"
    directory = root / POD_DIRECTORY
    directory.mkdir(parents=True)
    (root / "cgroup.controllers").write_text("cpu memory\n")
    (directory / "cpu.stat").write_text("usage_usec 1000000\nuser_usec 750000\nsystem_usec 250000\n")
    (directory / "memory.current").write_text("4096\n")
    (directory / "memory.stat").write_text("anon 1000\nfile 2000\n")
    pod = {
        "metadata": {"uid": UID, "name": "cart", "namespace": "shop"},
        "spec": {"nodeName": "n1"},
        "status": {"startTime": "2026-01-01T00:00:00Z"},
    }
    (tmp_path / "pods.json").write_text(json.dumps({"kind": "PodList", "items": [pod]}))
    return root


def flags(node: Path) -> list[str]:
    source = f'{{ file = "{node.parent / "pods.json"}" }}'
    return ["--cgroup-root", str(node), "--pod-source", source, "--k8s-node", "n1"]


def test_version() -> None:
    """``--version`` names the command and its version."""
    assert cli("--version").stdout == f"otel-k8s-cgroup {__version__}\n"


@pytest.mark.parametrize("arguments", [[], ["run"], ["demo"], ["snapshot"]])
def test_help(arguments: list[str]) -> None:
    """Each command explains itself."""
    result = cli(*arguments, "--help")
    assert result.returncode == 0
    assert result.stdout.startswith("usage: otel-k8s-cgroup")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["run", "--poll-interval", "5"], ["poll_interval", "'5'", "500ms"]),
        (["run", "--poll-interval", "1ms"], ["poll_interval", "10ms"]),
        (["run", "--config", "/nowhere.toml"], ["/nowhere.toml"]),
        (["run", "--schema", "both"], ["schema", "both", "alumet"]),
        (["run", "--k8s-api-url", "http://h:99999"], ["k8s_api_url", "http://h:99999", "a port from 1 to 65535"]),
        (["run", "--poll", "1s"], ["run: unknown flag --poll", "--poll-interval"]),
        (["run", "--poll=1s"], ["run: unknown flag --poll", "--poll-interval"]),
        (["snapshot", "--jsno"], ["snapshot: unknown flag --jsno", "--json"]),
        (["run", "--otlp-headers", "a=Bearer", "xyz"], ["run: a word that belongs to no flag", "in quotes"]),
        (["snapshot", "--k8s-api-url", "ftp://x"], ["k8s_api_url", "ftp://x", "https://"]),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(arguments: list[str], named: list[str]) -> None:
    """It names the key, what was found and what is allowed; there is no traceback."""
    result = cli(*arguments)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert all(word in result.stderr for word in named), result.stderr


def test_help_shows_signs_as_they_are() -> None:
    """No percent sign is doubled, and what a setting allows is there."""
    assert "CPU % over one second" in cli("snapshot", "--help").stdout
    assert "%%" not in cli("run", "--help").stdout
    assert "names and shape of the metrics: one or a list of alumet" in " ".join(cli("run", "--help").stdout.split())


def test_wrong_usage_is_exit_code_2() -> None:
    """An unknown command and an unknown flag."""
    assert cli("fly").returncode == 2
    assert cli("run", "--fly").returncode == 2


def test_a_root_that_is_none_fails_a_snapshot(tmp_path: Path, node: Path) -> None:
    """A snapshot has nothing to wait for: one line, exit code 1."""
    result = cli("snapshot", *flags(node), "--cgroup-root", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert f"{tmp_path}: is no cgroup root" in result.stderr


@pytest.mark.parametrize("level", ["info", "error"])
def test_an_api_that_cannot_be_reached_fails_a_snapshot(node: Path, level: str) -> None:
    """The last line says why there is no list of pods, whatever is logged before it, and how to wait longer."""
    result = cli(
        "snapshot", "--cgroup-root", str(node), "--wait", "2s", "--k8s-api-url", "http://127.0.0.1:9",
        "--token-retrieval", "none", "--log-level", level,
    )  # fmt: skip
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]
    assert "http://127.0.0.1:9" in line
    assert "connection refused" in line
    assert "--wait" in line


def test_snapshot_prints_a_table(node: Path) -> None:
    """A line a pod, with units a person reads."""
    result = cli("snapshot", *flags(node))
    assert result.returncode == 0, result.stderr
    head, line = result.stdout.splitlines()
    assert head.split("  ")[0] == "NAMESPACE"
    assert line.split() == ["shop", "cart", "0.0", "1.00", "s", "4.0", "KiB", "1000", "B", "2.0", "KiB"]


def test_who_reads_a_snapshot_may_stop(node: Path) -> None:
    """As `head` does: no traceback, and no failure."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as closed:
        done = subprocess.run(
            [sys.executable, "-m", "otel_k8s_cgroup", "snapshot", *flags(node)],
            env={"PATH": os.environ["PATH"]},
            stdout=closed,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_snapshot(node: Path, number: signal.Signals) -> None:
    """While it waits for the list of pods: with the exit code that a shell gives, and no traceback."""
    silent = FaultyServer("black hole")
    argv = ["snapshot", "--cgroup-root", str(node), "--wait", "1h", "--token-retrieval", "none"]
    api = f"http://127.0.0.1:{silent.port}"
    with silent, started([sys.executable, "-m", "otel_k8s_cgroup", *argv, "--k8s-api-url", api]) as program:
        silent.wait_for_connections(1)
        program.process.send_signal(number)
        assert program.wait() == 128 + number
    assert program.output == ""


def test_a_snapshot_of_a_node_without_pods_fails(node: Path) -> None:
    """The usual cause is a wrong node name, so a script must not take it for an empty node."""
    result = cli("snapshot", *flags(node), "--k8s-node", "other")
    assert result.returncode == 1
    assert result.stdout == ""
    assert "'other'" in result.stderr
    assert "k8s_node" in result.stderr


def test_a_snapshot_of_pods_without_cgroups_names_the_root(node: Path) -> None:
    """The node's name is right: how many pods, below which root there is none, and the way out."""
    shutil.rmtree(node / POD_DIRECTORY)
    result = cli("snapshot", *flags(node))
    assert result.returncode == 1
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert f"none of the pods that the file of pods lists (1) has a cgroup below {node}" in line
    assert "cgroup_root" in line
    assert "k8s_node" not in line


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--exclude-namespaces", "*"), "has no pods, but for 1 that the settings leave out"),
        (("--pod-selector", "app=other"), "has no pods, but for 1 that the settings leave out"),
    ],
)
def test_a_snapshot_of_pods_that_are_left_out_says_so(node: Path, more: tuple[str, str], said: str) -> None:
    """Neither the root nor the node's name is wrong."""
    result = cli("snapshot", *flags(node), *more)
    assert result.returncode == 1
    assert said in result.stderr.splitlines()[-1]


def test_a_snapshot_shows_what_a_resource_says(node: Path) -> None:
    """So that patterns of labels can be tried out."""
    pods = node.parent / "pods.json"
    pods.write_text(pods.read_text().replace('"namespace"', '"labels": {"team": "a", "x": "y"}, "namespace"'))
    result = cli("snapshot", "--json", *flags(node), "--pod-labels", "te*", "--service-attributes")
    assert result.returncode == 0
    (found,) = json.loads(result.stdout)
    resource = found["resource"]
    assert resource["k8s.pod.label.team"] == "a"
    assert "k8s.pod.label.x" not in resource
    assert resource["service.name"] == resource["k8s.pod.name"]


def test_a_snapshot_of_finished_pods_says_so(node: Path) -> None:
    """They have no cgroup: neither the root nor the node's name is wrong."""
    shutil.rmtree(node / POD_DIRECTORY)
    pods = node.parent / "pods.json"
    pods.write_text(pods.read_text().replace('"status": {', '"status": {"phase": "Succeeded", '))
    result = cli("snapshot", *flags(node))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert line.endswith("nothing to show: node 'n1' (k8s_node) has only pods that have finished (1)")


def test_a_snapshot_of_other_pods_cgroups_asks_about_the_node(node: Path) -> None:
    """The pods are of one node, the cgroups of another's."""
    (node / POD_DIRECTORY).rename(node / POD_DIRECTORY.replace("d75d892c", "00000000"))
    result = cli("snapshot", *flags(node))
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"has a cgroup below {node}, but other pods have (1)" in line
    assert "k8s_node" in line


def test_an_api_that_does_not_answer_is_named(node: Path) -> None:
    """Nothing has failed yet when the time is over, so no line above says why."""
    with FaultyServer("black hole") as server:
        result = cli(
            *("snapshot", "--cgroup-root", str(node), "--k8s-node", "n1", "--wait", "1s", "--token-retrieval", "none"),
            *("--k8s-api-url", f"http://127.0.0.1:{server.port}"),
        )
    assert result.returncode == 1
    (line,) = result.stderr.splitlines()
    assert f"from http://127.0.0.1:{server.port} within 1 s: it has not answered" in line
    assert "above" not in line
    assert "--wait" in line


def test_snapshot_json_has_the_metrics_names_as_keys(node: Path) -> None:
    """The CPU % is of the time between two readings; what the kernel does not give is left out."""
    pod = Pod(UID, "cart", "shop", "n1", None, UID)
    now_ns = 0

    def wait(seconds: float) -> None:
        nonlocal now_ns
        now_ns += round(seconds * 1e9)
        (node / POD_DIRECTORY / "cpu.stat").write_text("usage_usec 1500000\nuser_usec 1000000\nsystem_usec 500000\n")

    cgroups = NodeCgroups(str(node), open_files=OpenFiles(10), clock=lambda: now_ns)
    errors: list[CgroupError] = []
    readings = snapshot.read_twice(cgroups, [pod], errors.append, wait=wait, seconds=2.0)
    assert not errors
    out = io.StringIO()
    snapshot.print_json(readings, ALUMET, out)
    assert json.loads(out.getvalue()) == [
        {
            "kind": "pod",
            "uid": UID,
            "name": "cart",
            "namespace": "shop",
            "node": "n1",
            "start_time": None,
            "cgroup_path": f"/{POD_DIRECTORY}",
            "resource": {
                "k8s.pod.uid": UID,
                "k8s.pod.name": "cart",
                "k8s.namespace.name": "shop",
                "k8s.node.name": "n1",
                "cgroup.path": f"/{POD_DIRECTORY}",
            },
            "cpu_time": {"total": 1_500_000_000, "system": 500_000_000, "user": 1_000_000_000},
            "cpu_percent": {"total": 25.0, "system": 12.5, "user": 12.5},
            "memory_usage": 4096,
            "cgroup_memory_anonymous": 1000,
            "cgroup_memory_file": 2000,
        }
    ]


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 30, "5.0 GiB"), (3 << 40, "3.0 TiB")]
)
def test_human_bytes(count: int, text: str) -> None:
    """Binary units, one decimal."""
    assert snapshot.human_bytes(count) == text


def test_a_hostile_name_cannot_break_a_line_of_the_log() -> None:
    """Newlines and escape sequences of others are shown, not obeyed."""
    record = logging.LogRecord("x", logging.INFO, "", 0, "pod %s", ("a\nERROR forged \x1b[2J",), None)
    assert OneLine(str).format(record).endswith(" INFO pod a\\nERROR forged \\x1b[2J")


def test_an_answer_with_malformed_headers_is_no_traceback(node: Path) -> None:
    """What the libraries below say of a receiver's headers stays out of the log; what came of the request is in it."""

    def answer(connection: Connection) -> None:
        connection.read_some()
        connection.send(b"HTTP/1.1 400 Bad Request\r\nno colon\r\nConnection: close\r\n\r\n")

    with (
        FaultyServer(answer) as receiver,
        exporter(
            *flags(node), "--otlp-protocol", "http/protobuf", "--otlp-endpoint", f"http://127.0.0.1:{receiver.port}"
        ) as program,
    ):
        program.wait_for_line(lambda line: "HTTP 400" in line)
        program.stop()
    assert "no colon" not in program.output
    assert "Traceback" not in program.output


def test_resource_attributes_of_the_environment_are_every_resources(node: Path) -> None:
    """The pods' and the exporter's own; its name is its own."""
    environ = clean_environ(OTEL_RESOURCE_ATTRIBUTES="k8s.cluster.name=prod", OTEL_SERVICE_NAME="mine")
    with (
        OtlpReceiver("grpc") as receiver,
        exporter(
            *flags(node), "--poll-interval", "100ms", "--otlp-endpoint", receiver.endpoint, environ=environ
        ) as program,
    ):
        receiver.wait_for(lambda messages: {bool(point.pod) for point in points(messages)} == {True, False})
        assert program.stop() == 0
    resources = {bool(point.pod): point.resource for point in points(receiver.messages)}
    assert {resource["k8s.cluster.name"] for resource in resources.values()} == {"prod"}
    assert resources[False]["service.name"] == "mine"
    assert "service.name" not in resources[True]


def test_a_receiver_that_goes_away_again_and_again(node: Path) -> None:
    """The exporter outlives it, and every line of the log is one of its own, with its time and severity."""
    with (
        FaultyServer("goes away") as receiver,
        exporter(
            *(*flags(node), "--poll-interval", "100ms", "--otlp-timeout", "1s"),
            *("--otlp-endpoint", f"http://127.0.0.1:{receiver.port}"),
        ) as program,
    ):
        receiver.wait_for_connections(10)
        assert program.stop() == 0
    assert [line for line in program.lines if not re.match(r"[-\d]+ [:,\d]+ (INFO|WARNING) ", line)] == []


# Ended while the process that reads its settings is about to hand them over.
KILLED_MEANWHILE = """
import os, signal, sys
from otel_k8s_cgroup import cli

def read_settings(arguments):
    os.kill(exporter, signal.SIGKILL)
    while os.getppid() == exporter:
        os.sched_yield()

exporter, cli._settings = os.getpid(), read_settings
cli.main(["run"])
"""


def test_a_kill_while_the_settings_are_read_is_no_traceback() -> None:
    """The process that reads them finds nobody to tell them to, and says nothing either."""
    with started([sys.executable, "-c", KILLED_MEANWHILE]) as program:
        assert program.wait() == -signal.SIGKILL
    assert program.output == ""


def test_no_command_is_wrong_usage() -> None:
    """The usage says which there are."""
    result = cli()
    assert result.returncode == 2
    assert "COMMAND" in result.stderr
