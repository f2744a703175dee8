"""Readings → OTLP: the queue, the deltas, one ResourceMetrics a pod, and the two transports."""

from otel_k8s_cgroup.export.delivery import ExportStats
from otel_k8s_cgroup.export.exporter import Exporter
from otel_k8s_cgroup.export.state import StateFile
from otel_k8s_cgroup.export.transport import Transport, open_transport

__all__ = ["ExportStats", "Exporter", "StateFile", "Transport", "open_transport"]
