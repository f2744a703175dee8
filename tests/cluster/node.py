"""A checkout's Kubernetes node, from outside: up, down, and programs that run in it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster import binaries, images, nest
from tests.cluster.keeper import REPOSITORY, Order
from tests.cluster.layout import ADMIN_KUBECONFIG

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

DIRECTORY = REPOSITORY / ".cache/cluster"
"""Logs of the last node, its lock, and the images."""


class NodeFailed(Exception):
    """The node did not start, or is not there."""


def is_up() -> bool:
    """Whether the node of this checkout runs (or is on its way up or down)."""
    if not (DIRECTORY / "lock").exists():
        return False
    with (DIRECTORY / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def up(*, attached: bool) -> subprocess.Popen[str]:
    """Starts it, and returns its keeper once it is ready; a node that is there already is taken down before.

    ``attached``: it goes down when this process ends, however that is. Raises NodeFailed.
    """
    if reason := binaries.why_not():
        raise NodeFailed(reason)
    down()
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    order = Order(_nest_name(), str(DIRECTORY), str(binaries.kubernetes()), images.archives(DIRECTORY), attached)
    keeper = subprocess.Popen(
        [sys.executable, "-m", "tests.cluster.keeper", json.dumps(order)],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE if attached else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # Ctrl-C is for the tests; the keeper ends after them
    )
    assert keeper.stdout is not None
    answer = keeper.stdout.readline().strip()
    if answer != "ready":
        keeper.wait()
        raise NodeFailed(f"{answer or 'the keeper ended'}; logs are in {DIRECTORY}")
    (DIRECTORY / "keeper").write_text(str(keeper.pid))
    return keeper


def down() -> None:
    """Ends it, and removes what one has left whose keeper was killed."""
    home = nest.Nest(_nest_name())
    if is_up():
        # The first process ends, so the keeper ends, and removes the rest.
        home.kill()
        with (DIRECTORY / "lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
    home.remove()


@contextmanager
def running() -> Iterator[None]:
    """The node that is up, left as it is; else one that goes down at the end."""
    if is_up():
        yield
        return
    keeper = up(attached=True)
    try:
        yield
    finally:
        assert keeper.stdin is not None
        keeper.stdin.close()
        keeper.wait()


def run(argv: Sequence[str | Path]) -> int:
    """Runs a program in the node's namespaces, from this directory; its exit code. Raises NodeFailed."""
    try:
        first = (DIRECTORY / "pid").read_text()
    except FileNotFoundError:
        raise NodeFailed("no node is up: `make cluster-up` starts one") from None
    if not is_up():
        raise NodeFailed("no node is up: the last one was killed; `make cluster-up` starts another")
    path = f"{binaries.kubernetes()}:{os.environ['PATH']}"
    variables = {"PATH": path, "KUBECONFIG": str(ADMIN_KUBECONFIG)}
    namespaces = ["--mount", "--pid", "--net", "--uts", "--ipc", "--cgroup"]
    command = [
        *("nsenter", "--target", first, *namespaces, "--", "env", f"--chdir={Path.cwd()}"),
        *(f"{name}={value}" for name, value in variables.items()),
        *argv,
    ]
    home = nest.Nest(_nest_name())
    return subprocess.run(command, check=False, preexec_fn=lambda: home.join(nest.DAEMONS)).returncode


def _nest_name() -> str:
    """One for each checkout, so that each can have a node."""
    return f"otel-k8s-cgroup-node-{hashlib.sha256(os.fspath(REPOSITORY).encode()).hexdigest()[:8]}"
