"""The standard's OTLP variables, and where metrics are sent once every setting is known.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/ and
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Literal

from otel_k8s_cgroup.settings.given import Given, one_line
from otel_k8s_cgroup.settings.values import PORTS, boolean, choice, duration_text, split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

logger = logging.getLogger(__name__)

Protocol = Literal["grpc", "http/protobuf"]
Compression = Literal["none", "gzip"]

LONGEST: Final = timedelta(days=7)
"""The longest of our durations, and what the standard's timeout 0 ("no limit", or "a very long time") stands for."""

KNOWN_SUFFIXES: Final = (
    "ENDPOINT",
    "PROTOCOL",
    "HEADERS",
    "TIMEOUT",
    "COMPRESSION",
    "CERTIFICATE",
    "CLIENT_CERTIFICATE",
    "CLIENT_KEY",
    "INSECURE",
)
"""Of the variables, behind ``OTEL_EXPORTER_OTLP_`` and ``OTEL_EXPORTER_OTLP_METRICS_``."""
_SUFFIX_OF_KEY = {f"otlp_{suffix.lower()}": suffix for suffix in KNOWN_SUFFIXES}
# Milliseconds. Hardly a receiver answers so fast: whoever writes less means seconds.
_SHORT_TIMEOUT_MS = 100
_GRPC_DEFAULT = "http://localhost:4317"
_HTTP_DEFAULT = "http://localhost:4318"
_HTTP_PORT = 4318
_METRICS_PATH = "/v1/metrics"
NOWHERE: Final = "none"
"""As an endpoint: nothing is sent."""


class MetricsUrl(str):
    """An endpoint from ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``: over HTTP it is used as it is."""

    __slots__ = ()


class BaseUrl(str):
    """An endpoint from ``OTEL_EXPORTER_OTLP_ENDPOINT``: over HTTP the path of metrics is always put behind it."""

    __slots__ = ()


class CollectorHost(str):
    """Alumet's ``collector_host``: gRPC, whatever its port, unless the protocol is set."""

    __slots__ = ()


def from_environment(environ: Mapping[str, str]) -> dict[str, Given]:
    """Our keys as the standard's variables give them; of two the one for metrics wins, and an empty one is none.

    A protocol, compression or timeout that the standard does not know is passed over with a warning, and such a boolean
    is false, for so the standard asks. What it knows and we have not (``http/json``) is left to be refused.
    """
    found = {}
    for key, suffix in _SUFFIX_OF_KEY.items():
        for variable in (f"OTEL_EXPORTER_OTLP_METRICS_{suffix}", f"OTEL_EXPORTER_OTLP_{suffix}"):
            text = environ.get(variable, "").strip()
            if not text:
                continue
            read, instead = _LENIENT.get(suffix, (str, None))
            try:
                value: object = read(text)
            except ValueError as allowed:
                taken = "passed over" if instead is None else f"taken as {instead}"
                logger.warning("%s: found %s, %s; allowed: %s", variable, one_line(text), taken, allowed)
                value = instead
            if suffix == "ENDPOINT":
                value = MetricsUrl(text) if "_METRICS_" in variable else BaseUrl(text)
            if suffix == "TIMEOUT" and value is not None and 0 < int(text) < _SHORT_TIMEOUT_MS:
                logger.warning("%s: %d is %d ms; for %d s write %d000", variable, *(int(text),) * 4)
            if value is not None:
                found[key] = Given(value, f"environment {variable}")
                break
    return found


def _milliseconds(text: str) -> str:
    """The standard's timeout (an integer of milliseconds, 32 bits) as a duration of ours."""
    if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**31):
        raise ValueError("a whole number of milliseconds, such as 10000 (0 is no limit)")
    wanted = timedelta(milliseconds=int(text))
    return duration_text(min(wanted, LONGEST) or LONGEST)


# What the standard says of a value it does not know: passed over (None), or another value in its place.
_LENIENT: dict[str, tuple[Callable[[str], str | bool], str | None]] = {
    "PROTOCOL": (choice(("grpc", "http/protobuf", "http/json")), None),
    "COMPRESSION": (choice(("none", "gzip")), None),
    "TIMEOUT": (_milliseconds, None),
    "INSECURE": (boolean, "false"),
}


def resolve(endpoint: str | None, protocol: Protocol | None, *, insecure: bool) -> tuple[Protocol, str]:
    """The protocol and the whole URL, as `OtlpTarget` has them.

    Without a protocol the port 4318, which is that of OTLP over HTTP, means ``http/protobuf``, and all else gRPC.
    A gRPC endpoint without a scheme is https, or http where ``insecure``. Raises `ValueError` with what is allowed.
    """
    if endpoint == NOWHERE:
        return protocol or "grpc", ""
    if protocol is None:
        protocol = "http/protobuf" if _is_http(endpoint) else "grpc"
    if protocol == "grpc":
        return protocol, _grpc(_GRPC_DEFAULT if endpoint is None else endpoint, insecure)
    return protocol, _http(BaseUrl(_HTTP_DEFAULT) if endpoint is None else endpoint)


def _is_http(endpoint: str | None) -> bool:
    if endpoint is None or isinstance(endpoint, CollectorHost):
        return False
    try:
        return split_url(endpoint).port == _HTTP_PORT
    except ValueError:
        return False  # no http:// or https:// before it: gRPC's form


def _grpc(endpoint: str, insecure: bool) -> str:
    scheme = "" if "://" in endpoint else "http://" if insecure else "https://"
    try:
        parts = split_url(scheme + endpoint)
        if parts.path in ("", "/") and not parts.query:
            # gRPC itself would take 443 for both.
            port = "" if parts.port else ":443" if parts.scheme == "https" else ":80"
            return f"{parts.scheme}://{parts.netloc.removesuffix(':')}{port}"
    except ValueError:
        pass
    raise ValueError(
        f"for gRPC host:port, or an http:// or https:// URL without a user or a path, {PORTS}, such as "
        f'"{_GRPC_DEFAULT}" (with a path it is HTTP: set otlp_protocol to "http/protobuf")'
    )


def _http(endpoint: str) -> str:
    try:
        parts = split_url(endpoint)
    except ValueError:
        raise ValueError(
            f'for HTTP an http:// or https:// URL without a user, {PORTS}, such as "{_HTTP_DEFAULT}" or '
            f'"{_HTTP_DEFAULT}{_METRICS_PATH}"'
        ) from None
    if isinstance(endpoint, MetricsUrl):
        path = parts.path or "/"
    elif parts.path.rstrip("/").endswith(_METRICS_PATH) and not isinstance(endpoint, BaseUrl):
        path = parts.path
    else:
        path = parts.path.rstrip("/") + _METRICS_PATH
    return parts._replace(path=path).geturl()
