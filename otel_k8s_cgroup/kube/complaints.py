"""What is wrong with an answer of the API (or of a kubelet), as one line for a user, with the setting to look at."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.http_words import quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .credentials import Credentials

_OTHERS_CHARACTERS = 90
_FORBIDDEN = re.compile(r"^\S{1,60} is forbidden: ")
"""Of what a server wrote, where the line has more to say. The user of a "pods is forbidden" is in it."""
_WANTS_TLS = ("to an HTTPS server", "to HTTPS port")
"""Go's and nginx's words for plain HTTP on a port for TLS."""


class Permission(NamedTuple):
    """What a request needs of RBAC, to count it by and to name it where it is refused."""

    verb: str
    resource: str


class Server(NamedTuple):
    """Who is asked, in a user's words."""

    setting: str
    """That names its address."""
    program: str
    ca_setting: str
    """That names the CA which its certificate is held to."""
    ca_remedy: str
    name_remedy: str = ""
    """Where its certificate is for another name."""
    refused_remedy: str = "see token_retrieval"
    """Where it does not take the token."""


API_SERVER = Server(
    "k8s_api_url", "the API server (or kubectl proxy)", "k8s_ca_file", "set k8s_ca_file to the CA of the cluster"
)
# Without serverTLSBootstrap a kubelet signs its own certificate, for its node's name and no address:
# https://kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping/#client-and-serving-certificates
KUBELET = Server(
    "kubelet_url",
    "the kubelet",
    "kubelet_ca_file",
    "a kubelet's own is /var/lib/kubelet/pki/kubelet.crt on its node: set kubelet_ca_file",
    "set kubelet_tls_server_name to the name in it, by default the node's",
    "see token_retrieval; a kubelet takes tokens with authentication.webhook.enabled",
)


class Refusal(NamedTuple):
    """Why an answer is of no use, and what helps if that lasts."""

    message: str
    remedy: str = ""


def refusal(  # noqa: PLR0911 - a table: one return a row
    status: int,
    body: bytes,
    headers: Mapping[str, str],
    *,
    server: Server,
    needs: Permission,
    credentials: Credentials,
) -> Refusal:
    """Of an answer other than 200."""
    text, setting = _text(body), server.setting
    said, short = _quoted(text), _quoted(text, _OTHERS_CHARACTERS)
    if 300 <= status < 400:
        where = quoted(headers.get("Location", ""))
        return Refusal(f"it redirects to {where}, not followed with a token; set {setting} to the API's own address")
    if status == 400 and any(words in text for words in _WANTS_TLS):
        return Refusal(f"it speaks TLS there; does {setting} mean https://?")
    if is_html(body, headers):
        return Refusal(f"an HTML page: {short}; is {setting} right?")  # a gateway's: no API wants a right or a token
    if status == 401 and not credentials.sends_token:
        return Refusal(f"it wants a token, and none is sent ({credentials.origin}); see token_retrieval")
    if status == 401:
        way_out = _without_token(credentials) or f"; {server.refused_remedy}"
        return Refusal(f"it does not take the token (from {credentials.origin}): {short}{way_out}")
    if status == 403:
        # Behind "pods is forbidden: ", who may not do what: it is to be seen, though it is cut.
        short = _quoted(_FORBIDDEN.sub("", text), _OTHERS_CHARACTERS)
        return Refusal(short + _without_token(credentials), _grant(needs, text))
    if status == 404:
        return Refusal(f"{said}; is {setting} right?")
    return Refusal(said)


def status_message(body: bytes) -> str:
    """What the body of an error says: the ``message`` of a Status object, else its text."""
    return _quoted(_text(body))


def is_html(body: bytes, headers: Mapping[str, str]) -> bool:
    """Whether a proxy or a web page answers, and no API."""
    return headers.get("Content-Type", "").strip().lower().startswith("text/html") or body.lstrip().startswith(b"<")


def _quoted(text: str, most: int | None = None) -> str:
    if not text:
        return "it gives no reason"
    return quoted(text) if most is None else quoted(text, most)


def _text(body: bytes) -> str:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("message"), str) and answer["message"]:
        return str(answer["message"])
    return body.decode(errors="replace").strip()


def _without_token(credentials: Credentials) -> str:
    if credentials.sends_token and credentials.none_will_do:
        return '; a `kubectl proxy` has credentials of its own: try token_retrieval = "none"'
    return ""


def _grant(needs: Permission, said: str) -> str:
    resource = needs.resource
    # A kubelet names what would have done: from Kubernetes 1.33 on "subresource(s)=[pods proxy]", before that "proxy".
    if resource == "nodes/pods" and "subresource" in said and "pods" not in said.partition("subresource")[2]:
        resource = "nodes/proxy"
    return f"grant the verb {needs.verb!r} on {resource!r} by a ClusterRole and its binding"
