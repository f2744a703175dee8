"""A pod's network, asked of one of its processes: real network namespaces, and what a fake /proc can make happen."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles, network
from otel_k8s_cgroup.cgroup.interfaces import Interfaces
from otel_k8s_cgroup.cgroup.network import NetworkReader, Sight
from otel_k8s_cgroup.errors import CgroupReadError, MalformedFile, ProcessesHidden, TooManyInterfaces
from otel_k8s_cgroup.figures import FIGURES

from .layouts import BURSTABLE, GUARANTEED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from otel_k8s_cgroup.errors import CgroupError

    from .kernel_tree import KernelTree

SECOND = 10**9
NETWORK = [figure for figure in FIGURES if figure.net_dev is not None]
NOTHING = (None,) * len(NETWORK)
POD = f"/kubepods/burstable/pod{BURSTABLE}"
HOST_POD = f"/kubepods/pod{GUARANTEED}"
HEAD = "Inter-| Receive | Transmit\n face |bytes packets errs drop …\n"


def read(reader: NetworkReader, errors: list[CgroupError], now_ns: int = 0) -> dict[str, Any]:
    """Figure → its mapping."""
    row = reader.read(now_ns, errors.append)
    return {figure.name.removeprefix("network_"): value for figure, value in zip(NETWORK, row, strict=True)}


# --- real namespaces ------------------------------------------------------------------------------------------------


class Process:
    """A process that waits, in a network namespace of its own with one interface, whose other end is in it, too."""

    def __init__(self, stack: ExitStack, *, network_of: Process | None = None, host: bool = False) -> None:
        # No neighbours are to be looked for meanwhile.
        script = "for each in all default; do echo 1 > /proc/sys/net/ipv6/conf/$each/disable_ipv6; done; "
        script += "ip link add eth0 type veth peer name peer || exit 1; ip addr add 10.9.0.1/24 dev eth0; "
        script += "ip link set eth0 up; ip link set peer up; echo made; exec sleep 600"
        command = ["unshare", "-n", "sh", "-c", script]
        if host:
            command = ["sh", "-c", "echo made; exec sleep 600"]
        elif network_of is not None:
            command = ["nsenter", "-t", str(network_of.pid), "-n", "sh", "-c", "echo made; exec sleep 600"]
        self.popen = stack.enter_context(_ended(command))
        assert self.popen.stdout is not None
        if self.popen.stdout.readline() != b"made\n":
            pytest.skip("network namespaces with a veth cannot be made here")

    @property
    def pid(self) -> int:
        return self.popen.pid

    def enter(self, tree: KernelTree, path: str) -> None:
        """Moves it into a container's cgroup."""
        tree.make(path)
        for hierarchy in tree.hierarchies:
            (hierarchy / path.lstrip("/") / "cgroup.procs").write_text(str(self.pid))

    def send(self, packets: int) -> None:
        """So many packets that nobody is there to take."""
        send = "import socket; s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.setsockopt(1, 6, 1)"
        code = f"{send}\nfor _ in range({packets}): s.sendto(bytes(100), ('10.9.0.255', 9))"
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "python3", "-c", code], check=True)

    def interfaces(self) -> dict[str, dict[str, dict[str, int]]]:
        """As ``ip`` has them."""
        command = ["nsenter", "-t", str(self.pid), "-n", "ip", "-json", "-s", "link"]
        found = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
        return {each["ifname"]: each["stats64"] for each in found}

    def rename(self, name: str, new: str) -> None:
        script = f"ip link set {name} down && ip link set {name} name {new} && ip link set {new} up"
        subprocess.run(["nsenter", "-t", str(self.pid), "-n", "sh", "-c", script], check=True)

    def end(self) -> None:
        self.popen.kill()
        self.popen.wait()


@contextmanager
def _ended(command: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            yield process
        finally:
            process.kill()


needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))),
    reason="needs root, iproute2 and util-linux",
)


def of_eth0(row: dict[str, Any]) -> dict[str, int]:
    return {name: mapping["eth0"] for name, mapping in row.items()}


def by_ip(process: Process) -> dict[str, int]:
    """The figures of ``eth0`` as ``ip`` has them."""
    stats = process.interfaces()["eth0"]
    keys = {"bytes": "bytes", "packets": "packets", "errs": "errors", "drop": "dropped"}
    return {
        f"{way}_{ours}": stats[theirs][key]
        for way, theirs in (("receive", "rx"), ("transmit", "tx"))
        for ours, key in keys.items()
    }


