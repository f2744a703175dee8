"""Trying until it works: how long to wait, and what to say meanwhile."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, KubeError, TokenError

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

BASE_SECONDS = 0.5
CAP_SECONDS = 30.0
RETRY_AFTER_CAP_SECONDS = 300.0
"""What a server may ask us to wait, so that a malformed or hostile Retry-After does not stop us for good."""
DENIED_SECONDS = 60.0
"""A denial is believed once it has lasted so long: an API server that starts denies what it grants until it has read
its roles (2 of 4 restarts of a real one)."""
DENIED_CAP_SECONDS = 5.0
"""The longest wait until then."""
_CHANGE_POLL_SECONDS = 1.0
_MAX_DOUBLINGS = 16


class Retry:
    """Of one thing to do, which ``doing`` names for messages ("list the pods").

    Failure n waits at random (``jitter``: 0 to 1) up to 0.5 s × 2^(n-1), at most 30 s, and that on top of what the
    server asked for in Retry-After: a cluster's nodes, which an outage failed in one moment and a server told one time,
    would else all come back in one moment again (``make scale`` shows it). A denial (403, 405) waits 5 s at most in its
    first minute. ``changed`` tells whether the token's or the CA's file was replaced: that ends the wait after a
    failure that it may mend. An outage is one warning a cause after more than ``tolerated`` failures, and its end one
    line; what to do about a denial is said once it has lasted for a minute.
    """

    def __init__(
        self,
        doing: str,
        *,
        wait: Callable[[float], object],
        jitter: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        changed: Callable[[], bool] | None = None,
        tolerated: int = 0,
    ) -> None:
        self._doing = doing
        self._wait = wait
        self._jitter = jitter
        self._clock = clock
        self._changed = changed
        self._tolerated = tolerated
        self._said: set[object] = set()
        self._denied_since: float | None = None
        self.failures = 0
        """In a row."""
        self.failure: KubeError | None = None
        """The last one, until it works."""

    def failed(self, error: KubeError, *, instead_seconds: float | None = None) -> None:
        """Says so where it is due, and waits.

        ``instead_seconds``: how often another thing is done instead where this one is denied for good. That is then how
        long it waits, less up to a third at random.
        """
        self.failures += 1
        self.failure = error
        denied_seconds = self._denied_for(error)
        lasts = denied_seconds is not None and denied_seconds >= DENIED_SECONDS
        cap = DENIED_CAP_SECONDS if denied_seconds is not None and not lasts else CAP_SECONDS
        if denied_seconds is not None and lasts:
            self._say_denied(error, denied_seconds, instead_seconds)
        elif self.failures > self._tolerated and (denied_seconds is None or self._tolerated == 0):
            self._say(_cause(error), f"{error}; trying again")
        if lasts and instead_seconds is not None:
            seconds = instead_seconds * (2 + self._jitter()) / 3
        else:
            seconds = min(cap, BASE_SECONDS * 2 ** min(self.failures - 1, _MAX_DOUBLINGS)) * self._jitter()
        asked = error.retry_after_seconds if isinstance(error, ApiStatusError) else None
        self._pause(min(asked or 0.0, RETRY_AFTER_CAP_SECONDS) + seconds, error)

    def worked(self) -> None:
        """The outage, if there was one, is over."""
        if self._said:
            self._said.clear()
            log.info("can %s again", self._doing)
        self._denied_since = None
        self.failures = 0
        self.failure = None

    def _denied_for(self, error: KubeError) -> float | None:
        """For how many seconds nothing else has come than denials; None where ``error`` is none."""
        if not isinstance(error, ApiStatusError) or error.status not in (403, 405):
            self._denied_since = None
            return None
        now = self._clock()
        if self._denied_since is None:
            self._denied_since = now
        return now - self._denied_since

    def _say_denied(self, error: KubeError, seconds: float, instead_seconds: float | None) -> None:
        parts = [f"{error}, for {seconds:.0f} s now"]
        if isinstance(error, ApiStatusError) and error.remedy:
            parts.append(error.remedy)
        if instead_seconds is not None:
            parts.append(f"listing every {instead_seconds:g} s")
        self._say("denied", "; ".join(parts))

    def _say(self, cause: object, what: str) -> None:
        """Once a cause and outage."""
        if cause not in self._said:
            self._said.add(cause)
            log.warning("cannot %s: %s", self._doing, what)

    def _pause(self, seconds: float, error: KubeError) -> None:
        if self._changed is None or not _a_file_may_mend(error):
            self._wait(seconds)
            return
        while seconds > 0:
            step = min(seconds, _CHANGE_POLL_SECONDS)
            self._wait(step)
            seconds -= step
            if self._changed():
                return


def _cause(error: KubeError) -> object:
    return error.status if isinstance(error, ApiStatusError) else type(error)


def _a_file_may_mend(error: KubeError) -> bool:
    """A new token, or a new CA."""
    match error:
        case TokenError() | ApiStatusError(status=401) | ApiUnreachable(cause="TLS"):
            return True
    return type(error) is KubeError  # a CA that cannot be used
