"""What one node asks of the API, measured: the exporter's own list and watch at a server that counts.

Bytes are those of HTTP on a loopback socket, headers and token included, TLS not. Time is the node's own and passes
only where its client waits or a stream says so, so that an hour takes seconds.
"""

from __future__ import annotations

import json
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from urllib.parse import parse_qsl, urlsplit

from otel_k8s_cgroup.kube import ApiClient, Credentials, open_pods
from otel_k8s_cgroup.model import PodSource, TokenRetrieval

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator


_TEMPLATE = json.loads((Path(__file__).parent / "pod.json").read_text())
_BOOKMARK_SECONDS = 60.0
"""What an API server's watch cache does (``defaultBookmarkFrequency``)."""
_PATIENCE_SECONDS = 60.0
_TOKEN_BYTES = 1000
# What stands around every answer of a real API server.
_HEADERS = {
    "Audit-Id": str(uuid.UUID(int=1)),
    "Cache-Control": "no-cache, private",
    "Content-Type": "application/json",
    "X-Kubernetes-Pf-Flowschema-Uid": str(uuid.UUID(int=2)),
    "X-Kubernetes-Pf-Prioritylevel-Uid": str(uuid.UUID(int=3)),
}


class Sent(NamedTuple):
    """``verb``: list, watch (opened), event, bookmark or poll (of the kubelet); bytes from and to the agent."""

    at_seconds: float
    verb: str
    from_agent: int
    to_agent: int


@dataclass(frozen=True, slots=True)
class Churn:
    """What happens on a node."""

    births_an_hour: float = 6.0
    """As many pods end: a birth and an end are four events each."""
    updates_an_hour: float = 0.5
    """Other changes (readiness, annotations), a pod."""


@dataclass(slots=True)
class Node:
    """One node's pods at the API server, and the node's time."""

    name: str
    pods: int
    churn: Churn
    hours: float
    random: random.Random
    now: float = 0.0
    sent: list[Sent] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)
    _version: int = 1_849_302_211
    _objects: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._objects = [self._born() for _ in range(self.pods)]

    def wait(self, seconds: float) -> None:
        """As ``open_pods`` wants it; after the last hour it does not return until all is over."""
        self.now += seconds
        if self.now >= self.hours * 3600:
            self.end()

    def end(self) -> None:
        self.ended.set()
        self.closing.wait(_PATIENCE_SECONDS)

    def listed(self) -> bytes:
        metadata = {"resourceVersion": str(self._version)}
        return _compact({"kind": "PodList", "apiVersion": "v1", "metadata": metadata, "items": self._objects})

    def stream(self, seconds: float) -> Iterator[tuple[str, bytes]]:
        """What a watch sends in its ``seconds``; time passes meanwhile."""
        until = min(self.now + seconds, self.hours * 3600)
        rates = {"birth": self.churn.births_an_hour, "update": self.churn.updates_an_hour * self.pods}
        due = {kind: self.now + self.random.expovariate(rate / 3600) for kind, rate in rates.items() if rate}
        due["bookmark"] = self.now + _BOOKMARK_SECONDS
        while (at := min(due.values())) < until:
            kind = min(due, key=due.__getitem__)
            self.now = at
            due[kind] = at + (_BOOKMARK_SECONDS if kind == "bookmark" else self.random.expovariate(rates[kind] / 3600))
            yield from {"birth": self._birth, "update": self._update, "bookmark": self._bookmark}[kind]()
        self.now = until

    def _birth(self) -> Iterator[tuple[str, bytes]]:
        place = self.random.randrange(self.pods)
        for kind in ("MODIFIED", "MODIFIED", "MODIFIED", "DELETED"):
            yield self._event(kind, self._objects[place])
        self._objects[place] = self._born()
        for kind in ("ADDED", "MODIFIED", "MODIFIED", "MODIFIED"):
            yield self._event(kind, self._objects[place])

    def _update(self) -> Iterator[tuple[str, bytes]]:
        yield self._event("MODIFIED", self.random.choice(self._objects))

    def _bookmark(self) -> Iterator[tuple[str, bytes]]:
        metadata = {"resourceVersion": str(self._version), "creationTimestamp": None}
        bookmark = {"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": {"containers": None}, "status": {}}
        yield "bookmark", _compact({"type": "BOOKMARK", "object": bookmark}) + b"\n"

    def _event(self, kind: str, pod: dict[str, Any]) -> tuple[str, bytes]:
        self._version += 37  # the version is the cluster's, not the node's
        pod["metadata"]["resourceVersion"] = str(self._version)
        return "event", _compact({"type": kind, "object": pod}) + b"\n"

    def _born(self) -> dict[str, Any]:
        number = self.random.getrandbits(128)
        name = f"{_TEMPLATE['metadata']['generateName']}{number % 36**5:05x}"[:63]
        identity = {"name": name, "uid": str(uuid.UUID(int=number)), "resourceVersion": str(self._version)}
        metadata, spec = _TEMPLATE["metadata"] | identity, _TEMPLATE["spec"] | {"nodeName": self.name}
        return {"kind": "Pod", "apiVersion": "v1", **_TEMPLATE, "metadata": metadata, "spec": spec}


