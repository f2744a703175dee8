"""In place of an ``Exporter`` where nothing is sent: what was read is scraped alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.export.delivery import ExportStats

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from otel_k8s_cgroup.metrics import Rows
    from otel_k8s_cgroup.model import Discovery, Entity, Origin, Pod, Reading


class NoExporter:
    """Accepts readings and lets go of them; each method is as ``Exporter`` has it."""

    is_alive = True
    queue_bytes = 0
    remembers = False

    def __init__(self) -> None:
        self.stats = ExportStats()

    def start(self) -> None:
        """Nothing has to run."""

    def holders(self, _cgroups: Mapping[str, tuple[str, Origin | None]], _discovery: Discovery) -> dict[str, Pod]:
        """Nobody is remembered."""
        return {}

    def discovered(
        self,
        discovered_ns: int,
        wall_offset_ns: int,
        cgroups: Mapping[str, tuple[str, Origin | None]],
        discovery: Discovery,
    ) -> None:
        """Nothing depends on it."""

    def put(
        self, entities: Sequence[Entity], readings: Sequence[Reading], collected: Rows, wall_offset_ns: int
    ) -> None:
        """Nothing is kept."""

    def forget_all_but(self, cgroup_uids: Collection[str]) -> None:
        """Nothing is known."""

    def flush(self) -> None:
        """Nothing waits."""

    def close(self, _timeout_seconds: float) -> bool:
        """Nothing was left undelivered."""
        return True
