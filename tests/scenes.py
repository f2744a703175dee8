"""Scenes: an exporter in a process of its own, brought into some state, and ended there by a signal."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.programs import Program, started

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

Protocol = Literal["grpc", "http/protobuf"]

UID = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
ALLOWED_SECONDS = 5.0
"""From the signal to the end."""

# As `python -m otel_k8s_cgroup`, ended while it, or a process that it has started, imports its first argument.
ENDED_AT_IMPORT = """
import os, runpy, signal, sys

class Signals:
    def find_spec(self, name, path=None, target=None):
        if name == awaited:
            os.kill(exporter, signal.SIGTERM)

exporter, awaited = os.getpid(), sys.argv.pop(1)
sys.meta_path.insert(0, Signals())
runpy.run_module("otel_k8s_cgroup", run_name="__main__", alter_sys=True)
"""


class Site:
    """A node with one pod, whose CPU time the scene sets, and an exporter on it."""

    def __init__(self, home: Path, stack: ExitStack) -> None:
        self.home = home
        self.stack = stack
        self.over = threading.Event()
        """The scene is: what hangs may end."""
        stack.callback(self.over.set)
        self.signals = [signal.SIGTERM]
        self.after_the_signal: Callable[[], object] = lambda: None
        self.code: int | None = None
        self.expected_code = 0
        self.tree = CgroupTree(home / "cgroup")
        self.used_usec(1000)
        metadata = {"uid": UID, "name": "cart", "namespace": "shop"}
        (home / "pods.json").write_text(json.dumps({"items": [{"metadata": metadata, "spec": {"nodeName": "node-1"}}]}))

    def used_usec(self, usec: int) -> None:
        self.tree.write(UID, Figures(user_usec=usec))

    def start(
        self,
        *,
        otlp: str,
        protocol: Protocol = "http/protobuf",
        api: str | None = None,
        poll: str = "1h",
        flags: tuple[str, ...] = (),
        program: tuple[str, ...] = ("-m", "otel_k8s_cgroup"),
        environ: dict[str, str] | None = None,
        stderr: int = subprocess.STDOUT,
    ) -> None:
        """``otlp``, ``api``: URLs; without the latter, the pod is in a file."""
        pods = ("--pod-source", f'{{ file = "{self.home / "pods.json"}" }}')
        if api is not None:
            pods = ("--k8s-api-url", api)
        argv = [
            *(sys.executable, *program, "run", "--k8s-node", "node-1", "--poll-interval", poll, *pods),
            *("--cgroup-root", str(self.tree.root), "--otlp-endpoint", otlp, "--otlp-protocol", protocol),
            *("--token-retrieval", "none", *flags),
        ]
        self.program: Program = self.stack.enter_context(started(argv, environ, stderr))

    def receiver(self, protocol: Protocol = "http/protobuf", *, port: int = 0) -> OtlpReceiver:
        return self.stack.enter_context(OtlpReceiver(protocol, port=port))

    def api(self) -> KubeApi:
        api = self.stack.enter_context(KubeApi())
        api.add(pod("cart", uid=UID))
        return api

    def finish(self) -> None:
        """The exit code, within what is allowed from the signal on."""
        try:
            self.code = self.program.wait(ALLOWED_SECONDS - (time.monotonic() - self.ended_at))
        except subprocess.TimeoutExpired:
            self.code = None

    def end(self) -> None:
        for number in self.signals:
            self.program.process.send_signal(number)
        self.ended_at = time.monotonic()
        self.after_the_signal()


Scene = Callable[[Site], Iterator[None]]
"""Starts its exporter, and yields; waits until that is where it is to be ended, and yields; afterwards it asserts."""


class Played:
    """A scene on its site, and what went wrong with it before its exporter was ended."""

    def __init__(self, play: Scene, site: Site) -> None:
        self.site = site
        self.steps = play(site)
        self.error: BaseException | None = None
        self.advance()

    def advance(self) -> None:
        if self.error is None:
            try:
                next(self.steps, None)
            except Exception as error:  # noqa: BLE001 it is raised where that scene is the test
                self.error = error