@needs_namespaces
def test_a_pods_network_is_that_of_its_processes(kernel_tree: KernelTree) -> None:
    """As `ip` has it, and it goes on where the process that was asked ends, or the pod gets another network."""
    errors: list[CgroupError] = []
    with ExitStack() as stack:
        sandbox = Process(stack)
        sandbox.enter(kernel_tree, f"{POD}/sandbox")
        container = Process(stack, network_of=sandbox)
        container.enter(kernel_tree, f"{POD}/container")
        sandbox.send(20)
        files = OpenFiles(10)
        reader = NetworkReader(NETWORK, str(kernel_tree.hierarchies[0] / POD.lstrip("/")), files)
        first = read(reader, errors)
        assert of_eth0(first) == by_ip(sandbox)
        assert of_eth0(first)["transmit_packets"] >= 20
        assert set(first["receive_bytes"]) == {"eth0", "peer"}
        assert files.count == 1

        sandbox.end()
        container.send(5)
        assert of_eth0(read(reader, errors)) == by_ip(container)

        # Its sandbox is made anew: counters begin at zero, and are counted on from.
        last = by_ip(container)
        read(reader, errors)
        container.end()
        another = Process(stack)
        another.enter(kernel_tree, f"{POD}/sandbox")
        another.send(3)
        now = by_ip(another)
        assert of_eth0(read(reader, errors, 2 * SECOND)) == {name: last[name] + now[name] for name in last}
        another.end()
        assert set(read(reader, errors, 4 * SECOND).values()) == {None}
        reader.close()
        assert files.count == 0
    assert errors == []


@needs_namespaces
def test_a_pod_on_the_hosts_network_has_none(kernel_tree: KernelTree) -> None:
    """Its figures would be the node's."""
    errors: list[CgroupError] = []
    with ExitStack() as stack:
        Process(stack, host=True).enter(kernel_tree, f"{HOST_POD}/sandbox")
        reader = NetworkReader(NETWORK, str(kernel_tree.hierarchies[0] / HOST_POD.lstrip("/")), OpenFiles(10))
        for second in range(3):
            assert set(read(reader, errors, second * SECOND).values()) == {None}
        reader.close()
    assert errors == []


@needs_namespaces
def test_a_real_interface_that_is_renamed_counts_once(kernel_tree: KernelTree) -> None:
    """Both names have carried together what the kernel says of the interface."""
    errors: list[CgroupError] = []
    with ExitStack() as stack:
        sandbox = Process(stack)
        sandbox.enter(kernel_tree, f"{POD}/sandbox")
        reader = NetworkReader(NETWORK, str(kernel_tree.hierarchies[0] / POD.lstrip("/")), OpenFiles(10))
        carried = read(reader, errors)["transmit_packets"]
        sandbox.rename("eth0", "net7")
        sandbox.send(20)
        carried |= read(reader, errors)["transmit_packets"]
        sandbox.rename("net7", "eth0")
        carried |= read(reader, errors)["transmit_packets"]
        real = sandbox.interfaces()["eth0"]["tx"]["packets"]
        reader.close()
    assert carried["net7"] >= 20
    assert carried["eth0"] + carried["net7"] == real
    assert errors == []


@needs_namespaces
def test_no_privilege_is_needed(kernel_tree: KernelTree, unprivileged: Path) -> None:
    """Another user's process is asked, and the host's network is told from it."""
    errors: list[CgroupError] = []
    os.seteuid(0)
    try:
        with ExitStack() as stack:
            sandbox = Process(stack)
            sandbox.enter(kernel_tree, f"{POD}/sandbox")
            Process(stack, host=True).enter(kernel_tree, f"{HOST_POD}/sandbox")
            os.seteuid(65534)
            rows = [
                read(NetworkReader(NETWORK, str(kernel_tree.hierarchies[0] / path.lstrip("/")), OpenFiles(10)), errors)
                for path in (POD, HOST_POD)
            ]
            os.seteuid(0)
            assert of_eth0(rows[0]) == by_ip(sandbox)
            assert set(rows[1].values()) == {None}
    finally:
        os.seteuid(65534)
    assert errors == []


