"""A node's pods from the Kubernetes API: list, then resume one stream after another.

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/ (watches, bookmarks, 410 Gone, continue tokens,
``resourceVersion=0``: from the API server's cache, which spares etcd).
"""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, KubeError, MalformedObject, TokenError
from otel_k8s_cgroup.http_words import quoted

from .complaints import Permission
from .objects import parse_event, parse_status, parse_version
from .pages import split_pods
from .retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .client import ApiClient
    from .store import PodStore

PODS = "/api/v1/pods"
LIST = Permission("list", "pods")
WATCH = Permission("watch", "pods")

# From the cache; then what the API asks for after a 410 (the pages are of a state that it has dropped): consistent; and
# last in one answer, which cannot expire half-way.
_LIST_TRIES: tuple[Mapping[str, str], ...] = ({"resourceVersion": "0", "limit": "500"}, {"limit": "500"}, {})
_MAX_PAGES = 200
_FAILURES_BEFORE_LIST = 3
"""Streams that fail in a row (a line that is too long, a server that will not resume) before a new list."""
_SHORT_SECONDS = 1.0
"""A stream that ends sooner and empty did not work (client-go's rule for "very short watch")."""


class WatchTimes(NamedTuple):
    """``poll_seconds``: between two lists of the kubelet's, which has no watch. ``denied_poll_seconds``: between two
    lists of the API server's, each with one more try to watch, once a denied watch is believed; less up to a third at
    random. Of 5,000 nodes that is 200 lists a second, out of the API server's cache, and a pod that is born meanwhile
    has its name within that time. ``watch_seconds``: the least time after which the server is asked to end a
    stream (twice that at most, at random, to spread the nodes' requests), and that after which streams that told
    nothing, not even a bookmark (an API server sends one a minute), are believed no more and the pods are listed.
    ``grace_seconds``: a stream that goes on for longer than that beyond its end is ended, whatever comes.
    ``start_seconds``: the first list is asked for within that time, at random: nobody notices it who starts one agent,
    and the API server does when all start."""

    poll_seconds: float = 10.0
    watch_seconds: float = 300.0
    grace_seconds: float = 30.0
    denied_poll_seconds: float = 30.0
    start_seconds: float = 0.5


