"""The signals that end the exporter, from its first moment on and at any step of its wait."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.programs import PATIENCE_SECONDS, started
from tests.scenes import ALLOWED_SECONDS, ENDED_AT_IMPORT

# As the first process of a namespace of its own, which the kernel sends no signal that it does not handle.
FIRST = ("unshare", "--pid", "--fork", "--kill-child", sys.executable)


@pytest.mark.parametrize("module", ["argparse", "logging", "otel_k8s_cgroup.cli", "otel_k8s_cgroup.settings"])
def test_a_signal_during_the_start_up_of_the_first_process(module: str) -> None:
    """From the first import that takes a while on, it is handled."""
    if subprocess.run([*FIRST, "-c", ""], check=False, capture_output=True).returncode != 0:
        pytest.skip("this user may make no PID namespace")
    with started([*FIRST, "-c", ENDED_AT_IMPORT, module, "run"]) as program:
        assert program.wait(ALLOWED_SECONDS) == 0
    assert program.output == ""


AT_EVERY_STEP = """
import signal, sys
from otel_k8s_cgroup.signals import StopSignals

for step in range(1, 30):
    stop, left = StopSignals(), step

    def count(*_):
        global left
        left -= 1
        if left == 0:
            signal.raise_signal(signal.SIGTERM)

    sys.setprofile(count)
    came = stop(0.01)
    sys.setprofile(None)
    if left > 0:
        break
    assert came or stop(0)
print(step)
"""


def test_a_signal_at_any_step_of_the_wait() -> None:
    """The handler waits for no lock that the thread it interrupts may hold."""
    done = subprocess.run(
        [sys.executable, "-c", AT_EVERY_STEP], check=True, timeout=PATIENCE_SECONDS, capture_output=True, text=True
    )
    assert int(done.stdout) >= 2


FLAG_AT_EVERY_STEP = """
import signal, sys
from otel_k8s_cgroup.signals import StopFlag

for step in range(1, 40):
    stop, left = StopFlag(), step
    signal.signal(signal.SIGHUP, lambda *_: stop.set())

    def count(*_):
        global left
        left -= 1
        if left in (0, -3):
            signal.raise_signal(signal.SIGHUP)

    sys.setprofile(count)
    stop.wait(0.05)
    sys.setprofile(None)
    signal.raise_signal(signal.SIGHUP)
    assert stop.wait(60) and stop.is_set()
print("done")
"""


def test_a_flag_that_a_handler_sets_at_any_step_of_the_wait() -> None:
    """Twice in a row, too, as when a terminal is closed: an Event would wait for its own lock for ever."""
    with started([sys.executable, "-c", FLAG_AT_EVERY_STEP]) as program:
        assert program.wait(PATIENCE_SECONDS) == 0
    assert program.output == "done"
