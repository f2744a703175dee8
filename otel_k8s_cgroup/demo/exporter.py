"""The exporter as a child process: what a node would run, with the demo's addresses."""

from __future__ import annotations

import collections
import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from typing import IO, TYPE_CHECKING

from otel_k8s_cgroup.demo import launch
from otel_k8s_cgroup.demo.pods import NODE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_LOG_LINES = 200
_LINE_CHARACTERS = 1000
# The exporter promises to end within 5 s of SIGTERM.
_END_SECONDS = 8.0

# Settings of the user's own shell would lead the demo's exporter elsewhere.
_FOREIGN = re.compile(r"OTEL_.*|NODE_NAME|HOST_IP|KUBERNETES_(SERVICE|PORT).*|(HTTPS?|ALL|NO)_PROXY", re.IGNORECASE)

OWN_COMMAND = (sys.executable, "-m", "otel_k8s_cgroup", "run")


def clean_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Without what sets an exporter up, and without proxies."""
    return {name: value for name, value in environment.items() if not _FOREIGN.fullmatch(name)}


def settings_flags(*, api_url: str, token_file: Path, cgroup_root: Path, otlp_url: str) -> list[str]:
    """What the demo's exporter is told."""
    return [
        f"--k8s-node={NODE}",
        f"--k8s-api-url={api_url}",
        f'--token-retrieval={{ file = "{token_file}" }}',
        f"--cgroup-root={cgroup_root}",
        "--poll-interval=1s",
        f"--otlp-endpoint={otlp_url}",
        "--otlp-protocol=http/protobuf",
    ]


class ExporterProcess:
    """The running exporter; its log lines are kept.

    Args:
        command: the path of the program, then its arguments, the settings' flags included.
        environment: all of its environment.
        end_seconds: what has not ended so long after SIGTERM is killed.
    """

    def __init__(
        self, command: Sequence[str], environment: Mapping[str, str], *, end_seconds: float = _END_SECONDS
    ) -> None:
        self._end_seconds = end_seconds
        self._lines: collections.deque[str] = collections.deque(maxlen=_LOG_LINES)
        self._process = subprocess.Popen(  # noqa: S603 - the exporter itself, with the demo's settings
            [
                *(sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGTERM)), "--"),
                *command,
            ],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # a Ctrl-C is the demo's alone to answer
        )
        self._output: IO[bytes] = self._process.stdout  # type: ignore[assignment] # it is a PIPE
        self._reader = threading.Thread(target=self._read, name="demo-exporter-log", daemon=True)
        self._reader.start()

    @property
    def exit_status(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._process.poll()

    @property
    def log(self) -> list[str]:
        """Its last lines."""
        if self.exit_status is not None:
            self._reader.join(1.0)
        return list(self._lines)

    def stop(self) -> int:
        """Ends it with SIGTERM, so that it sends its last points; its exit status."""
        with contextlib.suppress(ProcessLookupError):
            self._process.terminate()
        try:
            return self._process.wait(self._end_seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def close(self) -> None:
        """Ends it if it still runs."""
        self.stop()
        self._reader.join(1.0)
        if not self._reader.is_alive():  # else a grandchild holds the other end, and closing would wait for it
            self._output.close()

    def _read(self) -> None:
        while line := self._output.readline(_LINE_CHARACTERS):
            self._lines.append(line.decode(errors="replace").rstrip())
