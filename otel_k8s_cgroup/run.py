"""``otel-k8s-cgroup run``: the parts of the exporter, made as the settings say, started, and ended."""

from __future__ import annotations

import gc
import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.agent import Agent
from otel_k8s_cgroup.errors import ExporterError
from otel_k8s_cgroup.export import Exporter, NoExporter, StateFile, StateSaver, open_transport
from otel_k8s_cgroup.health import Status, serving, stalled_seconds
from otel_k8s_cgroup.identity import Describe, shared_attributes
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.known import START_TIME_WAIT_NS
from otel_k8s_cgroup.model import ticks_of
from otel_k8s_cgroup.scrape import NO_LIBRARY, Latest, Pods, is_library_there
from otel_k8s_cgroup.sources import (
    LISTED_BY,
    boot_unix_ns,
    device_name,
    metrics_of,
    open_cgroups,
    parts_as_set,
    seldom_of,
    watch_pods,
)
from otel_k8s_cgroup.telemetry import OwnMetric, Telemetry

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from otel_k8s_cgroup.kube import PodWatcher
    from otel_k8s_cgroup.metrics import Metric
    from otel_k8s_cgroup.model import RunSettings

_log = logging.getLogger(__name__)

# Of the 5 s within which SIGTERM must have ended it: the last reading and the end of the process come out of the rest.
_LAST_EXPORT_SECONDS = 3.5
_LEAST_EXPORT_SECONDS = 1.0


class Stop(Protocol):
    """What ends the exporter."""

    def __call__(self, seconds: float) -> bool:
        """Waits so long at most; whether to end."""

    def seconds_since(self) -> float:
        """Since it was asked to end."""


def own_rows(
    agent: Agent, exporter: Exporter | NoExporter, watcher: PodWatcher, dropped_log_lines: Callable[[], int]
) -> list[OwnMetric]:
    """What the exporter tells of itself; the README's table has these rows."""
    stats = exporter.stats

    def by(counts: Callable[[], Mapping[str, int]]) -> Callable[[], Mapping[tuple[str, ...], int]]:
        return lambda: {(name,): count for name, count in dict(counts()).items()}

    return [
        OwnMetric("ticks", "{tick}", "Readings of all pods", lambda: agent.ticks),
        OwnMetric("ticks.missed", "{tick}", "Points of the grid that a longer tick covered", lambda: agent.missed),
        OwnMetric("tick.duration", "s", "Time spent reading and collecting", lambda: agent.tick_ns / 1e9),
        OwnMetric("pods", "{pod}", "Pods read by the last tick", lambda: agent.pods, monotonic=False),
        OwnMetric(
            "cgroups.unnamed",
            "{cgroup}",
            "Pods' cgroups for which no pod is listed",
            lambda: agent.coverage.unnamed,
            monotonic=False,
        ),
        OwnMetric(
            "pods.excluded",
            "{pod}",
            "Pods that the settings leave out",
            lambda: agent.coverage.excluded,
            monotonic=False,
        ),
        OwnMetric(
            "read.errors",
            "{error}",
            "Figures that could not be read",
            by(lambda: agent.read_errors.by_cause),
            ("cause",),
        ),
        OwnMetric(
            "api.requests",
            "{request}",
            "Requests to the Kubernetes API or kubelet",
            lambda: {(verb, result): n for (verb, result), n in watcher.stats.api_requests.items()},
            ("verb", "result"),
        ),
        OwnMetric(
            "watch.restarts", "{restart}", "Watches that ended", by(lambda: watcher.stats.watch_restarts), ("reason",)
        ),
        OwnMetric("api.skipped_objects", "{object}", "Objects that do not parse", lambda: watcher.skipped_objects),
        OwnMetric(
            "api.refused_claims",
            "{pod}",
            "Pods that claim another pod's cgroup",
            lambda: watcher.refused_claims + agent.known.refused_claims,
        ),
        OwnMetric("export.requests", "{request}", "OTLP requests", by(lambda: stats.requests), ("result",)),
        OwnMetric("export.points", "{point}", "Points the receiver took", lambda: stats.points_sent),
        OwnMetric("export.rejected_points", "{point}", "Points it took back", lambda: stats.points_rejected),
        OwnMetric("export.dropped_points", "{point}", "Points given up", lambda: stats.points_dropped),
        OwnMetric("export.folded", "ns", "CPU time sent later for it", lambda: stats.folded_ns),
        OwnMetric("export.lost", "ns", "CPU time lost with ended pods", lambda: stats.lost_ns),
        OwnMetric("queue.bytes", "By", "What waits to be sent", lambda: exporter.queue_bytes, monotonic=False),
        OwnMetric("log.dropped_lines", "{line}", "Lines that standard error did not take", dropped_log_lines),
    ]


