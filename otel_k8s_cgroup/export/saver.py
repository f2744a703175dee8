"""A thread of its own for the state file: a disk that hangs stops neither the sending nor the end."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Callable

    from otel_k8s_cgroup.export.state import Remembered
    from otel_k8s_cgroup.export.state_file import StateFile

_log = logging.getLogger(__name__)


class StateSaver:
    """Loads and saves ``file`` in a thread of its own, the newest state only.

    Args:
        file: is used by that thread alone.
        load_seconds: the longest wait for what the file holds.
        save_seconds: the longest wait for a save; one that takes longer goes on, and nobody waits for it any more.
    """

    def __init__(self, file: StateFile, *, load_seconds: float = 2.0, save_seconds: float = 1.0) -> None:
        self.path = file.path
        self._file = file
        self._load_seconds = load_seconds
        self._save_seconds = save_seconds
        self._changed = threading.Condition()
        self._loaded = False
        self._found: Remembered | SettingsError | None = None
        self._requested = 0
        self._saved = 0
        self._late = False
        self._closing = False
        self._snapshot: Callable[[], Remembered | None] = lambda: None
        # A daemon: a disk that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="state-saver", daemon=True)

    def load(self, snapshot: Callable[[], Remembered | None]) -> Remembered | None:
        """What the file holds; None also where it does not come in time. From here on ``snapshot`` is what is saved.

        Raises:
            SettingsError: the path holds something that is not ours.
        """
        self._snapshot = snapshot
        self._thread.start()
        with self._changed:
            if not self._changed.wait_for(lambda: self._loaded, self._load_seconds):
                self._late = True
                _log.warning(
                    "state_file %s cannot be read within %g s: pods that are there count from their first reading",
                    self.path,
                    self._load_seconds,
                )
                return None
            found, self._found = self._found, None
        if isinstance(found, SettingsError):
            raise found
        return found

    def request(self) -> None:
        """Has the state saved; returns at once."""
        with self._changed:
            self._requested += 1
            self._changed.notify_all()

    def save(self) -> None:
        """Has the state saved, and waits for it, but only so long; not at all while an earlier one is late."""
        with self._changed:
            self._requested += 1
            self._changed.notify_all()
            if not self._wait(0.0 if self._late else self._save_seconds) and not self._late:
                self._late = True
                _log.warning(
                    "state_file %s: a save takes longer than %g s; sending goes on, and a restart before it is done "
                    "counts twice what is delivered meanwhile",
                    self.path,
                    self._save_seconds,
                )

    def close(self, seconds: float | None = None) -> None:
        """Ends the thread, once what was requested is saved; waits so long at most."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(seconds)

    def _wait(self, seconds: float) -> bool:
        wanted = self._requested
        return self._changed.wait_for(lambda: self._saved >= wanted, seconds)

    def _run(self) -> None:
        found: Remembered | SettingsError | None = None
        try:
            found = self._file.load()
        except SettingsError as error:
            found = error
        with self._changed:
            if self._late and isinstance(found, SettingsError):
                _log.warning("%s; this run does without", found)
            self._loaded, self._found = True, found
            self._changed.notify_all()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._requested > self._saved or self._closing)
                requested = self._requested
                if requested == self._saved:
                    self._file.close()
                    return
            self._save_now()
            with self._changed:
                self._saved = requested
                if self._late and requested == self._requested:
                    self._late = False
                    _log.info("state_file %s is written in time again", self.path)
                self._changed.notify_all()

    def _save_now(self) -> None:
        try:
            if (remembered := self._snapshot()) is not None:
                self._file.save(remembered)
        except Exception:  # noqa: BLE001 a defect of ours, which must not end the saving
            _log.exception("state_file %s could not be saved", self.path)
