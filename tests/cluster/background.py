"""What watches a node from a thread of its own, while a test goes on."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self


class Background(ABC):
    """A context manager that runs ``_run`` until ``_stop`` is set."""

    def __init__(self, name: str) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._close()

    @abstractmethod
    def _run(self) -> None:
        """Ends soon after ``_stop`` is set."""

    def _close(self) -> None:  # noqa: B027 most hold nothing
        """Lets go of what ``_run`` held."""
