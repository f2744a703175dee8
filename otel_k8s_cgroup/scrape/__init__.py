"""What Prometheus scrapes: the exporter's own metrics and, with the setting ``scrape``, what the last tick read."""

from otel_k8s_cgroup.scrape.latest import Latest
from otel_k8s_cgroup.scrape.text import NO_LIBRARY, OwnRow, Pods, exposition, is_library_there

__all__ = ["NO_LIBRARY", "Latest", "OwnRow", "Pods", "exposition", "is_library_there"]
