"""Which pods the node has: a thread that keeps a tuple of them up to date from the API, the kubelet or a file."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.http_words import quoted
from otel_k8s_cgroup.model import Choice, LeftOut

from .complaints import Permission
from .details import PodReader
from .files import Signature, read_in_chunks, signature
from .pages import split_pods
from .retry import Retry
from .store import PodStore
from .watch import ApiPods, WatchTimes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from otel_k8s_cgroup.model import Pod, PodSource, Wanted

    from .client import ApiClient

log = logging.getLogger(__name__)

KUBELET_PODS = Permission("get", "nodes/pods")
"""What a kubelet's /pods needs; before Kubernetes 1.33 ``nodes/proxy``, which also runs commands in pods.

Source: https://kubernetes.io/docs/reference/access-authn-authz/kubelet-authn-authz/
"""
_FILE_POLL_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class PodStats:
    """Counts since the start, for the exporter's own metrics."""

    api_requests: Mapping[tuple[str, str], int]
    """By (verb, result); result: an HTTP status, ``unreachable`` or ``broken``."""
    watch_restarts: Mapping[str, int]
    """By reason: closed, gone, denied, malformed, status, token, unreachable."""
    skipped_objects: int


class Source(Protocol):
    """Where pods are from. ``list`` fills the store or raises KubeError; ``follow`` ends when a list is due again."""

    @property
    def client(self) -> ApiClient | None: ...

    @property
    def watch_restarts(self) -> Mapping[str, int]: ...

    def list(self, store: PodStore) -> None: ...

    def follow(self, store: PodStore) -> None: ...


class PodWatcher:
    """The pods of one node, as ``pods``, from a daemon thread between ``start`` and ``stop``. ``open_pods`` makes it.

    What goes wrong is logged once a cause and once when it is over; the pods that are known stay until then.
    ``start_seconds``: as in WatchTimes. ``chooses``: whether the settings may leave pods out.
    """

    def __init__(
        self,
        source: Source,
        store: PodStore,
        *,
        stopping: threading.Event,
        wait: Callable[[float], object],
        jitter: Callable[[], float],
        clock: Callable[[], float],
        start_seconds: float,
        chooses: bool = False,
    ) -> None:
        self.synced = threading.Event()
        """Set once the pods were listed for the first time."""
        self._source = source
        self._store = store
        self._chooses = chooses
        self._stopping = stopping
        client = source.client
        self._listing = Retry(
            "list the pods",
            wait=wait,
            jitter=jitter,
            clock=clock,
            changed=client.files_changed if client is not None else None,
        )
        self._wait = wait
        self._jitter = jitter
        self._start_seconds = start_seconds
        self._thread = threading.Thread(target=self._for_ever, name="pods", daemon=True)

    @property
    def pods(self) -> tuple[Pod, ...]:
        """As they are known now, without those that the settings leave out; the same object until something changes."""
        return self._store.pods

    @property
    def left_out(self) -> LeftOut:
        """Those that the settings leave out."""
        synced = self.synced.is_set()
        return LeftOut(self._store.excluded, self._store.hides_others and synced, self._chooses and not synced)

    @property
    def list_failure(self) -> KubeError | None:
        """Why the last list of the pods failed; None where it worked, or none has ended yet."""
        return self._listing.failure

    @property
    def skipped_objects(self) -> int:
        """How many objects and events were passed over because they do not parse."""
        return self._store.skipped_objects

    @property
    def refused_claims(self) -> int:
        """How many pods claimed another pod's cgroup."""
        return self._store.refused_claims

    @property
    def stats(self) -> PodStats:
        client = self._source.client
        return PodStats(
            api_requests=client.request_counts if client is not None else {},
            watch_restarts=self._source.watch_restarts,
            skipped_objects=self._store.skipped_objects,
        )

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout_seconds: float = 2.0) -> bool:
        """Ends the thread and closes the client for good, whatever hangs.

        False where the thread still waits for what cannot be interrupted (a DNS server, a connection being made) after
        ``timeout_seconds``; it is a daemon, and does nothing more when that returns.
        """
        self._stopping.set()
        if self._source.client is not None:
            self._source.client.close()
        if self._thread.ident is not None:
            self._thread.join(timeout_seconds)
        return not self._thread.is_alive()

    def _for_ever(self) -> None:
        if self._start_seconds > 0:
            self._wait(self._start_seconds * self._jitter())
        while not self._stopping.is_set():
            try:
                self._source.list(self._store)
                self._listed()
                self._source.follow(self._store)
            except Exception as error:  # a defect, too, must not freeze the pods without a word
                if self._stopping.is_set():
                    return
                if not isinstance(error, KubeError):
                    log.debug("unexpected", exc_info=True)
                    error = KubeError(f"unexpected {type(error).__name__}: {quoted(str(error))}")
                self._listing.failed(error)

    def _listed(self) -> None:
        self._listing.worked()
        if not self.synced.is_set():
            if not self.pods:
                log.warning("%s", self._why_none())
            self.synced.set()

    def _why_none(self) -> str:
        node, excluded = self._store.node, len(self._store.excluded)
        if excluded:
            return f"the settings leave out all {excluded} pods of node {node!r}: see include_namespaces and the like"
        selected = ", or of pod_selector" if self._store.hides_others else ""
        return f"no pod is on node {node!r}{selected}: is k8s_node one of those that `kubectl get nodes` shows?"


