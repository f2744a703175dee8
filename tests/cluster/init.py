"""The first process in a node's namespaces: makes a machine of them, starts the daemons, and reaps.

Started by ``keeper.py``. Its end is the end of all that runs in the pid namespace, and with that of the mounts and the
network. Nothing is mounted or set outside of the namespaces.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.cluster import nest, pki
from tests.cluster.bootstrap import bootstrap, wait_for_node
from tests.cluster.control import Supervisor
from tests.cluster.daemons import daemons
from tests.cluster.layout import CONTAINERD_SOCKET, NODE, NODE_ADDRESS, SERVICE_ADDRESS, STATE

# The kubelet sets these (https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/); here it finds them set.
SYSCTLS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}
# What programs write to. Each is a layer of the node's own over the machine's.
_WRITTEN_TO = ("/etc", "/opt", "/var/lib", "/var/log")


class Order(NamedTuple):
    """What the keeper asks for, as JSON in the only argument."""

    kubernetes: str
    images: list[str]
    logs: str
    ready_fd: int
    """Where "ready" is written to, or why not."""


def main() -> None:
    order = Order(*json.loads(sys.argv[1]))
    child = os.fork()
    if child == 0:
        _be_the_node(order)
        sys.exit(1)  # it serves for ever
    os.close(order.ready_fd)
    # The children of processes that have ended come to the first process: containerd's shims, above all.
    while True:
        pid, status = os.wait()
        if pid == child:
            sys.exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _be_the_node(order: Order) -> None:
    with os.fdopen(order.ready_fd, "w") as ready:
        try:
            version = _mount_cgroups()
            _mount_everything_else()
            _bring_the_network_up()
            pki.write()
            in_order = daemons(Path(order.kubernetes), cgroup_version=version)
            supervisor = Supervisor(in_order, Path(order.logs))
            for daemon in in_order:
                supervisor.start(daemon.name)
                if daemon.name == "containerd":
                    for image in order.images:
                        _run("ctr", "--address", CONTAINERD_SOCKET, "-n", "k8s.io", "image", "import", image)
                if daemon.name == "kube-apiserver":
                    bootstrap()
            wait_for_node()
            ready.write("ready\n")
        except Exception as error:
            ready.write(f"{type(error).__name__}: {error}\n")
            raise
    supervisor.serve_for_ever()


def _mount_cgroups() -> int:
    """The hierarchies with the nest as their root, since it is the root of the cgroup namespace; their version."""
    hierarchies = nest.hierarchies()
    version = nest.version()
    _run("umount", "--recursive", "--lazy", "/sys")
    _run("mount", "-t", "sysfs", "none", "/sys")
    if version == 2:
        _run("mount", "-t", "cgroup2", "none", nest.ROOT)
        for controller in (nest.ROOT / "cgroup.controllers").read_text().split():
            (nest.ROOT / "cgroup.subtree_control").write_text(f"+{controller}")
        return version
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "none", nest.ROOT)
    for each in hierarchies:
        directory = nest.ROOT / each.mounted_at.name
        directory.mkdir()
        _run("mount", "-t", "cgroup", "-o", each.options, "none", directory)
    return version


def _mount_everything_else() -> None:
    # Containers get the mounts that are made later, too.
    _run("mount", "--make-rshared", "/")
    _run("mount", "-t", "tmpfs", "-o", "mode=755", "none", "/run")
    STATE.mkdir()
    for path in _WRITTEN_TO:
        upper, work = (STATE / "layers" / path.strip("/").replace("/", "-") / name for name in ("upper", "work"))
        upper.mkdir(parents=True)
        work.mkdir()
        _run("mount", "-t", "overlay", "-o", f"lowerdir={path},upperdir={upper},workdir={work}", "none", path)
    processors = Path("/proc/cpuinfo").read_text()
    if "cpu MHz" not in processors:  # User-Mode Linux; a kubelet does not start where it cannot find these
        file = STATE / "cpuinfo"
        file.write_text(processors.rstrip("\n") + "\ncpu MHz\t\t: 2000.000\nphysical id\t: 0\ncore id\t\t: 0\n\n")
        _run("mount", "--bind", file, "/proc/cpuinfo")
    sysctls = STATE / "sysctls"
    for name, value in SYSCTLS.items():
        file = sysctls / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{value}\n")
        _run("mount", "--bind", file, Path("/proc/sys", name))


def _bring_the_network_up() -> None:
    Path("/proc/sys/kernel/hostname").write_text(NODE)
    _run("ip", "link", "set", "lo", "up")
    for address in (NODE_ADDRESS, SERVICE_ADDRESS):
        _run("ip", "address", "add", f"{address}/32", "dev", "lo")
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
    Path("/etc/hosts").write_text(f"127.0.0.1 localhost\n{NODE_ADDRESS} {NODE}\n")
    Path("/etc/resolv.conf").unlink(missing_ok=True)
    Path("/etc/resolv.conf").write_text("")


def _run(*argv: str | Path) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, argv))}: {done.stderr.strip() or done.stdout.strip()}")


if __name__ == "__main__":
    main()
