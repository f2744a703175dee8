"""How large a request may be: what the receiver takes is found by trying."""

from __future__ import annotations

# A request is in memory up to three times while it is sent: at 1,000 pods, requests of 1 MiB instead of one of 3 MiB
# take 7 MB less. (gRPC receivers refuse messages over 4 MiB unless told otherwise.)
REQUEST_BYTES = 1024 * 1024

# Accepted requests after which a larger one is tried. One that is refused doubles it, so that a receiver whose limit is
# fixed gets ever fewer requests in vain.
_FIRST_TRIAL = 16
_LAST_TRIAL = 4096


class RequestBound:
    """The most bytes of a request: halved where the receiver wants less, grown again while it accepts.

    Args:
        most_bytes: it never grows beyond.
    """

    def __init__(self, most_bytes: int = REQUEST_BYTES) -> None:
        self.bytes = most_bytes
        self._most_bytes = most_bytes
        self._accepted = 0
        """Requests, since the bound changed."""
        self._largest_bytes = 0
        """Of a request that was accepted since a smaller one was refused."""
        self._trial = _FIRST_TRIAL
        self._is_known = False

    def accepted(self, size: int) -> None:
        """The receiver has taken a request of ``size`` bytes."""
        if self._largest_bytes and size > 1.25 * self._largest_bytes:
            self._trial = _FIRST_TRIAL
        self._largest_bytes = max(self._largest_bytes, size)
        if self.bytes == self._most_bytes:
            return
        self._accepted += 1
        if self._accepted >= self._trial:
            self._accepted = 0
            self.bytes = min(self._most_bytes, 2 * self.bytes)
            self._is_known = self._is_known and self.bytes < self._most_bytes

    def refused(self, size: int) -> bool:
        """One of ``size`` bytes was too large. Whether that is news: not where a larger one was only tried."""
        is_news = not self._is_known
        self._is_known = True
        self._accepted = 0
        if self._largest_bytes < size:
            # Back to what is known to be taken, if that is not much less.
            self._trial = min(_LAST_TRIAL, 2 * self._trial)
            self.bytes = max(1, size // 2, self._largest_bytes)
        else:
            self._largest_bytes = 0
            self.bytes = max(1, size // 2)
        return is_news