class KubeletPods:
    """The kubelet's own list, asked again every ``poll_seconds``."""

    def __init__(self, kubelet: ApiClient, *, wait: Callable[[float], object], poll_seconds: float) -> None:
        self.client: ApiClient | None = kubelet
        self.watch_restarts: Mapping[str, int] = {}
        self._kubelet = kubelet
        self._wait = wait
        self._poll_seconds = poll_seconds

    def list(self, store: PodStore) -> None:
        with self._kubelet.body("/pods", {}, KUBELET_PODS) as chunks:
            store.replace(split_pods(chunks, self._kubelet.named("/pods"), store.skip))

    def follow(self, store: PodStore) -> None:  # noqa: ARG002 - a Source's; there is nothing to put in between two lists
        self._wait(self._poll_seconds)


class FilePods:
    """A PodList in a JSON file, read again when it changed."""

    def __init__(self, path: str, *, wait: Callable[[float], object]) -> None:
        self.client: ApiClient | None = None
        self.watch_restarts: Mapping[str, int] = {}
        self._path = path
        self._wait = wait
        self._read: Signature | None = None

    def list(self, store: PodStore) -> None:
        where = f"pod_source file {self._path!r}"
        try:
            if self._read is not None and signature(self._path) == self._read:
                return
            with read_in_chunks(self._path) as (chunks, read):
                store.replace(split_pods(chunks, where, store.skip))
        except OSError as error:
            raise KubeError(
                f"{where}: {error.strerror}; it must be what `kubectl get pods -A -o json` prints"
            ) from error
        self._read = read  # only what could be used is not read again

    def follow(self, store: PodStore) -> None:  # noqa: ARG002 - a Source's; there is nothing to put in between two lists
        self._wait(_FILE_POLL_SECONDS)


def kubelet_url(node: str) -> str:
    """Where the kubelet of ``node`` serves its /pods."""
    return f"https://{node}:10250"


def open_pods(
    source: PodSource,
    *,
    node: str,
    client: ApiClient | None = None,
    wait: Callable[[float], object] | None = None,
    jitter: Callable[[], float] = random.random,
    clock: Callable[[], float] = time.monotonic,
    times: WatchTimes | None = None,
    wanted: Wanted | None = None,
    choice: Choice | None = None,
) -> PodWatcher:
    """The watcher for the setting ``pod_source``, not yet started.

    ``client`` is of the API server or of the kubelet, as the source asks, and is the watcher's from now on; a file
    needs none. ``wait`` waits that many seconds or until ``stop`` (None: it really does); ``jitter`` gives 0 to 1.
    ``wanted`` is what is kept of the pods, ``choice`` says which of them.
    """
    stopping = threading.Event()
    wait = wait if wait is not None else stopping.wait
    times = times if times is not None else WatchTimes()
    choice = choice if choice is not None else Choice()
    hides_others = source.method == "api" and bool(choice.pod_selector)
    chosen: Source
    if source.method == "file":
        if source.file is None:
            raise ValueError("a pod_source of method 'file' names its file")
        chosen = FilePods(source.file, wait=wait)
    elif client is None:
        raise ValueError(f"a pod_source of method {source.method!r} needs a client")
    elif source.method == "kubelet":
        chosen = KubeletPods(client, wait=wait, poll_seconds=times.poll_seconds)
    else:
        chosen = ApiPods(
            client,
            stopping=stopping,
            wait=wait,
            jitter=jitter,
            clock=clock,
            times=times,
            pod_selector=choice.pod_selector,
        )
    # Only the API server is asked by all nodes.
    start_seconds = times.start_seconds if source.method == "api" else 0.0
    return PodWatcher(
        chosen,
        PodStore(
            node,
            reader=PodReader(wanted, choice, selected_by_server=hides_others),
            hides_others=hides_others,
        ),
        stopping=stopping,
        wait=wait,
        jitter=jitter,
        clock=clock,
        start_seconds=start_seconds,
        chooses=choice != Choice(),
    )
