"""The exporter's process: set up by the demo alone, its words kept, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.demo import launch
from otel_k8s_cgroup.demo.exporter import ExporterProcess, clean_environment

if TYPE_CHECKING:
    from pathlib import Path

READY_THEN_WAIT = "import signal, sys, time; {handler}; print('ready', flush=True); time.sleep(60)"


def _python(code: str, *, end_seconds: float = 8.0) -> ExporterProcess:
    return ExporterProcess([sys.executable, "-c", code], dict(os.environ), end_seconds=end_seconds)


def _wait_for_end(process: ExporterProcess) -> None:
    while process.exit_status is None:
        time.sleep(0.01)


def _wait_for_log(process: ExporterProcess) -> None:
    while not process.log:
        assert process.exit_status is None
        time.sleep(0.01)


def test_the_users_own_settings_do_not_reach_it() -> None:
    """What would lead it to another collector, API or node, or through a proxy, is left out; the rest stays."""
    foreign = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317",
        "OTEL_SDK_DISABLED": "true",
        "OTEL_K8S_CGROUP_POLL_INTERVAL": "1h",
        "NODE_NAME": "real-node",
        "KUBERNETES_SERVICE_HOST": "10.0.0.1",
        "HTTP_PROXY": "http://proxy",
        "https_proxy": "http://proxy",
        "no_proxy": "*",
    }
    assert clean_environment(foreign | {"PATH": "/bin", "MY_NODE_NAME": "x"}) == {"PATH": "/bin", "MY_NODE_NAME": "x"}


def test_an_early_end_is_told_with_its_last_words() -> None:
    """Status and log lines, stdout and stderr alike."""
    process = _python("import sys; print('one'); sys.stdout.flush(); sys.exit('two')")
    _wait_for_end(process)
    process.close()
    assert process.exit_status == 1
    assert process.log == ["one", "two"]


def test_a_program_that_is_not_there_is_told() -> None:
    """By its name, in the log, and with a status that is not 0."""
    process = ExporterProcess(["/does/not/exist"], {})
    _wait_for_end(process)
    process.close()
    assert process.exit_status not in (None, 0)
    assert "/does/not/exist" in process.log[0]


def test_stop_lets_it_end_by_itself() -> None:
    """SIGTERM, and the status that it chooses."""
    process = _python(READY_THEN_WAIT.format(handler="signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))"))
    _wait_for_log(process)
    assert process.stop() == 7
    process.close()


def test_one_that_ignores_sigterm_is_killed() -> None:
    """The demo ends whatever the exporter does."""
    process = _python(READY_THEN_WAIT.format(handler="signal.signal(signal.SIGTERM, signal.SIG_IGN)"), end_seconds=0.1)
    _wait_for_log(process)
    assert process.stop() == -signal.SIGKILL
    process.close()


def test_a_flood_of_words_is_bounded() -> None:
    """Only the last lines are kept, and a line is cut."""
    process = _python("print('x' * 10_000); [print(n) for n in range(1000)]")
    _wait_for_end(process)
    process.close()
    assert len(process.log) == 200
    assert process.log[-1] == "999"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ends a process with its parent")
def test_it_ends_with_the_demo_even_if_that_is_killed(tmp_path: Path) -> None:
    """The kernel sends the signal when the parent dies: SIGKILL of the demo leaves no exporter."""
    fifo_path = tmp_path / "fifo"
    os.mkfifo(fifo_path)
    exporter = f"import os, time; os.write(os.open({str(fifo_path)!r}, os.O_WRONLY), b'u'); time.sleep(600)"
    demo = (
        "import os, subprocess, sys, time; "
        "launch, exporter = sys.argv[1:]; "
        "subprocess.Popen([sys.executable, launch, str(os.getpid()), '9', '--', sys.executable, '-c', exporter]); "
        "time.sleep(600)"
    )
    with (
        subprocess.Popen([sys.executable, "-c", demo, launch.__file__, exporter]) as parent,
        fifo_path.open("rb", buffering=0) as fifo,
    ):
        assert fifo.read(1) == b"u"
        parent.kill()
        assert fifo.read(1) == b""  # nobody holds the other end any more
