"""Nothing of a node is left on the machine, however it ends. Each test starts another, within the one it runs in."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.cluster import nest
from tests.cluster.api import eventually
from tests.cluster.init import SYSCTLS
from tests.cluster.keeper import REPOSITORY
from tests.cluster.node import Node, NodeFailed

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    node = Node(tmp_path / "node")
    yield node
    node.down()


def left(node: Node) -> list[str]:
    """Its cgroups, and what runs on its behalf."""
    tops = [each.mounted_at / node.nest for each in nest.hierarchies()]
    return [str(top) for top in tops if top.exists()] + [str(pid) for pid in processes(os.fspath(node.directory))]


def processes(word: str) -> list[int]:
    """Those that have the word among their arguments."""
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):
            if word in (directory / "cmdline").read_text(errors="replace") and int(directory.name) != os.getpid():
                found.append(int(directory.name))
    return found


def machine() -> dict[str, str]:
    """What a node must not change: mounts, addresses, and the settings that a kubelet sets.

    But for the mounts and interfaces of containers, which come and go with the pods of the node that the tests run in.
    """
    settings = [Path("/proc/sys/net/ipv4/ip_forward"), Path("/proc/sys/kernel/hostname")]
    settings += [Path("/proc/sys", name) for name in SYSCTLS]
    settings += [Path("/proc/self/mountinfo"), Path("/proc/self/net/dev_mcast"), Path("/proc/self/net/fib_trie")]
    return {
        str(file): "\n".join(
            line for line in file.read_text().splitlines() if "containerd" not in line and "veth" not in line
        )
        for file in settings
    } | {
        directory: " ".join(sorted(os.listdir(directory)))  # noqa: PTH208 names are what is compared
        for directory in ("/etc", "/opt", "/run", "/var/lib", "/var/log")
    }


def test_up_and_down(node: Node) -> None:
    """It stays up until it is taken down, and the machine is as it was, meanwhile too."""
    before = machine()
    keeper = node.up(attached=False)
    assert node.is_up()
    assert machine() == before
    assert node.run(["kubectl", "get", "--raw", "/readyz"]) == 0
    node.down()
    assert keeper.wait() == 0
    assert not node.is_up()
    assert left(node) == []
    assert machine() == before


def starter(node: Node) -> subprocess.Popen[bytes]:
    """A process that has started the node for itself, as `make cluster` does, and waits."""
    script = (
        "import sys, time, pathlib; from tests.cluster.node import Node\n"
        "Node(pathlib.Path(sys.argv[1])).up(attached=True); print('up', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script, node.directory], cwd=REPOSITORY, stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"up\n"
    return process


def test_who_started_it_is_killed(node: Node) -> None:
    """The node goes with it, as at any other end of it."""
    with starter(node) as process:
        process.kill()
    eventually(lambda: left(node) == [])


def test_its_keeper_is_killed(node: Node) -> None:
    """The node dies with it; the empty cgroups go when the next one starts, or when it is taken down."""
    keeper = node.up(attached=False)
    keeper.kill()
    keeper.wait()
    eventually(lambda: processes("kube-apiserver --") == [] or not node.is_up())
    with pytest.raises(NodeFailed, match="none is up"):
        node.run(["true"])
    node.down()
    assert left(node) == []
