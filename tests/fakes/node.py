"""A node whose pods, cgroup figures, clocks and restarts the test drives, with a whole exporter on it."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import UUID

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.export import Exporter, StateFile, StateSaver
from otel_k8s_cgroup.export.transport import Receipt
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import Pod
from otel_k8s_cgroup.schemas import ALUMET
from tests.otlp import cpu_time, defects, points
from tests.programs import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from otel_k8s_cgroup.errors import ExportError
    from otel_k8s_cgroup.export import Transport
    from tests.otlp import Point

SECOND = 10**9


@dataclass
class DirectReceiver:
    """A transport that is the receiver: takes requests, but for those of which ``fault`` says otherwise."""

    fault: Callable[[], ExportError | None] = lambda: None
    requests: list[ExportMetricsServiceRequest] = field(default_factory=list)
    receipt: Receipt = field(default_factory=Receipt)

    def send(self, body: bytes) -> Receipt:
        if (error := self.fault()) is not None:
            raise error
        self.requests.append(ExportMetricsServiceRequest.FromString(body))
        return self.receipt

    def close(self) -> None:
        """Nothing to close."""


class Node:
    """A tree of cgroup v2 files, the pods in it, and an agent on clocks that the test moves.

    Nothing sends by itself: ``deliver`` does what the sender's thread would, and ``tick`` does so too once the
    exporter's own backoff has passed on the node's clock.

    Args:
        root: an empty directory.
        transport: where requests go.
        tick_seconds: of the grid.
        exporter_options: more of ``Exporter``.
    """

    def __init__(
        self,
        root: Path,
        transport: Transport,
        *,
        queue_bytes: int = 1 << 24,
        tick_seconds: int = 1,
        state_file: Path | None = None,
        **exporter_options: Any,
    ) -> None:
        self.root = root
        self.mono_ns = 5 * SECOND
        self.wall_offset_ns = 1_800_000_000 * SECOND
        self.pods: dict[str, Pod] = {}
        self.told: tuple[Pod, ...] = ()
        self.counters: dict[str, int] = {}
        """uid → its CPU time, µs; those of ended pods stay."""
        self.at_first_sight: dict[str, int] = {}
        self.transport = transport
        self.boot_id_file = root / "boot_id"
        self.boot_id_file.write_text("11111111-2222-3333-4444-555555555555\n")
        self._tick_ns = tick_seconds * SECOND
        self._state_file = state_file
        self._state: StateSaver | None = None
        self._options = {"queue_bytes": queue_bytes} | exporter_options
        self.next_try_ns = 0
        self._files: dict[str, tuple[int, int]] = {}
        self._held: list[int] = []
        (root / "cgroup.controllers").write_text("cpu memory\n")
        (root / "kubepods").mkdir()
        self.restart()

    def restart(self) -> None:
        """The exporter's process is killed, and another one starts."""
        if self._state is not None:
            self._state.close()
        if self._state_file is not None:
            boot_id_file = str(self.boot_id_file)
            file = StateFile(str(self._state_file), boot_id_file=boot_id_file, mono_clock=lambda: self.mono_ns)
            self._state = StateSaver(file, load_seconds=PATIENCE_SECONDS, save_seconds=PATIENCE_SECONDS)
        self.exporter = Exporter(
            self.transport, Instruments(ALUMET), state=self._state, jitter=lambda: 1.0, **self._options
        )
        self.cgroups = NodeCgroups(str(self.root), open_files=OpenFiles(40), clock=lambda: self.mono_ns)
        self.agent = Agent(
            cgroups=self.cgroups,
            pods=lambda: self.told,
            exporter=self.exporter,
            instruments=Instruments(ALUMET),
            describe=Describe(),
            mono_clock=lambda: self.mono_ns,
            wall_clock=lambda: self.mono_ns + self.wall_offset_ns,
        )
        self.next_try_ns = 0

    def start(self, number: int, *, used_usec: int = 0) -> str:
        """A pod begins; one that has used time already was there before the exporter."""
        uid = str(UUID(int=number))
        directory = self.root / "kubepods" / f"pod{uid}"
        directory.mkdir()
        flags = os.O_RDWR | os.O_CREAT
        self._files[uid] = os.open(directory / "cpu.stat", flags), os.open(directory / "memory.current", flags)
        self.pods[uid] = Pod(uid, f"pod-{number}", "ns", "node", "2026-01-01T00:00:00Z", uid)
        self.at_first_sight[uid] = self.counters[uid] = used_usec
        self.use(uid, 0)
        self.tell()
        return uid

    def use(self, uid: str, usec: int) -> None:
        """It uses so much more CPU time, two thirds of it in user mode."""
        self.counters[uid] = total = self.counters[uid] + usec
        user = total * 2 // 3
        cpu, memory = self._files[uid]
        # In place, as the kernel's files are: the descriptor that the exporter holds stays the file's.
        for descriptor, text in (
            (cpu, f"usage_usec {total}\nuser_usec {user}\nsystem_usec {total - user}\n"),
            (memory, f"{total % 4096}\n"),
        ):
            os.pwrite(descriptor, text.encode(), 0)
            os.ftruncate(descriptor, len(text))

    def end(self, uid: str) -> None:
        directory = self.root / "kubepods" / f"pod{uid}"
        # While it is open, its inode is nobody else's (the kernel's cgroups never use one again).
        self._held.append(os.open(directory, os.O_RDONLY))
        if len(self._held) > 100:
            os.close(self._held.pop(0))
        shutil.rmtree(directory)
        for descriptor in self._files.pop(uid):
            os.close(descriptor)
        del self.pods[uid]
        self.tell()

    def tell(self) -> None:
        """The API tells the pods as they are."""
        self.told = tuple(self.pods.values())

    def close(self) -> None:
        for uid in list(self.pods):
            self.end(uid)
        self.cgroups.close()
        if self._state is not None:
            self._state.close()
            self._state = None
        while self._held:
            os.close(self._held.pop())

    def read(self) -> None:
        """One tick of the agent, and time goes on."""
        self.agent.tick()
        self.mono_ns += self._tick_ns

    def deliver(self) -> float | None:
        """What the sender does when it is woken."""
        wait_seconds = self.exporter.deliver()
        self.next_try_ns = self.mono_ns + round((wait_seconds or 0) * SECOND)
        return wait_seconds

    def tick(self) -> None:
        """One tick with its export, where that is not waiting after a failure."""
        self.read()
        if self.mono_ns >= self.next_try_ns:
            self.deliver()

    def grown_ns(self, uid: str) -> dict[str, int]:
        """What the pod's counters grew by since it was first seen."""
        first, total = self.at_first_sight[uid], self.counters[uid]
        user = total * 2 // 3 - first * 2 // 3
        return {"total": (total - first) * 1000, "user": user * 1000, "system": (total - first - user) * 1000}

    def assert_conserved(self, requests: Iterable[ExportMetricsServiceRequest], *, gaps: bool = False) -> list[Point]:
        """Every pod's sum is its counter's growth since it was first seen, in each kind; and every point is in order.

        ``gaps``: the receiver may have lost a request of which it said that it took it.
        """
        received = [point for point in points(requests) if point.pod]
        found = defects(received)
        assert not [defect for defect in found if not (gaps and defect.startswith("does not start"))]
        grown = {uid: self.grown_ns(uid) for uid in self.counters}
        nothing = {"total": 0, "user": 0, "system": 0}
        assert {uid: nothing | cpu_time(received, uid) for uid in self.counters} == grown
        return received
