"""A Kubernetes API server that knows nothing but pods, on a loopback port.

What is there follows https://kubernetes.io/docs/reference/using-api/api-concepts/: list and watch of ``/api/v1/pods``
with ``fieldSelector=spec.nodeName=…``, resource versions, bookmarks, ``timeoutSeconds``, and a bearer token; anything
else gets the API's ``Status`` object.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from otel_k8s_cgroup.demo.pods import PodObject

_BOOKMARK_SECONDS = 5.0
_WATCH_SECONDS = 300.0
_IDLE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class _Event:
    version: int
    kind: str
    """``ADDED``, ``MODIFIED`` or ``DELETED``."""
    pod: PodObject


class PodStore:
    """Every pod as it is now, and every event since the beginning. For several threads."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._pods: dict[str, PodObject] = {}
        self._events: list[_Event] = []
        self._closed = False

    def apply(self, pod: PodObject) -> None:
        """Adds the pod, or puts it in the place of the one with its uid."""
        with self._changed:
            self._record("MODIFIED" if pod["metadata"]["uid"] in self._pods else "ADDED", pod)

    def delete(self, pod: PodObject) -> None:
        """Removes the pod; ``pod`` is its last state."""
        with self._changed:
            self._record("DELETED", pod)

    def listed(self) -> tuple[int, list[PodObject]]:
        """The resource version and the pods at it."""
        with self._changed:
            return len(self._events), list(self._pods.values())

    def events_after(self, version: int, timeout_seconds: float) -> list[_Event] | None:
        """What happened since, after waiting for it for so long; None once the server closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or len(self._events) > version, timeout_seconds)
            return None if self._closed else self._events[version:]

    def close(self) -> None:
        """Ends every wait."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _record(self, kind: str, pod: PodObject) -> None:
        version = len(self._events) + 1
        pod = {**pod, "metadata": {**pod["metadata"], "resourceVersion": str(version)}}
        if kind == "DELETED":
            del self._pods[pod["metadata"]["uid"]]
        else:
            self._pods[pod["metadata"]["uid"]] = pod
        self._events.append(_Event(version, kind, pod))
        self._changed.notify_all()


class ApiServer:
    """Serves a store's pods to who has the token, until closed.

    Args:
        token: the bearer token asked for.
        bookmark_seconds: a watch is sent a bookmark after so long without an event.
    """

    def __init__(self, token: str, *, bookmark_seconds: float = _BOOKMARK_SECONDS) -> None:
        self.pods = PodStore()
        self._server = _Server(self.pods, token, bookmark_seconds)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="demo-api", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self.pods.close()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, pods: PodStore, token: str, bookmark_seconds: float) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods = pods
        self.authorization = f"Bearer {token}".encode()
        self.bookmark_seconds = bookmark_seconds

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away, as the exporter does at the end, is not worth a traceback."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    protocol_version = "HTTP/1.1"
    timeout = _IDLE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        pass

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = dict(parse_qsl(url.query))
        if not hmac.compare_digest(self.headers.get("Authorization", "").encode(), self.server.authorization):
            self._send_status(401, "Unauthorized", "Unauthorized")
            return
        if url.path != "/api/v1/pods":
            self._send_status(404, "NotFound", "the server could not find the requested resource")
            return
        field, _, node = query.get("fieldSelector", "").partition("=")
        if field not in ("", "spec.nodeName"):
            self._send_status(400, "BadRequest", f"field label not supported: {field}")
            return
        version = query.get("resourceVersion", "")
        if not (version.isascii() and version.isdigit()) and version:
            self._send_status(400, "BadRequest", f"invalid resource version: {version!r}")
            return
        if query.get("watch") in ("true", "1"):
            self._watch(query, int(version or 0), node or None)
        else:
            self._list(node or None)

    def _list(self, node: str | None) -> None:
        version, pods = self.server.pods.listed()
        self._send_json(
            200,
            {
                "kind": "PodList",
                "apiVersion": "v1",
                "metadata": {"resourceVersion": str(version)},
                "items": [pod for pod in pods if _is_on(pod, node)],
            },
        )

    def _watch(self, query: dict[str, str], version: int, node: str | None) -> None:
        limit = query.get("timeoutSeconds", "")
        until = time.monotonic() + (float(limit) if limit.isdecimal() else _WATCH_SECONDS)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if version == 0:  # "any": begins with the pods as they are
            version, pods = self.server.pods.listed()
            for pod in pods:
                self._send_event("ADDED", pod, node)
        while (left := until - time.monotonic()) > 0:
            events = self.server.pods.events_after(version, min(left, self.server.bookmark_seconds))
            if events is None:
                break
            for event in events:
                self._send_event(event.kind, event.pod, node)
                version = event.version
            if not events and query.get("allowWatchBookmarks") in ("true", "1"):
                self._send_event("BOOKMARK", {"metadata": {"resourceVersion": str(version)}, "spec": {}}, None)
        self.wfile.write(b"0\r\n\r\n")

    def _send_event(self, kind: str, pod: PodObject, node: str | None) -> None:
        if _is_on(pod, node):
            line = json.dumps({"type": kind, "object": {"kind": "Pod", "apiVersion": "v1", **pod}}).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))

    def _send_status(self, code: int, reason: str, message: str) -> None:
        self._send_json(
            code,
            {
                "kind": "Status",
                "apiVersion": "v1",
                "metadata": {},
                "status": "Failure",
                "message": message,
                "reason": reason,
                "code": code,
            },
        )

    def _send_json(self, code: int, body: dict[str, Any]) -> None:
        payload = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(payload)))
        self.end_headers()
        self.wfile.write(payload)


def _is_on(pod: PodObject, node: str | None) -> bool:
    return node is None or pod["spec"].get("nodeName") == node
