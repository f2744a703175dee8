"""What goes wrong between us and a server, as one line for a user. What others wrote is quoted and cut."""

from __future__ import annotations

import http.client
import socket
import ssl
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import NamedTuple

import requests
import urllib3

from otel_k8s_cgroup.redaction import hide_shapes

TRANSPORT_ERRORS = (requests.RequestException, urllib3.exceptions.HTTPError, OSError, ValueError)
"""All that requests and urllib3 raise; ValueError is what they let through of a malformed answer."""

_PROXY_ERRORS = (requests.exceptions.ProxyError, urllib3.exceptions.ProxyError)
_QUOTED_CHARACTERS = 120
_LOOKED_AT_CHARACTERS = 8192
"""Of others' words, which may be megabytes: so much more than is shown, since a secret that is hidden is shorter."""
_NAME_MISMATCH = {62, 64}
"""X509_V_ERR_HOSTNAME_MISMATCH, X509_V_ERR_IP_ADDRESS_MISMATCH."""


class Peer(NamedTuple):
    """Who is spoken to, in a user's words."""

    setting: str
    """That names its address: ``k8s_api_url``."""
    program: str
    """``the API server``."""
    ca: str
    """What its certificate is held to: ``the system's CAs``."""
    ca_remedy: str
    """``set k8s_ca_file to the CA of the cluster``."""
    name_remedy: str = ""
    """Where its certificate is for another name; empty: whether ``setting`` is right."""


class Why(NamedTuple):
    """Why there is no answer: a word to count by, and a sentence."""

    cause: str
    text: str


def quoted(text: str, most: int = _QUOTED_CHARACTERS) -> str:
    """``text`` of somebody else's on one line, in quotes, cut after ``most`` characters."""
    text = hide_shapes(text[:_LOOKED_AT_CHARACTERS])  # before it is cut to what is shown
    return repr(text if len(text) <= most else text[:most] + "…")


def retry_after_seconds(header: str | None, now: float) -> float | None:
    """Seconds to wait of a ``Retry-After`` (RFC 9110: seconds, or a date); None where there is none or it is malformed.

    ``now``: wall-clock seconds.
    """
    if header is None:
        return None
    header = header.strip()
    if header.isascii() and header.isdecimal():
        return float(header.lstrip("0")[:18] or 0)
    try:
        moment = parsedate_to_datetime(header)
        # A date without a zone is GMT: HTTP knows no other.
        return max(0.0, (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() - now)
    except (ValueError, OverflowError):
        return None


def why_unreachable(error: BaseException, peer: Peer, seconds: float) -> Why:
    """The cause behind requests' and urllib3's wrappings; ``seconds`` is the time limit that held."""
    causes = list(_causes(error))
    through = "the proxy of HTTPS_PROXY: " if any(isinstance(e, _PROXY_ERRORS) for e in causes) else ""
    for cause in reversed(causes):
        why = _why(cause, peer)
        if why is not None:
            return Why(why.cause, through + why.text)
    if any(isinstance(e, requests.Timeout | urllib3.exceptions.TimeoutError | TimeoutError) for e in causes):
        return Why("timeout", f"{through}no answer within {seconds:g} s")
    innermost = causes[-1]
    return Why("broken", f"{through}the connection broke: {type(innermost).__name__} {quoted(str(innermost))}")


def let_go(error: BaseException) -> None:
    """Frees what ``error`` and its causes hold, once nobody asks them any more.

    requests and urllib3 keep an error in a variable of a frame that its traceback leads to. Such a circle, and with it
    the body of the request, is there until the garbage is collected, which here is rarely: an outage of hours would
    fill the memory with bodies.
    """
    following: list[BaseException | None] = [error]
    while following:
        each = following.pop()
        if each is not None and each.__traceback__ is not None:
            each.__traceback__ = None
            following += [each.__cause__, each.__context__]
            following += [
                inner for inner in (getattr(each, "reason", None), *each.args) if isinstance(inner, BaseException)
            ]


def _why(cause: BaseException, peer: Peer) -> Why | None:  # noqa: PLR0911 - a table: one return a row
    setting = peer.setting
    match cause:
        case ssl.SSLCertVerificationError() if cause.verify_code in _NAME_MISMATCH:
            remedy = peer.name_remedy or f"is {setting} right?"
            said = cause.verify_message.rstrip(".")
            return Why("TLS", f"its certificate is for another name: {said}; {remedy}")
        case ssl.SSLCertVerificationError():
            return Why(
                "TLS",
                f"its certificate is not signed by a CA we trust ({peer.ca}): {cause.verify_message}; {peer.ca_remedy}",
            )
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER" | "RECORD_LAYER_FAILURE" | "HTTP_REQUEST"):
            return Why("TLS", f"it does not speak TLS there; does {setting} mean http://, or another port?")
        case ssl.SSLError(reason=str(reason)) if "ALERT" in reason:
            return Why("TLS", f"it ends the TLS handshake ({reason}); does it want a client certificate, or another?")
        case http.client.BadStatusLine() if str(cause).startswith("\x15\x03"):  # a TLS alert in place of an answer
            return Why("TLS", f"it speaks TLS there; does {setting} mean https://?")
        case socket.gaierror():
            return Why("DNS", f"its name does not resolve ({cause.strerror}); is {setting} right?")
        case ConnectionRefusedError():
            return Why("refused", f"connection refused; is {setting} right, and does {peer.program} run there?")
        case urllib3.exceptions.ConnectTimeoutError():
            return Why(
                "timeout",
                f"no connection within the time limit; is {setting} right, and does a firewall let us through?",
            )
    return None


def _causes(error: BaseException) -> list[BaseException]:
    """``error`` and its causes, outermost first: requests keeps causes in ``args``, urllib3 in ``reason``."""
    found: list[BaseException] = []
    following: object = error
    while isinstance(following, BaseException) and following not in found:
        found.append(following)
        inner = [following.__cause__, getattr(following, "reason", None), *following.args, following.__context__]
        following = next((each for each in inner if isinstance(each, BaseException)), None)
    return found
