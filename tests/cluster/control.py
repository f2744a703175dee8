"""Starts and stops the node's daemons on behalf of the tests: a line of JSON each way, over a Unix socket."""

from __future__ import annotations

import json
import os
import signal
import socketserver
import subprocess
import time
from contextlib import closing
from socket import AF_UNIX, socket
from typing import TYPE_CHECKING, cast

from tests.cluster.layout import CONTROL

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from tests.cluster.daemons import Daemon

READY_SECONDS = 120.0


class DaemonFailed(Exception):
    """A daemon did not become ready, or did not end."""


class Supervisor:
    """The daemons, each with its log in ``logs``."""

    def __init__(self, daemons: Sequence[Daemon], logs: Path) -> None:
        self._daemons = {daemon.name: daemon for daemon in daemons}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._logs = logs

    def start(self, name: str) -> int:
        """Starts it where it does not run, and waits until it is ready; its process id."""
        daemon = self._daemons[name]
        process = self._processes.get(name)
        if process is None or process.poll() is not None:
            with (self._logs / f"{name}.log").open("ab") as log:
                process = subprocess.Popen(daemon.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
            self._processes[name] = process
        deadline = time.monotonic() + READY_SECONDS
        while not daemon.is_ready():
            if process.poll() is not None or time.monotonic() > deadline:
                raise DaemonFailed(f"{name} is not ready: its log ends with\n{self._end_of_log(name)}")
            time.sleep(0.1)
        return process.pid

    def stop(self, name: str, signal_number: int) -> int:
        """Sends it the signal, and waits for its end where that is what the signal is for; its process id."""
        process = self._processes[name]
        process.send_signal(signal_number)
        if signal_number in (signal.SIGTERM, signal.SIGKILL):
            try:
                process.wait(READY_SECONDS)
            except subprocess.TimeoutExpired:
                raise DaemonFailed(f"{name} does not end") from None
        return process.pid

    def pid(self, name: str) -> int:
        return self._processes[name].pid

    def serve_for_ever(self) -> None:
        supervisor = self

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                request = json.loads(self.rfile.readline())
                try:
                    answer: Mapping[str, object] = {"pid": supervisor._do(request)}
                except (DaemonFailed, KeyError, OSError) as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                self.wfile.write(json.dumps(answer).encode() + b"\n")

        with socketserver.ThreadingUnixStreamServer(os.fspath(CONTROL), Handler) as server:
            server.daemon_threads = True
            server.serve_forever()

    def _do(self, request: Mapping[str, object]) -> int:
        name = cast("str", request["daemon"])
        match request["verb"]:
            case "start":
                return self.start(name)
            case "stop":
                return self.stop(name, cast("int", request["signal"]))
            case _:
                return self.pid(name)

    def _end_of_log(self, name: str) -> str:
        lines = (self._logs / f"{name}.log").read_text(errors="replace").splitlines()
        return "\n".join(lines[-15:])


def ask(verb: str, daemon: str, signal_number: int = 0) -> int:
    """``start``, ``stop`` or ``pid`` of a daemon, from within the node; its process id. Raises DaemonFailed."""
    with closing(socket(AF_UNIX)) as connection:
        connection.connect(os.fspath(CONTROL))
        request = {"verb": verb, "daemon": daemon, "signal": signal_number}
        connection.sendall(json.dumps(request).encode() + b"\n")
        with connection.makefile() as answers:
            answer = json.loads(answers.readline())
    if "error" in answer:
        raise DaemonFailed(answer["error"])
    return int(answer["pid"])
