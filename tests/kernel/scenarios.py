"""What must hold on a real kernel, whichever the version of its cgroups.

Run by ``test_host.py`` on this machine, and by ``inside_v2.py`` in a User-Mode-Linux kernel.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Literal

import pytest

from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.model import EntityKind, container_key
from otel_k8s_cgroup.table import Table
from tests import otlp
from tests.fakes import kube_api
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.kernel.sandbox import ROOT
from tests.programs import exporter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

    from otel_k8s_cgroup.errors import CgroupError
    from otel_k8s_cgroup.model import Reading
    from tests.kernel.sandbox import Driver, Sandbox, SandboxPod

MIB = 1 << 20
NODE = "node-1"
FILES = {
    1: ("cpuacct.usage", "cpuacct.usage_sys", "cpuacct.usage_user", "memory.usage_in_bytes", "memory.stat"),
    2: ("cpu.stat", "memory.current", "memory.stat"),
}


def percent(reading: Any) -> int | float | None:
    return Table([reading]).column("cpu_usage_percent")[0]


def within_5_percent(expected: float) -> Any:
    return pytest.approx(expected, rel=0.05)


def container(pod: SandboxPod) -> str:
    """The key of the pod's container."""
    return container_key(pod.uid, pod.container_id)


def _above(pod: SandboxPod) -> tuple[str, str]:
    """The paths of its QoS level, and of what all pods are in."""
    level = pod.path.rpartition("/")[0]
    return level, level.rpartition("/")[0]


class Node:
    """The package's readings of this machine, with all that it complained of."""

    def __init__(self) -> None:
        self.complaints: list[CgroupError] = []
        self.cgroups = NodeCgroups(
            str(ROOT), open_files=OpenFiles(100), clock=time.monotonic_ns, containers=True, node_totals=True
        )

    def read(self, pod: SandboxPod) -> Reading | None:
        readings = self.cgroups.read({pod.uid}, self.complaints.append)
        return next((reading for reading in readings if reading.key == pod.uid), None)

    def read_all(self, *pods: SandboxPod) -> dict[str, Reading]:
        """Key → the reading of the pods, their containers, and what is above them."""
        keys = {pod.uid for pod in pods} | {container(pod) for pod in pods}
        levels = {path for pod in pods for path in _above(pod)}
        readings = self.cgroups.read(keys, self.complaints.append)
        return {reading.key: reading for reading in readings if reading.key in keys | levels}

    def read_alive(self, pod: SandboxPod) -> Reading:
        reading = self.read(pod)
        assert reading is not None
        return reading


