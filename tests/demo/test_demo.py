"""The whole demo with the real exporter, as a user runs it."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.demo import run_demo
from otel_k8s_cgroup.demo.pods import NODE, PODS
from tests.demo.conftest import abandoned_cgroups, demo_cgroups

if TYPE_CHECKING:
    from collections.abc import Iterator

DEMO = [sys.executable, "-m", "otel_k8s_cgroup", "demo"]


@pytest.fixture
def work_parent(tmp_path: Path) -> Iterator[Path]:
    """Where a test's demos make their directories; at the end neither these nor cgroups may be left."""
    yield tmp_path
    assert abandoned_cgroups() == []
    assert demo_cgroups(os.getpid()) == []
    assert list(tmp_path.iterdir()) == []


def _environment(work_parent: Path) -> dict[str, str]:
    return os.environ | {"TMPDIR": str(work_parent)}


def _assert_conserved(summary: str) -> None:
    """The line on the pod that was born says that the sum of its deltas is its counter."""
    born = re.search(r"add up to (\d+) ns, its cgroup's counter is (\d+) ns: the same", summary)
    assert born is not None, summary
    assert int(born[1]) == int(born[2]) > 0


def test_points_of_every_pod_arrive_with_what_the_contract_says(work_parent: Path) -> None:
    """``--json``, on this machine's own cgroups where it may make them.

    All metrics of all pods, each with its resource and attributes; deltas follow each other without gap or overlap; and
    nothing of the born pod's CPU time is lost.
    """
    out, err = io.StringIO(), io.StringIO()
    assert run_demo(duration_seconds=4, as_json=True, out=out, err=err, work_parent=work_parent) == 0
    points: list[dict[str, Any]] = [json.loads(line) for line in out.getvalue().splitlines()]
    of_pods = [point for point in points if "k8s.pod.uid" in point["resource"]]
    by_pod = {uid: [p for p in of_pods if p["resource"]["k8s.pod.uid"] == uid] for uid in {pod.uid for pod in PODS}}
    for pod in PODS:
        mine = by_pod[pod.uid]
        assert {"cpu_time_delta", "cpu_percent", "memory_usage", "cgroup_memory_anonymous"} <= {
            p["metric"] for p in mine
        }
        for point in mine:
            assert point["resource"]["k8s.pod.name"] == point["attributes"]["name"] == pod.name
            assert point["resource"]["k8s.node.name"] == point["attributes"]["node"] == NODE
            assert point["resource"]["cgroup.path"] == "/" + "/".join(pod.levels)
        deltas = [p for p in mine if p["metric"] == "cpu_time_delta" and p["attributes"]["kind"] == "total"]
        assert all(p["value"] >= 0 and p["start_time_unix_nano"] < p["time_unix_nano"] for p in deltas)
        for before, after in itertools.pairwise(deltas):
            assert after["start_time_unix_nano"] == before["time_unix_nano"]
    notices = err.getvalue()
    assert ("SIMULATED" in notices) == ("real cgroups" not in notices)
    for pod in PODS:
        assert (pod.born_at is None) == (f"{pod.label} was born" not in notices)
        assert (pod.ended_at is None) == (f"{pod.label} has ended" not in notices)
    _assert_conserved(notices)


def test_without_a_terminal_there_is_a_plain_table(work_parent: Path) -> None:
    """All pods, all classes, no control codes; and where no cgroups can be made, that and why."""
    out, err = io.StringIO(), io.StringIO()
    places: dict[str, Any] = {"work_parent": work_parent, "cgroup_mount": Path("/nonexistent")}
    assert run_demo(duration_seconds=4, as_json=False, out=out, err=err, **places) == 0
    text = out.getvalue()
    assert "SIMULATED cgroups (v2), no processes: /nonexistent: no cgroups are mounted here" in text.splitlines()[0]
    for pod in PODS:
        assert pod.label in text
    for shown in ("Guaranteed", "Burstable, static", "BestEffort"):
        assert shown in text
    assert "\x1b" not in text
    assert err.getvalue() == ""
    _assert_conserved(text)


