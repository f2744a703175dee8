"""``health_listen``: ``/livez``, ``/readyz`` and ``/metrics``, over HTTP."""

from otel_k8s_cgroup.health.answers import Answer, Health, Status, stalled_seconds
from otel_k8s_cgroup.health.server import HealthServer, serving

__all__ = ["Answer", "Health", "HealthServer", "Status", "serving", "stalled_seconds"]
