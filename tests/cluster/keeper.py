"""Keeps a node: starts it in namespaces and a cgroup of its own, and takes all of it away at the end.

A process of its own, outside of the namespaces. It ends the node on SIGTERM, when the node has ended, and, where it was
started with a pipe as its standard input, when the other end is closed: so also when who started it was killed. When it
is killed itself, the node dies with it, and what is left (empty cgroups) goes when the next one starts or at `down`.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from tests.cluster import nest

if TYPE_CHECKING:
    from types import FrameType

REPOSITORY = Path(__file__).parents[2]


class Order(NamedTuple):
    """What is asked for, as JSON in the only argument."""

    nest: str
    """Name of the node's cgroups."""
    directory: str
    """For the logs, ``lock`` (who has it is up, and its process id is in it), and ``pid`` (of the first process)."""
    kubernetes: str
    images: list[str]
    attached: bool
    """Whether the end of the standard input is the end of the node."""


def main() -> None:
    signal.signal(signal.SIGTERM, _end)
    order = Order(*json.loads(sys.argv[1]))
    directory = Path(order.directory)
    with (directory / "lock").open("a+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        home = nest.Nest(order.nest)
        home.remove()  # of a keeper that was killed
        for old in directory.glob("*.log"):
            if old.name != "keeper.log":  # this one's own
                old.unlink()
        home.make()
        try:
            _keep(order, home, directory)
        finally:
            (directory / "pid").unlink(missing_ok=True)
            home.remove()


def _keep(order: Order, home: nest.Nest, directory: Path) -> None:
    """Says "ready", or why not, on the standard output."""
    told, tell = os.pipe()
    argument = json.dumps([order.kubernetes, order.images, order.directory, tell])
    # setpriv: where this process is killed, unshare is, and with it the node.
    isolated = ["--mount", "--pid", "--net", "--uts", "--ipc", "--fork", "--mount-proc", "--kill-child"]
    with (directory / "node.log").open("wb") as log:
        node = subprocess.Popen(
            [
                *("setpriv", "--pdeathsig", "KILL", "unshare", *isolated),
                *(sys.executable, "-m", "tests.cluster.init", argument),
            ],
            cwd=REPOSITORY,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[tell],
            preexec_fn=home.become_root,  # noqa: PLW1509 this process has one thread
        )
    os.close(tell)
    try:
        with os.fdopen(told) as answers:
            answer = answers.readline().strip() or "the node ended: see node.log"
        if answer == "ready":
            (directory / "pid").write_text(str(_first_process(node.pid)))
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
        sys.stdout.close()
        if answer == "ready":
            _wait_for_the_end(node, attached=order.attached)
    finally:
        node.kill()
        node.wait()


def _end(_signal: int, _frame: FrameType | None) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # once: not in the middle of cleaning up
    sys.exit(0)


def _first_process(unshare: int) -> int:
    """Its id as it is seen from here."""
    (child,) = Path(f"/proc/{unshare}/task/{unshare}/children").read_text().split()
    return int(child)


def _wait_for_the_end(node: subprocess.Popen[bytes], *, attached: bool) -> None:
    descriptors = [os.pidfd_open(node.pid)]
    if attached:
        descriptors.append(sys.stdin.fileno())
    select.select(descriptors, [], [])


if __name__ == "__main__":
    main()
