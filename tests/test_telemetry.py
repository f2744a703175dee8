"""The exporter's own Resource."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from otel_k8s_cgroup import __version__
from otel_k8s_cgroup.telemetry import OwnMetric, Telemetry
from tests.otlp import points

if TYPE_CHECKING:
    import pytest

ROW = OwnMetric("ticks", "{tick}", "Readings", lambda: 1)


def test_its_resource_is_a_services(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the user's attributes, but for those that it has itself; the environment is read elsewhere."""
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "from=environment")
    users = (("k8s.cluster.name", "prod"), ("k8s.pod.name", "exporter-x7"), ("k8s.node.name", "other"))
    telemetry = Telemetry([ROW], node="node-1", service_name="mine", resource_attributes=users, instance_id="1")
    (point,) = points([ExportMetricsServiceRequest.FromString(telemetry.encode())])
    assert {key: value for key, value in point.resource.items() if not key.startswith("telemetry.sdk.")} == {
        "service.name": "mine",
        "service.version": __version__,
        "service.instance.id": "1",
        "k8s.node.name": "node-1",
        "k8s.cluster.name": "prod",
        "k8s.pod.name": "exporter-x7",
    }
    assert point.resource["telemetry.sdk.language"] == "python"