@needs_namespaces
def test_beyond_the_limit_of_files_no_descriptor_stays(kernel_tree: KernelTree) -> None:
    """The process is chosen at each reading."""
    errors: list[CgroupError] = []
    with ExitStack() as stack:
        sandbox = Process(stack)
        sandbox.enter(kernel_tree, f"{POD}/sandbox")
        files = OpenFiles(0)
        reader = NetworkReader(NETWORK, str(kernel_tree.hierarchies[0] / POD.lstrip("/")), files)
        for second in range(3):
            assert of_eth0(read(reader, errors, second * SECOND)) == by_ip(sandbox)
            assert files.count == 0
    assert errors == []


# --- what a fake /proc can make happen ------------------------------------------------------------------------------


class FakeNode:
    """A pod's cgroup and a /proc of plain files; each network's ``net/dev`` is a file of its own, as in the kernel."""

    def __init__(self, home: Path) -> None:
        self.proc = home / "proc"
        self.pod = home / "pod"
        self.networks = home / "networks"
        for directory in (self.proc, self.pod / "container", self.networks):
            directory.mkdir(parents=True)
        self.network("host", lo=(1, 1))
        self.process(1, "host")
        self.errors: list[CgroupError] = []
        self.now_ns = 0
        self.reader = NetworkReader(NETWORK, str(self.pod), OpenFiles(10), str(self.proc))

    def network(self, name: str, **interfaces: tuple[int, int]) -> None:
        """Interface → bytes received and sent."""
        lines = (f"{each:>6}: {rx} 0 0 0 0 0 0 0 {tx} 0 0 0 0 0 0 0\n" for each, (rx, tx) in interfaces.items())
        (self.networks / name).write_text(HEAD + "".join(lines))

    def process(self, pid: int, network: str, start: int = 0) -> None:
        directory = self.proc / str(pid)
        (directory / "net").mkdir(parents=True)
        (directory / "stat").write_text(f"{pid} (a ) b) S {' '.join(['0'] * 18)} {start} 0 0\n")
        os.link(self.networks / network, directory / "net/dev")

    def end(self, pid: int) -> None:
        shutil.rmtree(self.proc / str(pid))

    def hold(self, *pids: int) -> None:
        """These are the pod's."""
        (self.pod / "container/cgroup.procs").write_text("".join(f"{pid}\n" for pid in pids))

    def bytes(self) -> tuple[Any, Any]:
        """Received and sent, a second after the last time."""
        self.now_ns += SECOND
        row = read(self.reader, self.errors, self.now_ns)
        return row["receive_bytes"], row["transmit_bytes"]


@pytest.fixture
def fake(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path)


def test_a_pid_that_is_anothers_now_is_not_asked(fake: FakeNode) -> None:
    """The pod's process has ended, and a process of another pod has its PID."""
    fake.network("pods", eth0=(10, 20))
    fake.network("others", eth0=(1000, 2000))
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})
    fake.end(7)
    fake.hold()
    fake.process(7, "others")
    assert fake.bytes() == (None, None)
    assert fake.bytes() == (None, None)
    # Nor where it becomes another's between the list and the look at it; also where that is the pod's by then.
    ask = fake.reader._ask_one
    fake.hold(7)
    fake.reader._ask_one = lambda *process: (fake.hold(), ask(*process))[1]  # type: ignore[method-assign, func-returns-value]
    assert fake.bytes() == (None, None)
    fake.hold(7)
    fake.reader._ask_one = lambda start, *process: ask(start - 1, *process)  # type: ignore[method-assign]
    assert fake.bytes() == (None, None)
    assert fake.reader._open_files.count == 0
    assert fake.errors == []


def test_the_process_that_began_first_is_asked(fake: FakeNode) -> None:
    """A process may make a network of its own; the sandbox is there before it."""
    fake.network("pods", eth0=(10, 20))
    fake.network("own", eth0=(1000, 2000))
    fake.process(7, "own", start=300)
    fake.process(8, "pods", start=299)
    fake.hold(7, 8)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})


