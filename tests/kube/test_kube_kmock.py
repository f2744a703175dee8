"""The ordinary way against a server that we did not write: kmock, an emulator of the Kubernetes API."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import kmock
import pytest
import requests

from otel_k8s_cgroup.kube import open_pods
from otel_k8s_cgroup.model import PodSource
from tests.fakes.kube_api import pod

from .support import client, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def kmock_url() -> Iterator[str]:
    """kmock is asynchronous, we are not: it has a thread with a loop of its own."""
    url: list[str] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    done = asyncio.Event()

    async def serve() -> None:
        async with kmock.KubernetesEmulator() as emulator, kmock.Server(emulator) as server:
            emulator.resources["v1/pods"] = kmock.ResourceInfo(kind="Pod", namespaced=True)
            url.append(str(server.url).rstrip("/"))
            up.set()
            await done.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),), daemon=True)
    thread.start()
    assert up.wait(20)
    yield url[0]
    loop.call_soon_threadsafe(done.set)
    thread.join(20)
    loop.close()


def _create(url: str, obj: dict[str, Any]) -> None:
    answer = requests.post(f"{url}/api/v1/namespaces/default/pods", json=obj, timeout=10)
    assert answer.ok


def test_list_and_watch_of_an_emulated_api(kmock_url: str) -> None:
    """Pods that were there, that come, that change and that go, over the wire of an aiohttp server."""
    _create(kmock_url, pod("a"))
    _create(kmock_url, pod("foreign", node="node-2"))
    watcher = open_pods(PodSource("api"), node="node-1", client=client(kmock_url))
    watcher.start()
    try:
        assert watcher.synced.wait(20)
        assert [each.name for each in watcher.pods] == ["a"]
        eventually(lambda: ("watch", "200") in watcher.stats.api_requests)
        _create(kmock_url, pod("b"))
        eventually(lambda: {each.name for each in watcher.pods} == {"a", "b"})
        change = {"status": {"startTime": "2026-06-06T06:06:06Z"}}
        requests.patch(f"{kmock_url}/api/v1/namespaces/default/pods/b", json=change, timeout=10)
        eventually(lambda: [each.start_time for each in watcher.pods if each.name == "b"] == ["2026-06-06T06:06:06Z"])
        requests.delete(f"{kmock_url}/api/v1/namespaces/default/pods/a", timeout=10)
        eventually(lambda: {each.name for each in watcher.pods} == {"b"})
    finally:
        assert watcher.stop(10)
