"""The exporter's own metrics: what it did, what it could not do and what that cost, under a Resource of its own.

All are cumulative, so that an export that is lost costs nothing but its moment.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.resources import Resource

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.instruments import SCOPE_NAME, ManualReader
from otel_k8s_cgroup.model import INT64_MAX, SERVICE_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

PREFIX = "otel_k8s_cgroup."


@dataclass(frozen=True, slots=True)
class OwnMetric:
    """One row: ``get`` gives the value now; with ``attributes``, a value for each tuple of the attributes' values."""

    name: str
    unit: str
    description: str
    get: Callable[[], float | Mapping[tuple[str, ...], int]]
    attributes: tuple[str, ...] = ()
    monotonic: bool = True


class Telemetry:
    """Collects the rows.

    Args:
        rows: what is told.
        node: the node's name.
        service_name: of the Resource.
        resource_attributes: of the Resource, where it has no such attribute itself.
        instance_id: of the Resource; one a process.
    """

    def __init__(
        self,
        rows: Sequence[OwnMetric],
        *,
        node: str,
        service_name: str = SERVICE_NAME,
        resource_attributes: Sequence[tuple[str, str]] = (),
        instance_id: str | None = None,
    ) -> None:
        self._reader = ManualReader()
        provider = MeterProvider(
            [self._reader],
            # Not create(): it reads the environment itself, and logs what it cannot parse.
            resource=Resource(
                {
                    "telemetry.sdk.language": "python",
                    "telemetry.sdk.name": "opentelemetry",
                    "telemetry.sdk.version": version("opentelemetry-sdk"),
                    **dict(resource_attributes),
                    "service.name": service_name,
                    "service.version": __version__,
                    "service.instance.id": instance_id or str(uuid.uuid4()),
                    "k8s.node.name": node,
                }
            ),
            exemplar_filter=AlwaysOffExemplarFilter(),
            shutdown_on_exit=False,
        )
        meter = provider.get_meter(SCOPE_NAME, __version__)
        for row in rows:
            create = meter.create_observable_counter if row.monotonic else meter.create_observable_gauge
            create(PREFIX + row.name, [_callback(row)], row.unit, row.description)

    def encode(self) -> bytes:
        """All of it now, as an ``ExportMetricsServiceRequest``."""
        collected = self._reader.collect_now()
        return encode_metrics(collected).SerializeToString() if collected is not None else b""


def _callback(row: OwnMetric) -> Callable[[CallbackOptions], list[Observation]]:
    def observe(_options: CallbackOptions) -> list[Observation]:
        value = row.get()
        if isinstance(value, (int, float)):
            # A larger one would end the encoding of all.
            return [Observation(min(value, INT64_MAX))]
        return [
            Observation(min(count, INT64_MAX), dict(zip(row.attributes, names, strict=True)))
            for names, count in sorted(value.items())
        ]

    return observe
