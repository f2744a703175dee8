"""Prometheus, built from its Go module once and kept by version. `python -m tests.collectors.prometheus` builds it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from deploy.cache import cache_directory, install, short_hash
from tests.collectors.programs import free_ports
from tests.programs import PATIENCE_SECONDS, clean_environ, started

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

T = TypeVar("T")

_ALL = '{__name__!=""}'
VERSION = "3.16.0"
# Of its discoveries of targets, which are most of it, none is needed.
_FLAGS = ("-trimpath", "-ldflags", "-s -w", "-tags", "remove_all_sd")
_BINARY = cache_directory() / f"prometheus-{VERSION}-{short_hash(' '.join(_FLAGS))}" / "prometheus"


def why_not() -> str | None:
    """Why it cannot be run here; None where it can."""
    return None if _BINARY.exists() else "Prometheus is not built: `make prometheus` does so (it needs Go)"


def build() -> None:
    """Takes about two minutes of two cores. Go verifies the module by its public checksums."""
    if _BINARY.exists():
        return
    sys.stderr.write(f"building Prometheus {VERSION} into {_BINARY.parent}: about two minutes on two cores, once\n")
    install(_BINARY.parent, _build)


def _build(directory: Path) -> None:
    # Nothing of the user's that changes what is built.
    environ = os.environ | {"GOTOOLCHAIN": "local", "GOFLAGS": "-mod=readonly", "GOWORK": "off", "CGO_ENABLED": "0"}
    major, minor, patch = VERSION.split(".")
    module = f"github.com/prometheus/prometheus@v0.{major}{int(minor):02}.{patch}"
    go = shutil.which("go") or "go"
    # Not `go install`: its go.mod has what that refuses. Within the module's directory its own go.sum counts.
    found = subprocess.run([go, "mod", "download", "-json", module], env=environ, check=True, capture_output=True)
    source = json.loads(found.stdout)["Dir"]
    command = [go, "build", "-C", source, *_FLAGS, "-o", str(directory), "./cmd/prometheus"]
    subprocess.run(command, env=environ, check=True)


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs, asked by its HTTP API."""

    url: str

    def query(self, expression: str) -> list[tuple[dict[str, str], float]]:
        """The labels and the value of each series now."""
        found = self._get("query", query=expression)["result"]
        return [(each["metric"], float(each["value"][1])) for each in found]

    def series(self, matcher: str) -> list[dict[str, str]]:
        """The labels of each series, ``__name__`` included."""
        found: list[dict[str, str]] = self._get("series", **{"match[]": matcher})
        return found

    def alerts(self) -> list[dict[str, Any]]:
        """Those that are pending or firing."""
        found: list[dict[str, Any]] = self._get("alerts")["alerts"]
        return found

    def rule_errors(self) -> list[str]:
        """What rules could not be evaluated for."""
        groups = self._get("rules")["groups"]
        return [rule["lastError"] for group in groups for rule in group["rules"] if rule.get("lastError")]

    def wait_for(self, ask: Callable[[], T]) -> T:
        """What ``ask`` gives, once that is something."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        pause = threading.Event()
        while not (answer := ask()):
            if time.monotonic() > deadline:
                raise AssertionError(f"Prometheus has only {self.series(_ALL)}")
            pause.wait(0.1)
        return answer

    def _get(self, what: str, **parameters: str) -> Any:
        query = urllib.parse.urlencode(parameters)
        with urllib.request.urlopen(f"{self.url}/api/v1/{what}?{query}", timeout=PATIENCE_SECONDS) as answer:
            return json.load(answer)["data"]


@contextmanager
def prometheus(config_file: Path, directory: Path, *more_flags: str) -> Iterator[Prometheus]:
    """Runs it, with its data in ``directory``, until the end."""
    (port,) = free_ports(1)
    flags = [f"--config.file={config_file}", f"--storage.tsdb.path={directory}"]
    flags += [f"--web.listen-address=127.0.0.1:{port}", "--web.enable-otlp-receiver", *more_flags]
    with started([_BINARY, *flags], clean_environ(HOME=str(directory))) as program:
        program.wait_for_line(lambda line: "Server is ready to receive web requests" in line)
        yield Prometheus(f"http://127.0.0.1:{port}")


if __name__ == "__main__":
    build()