def latest_of(settings: RunSettings, metrics: Sequence[Metric]) -> Latest | None:
    """What is scraped of the ticks, of ``metrics``; None where ``scrape`` is not set.

    Raises:
        ExporterError: what writes it is not installed.
    """
    if not settings.scrape:
        return None
    if not is_library_there():
        raise ExporterError(f"scrape: {NO_LIBRARY}")
    most_ns = round(stalled_seconds(settings.poll_interval.total_seconds()) * 1e9)
    return Latest(metrics, parts_as_set(settings, metrics), most_ns=most_ns)


def run(
    settings: RunSettings,
    stop: Stop,
    *,
    hide_token: Callable[[str], None],
    dropped_log_lines: Callable[[], int],
) -> None:
    """Runs the exporter until ``stop``, with a last export.

    Args:
        settings: as they were read.
        stop: see ``Agent.run``.
        hide_token: is called with each token of the Kubernetes API, for no message to show it.
        dropped_log_lines: how many lines of the log were not written.

    Raises:
        ExporterError: something cannot be used as it is set.
    """
    watcher = watch_pods(settings, hide_token)
    metrics = metrics_of(settings)
    instruments = Instruments(metrics, device_name)
    latest = latest_of(settings, metrics)
    exporter: Exporter | NoExporter = NoExporter()
    if settings.otlp.endpoint:
        exporter = Exporter(
            open_transport(settings.otlp),
            instruments,
            queue_bytes=settings.queue_bytes,
            endpoint=settings.otlp.endpoint,
            prefix=settings.metric_prefix,
            suffix=settings.metric_suffix,
            seldom=seldom_of(metrics, parts_as_set(settings, metrics)),
            own_metrics=lambda: telemetry.encode(),  # noqa: PLW0108 it tells of the exporter, so it comes after it
            state=StateSaver(StateFile(settings.state_file)) if settings.state_file else None,
        )
    agent = Agent(
        cgroups=open_cgroups(settings, metrics),
        pods=lambda: watcher.pods,
        left_out=lambda: watcher.left_out,
        exporter=exporter,
        instruments=instruments,
        describe=Describe(
            settings.k8s_node,
            shared_attributes(settings.resource_attributes),
            settings.point_attributes,
            boot_unix_ns(),
        ),
        source=LISTED_BY[settings.pod_source.method],
        # A file has what it has.
        start_time_wait_ns=0 if settings.pod_source.method == "file" else START_TIME_WAIT_NS,
        latest=latest,
    )
    telemetry = Telemetry(
        own_rows(agent, exporter, watcher, dropped_log_lines),
        node=settings.k8s_node,
        service_name=settings.service_name,
        resource_attributes=settings.resource_attributes,
    )
    status = Status(
        ticks=lambda: agent.ticks,
        are_pods_listed=watcher.synced.is_set,
        pods=lambda: len(watcher.pods),
        measured=lambda: agent.pods,
        accepted=(lambda: exporter.stats.requests["ok"]) if settings.otlp.endpoint else None,
        rows=own_rows(agent, exporter, watcher, dropped_log_lines),
        poll_seconds=settings.poll_interval.total_seconds(),
        measured_pods=None if latest is None else Pods(latest, settings.metric_prefix, settings.metric_suffix),
    )
    health = ExitStack()
    health.enter_context(serving(settings.health_listen, status))
    _log.info(
        "node %s: pods from %s, cgroups below %s, every %g s to %s",
        settings.k8s_node,
        settings.pod_source.method,
        settings.cgroup_root,
        settings.poll_interval.total_seconds(),
        f"{settings.otlp.endpoint} ({settings.otlp.protocol})" if settings.otlp.endpoint else "/metrics alone",
    )
    watcher.start()
    exporter.start()
    # All that is there now stays: a collection of the garbage need not walk it each time.
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    try:
        agent.run(
            stop,
            poll_interval_ns=round(settings.poll_interval.total_seconds() * 1e9),
            ticks_per_export=ticks_of(settings.export_interval, settings.poll_interval),
        )
    finally:
        watcher.stop(timeout_seconds=0)  # nobody asks it any more; it has the time of the last export to end
        # The tick that was under way, and the last one, may have taken long.
        exporter.close(max(_LEAST_EXPORT_SECONDS, _LAST_EXPORT_SECONDS - stop.seconds_since()))
        watcher.stop(timeout_seconds=0.25)
        health.close()
    _log.info("stopped: %d points delivered in all", exporter.stats.points_sent)
