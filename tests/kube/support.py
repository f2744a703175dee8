"""What the tests of the Kubernetes side share."""

from __future__ import annotations

import base64
import json
import os
import ssl
import threading
from typing import TYPE_CHECKING, Any

import pytest

from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.kube import LIST, PODS, ApiClient, Credentials, PodWatcher
from otel_k8s_cgroup.kube.pages import split_pods
from otel_k8s_cgroup.model import Pem, TokenRetrieval
from tests.fakes.kube_api import PATIENCE_SECONDS

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import trustme

SECRET = "s3cret-token-of-this-test"


def eventually(holds: Callable[[], bool], what: str = "it") -> None:
    """Returns as soon as ``holds`` does; fails where it never does."""
    tick = threading.Event()
    for _ in range(int(PATIENCE_SECONDS / 0.005)):
        if holds():
            return
        tick.wait(0.005)
    raise AssertionError(f"{what} never came true")


class Waits:
    """Stands for waiting: notes the seconds and returns at once, or, after ``hold``, when ``let_go`` says so."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._changed = threading.Condition()
        self._permits: float = float("inf")

    def __call__(self, seconds: float) -> None:
        with self._changed:
            self.seconds.append(seconds)
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._permits > 0)
            self._permits -= 1

    def clock(self) -> float:
        """A clock on which nothing but the waits takes time."""
        return sum(self.seconds)

    def hold(self) -> None:
        with self._changed:
            self._permits = 0

    def let_go(self, times: float = float("inf")) -> None:
        with self._changed:
            self._permits += times
            self._changed.notify_all()

    def reached(self, count: int) -> list[float]:
        """Blocks until there were ``count`` waits."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.seconds) >= count, PATIENCE_SECONDS):
                raise AssertionError(f"{len(self.seconds)} waits, not {count}")
            return self.seconds[:count]


def jwt(**claims: object) -> str:
    """A token as the API server issues it; the signature is nobody's."""

    def part(content: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(content).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'RS256'})}.{part(claims)}.{base64.urlsafe_b64encode(b'no signature').decode().rstrip('=')}"


def client(url: str, *, token_file: Path | None = None, ca_file: str | None = None, **settings: Any) -> ApiClient:
    """With the token in ``token_file``, or with none; with the CA in ``ca_file``, or the system's."""
    retrieval = TokenRetrieval("file", file=str(token_file)) if token_file is not None else TokenRetrieval("none")
    ca = None if ca_file is None else Pem(ca_file)
    return ApiClient(url, credentials=Credentials(retrieval, url), ca=ca, **settings)


def server_tls(ca: trustme.CA, name: str = "127.0.0.1") -> ssl.SSLContext:
    """For a server whose certificate, signed by ``ca``, is for ``name``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(name).configure_cert(context)
    return context


def listed(api: ApiClient) -> list[bytes]:
    """One list, its pods as they were written."""
    with api.body(PODS, {}, LIST) as chunks:
        return list(split_pods(chunks, api.named(PODS), lambda _error: None))


def get(api: ApiClient) -> list[bytes]:
    """One list, and the end of the client."""
    try:
        return listed(api)
    finally:
        api.close()


def refused(api: ApiClient) -> str:
    """The message of the error that a request ends with; one line, and never the token."""
    with pytest.raises(KubeError) as caught:
        get(api)
    message = str(caught.value)
    assert message.isprintable()
    assert SECRET not in message
    return message


def names(watcher: PodWatcher) -> set[str]:
    return {each.name for each in watcher.pods}


def comes_to(watcher: PodWatcher, *expected: str) -> None:
    """Returns as soon as these and no others are its pods, and what there was to say of the first list was said."""
    eventually(lambda: watcher.synced.is_set() and names(watcher) == set(expected), f"the pods {expected}")


class Clock:
    """Wall-clock seconds that only the test moves."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


class Kubectl:
    """A ``kubectl`` on a PATH of its own that prints and does what the test says, and notes how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.calls_file = folder / "calls"
        self.environ = {"PATH": f"{folder}:{os.environ['PATH']}", "MARK": "of-the-caller"}
        self.does("exit 1")

    def does(self, script: str) -> None:
        program = self.folder / "kubectl"
        program.write_text(
            f'#!/bin/sh\nprintf "%s|" "$@" "$MARK" >> {self.calls_file}\necho >> {self.calls_file}\n{script}\n'
        )
        program.chmod(0o755)

    def prints(self, token: str) -> None:
        self.does(f"echo '{token}'")

    @property
    def calls(self) -> list[str]:
        return self.calls_file.read_text().splitlines() if self.calls_file.exists() else []
