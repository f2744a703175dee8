"""What others' words of a failed request mean for the settings: one table."""

from __future__ import annotations

import re

from otel_k8s_cgroup.http_words import quoted

_RAW_CHARACTERS = 110

# What gRPC's C core says before what has happened.
_PREFIX = re.compile(r"failed to connect to all addresses; last error: (?:[A-Z_]+: )?")

_TLS = "it speaks no TLS: begin otlp_endpoint with http:// (or set otlp_insecure where it has no scheme)"
_NO_TLS = "does it speak TLS? begin otlp_endpoint with https://"
_NO_GRPC = "it speaks no gRPC there: set otlp_protocol to http/protobuf, or otlp_endpoint to its gRPC port"
_NO_HTTP = "it speaks HTTP/2 there, as gRPC does: set otlp_protocol to grpc, or otlp_endpoint to its HTTP port"
_HEADERS = "are the credentials in otlp_headers right?"
_PATH = "is the path right? /v1/metrics is appended to otlp_endpoint unless it ends so"

# The first row that is found in "<cause>: <words>" counts. The words are those of gRPC's C core (BoringSSL's in it), of
# http.client, and of servers that are known to be met.
_ADVICE: tuple[tuple[str, str], ...] = (
    (r"^gRPC .*WRONG_VERSION_NUMBER", _TLS),
    (r"^gRPC .*CERTIFICATE_VERIFY_FAILED", "its CA is not known here: set otlp_certificate to the CA of the receiver"),
    (r"^gRPC .*Hostname Verification", "its certificate is for another name: is otlp_endpoint right?"),
    (
        r"^gRPC .*(Failed parsing HTTP/2|selected ALPN|http1\.x|HTTP/1\.|http2 header with status|content-type)",
        _NO_GRPC,
    ),
    (r"^gRPC .*Connection refused", "is otlp_endpoint right, and does the OTLP receiver run there?"),
    (r"^gRPC .*(errors resolving|lookup failed|DNS resolution)", "its name does not resolve: is otlp_endpoint right?"),
    (r"^gRPC .*TSI_PROTOCOL_FAILURE", "it ends the TLS handshake: does it want otlp_client_certificate?"),
    (
        r"^gRPC UNAVAILABLE: failed to connect.*(Socket closed|reset by peer|Broken pipe)",
        f"{_NO_TLS}, or does it want otlp_client_certificate, or otlp_protocol http/protobuf?",
    ),
    (r"^gRPC (UNAUTHENTICATED|PERMISSION_DENIED)", _HEADERS),
    (r"^gRPC UNIMPLEMENTED", "it takes no OTLP metrics there: is otlp_endpoint its OTLP port?"),
    (r"^gRPC DEADLINE_EXCEEDED", "no answer within otlp_timeout: is otlp_endpoint right?"),
    (r"^HTTP 400.*(HTTP request to an HTTPS server|plain HTTP request was sent to HTTPS)", _NO_TLS),
    (r"^HTTP (401|403)", _HEADERS),
    (r"^HTTP (404|405)", _PATH),
    (r"^broken.*BadStatusLine '\\x00\\x00", _NO_HTTP),
    (r"^broken.*SSLEOFError", "does it want otlp_client_certificate, or otlp_protocol grpc?"),
    (r"^broken.*(RemoteDisconnected|ConnectionResetError)", f"{_NO_TLS}, or is it a gRPC port (otlp_protocol)?"),
)
_ROWS = tuple((re.compile(pattern, re.DOTALL), advice) for pattern, advice in _ADVICE)


def advised(cause: str, words: str, shown: str | None = None) -> str:
    """The message of an error: somebody else's ``words``, quoted and cut, and the settings that they are about.

    Args:
        cause: the error's (``gRPC UNAVAILABLE``, ``HTTP 404``).
        words: as they came.
        shown: what is shown in their place, ready for a line; None: they are quoted.
    """
    advice = next((advice for pattern, advice in _ROWS if pattern.search(f"{cause}: {words}")), None)
    if shown is None:
        text = _PREFIX.sub("", words)
        shown = quoted(text if len(text) <= _RAW_CHARACTERS else text[:_RAW_CHARACTERS] + "…")
    return shown if advice is None else f"{shown}; {advice}"