@pytest.mark.parametrize("bomb", ["a", "z"])
def test_a_fork_bomb_does_not_hide_the_sandbox(fake: FakeNode, bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One process of each container is compared first, and few at all."""
    fake.network("pods", eth0=(10, 20))
    fake.network("own", eth0=(1000, 2000))
    for pid in range(1000, 1100):
        fake.process(pid, "own", start=pid)
    fake.process(7, "pods", start=99)
    fake.hold(7)
    for container in (bomb, "m"):
        (fake.pod / container).mkdir()
        (fake.pod / container / "cgroup.procs").write_text("".join(f"{pid}\n" for pid in range(1000, 9000)))
    compared: list[str] = []
    start = network._start

    def counted(stat: str) -> int | None:
        compared.append(stat)
        return start(stat)

    monkeypatch.setattr(network, "_start", counted)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})
    assert len(compared) <= 64 + 1


def test_interfaces_come_and_go(fake: FakeNode) -> None:
    """What one has carried counts on where one of its name is made anew; loopback is none."""
    fake.network("pods", lo=(5, 5), eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})
    fake.network("pods", eth0=(15, 20), net1=(1, 2))
    assert fake.bytes() == ({"eth0": 15, "net1": 1}, {"eth0": 20, "net1": 2})
    fake.network("pods", eth0=(15, 21))
    assert fake.bytes() == ({"eth0": 15}, {"eth0": 21})
    fake.network("pods", eth0=(3, 4), net1=(5, 6))
    assert fake.bytes() == ({"eth0": 18, "net1": 6}, {"eth0": 25, "net1": 8})
    assert fake.errors == []


def test_a_pod_cannot_make_series_without_end(fake: FakeNode) -> None:
    """Of hundreds of interfaces that somebody makes in it, the first sixteen count."""
    fake.network("pods", eth0=(1, 2))
    fake.process(7, "pods")
    fake.hold(7)
    fake.bytes()
    fake.network("pods", **{f"eth{number}": (1, 2) for number in range(300)})
    assert fake.bytes()[0] == {f"eth{number}": 1 for number in range(16)}
    for number in range(300, 400):
        fake.network("pods", eth0=(1, 2), **{f"eth{number}": (1, 2)})
        assert fake.bytes()[0] == {"eth0": 1}
    (error,) = fake.errors
    assert isinstance(error, TooManyInterfaces)
    assert "'eth16'" in str(error)


def test_a_pod_that_has_too_many_interfaces_at_first(fake: FakeNode) -> None:
    """It has none until they are few: one that was there before, and left out, would count its whole life later."""
    many = {f"eth{number}": (1, 2) for number in range(17)}
    fake.network("pods", **many)
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == (None, None)
    assert fake.bytes() == (None, None)
    del many["eth3"]
    fake.network("pods", **many)
    assert fake.bytes()[0] == dict.fromkeys(many, 1)
    (error,) = fake.errors
    assert isinstance(error, TooManyInterfaces)
    # What comes later and is one too many is another matter, and reported again.
    fake.network("pods", **many, eth17=(1, 2))
    assert fake.bytes()[0] == dict.fromkeys(many, 1)
    assert "'eth17'" in str(fake.errors[1])


def test_a_pod_that_is_born_with_too_many_interfaces(fake: FakeNode) -> None:
    """The first ones count: whatever the others have carried by the time that they do, it was not there before."""
    fake.network("pods", **{f"eth{number}": (1, 2) for number in range(17)})
    fake.process(7, "pods")
    fake.hold(7)
    interfaces = Interfaces("net/dev", born=True)
    fake.reader = NetworkReader(NETWORK, str(fake.pod), OpenFiles(10), str(fake.proc), interfaces=interfaces)
    assert fake.bytes()[0] == {f"eth{number}": 1 for number in range(16)}


def test_more_interfaces_than_are_read(fake: FakeNode) -> None:
    """Nobody hides the pod's network behind them; and one that is not among those that are read is not gone."""
    fake.network("pods", eth0=(10, 1), net1=(5, 5))
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes()[0] == {"eth0": 10, "net1": 5}
    many = {f"veth{number}": (10**12, 1) for number in range(5000)}
    fake.network("pods", eth0=(11, 1), **many, net1=(6, 5))
    assert fake.bytes()[0] == {"eth0": 11}
    fake.network("pods", eth0=(12, 1), net1=(3, 5))
    assert fake.bytes()[0] == {"eth0": 12, "net1": 5 + 3}
    assert fake.errors == []
    # Of one that was there before, all are to be known.
    fake.reader = NetworkReader(NETWORK, str(fake.pod), OpenFiles(10), str(fake.proc))
    fake.network("pods", eth0=(12, 1), **many, net1=(10**12, 5))
    assert fake.bytes() == (None, None)
    assert [type(error) for error in fake.errors] == [TooManyInterfaces]


def test_what_a_container_engine_in_a_pod_makes_does_not_count(fake: FakeNode) -> None:
    """As in cAdvisor: what goes through it goes through the pod's own interfaces, too."""
    fake.network("pods", lo=(9, 9), **{f"veth{number}": (1, 2) for number in range(300)}, docker0=(3, 4))
    with (fake.networks / "pods").open("a") as file:
        file.write(f"nerdctl0: {'9' * 20} {'0 ' * 15}\n  eth0: {'5 ' * 16}\n  lox: {'6 ' * 16}\n")
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == ({"eth0": 5, "lox": 6}, {"eth0": 5, "lox": 6})
    assert fake.errors == []


@pytest.mark.parametrize("number", ["-1", "x", "9" * 19, str((1 << 64) - 1), "1_0"])
def test_a_malformed_number_costs_its_figure(fake: FakeNode, number: str) -> None:
    """Of all interfaces, as a device's of `io`: one that is missing once would be taken for one that has come later."""
    fake.network("pods", eth0=(10, 20))
    with (fake.networks / "pods").open("a") as file:
        file.write(f"eth1: 1 0 0 {number}{' 0' * 12}\n")
    fake.process(7, "pods")
    fake.hold(7)
    row = read(fake.reader, fake.errors)
    assert row.pop("receive_drop") is None
    assert row["receive_bytes"] == {"eth0": 10, "eth1": 1}
    assert None not in row.values()
    (error,) = fake.errors
    assert isinstance(error, MalformedFile)
    fake.network("pods", eth0=(10, 20), eth1=(2, 0))
    row = read(fake.reader, fake.errors)
    assert row["receive_drop"] == {"eth0": 0, "eth1": 0}
    assert row["receive_bytes"] == {"eth0": 10, "eth1": 2}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "head\n",
        HEAD + "  eth0: 12 0 0 0 0 0 0 0 2",
        HEAD + "  eth0: 12 x 0 0 0 0 0 0 0 2\n",
        HEAD + f"  eth0: {'30 ' * 16}\n\n",
    ],
)
def test_what_is_malformed_once_is_not_counted_again(fake: FakeNode, text: str) -> None:
    """There is no figure, and no interface that is gone and comes back: the counters go on from where they were."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})
    (fake.networks / "pods").write_text(text)
    assert fake.bytes() == (None, None)
    fake.network("pods", eth0=(12, 21))
    assert fake.bytes() == ({"eth0": 12}, {"eth0": 21})
    assert [type(error) for error in fake.errors] == [MalformedFile]


def grown(fake: FakeNode, *readings: dict[str, tuple[int, int]]) -> dict[str, int]:
    """What the received bytes have grown by, by interface, from the first reading on; a new one from zero."""
    totals: list[dict[str, int]] = []
    for reading in readings:
        fake.network("pods", **reading)
        if not (fake.proc / "7").exists():
            fake.process(7, "pods")
            fake.hold(7)
        totals.append(fake.bytes()[0])
    growth: dict[str, int] = {}
    known = totals[0]
    for total in totals[1:]:
        for name, value in total.items():
            assert value >= known.get(name, 0)
            growth[name] = growth.get(name, 0) + value - known.get(name, 0)
        known = known | total
    return growth


def test_an_interface_that_is_renamed_counts_once(fake: FakeNode) -> None:
    """It goes on under its new name, and again under its old one."""
    growth = grown(
        fake,
        {"eth0": (1000, 1)},
        {"eth0": (5000, 1)},
        {"eth1": (5000, 1)},
        {"eth1": (5100, 1)},
        {"eth0": (5110, 1)},
        {"eth0": (5150, 1)},
    )
    assert growth == {"eth0": 4000 + 10 + 40, "eth1": 100}


def test_a_drivers_count_of_drops_that_is_lower_under_a_new_name(fake: FakeNode) -> None:
    """No counter begins below zero."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    text = (fake.networks / "pods").read_text().replace("10 0 0 0", "10 0 0 5")
    rows = []
    for name, drops in (("eth0", 5), ("eth1", 3), ("eth1", 4)):
        (fake.networks / "pods").write_text(text.replace("eth0", name).replace("0 5", f"0 {drops}"))
        rows.append(read(fake.reader, fake.errors)["receive_drop"])
    assert rows == [{"eth0": 5}, {"eth1": 0}, {"eth1": 1}]


