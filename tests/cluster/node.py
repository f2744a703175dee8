"""A checkout's Kubernetes node, from outside: up, down, and programs that run in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import binaries, images, nest
from tests.cluster.keeper import REPOSITORY, Order
from tests.cluster.layout import ADMIN_KUBECONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_END_SECONDS = 60.0
DIRECTORY = REPOSITORY / ".cache/cluster"


class NodeFailed(Exception):
    """The node did not start, or is not there."""


class Node:
    """One that may be up. ``directory`` has the logs of the last run, its lock, and the images."""

    def __init__(self, directory: Path = DIRECTORY) -> None:
        self.directory = directory
        # Each checkout can have one.
        self.nest = f"otel-k8s-cgroup-node-{hashlib.sha256(os.fspath(directory).encode()).hexdigest()[:8]}"

    def is_up(self) -> bool:
        """Whether it runs, or is on its way up or down."""
        if not self._lock.exists():
            return False
        with self._lock.open() as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return True
        return False

    def up(self, *, attached: bool) -> subprocess.Popen[str]:
        """Starts it, and returns its keeper once it is ready; a node that is there already is taken down before.

        ``attached``: it goes down when this process ends, however that is. Raises NodeFailed.
        """
        if reason := binaries.why_not():
            raise NodeFailed(reason)
        self.down()
        self.directory.mkdir(parents=True, exist_ok=True)
        kubernetes = str(binaries.kubernetes())
        order = Order(self.nest, str(self.directory), kubernetes, images.archives(self.directory), attached)
        # Nothing of this process's is kept open by one that outlives it, or whoever reads its output would wait.
        with (self.directory / "keeper.log").open("w") as log:
            keeper = subprocess.Popen(
                [sys.executable, "-m", "tests.cluster.keeper", json.dumps(order)],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the tests; the keeper ends after them
            )
        assert keeper.stdout is not None
        with keeper.stdout as answers:
            answer = answers.readline().strip()
        if answer != "ready":
            keeper.wait()
            raise NodeFailed(f"{answer or 'the keeper ended'}; logs are in {self.directory}")
        return keeper

    def down(self) -> None:
        """Ends it, and removes what one has left whose keeper was killed. Raises NodeFailed."""
        deadline = time.monotonic() + _END_SECONDS
        while self.is_up():
            with suppress(ProcessLookupError, ValueError):  # it ends by itself; or has not yet written its id
                os.kill(int(self._lock.read_text()), signal.SIGTERM)
            if time.monotonic() > deadline:
                raise NodeFailed(f"its keeper does not end: {self._lock} is locked")
            time.sleep(0.05)
        nest.Nest(self.nest).remove()

    @contextmanager
    def running(self) -> Iterator[None]:
        """The node that is up, left as it is; else one that goes down at the end."""
        if self.is_up():
            yield
            return
        keeper = self.up(attached=True)
        try:
            yield
        finally:
            assert keeper.stdin is not None
            keeper.stdin.close()
            keeper.wait()

    def run(self, argv: Sequence[str | Path]) -> int:
        """Runs a program in its namespaces, from this directory; the exit code. Raises NodeFailed."""
        if not self.is_up() or not (self.directory / "pid").exists():
            raise NodeFailed("none is up: `make cluster-up` starts one")
        namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
        variables = {"PATH": f"{binaries.kubernetes()}:{os.environ['PATH']}", "KUBECONFIG": ADMIN_KUBECONFIG}
        command = [
            *("nsenter", "--target", (self.directory / "pid").read_text(), *namespaces, "--"),
            *("env", f"--chdir={Path.cwd()}", *(f"{name}={value}" for name, value in variables.items())),
            *argv,
        ]
        home = nest.Nest(self.nest)
        # Within the node's cgroup, so that it ends with the node.
        done = subprocess.run(command, check=False, preexec_fn=lambda: home.join(nest.DAEMONS))
        return done.returncode

    @property
    def _lock(self) -> Path:
        return self.directory / "lock"
