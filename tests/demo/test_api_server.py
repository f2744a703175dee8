"""The demo's API server answers as the real one does, as far as an exporter can ask."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import requests

from otel_k8s_cgroup.demo.api_server import ApiServer

if TYPE_CHECKING:
    from collections.abc import Iterator

TOKEN = "the-token"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    server = ApiServer(TOKEN, bookmark_seconds=0.05)
    yield server
    server.close()


def _pod(name: str, node: str = "node-1") -> dict[str, Any]:
    return {"metadata": {"name": name, "namespace": "default", "uid": f"uid-{name}"}, "spec": {"nodeName": node}}


def _get(api: ApiServer, path: str = "/api/v1/pods", *, token: str = TOKEN, **query: str) -> requests.Response:
    return requests.get(
        api.url + path, params=query, headers={"Authorization": f"Bearer {token}"}, timeout=10, stream="watch" in query
    )


def _events(response: requests.Response) -> Iterator[tuple[str, str, str]]:
    """(type, pod, resource version) of each line of a watch."""
    for line in response.iter_lines():
        event = json.loads(line)
        metadata = event["object"]["metadata"]
        yield event["type"], metadata.get("name", ""), metadata["resourceVersion"]


@pytest.mark.parametrize("token", ["", "another", TOKEN + "x"])
def test_without_the_token_nothing_is_told(api: ApiServer, token: str) -> None:
    """401 and the API's Status object."""
    api.pods.apply(_pod("a"))
    answer = _get(api, token=token)
    assert answer.status_code == 401
    assert answer.json()["kind"] == "Status"


def test_list_is_of_one_node(api: ApiServer) -> None:
    """The field selector is what keeps a node's exporter from hearing of all others' pods."""
    api.pods.apply(_pod("a"))
    api.pods.apply(_pod("b", "node-2"))
    told = _get(api, fieldSelector="spec.nodeName=node-1").json()
    assert told["kind"] == "PodList"
    assert told["metadata"]["resourceVersion"] == "2"
    assert [pod["metadata"]["name"] for pod in told["items"]] == ["a"]
    assert len(_get(api).json()["items"]) == 2


@pytest.mark.parametrize(
    ("path", "query", "status"),
    [
        ("/api/v1/nodes", {}, 404),
        ("/api/v1/pods", {"fieldSelector": "metadata.name=a"}, 400),
        ("/api/v1/pods", {"resourceVersion": "yesterday"}, 400),
    ],
)
def test_what_it_does_not_know_is_refused(api: ApiServer, path: str, query: dict[str, str], status: int) -> None:
    """With a Status object that has the code, never with something that looks like an answer."""
    answer = _get(api, path, **query)
    assert answer.status_code == answer.json()["code"] == status


def test_watch_tells_what_happens_after_the_list(api: ApiServer) -> None:
    """From the list's version on: changes, additions and deletions of this node's pods, in order, and bookmarks."""
    api.pods.apply(_pod("a"))
    with _get(
        api, watch="true", resourceVersion="1", fieldSelector="spec.nodeName=node-1", allowWatchBookmarks="true"
    ) as response:
        events = _events(response)
        assert next(events) == ("BOOKMARK", "", "1")
        api.pods.apply(_pod("a"))
        api.pods.apply(_pod("elsewhere", "node-2"))
        api.pods.apply(_pod("b"))
        api.pods.delete(_pod("a"))
        seen = [event for _, event in zip(range(8), events, strict=False)]
    assert [event for event in seen if event[0] != "BOOKMARK"] == [
        ("MODIFIED", "a", "2"),
        ("ADDED", "b", "4"),
        ("DELETED", "a", "5"),
    ]
    assert seen[-1] == ("BOOKMARK", "", "5")
    assert [pod["metadata"]["name"] for pod in _get(api).json()["items"]] == ["elsewhere", "b"]


def test_watch_without_a_version_begins_with_the_pods_as_they_are(api: ApiServer) -> None:
    """And without being asked to it sends no bookmarks, and it ends when its time is over."""
    api.pods.apply(_pod("a"))
    api.pods.apply(_pod("a"))
    with _get(api, watch="1", timeoutSeconds="1") as response:
        assert list(_events(response)) == [("ADDED", "a", "2")]


def test_closing_ends_open_watches() -> None:
    """The demo's end does not wait for a watch's."""
    api = ApiServer(TOKEN, bookmark_seconds=3600)
    with _get(api, watch="true") as response:
        api.close()
        assert list(response.iter_lines()) == []
