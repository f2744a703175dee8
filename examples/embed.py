"""A program of its own that reports the pods of its node beside a metric of its own, with its own MeterProvider.

    NODE_NAME=node-1 OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 python examples/embed.py 60

Needs what `otel-k8s-cgroup run` needs: the cgroups, and the list of the pods.
"""

import sys
import time

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from otel_k8s_cgroup import ExporterError, observe_pods, pod_view


def main(seconds: float) -> None:
    """Reports every five seconds, and once at the end."""
    reader = PeriodicExportingMetricReader(OTLPMetricExporter(), export_interval_millis=5000)
    # The view lets pods come and go for ever: the SDK alone takes 2,000 attribute sets.
    provider = MeterProvider([reader], views=[pod_view()])
    turns = provider.get_meter("embed").create_counter("embed.turns", "{turn}", "Turns of this program")
    try:
        with observe_pods(provider):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                turns.add(1)
                time.sleep(min(1.0, seconds))
            # While the pods are still observed.
            provider.shutdown()
    except ExporterError as error:
        sys.exit(f"embed: {error}")


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0)