class KernelScenarios:
    """The fixture ``sandbox`` comes from the module that inherits this."""

    @pytest.fixture
    def node(self) -> Iterator[Node]:
        node = Node()
        yield node
        node.cgroups.close()
        assert node.complaints == []

    @pytest.mark.parametrize("system", [False, True], ids=["user", "system"])
    def test_cpu_time_is_what_getrusage_says(self, sandbox: Sandbox, node: Node, system: bool) -> None:
        """A process burns CPU time, in user mode or in system calls: the reading is within 5 % of its own getrusage."""
        pod = sandbox.pod()
        used = pod.order(burn_seconds=1.0, system=system)
        stats = node.read_alive(pod).stats
        total = (used.user + used.system) * 1e9
        assert stats.cpu_usage_ns == within_5_percent(total)
        # The kernel tells the kinds apart by sampling; of v1 the samples themselves are the figures, and add up to more
        # than the total on a machine that is busy. The share is what it has in common with getrusage.
        assert stats.cpu_user_ns is not None
        assert stats.cpu_system_ns is not None
        share = stats.cpu_system_ns / (stats.cpu_user_ns + stats.cpu_system_ns)
        assert share == pytest.approx(used.system * 1e9 / total, abs=0.05)

    def test_memory_is_what_was_allocated(self, sandbox: Sandbox, node: Node) -> None:
        """A process holds anonymous and file memory: each figure is within 5 % of it, and their total is the usage."""
        pod = sandbox.pod()
        before = node.read_alive(pod).stats
        pod.order(anonymous_bytes=96 * MIB, file_bytes=64 * MIB)
        after = node.read_alive(pod).stats
        assert None not in (before.anon_bytes, before.file_bytes, before.memory_usage_bytes)
        assert (after.anon_bytes or 0) - (before.anon_bytes or 0) == within_5_percent(96 * MIB)
        assert (after.file_bytes or 0) - (before.file_bytes or 0) == within_5_percent(64 * MIB)
        assert (after.memory_usage_bytes or 0) - (before.memory_usage_bytes or 0) == within_5_percent(160 * MIB)

    def test_kernel_memory_is_told_where_the_kernel_tells_it(self, sandbox: Sandbox, node: Node) -> None:
        """v2 has stacks and page tables of a process; v1 has no such figure, so there is none (and no 0)."""
        pod = sandbox.pod()
        pod.order(anonymous_bytes=32 * MIB, threads=16)
        stats = node.read_alive(pod).stats
        if sandbox.version == 1:
            assert (stats.kernel_stack_bytes, stats.pagetables_bytes) == (None, None)
        else:
            # A stack has 8 KiB at least; an entry of a page table is 8 bytes, and huge pages have fewer.
            assert stats.kernel_stack_bytes is not None
            assert stats.kernel_stack_bytes >= 16 * 8192
            assert stats.pagetables_bytes is not None
            assert stats.pagetables_bytes > 0

    def test_what_is_read_needs_no_root(self, sandbox: Sandbox) -> None:
        """The files and the directories on the way to them are the world's to read: the image's user is not root."""
        pod = sandbox.pod()
        for name in FILES[sandbox.version]:
            file = sandbox.file(pod, name)
            assert file.stat().st_mode & 0o004
            assert all(parent.stat().st_mode & 0o005 == 0o005 for parent in file.parents)

    def test_percent_is_of_elapsed_time(self, sandbox: Sandbox, node: Node) -> None:
        """CPU % is CPU time ÷ the time between the two readings."""
        pod = sandbox.pod()
        first = node.read_alive(pod)
        pod.order(burn_seconds=0.5)
        second = node.read_alive(pod)
        assert percent(first) is None
        assert first.stats.cpu_usage_ns is not None
        assert second.stats.cpu_usage_ns is not None
        grown = second.stats.cpu_usage_ns - first.stats.cpu_usage_ns
        assert percent(second) == pytest.approx(100 * grown / (second.mono_ns - first.mono_ns))

    @pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
    def test_pods_are_born_and_end(self, sandbox: Sandbox, node: Node, driver: Driver) -> None:
        """One that is born between two readings counts from zero; one that has ended is no longer read, silently."""
        old = sandbox.pod(driver)
        assert not node.read_alive(old).origin.born
        new = sandbox.pod(driver)
        reading = node.read_alive(new)
        assert reading.origin.born
        assert reading.path == new.path
        sandbox.remove(new)
        assert node.read(new) is None
        assert node.read(old) is not None

    @pytest.mark.parametrize("driver", ["systemd", "cgroupfs"])
    def test_containers_restart_in_their_pod(self, sandbox: Sandbox, node: Node, driver: Driver) -> None:
        """A container that was there before, another in its place between two readings, and what all are in."""
        pod = sandbox.pod(driver)
        level, top = _above(pod)
        first = node.read_all(pod)
        assert {key: reading.kind for key, reading in first.items()} == {
            pod.uid: EntityKind.POD,
            container(pod): EntityKind.CONTAINER,
            level: EntityKind.QOS,
            top: EntityKind.NODE,
        }
        assert first[container(pod)].path == f"{pod.path}/{pod.container}"
        assert not first[container(pod)].origin.born
        restarted = sandbox.restart(pod)
        used = restarted.order(burn_seconds=0.5)
        second = node.read_all(restarted)
        assert second.keys() == {pod.uid, container(restarted), level, top}
        reading = second[container(restarted)]
        assert reading.origin.born
        assert reading.origin.mono_ns <= first[pod.uid].mono_ns
        assert reading.stats.cpu_usage_ns == within_5_percent((used.user + used.system) * 1e9)
        # All above it has that, and what the container before it has used.
        for key in (pod.uid, level, top):
            assert second[key].origin is first[key].origin
            grown = second[key].stats.cpu_usage_ns - first[key].stats.cpu_usage_ns
            assert grown >= 0.95 * reading.stats.cpu_usage_ns
        sandbox.remove(restarted)
        assert not node.read_all(restarted).keys() & {pod.uid, container(restarted)}

    def test_the_links_of_a_directory_count_what_is_in_it(self, sandbox: Sandbox) -> None:
        """Which is how a pod's directory is known to hold what it did; its time of change does not tell."""
        pod = sandbox.pod()
        assert pod.cpu_directory.stat().st_nlink == 3
        other = pod.cpu_directory / "other"
        other.mkdir()
        assert pod.cpu_directory.stat().st_nlink == 4
        other.rmdir()
        assert pod.cpu_directory.stat().st_nlink == 3

    @pytest.mark.parametrize("protocol", ["grpc", "http/protobuf"])
    def test_what_run_exports_adds_up_to_the_kernels_counter(
        self, sandbox: Sandbox, protocol: Literal["grpc", "http/protobuf"]
    ) -> None:
        """The whole exporter: a pod that was there counts from its baseline, one that is born from zero; to the ns."""
        old = sandbox.pod()
        old.order(burn_seconds=0.1)
        baseline = old.cpu_time_ns()
        with kube_api.KubeApi() as api, OtlpReceiver(protocol) as receiver:
            api.add(kube_api.pod("old", node=NODE, uid=old.uid))
            flags = {
                "--k8s-node": NODE,
                "--k8s-api-url": api.url,
                "--token-retrieval": "none",
                "--poll-interval": "100ms",
                "--otlp-endpoint": receiver.endpoint,
                "--otlp-protocol": protocol,
            }
            with exporter(*(word for flag in flags.items() for word in flag)) as program:
                receiver.wait_for(lambda messages: old.uid in {point.pod for point in otlp.points(messages)})
                new = sandbox.pod()
                api.add(kube_api.pod("new", node=NODE, uid=new.uid))
                for pod in (old, new):
                    pod.order(burn_seconds=0.3)
                    pod.order(burn_seconds=0.2, system=True)
                grown = {kind: value - baseline[kind] for kind, value in old.cpu_time_ns().items()}
                counted = new.cpu_time_ns()

                def adds_up(messages: list[ExportMetricsServiceRequest]) -> bool:
                    points = otlp.points(messages)
                    return otlp.cpu_time(points, old.uid) == grown and otlp.cpu_time(points, new.uid) == counted

                receiver.wait_for(adds_up)
                assert program.stop() == 0
            points = otlp.points(receiver.messages)
        assert adds_up(receiver.messages)
        assert "\n".join(otlp.defects(points)) == ""
        assert {point.resource["cgroup.path"] for point in points if point.pod} == {old.path, new.path}
