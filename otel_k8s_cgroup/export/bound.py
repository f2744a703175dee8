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
        self._trial = _FIRST_TRIAL
        self._proven_bytes = 0
        """On trial where it is above 0: the bound before, which requests were accepted under."""
        self._is_known = False

    def accepted(self, size: int) -> None:
        """The receiver has taken a request of ``size`` bytes."""
        if self.bytes == self._most_bytes:
            return
        if self._proven_bytes and size > self._proven_bytes:
            self._proven_bytes, self._trial = 0, _FIRST_TRIAL
        self._accepted += 1
        if self._accepted >= self._trial:
            self._accepted = 0
            self._proven_bytes = self._proven_bytes or self.bytes
            self.bytes = min(self._most_bytes, 2 * self.bytes)
            self._is_known = self._is_known and self.bytes < self._most_bytes

    def refused(self, size: int) -> bool:
        """One of ``size`` bytes was too large. Whether that is news: not where a larger one was only tried."""
        if self._proven_bytes:
            self._trial = min(_LAST_TRIAL, 2 * self._trial)
        is_news = not self._is_known
        self._is_known = True
        self._accepted = self._proven_bytes = 0
        self.bytes = max(1, size // 2)
        return is_news
