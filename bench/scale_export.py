"""What one node sends to a collector, measured: the exporter's own encoder and HTTP transport."""

from __future__ import annotations

import gzip
import itertools
import uuid
from typing import TYPE_CHECKING, Literal, NamedTuple

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

from bench.sink import Sink
from otel_k8s_cgroup.export import Exporter, open_transport
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.identity import Describe
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.model import EntityKind, Origin, OtlpTarget, Pod, Reading
from otel_k8s_cgroup.schemas import ALUMET

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator

    from opentelemetry.proto.metrics.v1.metrics_pb2 import ResourceMetrics

Compression = Literal["none", "gzip"]

_EPOCH_NS = 1_795_000_000_000_000_000
_PATIENCE_SECONDS = 60.0
_TICK_NS = 5 * 10**9


class Agent:
    """An exporter with so many pods on cgroup v2, that sends to ``endpoint`` (a URL without its path)."""

    def __init__(
        self, pods: int, rng: random.Random, endpoint: str, *, point_attributes: bool, compression: Compression
    ) -> None:
        known = [_pod(number, rng) for number in range(pods)]
        self._entities = [Describe(with_points=point_attributes).pod(pod, path) for pod, path in known]
        self._readings = [_readings(pod, path, rng) for pod, path in known]
        self._instruments = Instruments(ALUMET)
        transport = open_transport(OtlpTarget("http/protobuf", f"{endpoint}/v1/metrics", compression=compression))
        self._exporter = Exporter(transport, self._instruments, queue_bytes=1 << 28)
        self._exporter.start()

    def tick(self) -> None:
        """One reading of each pod, on its way; five seconds after the one before."""
        now = [next(each) for each in self._readings]
        self._exporter.put(self._entities, now, self._instruments.collect(now), _EPOCH_NS)
        self._exporter.flush()

    def close(self) -> int:
        """How many points were sent in all, once they are."""
        if not self._exporter.close(_PATIENCE_SECONDS):
            raise RuntimeError("the receiver did not take all")
        return self._exporter.stats.points_sent


class Export(NamedTuple):
    """One tick's request of one node in the steady state."""

    points: int
    wire_bytes: int
    """Of the body; the headers of a request are about 300 more."""


def export(pods: int, rng: random.Random, *, point_attributes: bool, compression: Compression) -> Export:
    """What the exporter sends of so many pods; the third request, for the first one has no CPU points."""
    with Sink("http/protobuf") as sink:
        agent = Agent(pods, rng, sink.endpoint, point_attributes=point_attributes, compression=compression)
        for tick in range(3):
            agent.tick()
            sink.wait_for(tick + 1)
        agent.close()
        body = sink.bodies[-1]
    return Export(points(body), len(body))


def decoded(body: bytes) -> ExportMetricsServiceRequest:
    """A request's body, compressed or not."""
    return ExportMetricsServiceRequest.FromString(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)


def points(body: bytes) -> int:
    """How many a request has."""
    return sum(_points(each) for each in decoded(body).resource_metrics)


def _points(pod: ResourceMetrics) -> int:
    metrics = (metric for scope in pod.scope_metrics for metric in scope.metrics)
    return sum(len(each.sum.data_points) + len(each.gauge.data_points) for each in metrics)


def _pod(number: int, rng: random.Random) -> tuple[Pod, str]:
    """And its cgroup's path."""
    uid = str(uuid.UUID(int=rng.getrandbits(128)))
    pod = Pod(uid, f"checkout-6d4cf56db6-{number:05d}", "shop", "node-00000", "2026-11-20T08:14:02Z", uid)
    slice_name = f"kubepods-burstable-pod{uid.replace('-', '_')}.slice"
    return pod, f"/kubepods.slice/kubepods-burstable.slice/{slice_name}"


def _readings(pod: Pod, path: str, rng: random.Random) -> Iterator[Reading]:
    """One reading every five seconds of a pod that is as busy as pods are: most hardly, few a lot."""
    cores, memory = rng.lognormvariate(-4, 1.5), int(rng.lognormvariate(18.5, 1))
    usage_ns = int(cores * 3600e9)
    origin = Origin(born=False, mono_ns=0, stats=Stats())
    before = Stats()
    for tick in itertools.count(1):
        used = cores * rng.uniform(0.5, 1.5)
        usage_ns += int(used * 5e6) * 1000  # the kernel's figures are whole microseconds
        pages = [
            int(memory * share * rng.uniform(0.99, 1.01)) // 4096 * 4096 for share in (1.0, 0.7, 0.25, 0.001, 0.004)
        ]
        system_ns = usage_ns // 5000 * 1000
        stats = Stats(usage_ns, system_ns, usage_ns - system_ns, *pages)
        yield Reading(
            pod.cgroup_uid, EntityKind.POD, path, origin, tick * _TICK_NS, stats, (tick - 1) * _TICK_NS, before
        )
        before = stats