def test_interfaces_that_are_renamed_at_once(fake: FakeNode) -> None:
    """Each goes on from the one that is nearest; what is lower is a new one."""
    growth = grown(
        fake,
        {"a": (100, 1), "b": (5000, 1)},
        {"c": (5001, 1), "d": (103, 1), "e": (7, 0)},
        # A new one has the name that one had.
        {"c": (6, 0), "x": (5003, 1), "d": (103, 1), "e": (8, 0)},
    )
    assert growth == {"c": 1 + 6, "d": 3, "e": 8, "x": 2}


@pytest.mark.parametrize("meanwhile", ["veth0", "eth99"])
def test_an_interface_that_bore_a_name_that_does_not_count(fake: FakeNode, meanwhile: str) -> None:
    """That of an engine's interface, or one too many: what it had carried before does not count again."""
    others = {f"eth{number}": (0, 0) for number in range(1, 16)}
    growth = grown(
        fake,
        {"eth0": (1000, 1), **others},
        {meanwhile: (5000, 1), **others},
        {meanwhile: (5100, 1), **others},
        {"eth0": (5110, 1), **others},
        {"eth0": (5115, 1), **others},
    )
    assert {name: by for name, by in growth.items() if by} == {"eth0": 15}
    # Another one of that name is of no account.
    others = dict.fromkeys(others, (0, 0))
    growth = grown(fake, {"eth0": (5115, 1), **others}, {meanwhile: (9, 1), **others}, {"eth0": (50, 1), **others})
    assert growth["eth0"] == 50


