"""What an API's URL says about where a token may go."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

from otel_k8s_cgroup.errors import KubeError

# What parsers of URLs disagree on (a backslash, white space, control characters) must not decide where a token goes.
_UNAMBIGUOUS = re.compile(r"[!-\[\]-~]+")


def checked_url(url: str) -> SplitResult:
    """``url`` as scheme, host, port and path. Raises KubeError where it is not the plain address of an HTTP API."""
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise KubeError(f"the API's address {url!r} is no URL: {error}") from None
    if "@" in parts.netloc:
        raise KubeError(
            f"the API's address {parts.netloc.rpartition('@')[2]!r} has a user or password before it: that is not "
            "supported, choose a token_retrieval"
        )
    if parts.scheme not in ("http", "https") or not host or not _UNAMBIGUOUS.fullmatch(url):
        raise KubeError(f"the API's address {url!r} must be http://host:port or https://host:port")
    if parts.query or parts.fragment:
        raise KubeError(f"the API's address {url!r} must end with the path: no '?' and no '#'")
    return parts


def is_loopback(host: str) -> bool:
    """Whether what is sent to ``host`` stays on this machine (RFC 6761 for the name)."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def is_plain_loopback(url: str) -> bool:
    """Whether ``url`` is plain http to this machine, as of ``kubectl proxy``."""
    parts = checked_url(url)
    return parts.scheme == "http" and is_loopback(parts.hostname or "")
