"""What goes wrong with the receiver, logged once and not once a request."""

from __future__ import annotations

import logging

_log = logging.getLogger(__name__)


class Complaints:
    """Logs a cause with its consequence once, until a round has gone by without it.

    By both, not by the cause alone: a refusal may cost the exporter's own metrics now, and the pods' points next.
    """

    def __init__(self) -> None:
        self._logged: set[tuple[str, str]] = set()
        self._now: set[tuple[str, str]] = set()

    def begin_round(self) -> None:
        self._now.clear()

    def add(self, cause: str, consequence: str, message: str) -> None:
        """``cause`` and ``consequence``: words to tell it by; ``message``: the line of the log."""
        self._now.add((cause, consequence))
        if (cause, consequence) not in self._logged:
            self._logged.add((cause, consequence))
            _log.warning("%s", message)

    def end_round(self) -> None:
        """Of a round in which the receiver took a request: what is over is logged once."""
        ended = {cause for cause, _ in self._logged - self._now} - {cause for cause, _ in self._now}
        self._logged &= self._now
        if ended:
            _log.info("the OTLP receiver takes requests again (it was: %s)", ", ".join(sorted(ended)))
