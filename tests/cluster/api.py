"""The cluster's API as its administrator uses it: JSON over REST, with the admin's certificate."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import requests

from tests.cluster.layout import API_URL, CA, PKI

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

PATIENCE_SECONDS = 60.0
# User-Mode Linux has one processor, and slow system calls.
_SLOWNESS = 4 if "User Mode Linux" in Path("/proc/cpuinfo").read_text() else 1
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
STRATEGIC_PATCH = "application/strategic-merge-patch+json"

Object = dict[str, Any]
T = TypeVar("T")


class ApiError(Exception):
    """The API server refused; ``status`` is the HTTP one."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(f"{status}: {message}")
        self.status = status


class Api:
    """One session. ``url`` and ``ca`` are other than the API server's for the kubelet's own API."""

    def __init__(self, url: str = API_URL, ca: Path = CA) -> None:
        self._url = url
        self._session = requests.Session()
        self._session.trust_env = False
        self._session.verify = str(ca)
        self._session.cert = (str(PKI / "admin.crt"), str(PKI / "admin.key"))

    def get(self, path: str, **params: str) -> Object:
        return self.do("GET", path, params=params)

    def text(self, path: str) -> str:
        return self._send("GET", path).text

    def post(self, path: str, body: Mapping[str, Any]) -> Object:
        return self.do("POST", path, json=body)

    def put(self, path: str, body: Mapping[str, Any]) -> Object:
        return self.do("PUT", path, json=body)

    def patch(self, path: str, body: object, kind: str = MERGE_PATCH) -> Object:
        return self.do("PATCH", path, json=body, headers={"Content-Type": kind})

    def delete(self, path: str, grace_seconds: int | None = None) -> None:
        options: Object = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        self.do("DELETE", path, json=options)

    def apply(self, collection: str, body: Mapping[str, Any]) -> None:
        """Creates it, or leaves it as it is where there is one of that name."""
        try:
            self.post(collection, body)
        except ApiError as error:
            if error.status != 409:
                raise

    def do(self, verb: str, path: str, **arguments: Any) -> Object:
        answer = self._send(verb, path, **arguments).json()
        assert isinstance(answer, dict)
        return answer

    def _send(self, verb: str, path: str, **arguments: Any) -> requests.Response:
        response = self._session.request(verb, self._url + path, timeout=30, **arguments)
        if not response.ok:
            raise ApiError(response.status_code, response.text[:1000])
        return response


def eventually(what: Callable[[], T | None], seconds: float = PATIENCE_SECONDS) -> T:
    """What ``what`` gives, once that is neither None nor false.

    Raises:
        TimeoutError: it was not in ``seconds``; with what it gave, or raised, last.
    """
    deadline = time.monotonic() + seconds * _SLOWNESS
    while True:
        last: object
        try:
            if found := what():
                return found
            last = found
        except (ApiError, requests.RequestException, OSError, LookupError) as error:
            last = error
        if time.monotonic() > deadline:
            raise TimeoutError(f"not in {seconds:g} s; at last: {last!r}")
        time.sleep(0.1)
