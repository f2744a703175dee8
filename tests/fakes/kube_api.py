"""A Kubernetes API server on a real socket that serves pods, and misbehaves on cue.

Left alone it does what the API does: a list (in pages where ``limit`` asks for them and ``resourceVersion=0`` does
not), a watch that goes on from its ``resourceVersion``, 410 for what was compacted, 401 for a wrong token. ``on`` puts
scripted answers before that, one a request. It also answers ``/pods`` as a kubelet does.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import threading
from collections import deque
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Literal, Self
from urllib.parse import parse_qsl, urlsplit

from tests.fakes.servers import QuietServer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator

    Answer = Callable[["Exchange"], None]
    """What the server does about one request."""

Verb = Literal["list", "watch", "kubelet", "other"]
PATIENCE_SECONDS = 20.0
"""How long a test waits for what never comes before it fails."""


@dataclass(frozen=True, slots=True)
class Request:
    verb: Verb
    path: str
    params: dict[str, str]
    headers: dict[str, str]
    """Names in lower case."""


def pod(name: str, *, node: str = "node-1", uid: str | None = None, **metadata: Any) -> dict[str, Any]:
    """A pod as the API writes it, with what else ``metadata`` has."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": uid or f"uid-{name}", **metadata},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "startTime": "2026-01-02T03:04:05Z"},
    }


def mirror(config_hash: str, *, node: str = "node-1") -> dict[str, Any]:
    """What a kubelet writes into the metadata of a static pod's mirror, whose name ends in ``-<node>``."""
    return {
        "annotations": {
            "kubernetes.io/config.hash": config_hash,
            "kubernetes.io/config.mirror": config_hash,
            "kubernetes.io/config.seen": "2026-01-02T03:04:05.678901234Z",
            "kubernetes.io/config.source": "file",
        },
        "ownerReferences": [
            {"apiVersion": "v1", "kind": "Node", "name": node, "uid": f"uid-of-{node}", "controller": True}
        ],
    }