def test_a_device_that_is_moved_to_the_pods_new_network_counts_once(fake: FakeNode) -> None:
    """Its counters come with it; those of one that was made there begin at zero."""
    fake.network("first", net1=(10**12, 5), eth0=(700, 5))
    fake.network("second", net1=(10**12 + 3, 5), eth0=(20, 5), net2=(900, 5))
    fake.process(7, "first")
    fake.hold(7)
    assert fake.bytes()[0] == {"net1": 10**12, "eth0": 700}
    fake.end(7)
    fake.process(8, "second")
    fake.hold(8)
    assert fake.bytes()[0] == {"net1": 10**12 + 3, "eth0": 720, "net2": 900}


def test_a_drivers_count_of_drops_that_goes_down_is_no_new_interface(fake: FakeNode) -> None:
    """What was received is not counted again, and no counter goes down."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    text = (fake.networks / "pods").read_text()
    rows = []
    for drops in (5, 3, 4):
        (fake.networks / "pods").write_text(text.replace("10 0 0 0", f"10 1 0 {drops}"))
        fake.now_ns += SECOND
        rows.append(read(fake.reader, fake.errors, fake.now_ns))
    assert [row["receive_bytes"]["eth0"] for row in rows] == [10, 10, 10]
    assert [row["receive_drop"]["eth0"] for row in rows] == [5, 5, 6]


def test_a_network_that_may_not_be_looked_at_is_said(fake: FakeNode) -> None:
    """As under SELinux: once a minute, with the pod and the kernel's word."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    (fake.proc / "7/net/dev").unlink()
    (fake.proc / "7/net/dev").symlink_to("dev")  # ELOOP: root may look at any file
    for _ in range(60):
        assert fake.bytes() == (None, None)
    (error,) = fake.errors
    assert isinstance(error, CgroupReadError)
    assert (error.path, error.cause) == (f"{fake.pod}: net/dev", "ELOOP")


