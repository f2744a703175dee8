"""Trying until it works: how long to wait, and what to say meanwhile."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import ApiStatusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.errors import KubeError

log = logging.getLogger(__name__)

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
RETRY_AFTER_CAP_SECONDS = 300.0
"""What a server may ask us to wait, so that a malformed or hostile Retry-After does not stop us for good."""
_MAX_DOUBLINGS = 16


class Retry:
    """Of one thing to do, which ``doing`` names for messages ("list the pods").

    Failure n waits at random (``jitter``: 0 to 1) up to 0.5 s × 2^(n−1), at most 30 s, and that on top of what the
    server asked for in Retry-After: a cluster's nodes, which an outage failed in one moment and a server told one time,
    would else all come back in one moment again (``make scale`` shows it). An outage is one warning a cause after more
    than ``tolerated`` failures, and its end one line.
    """

    def __init__(
        self, doing: str, *, wait: Callable[[float], object], jitter: Callable[[], float], tolerated: int = 0
    ) -> None:
        self._doing = doing
        self._wait = wait
        self._jitter = jitter
        self._tolerated = tolerated
        self._said: set[object] = set()
        self.failures = 0
        """In a row."""

    def failed(self, error: KubeError) -> None:
        """Says so where it is due, and waits."""
        self.failures += 1
        if self.failures > self._tolerated:
            self.say(error, "trying again until it works")
        window = min(CAP_SECONDS, BASE_SECONDS * 2 ** min(self.failures - 1, _MAX_DOUBLINGS))
        asked = error.retry_after_seconds if isinstance(error, ApiStatusError) else None
        self._wait(min(asked or 0.0, RETRY_AFTER_CAP_SECONDS) + window * self._jitter())

    def say(self, error: KubeError, consequence: str) -> None:
        """Once a cause and outage."""
        cause = error.status if isinstance(error, ApiStatusError) else type(error)
        if cause not in self._said:
            self._said.add(cause)
            log.warning("cannot %s: %s; %s", self._doing, error, consequence)

    def worked(self) -> None:
        if self._said:
            self._said.clear()
            log.info("can %s again", self._doing)
        self.failures = 0