def event(kind: str, obj: object) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": obj}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """The event that says only how far the watch has come."""
    return event("BOOKMARK", {"kind": "Pod", "metadata": {"resourceVersion": str(version)}})


class Exchange:
    """One request, and the means to answer it well or badly."""

    def __init__(self, api: KubeApi, handler: BaseHTTPRequestHandler, request: Request) -> None:
        self.api = api
        self.request = request
        self._handler = handler

    def answer(self, status: int, body: bytes, **headers: str) -> None:
        """A whole answer; ``Retry_After="7"`` is the header ``Retry-After: 7``."""
        self.head(status, Content_Length=str(len(body)), **headers)
        self._handler.wfile.write(body)

    def json(self, obj: object, status: int = 200, **headers: str) -> None:
        self.answer(status, json.dumps(obj).encode(), Content_Type="application/json", **headers)

    def status(self, code: int, message: str = "", **headers: str) -> None:
        """A Status object, as every error of the API has one."""
        self.json({"kind": "Status", "status": "Failure", "code": code, "message": message}, code, **headers)

    def head(self, status: int = 200, **headers: str) -> None:
        self._handler.send_response(status)
        for name, value in headers.items():
            self._handler.send_header(name.replace("_", "-"), value)
        self._handler.end_headers()

    def stream_head(self) -> None:
        self.head(Transfer_Encoding="chunked", Content_Type="application/json")

    def chunk(self, data: bytes) -> None:
        self._handler.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def finish(self) -> None:
        """The orderly end of a stream."""
        self._handler.wfile.write(b"0\r\n\r\n")

    def usual(self) -> None:
        """As if nothing was scripted."""
        self.api._usual(self)

    def raw(self, data: bytes) -> None:
        """Not HTTP at all, or half of it."""
        self._handler.wfile.write(data)
        self._handler.close_connection = True

    def hang(self) -> None:
        """Nothing more, until the client goes or the server ends."""
        self._handler.close_connection = True
        with self.api.parking():
            while not self.api.ended.is_set() and not self.is_over(50):
                continue

    def is_over(self, within_ms: int = 0) -> bool:
        """Whether the client has gone: it has nothing more to say, so that is all that there could be to read."""
        connection = select.poll()  # select() takes no descriptor above 1023
        connection.register(self._handler.connection, select.POLLIN)
        return bool(connection.poll(within_ms))

    def reset(self) -> None:
        """The connection ends in the middle (RST)."""
        self._handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._handler.connection.close()
        self._handler.close_connection = True


def failing(code: int, message: str = "", **headers: str) -> Answer:
    return lambda exchange: exchange.status(code, message, **headers)


def body(data: bytes) -> Answer:
    return lambda exchange: exchange.answer(200, data)


def stream(*lines: bytes, then: Callable[[Exchange], None] = Exchange.finish) -> Answer:
    """A watch that sends ``lines`` and ends in order, or as ``then`` says (``Exchange.hang``, ``Exchange.reset``)."""

    def play(exchange: Exchange) -> None:
        exchange.stream_head()
        for line in lines:
            exchange.chunk(line)
        then(exchange)

    return play


class KubeApi:
    """A context manager; ``url`` is where it listens. ``token``: the one that is asked for (None: any, or none)."""

    def __init__(self, *, tls: ssl.SSLContext | None = None, token: str | None = None) -> None:
        self.token = token
        self.ended = threading.Event()
        self.requests: list[Request] = []
        self._changed = threading.Condition()
        self._pods: dict[str, dict[str, Any]] = {}
        self._version = 100
        self._compacted = 0
        self._events: list[tuple[int, str, dict[str, Any]]] = []
        self._scripts: dict[Verb, deque[Answer]] = {}
        self._always: dict[Verb, Answer] = {}
        self.parked = 0
        """How many requests wait for what only the test can bring: an event of a watch, or nothing at all."""
        self._left = 0
        """How many have done so."""
        self._tls = tls
        self._server = self._listen(0)
        self.port = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self.ended.set()
            self._changed.notify_all()
        self.down()

    # --- the server's own life ---

    def cut(self) -> None:
        """Every connection ends, in the middle of whatever it carries; no request of theirs is parked after it."""
        with self._changed:
            when_all_left = self._left + self.parked
            self._server.cut()
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: self._left >= when_all_left, PATIENCE_SECONDS):
                raise AssertionError("a request stays parked on a connection that was cut")

    def down(self) -> None:
        """Nobody listens."""
        self._server.shutdown()
        self._server.server_close()

    def _listen(self, port: int) -> QuietServer:
        server = QuietServer(("127.0.0.1", port), self._handler_class())
        server.tls = self._tls
        return server

    def up(self) -> None:
        """It listens again, at the same address, and knows what it knew."""
        self._server = self._listen(self.port)
        self.__enter__()

    # --- the cluster's state ---

    def add(self, *pods: dict[str, Any]) -> None:
        """New pods, or new states of known ones (by uid)."""
        for each in pods:
            uid = each["metadata"]["uid"]
            self._record("MODIFIED" if uid in self._pods else "ADDED", each)

    def delete(self, name: str) -> None:
        self._record("DELETED", next(each for each in self._pods.values() if each["metadata"]["name"] == name))

    def compact(self) -> None:
        """What was before now is forgotten: a watch that goes on from there gets 410."""
        with self._changed:
            self._version += 1
            self._compacted = self._version

    # --- the script ---

    def on(self, verb: Verb, *answers: Answer) -> None:
        """The next requests of ``verb`` get these, one each; what follows gets the usual answer."""
        self._scripts.setdefault(verb, deque()).extend(answers)

    def always(self, verb: Verb, answer: Answer | None) -> None:
        """Every request of ``verb`` beyond the script gets this, until None."""
        if answer is None:
            self._always.pop(verb, None)
        else:
            self._always[verb] = answer

    @contextmanager
    def parking(self) -> Iterator[None]:
        with self._changed:
            self.parked += 1
        try:
            yield
        finally:
            with self._changed:
                self.parked -= 1
                self._left += 1
                self._changed.notify_all()

    def seen(self, verb: Verb) -> list[Request]:
        return [request for request in list(self.requests) if request.verb == verb]

    def wait_for(self, verb: Verb, count: int) -> list[Request]:
        """Blocks until there were ``count`` requests of ``verb``."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.seen(verb)) >= count, PATIENCE_SECONDS):
                raise AssertionError(f"{len(self.seen(verb))} {verb} requests came, not {count}")
            return self.seen(verb)

    # --- answers ---

    def _record(self, kind: str, obj: dict[str, Any]) -> None:
        with self._changed:
            self._version += 1
            obj = obj | {"metadata": obj["metadata"] | {"resourceVersion": str(self._version)}}
            uid = obj["metadata"]["uid"]
            if kind == "DELETED":
                del self._pods[uid]
            else:
                self._pods[uid] = obj
            self._events.append((self._version, kind, obj))
            self._changed.notify_all()

    def _serve(self, exchange: Exchange) -> None:
        request = exchange.request
        with self._changed:
            self.requests.append(request)
            self._changed.notify_all()
            script = self._scripts.get(request.verb)
            answer = script.popleft() if script else self._always.get(request.verb)
        (answer or self._usual)(exchange)

    def _usual(self, exchange: Exchange) -> None:
        request = exchange.request
        if self.token is not None and request.headers.get("authorization") != f"Bearer {self.token}":
            exchange.status(401, "Unauthorized")
        else:
            {"list": self._list, "watch": self._watch, "kubelet": self._kubelet, "other": self._other}[request.verb](
                exchange
            )

    def _selected(self, pods: Iterable[dict[str, Any]], request: Request) -> list[dict[str, Any]]:
        field, _, node = request.params.get("fieldSelector", "").partition("=")
        label, _, value = request.params.get("labelSelector", "").partition("=")
        return [
            each
            for each in pods
            if field != "spec.nodeName" or each["spec"].get("nodeName") == node
            if not label or each["metadata"].get("labels", {}).get(label) == value
        ]

    def _list(self, exchange: Exchange) -> None:
        params = exchange.request.params
        with self._changed:
            pods, version = self._selected(self._pods.values(), exchange.request), self._version
        start = int(params.get("continue", "0"))
        end = start + int(params["limit"]) if "limit" in params and params.get("resourceVersion") != "0" else len(pods)
        metadata = {"resourceVersion": str(version)} | ({"continue": str(end)} if end < len(pods) else {})
        exchange.json({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": pods[start:end]})

    def _watch(self, exchange: Exchange) -> None:
        since = int(exchange.request.params.get("resourceVersion", "0"))
        if since < self._compacted:
            exchange.status(410, f"too old resource version: {since} ({self._compacted})")
            return
        exchange.stream_head()
        while not self.ended.is_set() and not exchange.is_over():
            with self._changed:
                new = [each for each in self._events if each[0] > since]
                if not new:
                    with self.parking():
                        self._changed.wait(0.05)
            for version, kind, obj in new:
                since = version
                if self._selected([obj], exchange.request):
                    exchange.chunk(event(kind, obj))
                elif "labelSelector" in exchange.request.params:
                    # Of a pod that is selected no more the API tells as of one that is gone.
                    exchange.chunk(event("DELETED", obj))

    def _kubelet(self, exchange: Exchange) -> None:
        exchange.json(
            {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": list(self._pods.values()) or None}
        )

    def _other(self, exchange: Exchange) -> None:
        exchange.status(404, "the server could not find the requested resource")

    def _handler_class(self) -> type[BaseHTTPRequestHandler]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                params = dict(parse_qsl(parts.query))
                verb: Verb = "other"
                if parts.path == "/api/v1/pods":
                    verb = "watch" if params.get("watch") == "true" else "list"
                elif parts.path == "/pods":
                    verb = "kubelet"
                headers = {name.lower(): value for name, value in self.headers.items()}
                try:
                    api._serve(Exchange(api, self, Request(verb, parts.path, params, headers)))
                except OSError:
                    self.close_connection = True  # the client went away

            def log_message(self, *_: object) -> None:
                """Not to stderr: the requests are in ``requests``."""

        return Handler