@contextmanager
def no_descriptors() -> Iterator[None]:
    """None is left to open."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    # Above what earlier tests of this process have left open.
    most = max(int(each.name) for each in Path("/proc/self/fd").iterdir()) + 32
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, most), hard))
    try:
        with suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("is_held", [True, False])
def test_without_descriptors_a_process_is_asked(fake: FakeNode, is_held: bool) -> None:
    """The one that is kept for this is used: by the process that is held, and where one is chosen."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods", start=5)
    fake.process(8, "pods", start=6)
    fake.hold(7, 8)
    if is_held:
        fake.bytes()
    with no_descriptors():
        found = [fake.bytes(), fake.bytes()]
    assert found == [({"eth0": 10}, {"eth0": 20})] * 2
    assert fake.errors == []


def test_a_pod_on_the_network_of_a_node_that_is_no_host(fake: FakeNode) -> None:
    """Seen from the machine that runs a kind node, the node's network is not pid 1's: the API says whose it is."""
    fake.network("node", eth0=(10, 20))
    fake.process(7, "node")
    fake.hold(7)
    on_host = [True]
    fake.reader = NetworkReader(NETWORK, str(fake.pod), OpenFiles(10), str(fake.proc), is_on_host=lambda: on_host[0])
    assert fake.bytes() == (None, None)
    on_host[0] = False
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})


def test_processes_that_v1_does_not_list(fake: FakeNode) -> None:
    """Of another PID namespace: said after a minute, unless another pod's process was seen."""
    sight = Sight()
    fake.reader = NetworkReader(NETWORK, str(fake.pod), OpenFiles(10), str(fake.proc), sight=sight)
    fake.hold()
    for _ in range(60):
        assert fake.bytes() == (None, None)
    assert fake.errors == []
    fake.bytes()
    assert [type(error) for error in fake.errors] == [ProcessesHidden]
    # The exporter's own are seen wherever it is.
    fake.network("own", eth0=(1, 2))
    fake.process(os.getpid(), "own")
    fake.hold(os.getpid())
    fake.now_ns += 60 * SECOND
    fake.bytes()
    clear = [sight.is_clear]
    fake.process(7, "own")
    fake.hold(7)
    fake.end(os.getpid())
    fake.bytes()
    clear.append(sight.is_clear)
    assert clear == [False, True]
    fake.end(7)
    fake.hold()
    for _ in range(70):
        fake.bytes()
    assert len(fake.errors) == 1


def test_processes_of_another_pid_namespace(fake: FakeNode) -> None:
    """Without the host's PID namespace the kernel writes 0 for each: reported once a minute, with the way out."""
    fake.hold(0, 0)
    for _ in range(59):
        assert fake.bytes() == (None, None)
    (error,) = fake.errors
    assert isinstance(error, ProcessesHidden)
    assert "hostPID: true" in str(error)
    fake.bytes()
    fake.bytes()
    assert len(fake.errors) == 2


def test_where_the_hosts_network_cannot_be_told_there_is_none(fake: FakeNode) -> None:
    """It would be counted as a pod's."""
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    fake.end(1)
    assert fake.bytes() == (None, None)
    assert [type(error) for error in fake.errors] == [ProcessesHidden]


def test_a_pod_that_has_no_process_yet(fake: FakeNode) -> None:
    """It is looked for again a second later, and what it carried before counts."""
    assert fake.bytes() == (None, None)
    fake.network("pods", eth0=(10, 20))
    fake.process(7, "pods")
    fake.hold(7)
    assert fake.bytes() == ({"eth0": 10}, {"eth0": 20})


def test_only_pods_are_asked(kernel_tree: KernelTree) -> None:
    """Containers and levels have no network of their own; a cgroup that is made anew is noticed all the same."""
    kernel_tree.make(f"{POD}/container")
    now_ns = 0
    node = NodeCgroups(
        str(kernel_tree.root),
        open_files=OpenFiles(100),
        clock=lambda: now_ns,
        parts=((NETWORK, 1),),
        containers=True,
        node_totals=True,
    )
    errors: list[CgroupError] = []
    for _ in range(2):
        readings = node.read({BURSTABLE}, errors.append)
        assert {tuple(reading.stats) for reading in readings} == {NOTHING}
        now_ns += SECOND
    before = {reading.key: reading for reading in readings}[BURSTABLE]
    kernel_tree.remove(f"{POD}/container")
    kernel_tree.remove(POD)
    kernel_tree.make(POD)
    after = {reading.key: reading for reading in node.read({BURSTABLE}, errors.append)}[BURSTABLE]
    assert after.origin != before.origin
    assert after.origin.born
    node.close()
    assert errors == []
