"""Readings → OTLP: the queue, the deltas, one ResourceMetrics a pod, and the two transports."""

from otel_k8s_cgroup.export.connect import open_transport
from otel_k8s_cgroup.export.delivery import ExportStats
from otel_k8s_cgroup.export.exporter import Exporter
from otel_k8s_cgroup.export.nowhere import NoExporter
from otel_k8s_cgroup.export.saver import StateSaver
from otel_k8s_cgroup.export.state_file import StateFile
from otel_k8s_cgroup.export.transport import Receipt, Transport

__all__ = ["ExportStats", "Exporter", "NoExporter", "Receipt", "StateFile", "StateSaver", "Transport", "open_transport"]