def test_on_a_terminal_the_table_is_live_and_ctrl_c_ends_it(work_parent: Path) -> None:
    """Ctrl-C reaches the demo alone, which removes everything, says what came, and exits with 0."""
    child, terminal = pty.fork()
    if child == 0:
        terminal_settings = {"TERM": "xterm-256color", "COLUMNS": "150", "LINES": "40"}
        os.execve(DEMO[0], [*DEMO, "--duration", "60s"], _environment(work_parent) | terminal_settings)
    seen = b""
    try:
        # CPU % of the first pod: its second reading is through the whole pipeline.
        while not re.search(rb"checkout[^\n]*Guaranteed[^\n]*\d+\.\d[^\n]*\xe2\x96", seen):
            seen += os.read(terminal, 65536)
        os.write(terminal, b"\x03")
        try:
            while chunk := os.read(terminal, 65536):
                seen += chunk
        except OSError:  # EIO: the other side is closed
            pass
    finally:
        _, status = os.waitpid(child, 0)
        os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert b"\x1b[?25h" in seen  # the cursor is back
    assert b"Traceback" not in seen
    assert re.search(rb"\d+ points of \d pods and \d+ of the exporter itself", seen.replace(b"\r\n", b" "))


@contextlib.contextmanager
def _running_demo(work_parent: Path) -> Iterator[tuple[subprocess.Popen[str], IO[str], IO[str]]]:
    """A demo of a minute, its stdout from the second line on, and its stderr."""
    command = [*DEMO, "--json", "--duration", "60s"]
    environment = _environment(work_parent)
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stdout is not None
        assert demo.stderr is not None
        try:
            assert json.loads(demo.stdout.readline())["resource"]["k8s.pod.uid"]  # not one of the exporter's own
            yield demo, demo.stdout, demo.stderr
        finally:
            demo.kill()


def test_sigterm_ends_it_as_well(work_parent: Path) -> None:
    """With its summary, and nothing left behind."""
    with _running_demo(work_parent) as (demo, out, err):
        demo.terminate()
        assert all(json.loads(line) for line in out)
        assert "came over OTLP" in err.read()
        assert demo.wait(30) == 0


def test_what_a_killed_demo_left_the_next_removes(work_parent: Path) -> None:
    """SIGKILL leaves cgroups and files; the next demo removes them before it begins."""
    with _running_demo(work_parent) as (killed, _, err):
        killed.kill()
        tree = err.read()
        killed.wait(30)
    assert [path.name for path in work_parent.iterdir()] == [f"otel-k8s-cgroup-demo-{killed.pid}"]
    assert bool(demo_cgroups(killed.pid)) == ("real cgroups" in tree)
    following = subprocess.run(
        [*DEMO, "--json", "--duration", "1s"],
        env=_environment(work_parent),
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert following.returncode == 0
    assert demo_cgroups(killed.pid) == []


def test_a_reader_that_goes_away_ends_it_quietly(work_parent: Path) -> None:
    """``demo --json | head -1``: exit code 0 and no traceback."""
    with _running_demo(work_parent) as (demo, out, err):
        out.close()
        said = err.read()
        assert demo.wait(30) == 0, said
    assert "Traceback" not in said
    assert "Error" not in said


def test_an_exporter_that_ends_early_is_an_error_with_its_words(work_parent: Path) -> None:
    """The demo failed: exit code 1, what the exporter said, and no summary."""
    err = io.StringIO()
    command = [sys.executable, "-c", "import sys; sys.exit('the node is on fire')"]
    out = io.StringIO()
    exit_code = run_demo(
        duration_seconds=30,
        as_json=True,
        out=out,
        err=err,
        work_parent=work_parent,
        simulate_because="a test",
        exporter_command=command,
    )
    assert exit_code == 1
    assert "the exporter ended early with exit status 1" in err.getvalue()
    assert "the node is on fire" in err.getvalue()
    assert "came over OTLP" not in err.getvalue()


def test_without_rich_it_says_how_to_get_it() -> None:
    """The table is an extra: one line, exit code 2, before anything is started."""
    program = "import sys; sys.modules['rich'] = None; from otel_k8s_cgroup.demo import run_demo; "
    program += "sys.exit(run_demo(duration_seconds=30, as_json=False, out=sys.stdout))"
    demo = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert demo.returncode == 2
    assert demo.stdout == ""
    (line,) = demo.stderr.splitlines()
    assert "pip install 'otel-k8s-cgroup[demo]'" in line
    assert "--json" in line


def test_signals_are_the_callers_again_afterwards(work_parent: Path) -> None:
    """run_demo puts back the handlers that were there."""
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    command = [sys.executable, "-c", ""]
    arguments: dict[str, Any] = {"simulate_because": "a test", "exporter_command": command, "work_parent": work_parent}
    run_demo(duration_seconds=30, as_json=True, out=io.StringIO(), err=io.StringIO(), **arguments)
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before
