from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

import pytest
import trustme

from otel_k8s_cgroup.kube import ApiClient, PodWatcher, WatchTimes, open_pods
from otel_k8s_cgroup.model import PodSource
from tests.fakes.kube_api import KubeApi

from .support import SECRET, Clock, Kubectl, Waits, client, server_tls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def api() -> Iterator[KubeApi]:
    with KubeApi() as server:
        yield server


@pytest.fixture(autouse=True)
def _info(caplog: pytest.LogCaptureFixture) -> None:
    """What an operator sees is a part of what is tested."""
    caplog.set_level(logging.INFO, "otel_k8s_cgroup")


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(SECRET)
    return path


@pytest.fixture
def ca() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def ca_file(ca: trustme.CA, tmp_path: Path) -> Path:
    path = tmp_path / "ca.crt"
    ca.cert_pem.write_to_path(str(path))
    return path


@pytest.fixture
def tls_api(ca: trustme.CA) -> Iterator[KubeApi]:
    with KubeApi(tls=server_tls(ca), token=SECRET) as server:
        yield server


@pytest.fixture
def waits() -> Waits:
    return Waits()


API = PodSource("api")


class Watch(Protocol):
    def __call__(self, source: PodSource = ..., *, client: ApiClient | None = ..., **settings: Any) -> PodWatcher: ...


@pytest.fixture
def watch(api: KubeApi, waits: Waits) -> Iterator[Watch]:
    """Opens and starts a watcher of node-1; at the end each must stop, whatever state it is in."""
    opened: list[PodWatcher] = []

    def start(source: PodSource = API, *, client: ApiClient | None = None, **settings: Any) -> PodWatcher:
        mine = client if client is not None or source.method == "file" else _client(api)
        defaults: dict[str, Any] = {"wait": waits, "jitter": lambda: 1.0, "times": WatchTimes(start_seconds=0)}
        watcher = open_pods(source, node="node-1", client=mine, **(defaults | settings))
        opened.append(watcher)
        watcher.start()
        return watcher

    yield start
    waits.let_go()
    assert [watcher.stop(10.0) for watcher in opened] == [True] * len(opened)


def _client(api: KubeApi) -> ApiClient:
    return client(api.url)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def kubectl(tmp_path: Path) -> Kubectl:
    folder = tmp_path / "bin"
    folder.mkdir()
    return Kubectl(folder)
