"""Which settings have an effect only beside others: the table, and a warning for each that lacks what it needs. And one
for each that has another effect than it asks for.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NamedTuple, cast

from pydantic import PlainValidator

from otel_k8s_cgroup.model import ticks_of
from otel_k8s_cgroup.schemas import select
from otel_k8s_cgroup.settings.model import rows
from otel_k8s_cgroup.settings.otlp import NOWHERE
from otel_k8s_cgroup.settings.values import duration_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from otel_k8s_cgroup.settings.model import Settings

logger = logging.getLogger(__name__)

# Where a user says something to us. The standard's variables are also other programs'.
_OURS = ("flag ", "parameter ", "environment OTEL_K8S_CGROUP_", "file ")


class _Need(NamedTuple):
    """A row: what ``keys`` need to have an effect."""

    keys: tuple[str, ...]
    needs: str
    holds: Callable[[Settings], bool]


_OF_TLS = ("otlp_certificate", "otlp_client_certificate", "otlp_client_key")
_KUBELETS_TLS = ("kubelet_ca_file", "kubelet_tls_server_name", "kubelet_insecure")

NEEDS: tuple[_Need, ...] = (
    _Need(("k8s_api_url",), 'pod_source = "api"', lambda found: found.pod_source.method == "api"),
    _Need(
        ("k8s_ca_file", "k8s_kubeconfig", "k8s_context"),
        'pod_source = "api" or "kubelet"',
        lambda found: found.pod_source.method != "file",
    ),
    _Need(
        ("token_retrieval",),
        'pod_source = "api" or "kubelet"',
        # None is sent to a file.
        lambda found: found.pod_source.method != "file" or found.token_retrieval.method == "none",
    ),
    _Need(
        ("kubelet_url", *_KUBELETS_TLS), 'pod_source = "kubelet"', lambda found: found.pod_source.method == "kubelet"
    ),
    _Need(_KUBELETS_TLS, "a kubelet_url with https://", lambda found: found.kubelet_url.startswith("https:")),
    _Need(
        ("k8s_ca_file",),
        "a k8s_api_url (or kubelet_url, without kubelet_ca_file) with https://",
        lambda found: _verified_by_k8s_ca_file(found).startswith("https:"),
    ),
    _Need(("include_containers", "exclude_containers"), "containers = true", lambda found: found.containers),
    _Need(("point_attributes", "cpu_percent_of"), 'schema = "alumet"', lambda found: "alumet" in found.schemas),
    _Need(("cpu_percent_of",), 'metrics with "cpu"', lambda found: "cpu" in (found.metrics or ("cpu",))),
    _Need(
        (*_OF_TLS, "otlp_protocol", "otlp_headers", "otlp_timeout", "otlp_compression", "otlp_insecure",
         "export_interval", "queue_bytes", "state_file"),
        f'another otlp_endpoint than "{NOWHERE}"',
        lambda found: found.otlp_endpoint != NOWHERE,
    ),
    _Need(_OF_TLS, "an otlp_endpoint with https://", lambda found: found.otlp.endpoint.startswith("https:")),
    _Need(("otlp_insecure",), 'otlp_protocol = "grpc"', lambda found: found.otlp.protocol == "grpc"),
    _Need(
        ("otlp_insecure",),
        "an otlp_endpoint without http:// or https://",
        lambda found: "://" not in (found.otlp_endpoint or "://"),
    ),
)  # fmt: skip
"""Of a key the first row counts that does not hold."""


def warn_of_no_effect(settings: Settings) -> None:
    """A warning for each setting that was given, asks for something, and has no effect beside the others."""
    for key, needs in _without_effect(settings):
        logger.warning("%s has no effect (%s): it needs %s", key, settings.sources[key.partition(":")[0]], needs)


def warn_of_rounding(settings: Settings) -> None:
    """A warning for each interval that the grid of ``poll_interval`` does not meet."""
    poll = settings.poll_interval
    given = [("intervals", f"{group} = ", interval) for group, interval in settings.intervals]
    for key, of, interval in [("export_interval", "", settings.export_interval), *given]:
        rounded = ticks_of(interval, poll) * poll
        if rounded != interval:
            logger.warning(
                "%s (%s): %s%s is no multiple of poll_interval, which is %s: it is taken as %s",
                key,
                settings.sources[key],
                of,
                *map(duration_text, (interval, poll, rounded)),
            )


def _without_effect(settings: Settings) -> Iterator[tuple[str, str]]:
    lacking: dict[str, str] = {}
    for row in NEEDS:
        asked = [key for key in row.keys if key not in lacking and _is_asked(settings, key)]
        if asked and not row.holds(settings):
            lacking.update(dict.fromkeys(asked, row.needs))
    yield from lacking.items()
    sent = {metric.group for metric in select(settings.schemas, settings.metrics)}
    if _is_asked(settings, "metrics"):
        for group in settings.metrics:
            if group not in sent:
                yield f"metrics: {group}", f"another schema than {', '.join(settings.schemas)}"
    for group, _ in settings.intervals:
        if group not in sent and group not in settings.metrics:
            yield f"intervals: {group}", f'metrics with "{group}"'


def _is_asked(settings: Settings, key: str) -> bool:
    """Whether a user says it to us, and with another value than its default."""
    return settings.sources[key].startswith(_OURS) and settings.value(key) != _default(settings, key)


def _default(settings: Settings, key: str) -> object:
    """What it would be if nobody had given it; None of the API's URL, which hangs on the machine."""
    derived = {
        "k8s_api_url": None,
        "export_interval": settings.poll_interval,
        "kubelet_url": f"https://{settings.k8s_node}:10250",
    }
    if key in derived:
        return derived[key]
    field = rows()[key]
    (read,) = (each.func for each in field.metadata if isinstance(each, PlainValidator))
    return cast("Callable[[object], object]", read)(field.default)


def _verified_by_k8s_ca_file(settings: Settings) -> str:
    if settings.pod_source.method == "api":
        return settings.k8s_api_url
    return settings.kubelet_url if settings.kubelet_ca_file is None else ""