def _compact(obj: object) -> bytes:
    return json.dumps(obj, separators=(",", ":")).encode()


class _Counted:
    """A file of a connection, with a count of what went through."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self.bytes = 0

    def readline(self, limit: int = -1) -> bytes:
        line: bytes = self._file.readline(limit)
        self.bytes += len(line)
        return line

    def write(self, data: bytes) -> int:
        self.bytes += len(data)
        return int(self._file.write(data))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Server(ThreadingHTTPServer):
    """Its ``server_close`` waits until all is counted."""

    daemon_threads = False

    def __init__(self, node: Node) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.node = node

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that goes away in the middle is how each measurement ends."""


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = _PATIENCE_SECONDS

    def setup(self) -> None:
        super().setup()
        self.received, self.answered = _Counted(self.rfile), _Counted(self.wfile)
        self.rfile, self.wfile = self.received, self.answered  # type: ignore[assignment]  # files, as far as used

    def log_message(self, *_: object) -> None:
        """Not a word."""

    def do_GET(self) -> None:
        node = self.server.node
        parts = urlsplit(self.path)
        query = dict(parse_qsl(parts.query))
        if query.get("watch") == "true":
            self._watch(node, float(query["timeoutSeconds"]))
            return
        at, body = node.now, node.listed()
        self._head("Content-Length", str(len(body)))
        self.wfile.write(body)
        self._count(at, "poll" if parts.path == "/pods" else "list")

    def _watch(self, node: Node, seconds: float) -> None:
        self._head("Transfer-Encoding", "chunked")
        self._count(node.now, "watch")
        for verb, line in node.stream(seconds):
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self._count(node.now, verb)
        if node.now >= node.hours * 3600:
            node.end()
        self.wfile.write(b"0\r\n\r\n")

    def _head(self, length: str, value: str) -> None:
        self.send_response(200)
        for header in (*_HEADERS.items(), (length, value)):
            self.send_header(*header)
        self.end_headers()

    def _count(self, at_seconds: float, verb: str) -> None:
        """All that went through since the last count was for this."""
        node = self.server.node
        if at_seconds < node.hours * 3600:
            node.sent.append(Sent(at_seconds, verb, self.received.bytes, self.answered.bytes))
        self.received.bytes = self.answered.bytes = 0


def follow(source: Literal["api", "kubelet"], node: Node) -> list[Sent]:
    """All that the exporter's client and ``node``'s server say to each other in the node's hours, from the start on."""
    server = Server(node)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with tempfile.NamedTemporaryFile("w", prefix="scale-token-") as token:
        token.write("t" * _TOKEN_BYTES)
        token.flush()
        url = f"http://127.0.0.1:{server.server_port}"
        client = ApiClient(url, credentials=Credentials(TokenRetrieval("file", file=token.name), url))
        watcher = open_pods(
            PodSource(source),
            node=node.name,
            client=client,
            wait=node.wait,
            jitter=node.random.random,
            clock=lambda: node.now,
        )
        watcher.start()
        ended = node.ended.wait(_PATIENCE_SECONDS)
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while (known := len(watcher.pods)) != node.pods and time.monotonic() < deadline:
            time.sleep(0.01)  # the last events are on their way
        node.closing.set()
        watcher.stop()
        server.shutdown()
        server.server_close()
    if not ended or known != node.pods:
        raise RuntimeError(f"{node.name}: {known} pods known of {node.pods}, {len(node.sent)} messages: it got stuck")
    return node.sent


def parse_seconds(node: Node) -> float:
    """CPU seconds of making pods out of one list of ``node``'s: the least of five."""
    from otel_k8s_cgroup.kube.pages import split_pods  # noqa: PLC0415 the inside of what `follow` measures
    from otel_k8s_cgroup.kube.store import PodStore  # noqa: PLC0415

    body = node.listed()

    def once() -> float:
        begin = time.thread_time()
        store = PodStore(node.name)
        store.replace(split_pods([body], "", store.skip))
        return time.thread_time() - begin

    return min(once() for _ in range(5))
