"""The standard's variables that are no settings of ours, and those that are misspelt or have no effect here.

Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/ and
https://opentelemetry.io/docs/specs/otel/resource/sdk/#specifying-resource-information-via-an-environment-variable
"""

from __future__ import annotations

import difflib
import logging
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from otel_k8s_cgroup.settings.given import one_line
from otel_k8s_cgroup.settings.otlp import KNOWN_SUFFIXES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

logger = logging.getLogger(__name__)

DISABLED: Final = "OTEL_SDK_DISABLED"
RESOURCE: Final = "OTEL_RESOURCE_ATTRIBUTES"
SERVICE: Final = "OTEL_SERVICE_NAME"

_METRICS_EXPORTER = "OTEL_METRICS_EXPORTER"
_TEMPORALITY = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
_KNOWN = frozenset(
    {
        DISABLED,
        RESOURCE,
        SERVICE,
        _METRICS_EXPORTER,
        _TEMPORALITY,
        "OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION",
        "OTEL_EXPORTER_OTLP_METRIC_INSECURE",  # its first name, which SDKs know still
        "OTEL_EXPORTER_OTLP_SPAN_INSECURE",
        *(f"OTEL_EXPORTER_OTLP_{signal}{suffix}" for signal in ("", "METRICS_") for suffix in KNOWN_SUFFIXES),
    }
)
# Where a misspelt variable is looked for; "OLTP" is what fingers make of it.
_OURS = re.compile(r"OTEL_(EXPORTER_O(TLP|LTP)_|RESOURCE_|SDK_|SERVICE_)")
_OTHER_SIGNALS = re.compile(r"OTEL_EXPORTER_OTLP_(TRACES|LOGS|PROFILES|SPANS)_")

# Kubernetes sets these in every pod for each service, whatever the service is called:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
SERVICE_LINK: Final = re.compile(
    r"(.+_)?(SERVICE_HOST|SERVICE_PORT(_.+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)"
)


def warn_of_misspelt(environ: Mapping[str, str]) -> None:
    """A warning for each variable that looks like the standard's and is none, and for each that has no effect here."""
    for name in sorted(environ):
        if (
            _OURS.match(name)
            and name not in _KNOWN
            and not _OTHER_SIGNALS.match(name)
            and not SERVICE_LINK.fullmatch(name)
        ):
            nearest = difflib.get_close_matches(name, sorted(_KNOWN), n=1, cutoff=0.0)[0]
            logger.warning(
                "%s: no such variable, so it is passed over; the nearest known one is %s", one_line(name), nearest
            )
    if (exporter := environ.get(_METRICS_EXPORTER, "").strip()) not in ("", "otlp"):
        logger.warning(
            "%s: found %s, which has no effect: set otlp_endpoint and scrape instead",
            _METRICS_EXPORTER,
            one_line(exporter),
        )


def are_deltas(environ: Mapping[str, str]) -> bool:
    """Whether counters are of delta temporality; ``lowmemory`` is so only of counters that are not observable.

    Source: https://opentelemetry.io/docs/specs/otel/metrics/sdk_exporters/otlp/#additional-environment-variable-configuration
    """
    word = environ.get(_TEMPORALITY, "").strip()
    if word.lower() not in ("", "cumulative", "delta", "lowmemory"):
        allowed = "cumulative, delta, lowmemory"
        logger.warning("%s: found %s, taken as cumulative; allowed: %s", _TEMPORALITY, one_line(word), allowed)
    return word.lower() == "delta"


def sdk_disabled(environ: Mapping[str, str]) -> bool:
    """Whether nothing is to be measured and sent: "true" in any case; all else is false, with a warning."""
    word = environ.get(DISABLED, "").strip()
    if word.lower() not in ("", "true", "false"):
        logger.warning("%s: found %s, taken as false; allowed: true, false", DISABLED, one_line(word))
    return word.lower() == "true"


def service_name(environ: Mapping[str, str], attributes: tuple[tuple[str, str], ...]) -> str | None:
    """Of the exporter's own Resource; None where neither variable has one."""
    return environ.get(SERVICE, "").strip() or dict(attributes).get("service.name")


def resource_attributes(environ: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    """``key=value,key2=value2`` with percent-encoded values. Of a key given twice the last counts.

    Where one member is malformed all are passed over with a warning, for so the standard asks.
    """
    try:
        return tuple(dict(_members(environ.get(RESOURCE, ""))).items())
    except ValueError as malformed:
        logger.warning(
            "%s: passed over as a whole: %s; allowed: key=value,key2=value2 with percent-encoded values",
            RESOURCE,
            malformed,
        )
        return ()


def _members(text: str) -> Iterator[tuple[str, str]]:
    for number, member in enumerate(text.split(","), 1):
        if not member.strip():
            continue
        key, sign, value = (part.strip() for part in member.partition("="))
        if not sign or not key:
            raise ValueError(f"member {number} is no key=value")
        try:
            yield unquote(key, errors="strict"), unquote(value, errors="strict")
        except UnicodeDecodeError:
            raise ValueError(f"member {number} is not UTF-8 when it is decoded") from None