class ApiPods:
    """``list`` and ``follow`` by turns keep a PodStore at what the API says of the pods of ``pod_selector``."""

    def __init__(
        self,
        api: ApiClient,
        *,
        stopping: threading.Event,
        wait: Callable[[float], object],
        jitter: Callable[[], float],
        clock: Callable[[], float],
        times: WatchTimes,
        pod_selector: str = "",
    ) -> None:
        self.client = api
        self._pod_selector = pod_selector
        self._stopping = stopping
        self._jitter = jitter
        self._clock = clock
        self._times = times
        # A stream that breaks is everyday; it is worth a word once not even a new list helps.
        self._watching = Retry(
            "watch the pods",
            wait=wait,
            jitter=jitter,
            clock=clock,
            changed=api.files_changed,
            tolerated=_FAILURES_BEFORE_LIST,
        )
        self._version: str | None = None
        self._last_event_seconds = 0.0
        """When a list or an event of a stream came last."""
        self._gone_in_a_row = 0
        self._lock = threading.Lock()
        self._restarts: Counter[str] = Counter()

    @property
    def watch_restarts(self) -> Mapping[str, int]:
        """How many streams ended by reason: closed, gone, denied, malformed, status, token or unreachable."""
        with self._lock:
            return dict(self._restarts)

    def list(self, store: PodStore) -> None:
        """All pods of the node, in pages. Raises KubeError; ``store`` is as it was then."""
        # After a second 410 the cache itself is behind; only then etcd is asked.
        tries = _LIST_TRIES if self._gone_in_a_row < 2 else _LIST_TRIES[1:]
        for query in tries:
            try:
                store.replace(self._objects(query, store))
            except ApiStatusError as error:
                if error.status != 410 or query is tries[-1]:
                    raise
            else:
                self._last_event_seconds = self._clock()
                return

    def follow(self, store: PodStore) -> None:
        """Resumes until the list has to be had anew. Where watching is denied that is after each try: a pod that lives
        for some seconds is listed meanwhile.
        """
        while not self._stopping.is_set():
            if not self._resume(store) or self._watching.failures >= _FAILURES_BEFORE_LIST:
                return
            if self._clock() - self._last_event_seconds >= self._times.watch_seconds:
                return  # the node may be quiet, or a gateway may hold back what the streams tell

    def _resume(self, store: PodStore) -> bool:
        """One stream and what its end means: whether the next one may go on from where it ended."""
        try:
            self._stream(store)
        except KubeError as error:
            if self._stopping.is_set():
                return False
            reason = _reason(error)
            self._restarted(reason)
            self._gone_in_a_row = self._gone_in_a_row + 1 if reason == "gone" else 0
            self._watching.failed(error, instead_seconds=self._times.denied_poll_seconds)
            return reason not in ("gone", "denied")
        self._restarted("closed")
        return True

    def _stream(self, store: PodStore) -> None:
        """One stream, from ``_version`` on, until the server closes it in order. Raises KubeError."""
        seconds = max(1, round(self._times.watch_seconds * (1 + self._jitter())))
        query = {"watch": "true", "allowWatchBookmarks": "true", "timeoutSeconds": str(seconds)} | self._of(store.node)
        if self._version is not None:
            query["resourceVersion"] = self._version
        opened: float | None = None
        events = strays = 0
        try:
            with self.client.lines(PODS, query, WATCH, end_seconds=seconds + self._times.grace_seconds) as lines:
                opened = self._clock()
                for line in lines:
                    if not line.strip() or not self._apply(line, store):
                        strays += 1
                        continue
                    self._worked()
                    self._last_event_seconds = self._clock()
                    events += 1
        except ApiUnreachable:
            if self._was_quiet(opened, strays):
                self._worked()
            raise
        if self._was_quiet(opened, strays):
            self._worked()
        elif not events:
            what = "with no event in it" if strays else "at once, with nothing in it"
            raise ApiUnreachable(self.client.base_url + PODS, f"the watch was closed {what}")

    def _was_quiet(self, opened: float | None, strays: int) -> bool:
        """Whether a stream was a good one though no event came, as on a quiet node: one that was open for a while with
        not a byte, however it ended. Bytes that are no event may keep it open for ever.
        """
        return opened is not None and not strays and self._clock() - opened >= _SHORT_SECONDS

    def _worked(self) -> None:
        self._watching.worked()
        self._gone_in_a_row = 0

    def _apply(self, line: bytes, store: PodStore) -> bool:
        """Whether it was an event of a type that is known."""
        url = self.client.base_url + PODS
        kind, obj = parse_event(line, url)
        match kind:
            case "ADDED" | "MODIFIED":
                store.put(obj)
            case "DELETED":
                store.remove(obj)
            case "BOOKMARK":
                pass
            case "ERROR":
                code, message = parse_status(obj)
                raise ApiStatusError(url, code, f"the watch ended with an error: {quoted(message)}")
            case _:
                store.skip(MalformedObject(f"{url}: an event of unknown type {quoted(kind)}"))
                return False
        self._version = parse_version(obj) or self._version
        return True

    def _objects(self, query: Mapping[str, str], store: PodStore) -> Iterator[bytes]:
        """What the list has, pod by pod."""
        where = self.client.named(PODS)
        of_node = self._of(store.node)
        params = dict(query) | of_node
        for _ in range(_MAX_PAGES):
            with self.client.body(PODS, params, LIST) as chunks:
                page = yield from split_pods(chunks, where, store.skip)
            if page.continue_token is None:
                self._version = page.resource_version
                return
            # The API takes no resourceVersion beside a continue token, which has one in it.
            params = {"limit": query.get("limit", "500"), "continue": page.continue_token} | of_node
        raise MalformedObject(f"{where}: the list goes on after {_MAX_PAGES} pages")

    def _of(self, node: str) -> dict[str, str]:
        query = {"fieldSelector": f"spec.nodeName={node}"}
        return query | {"labelSelector": self._pod_selector} if self._pod_selector else query

    def _restarted(self, reason: str) -> None:
        with self._lock:
            self._restarts[reason] += 1


def _reason(error: KubeError) -> str:
    match error:
        case ApiStatusError(status=410):
            return "gone"
        case ApiStatusError(status=403 | 405):
            return "denied"
        case ApiStatusError():
            return "status"
        case MalformedObject():
            return "malformed"
        case TokenError():
            return "token"
    return "unreachable"
