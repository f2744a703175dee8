"""Real collectors that nobody here wrote, as processes: OTLP in, OTLP out."""

from __future__ import annotations

import importlib.util
import json
import socket
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from tests.programs import clean_environ, started

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.programs import Program

_OTELCOL = Path(__file__).parents[2] / ".cache/otelcol/otelcol"
_OTELCOL_MANIFEST = Path(__file__).with_name("otelcol-builder.yaml")

Name = Literal["rotel", "otelcol"]


@dataclass(frozen=True, slots=True)
class Listening:
    """Where a collector takes OTLP."""

    grpc: str
    http: str


def why_not(name: Name) -> str | None:
    """Why it cannot be run here; None where it can."""
    if (binary := _binary(name)) is None:
        if name == "rotel":
            return "rotel is not installed: it has no wheel for this machine"
        return "the OpenTelemetry Collector is not built: `make otelcol` does so (it needs Go)"
    # As make decides: it may lack a component that the manifest has now.
    if name == "otelcol" and binary.stat().st_mtime < _OTELCOL_MANIFEST.stat().st_mtime:
        return "the OpenTelemetry Collector is older than otelcol-builder.yaml: `make otelcol` builds it (it needs Go)"
    return None


@contextmanager
def collector(name: Name, directory: Path, forward_to: str, *, address: str = "127.0.0.1") -> Iterator[Listening]:
    """Runs it, with its files in ``directory``, until the end: all it takes at ``address``, of this machine's, goes to
    ``forward_to`` (gRPC) unchanged.
    """
    grpc, http = (f"{address}:{port}" for port in free_ports(2))
    listening = Listening(f"http://{grpc}", f"http://{http}")
    binary = _binary(name)
    assert binary is not None
    if name == "rotel":
        flags: dict[str, str | Path] = {
            "--pid-file": directory / "rotel.pid",
            "--otlp-grpc-endpoint": grpc,
            "--otlp-http-endpoint": http,
            "--exporter": "otlp",
            "--otlp-exporter-endpoint": forward_to,
            "--otlp-exporter-protocol": "grpc",
        }
        argv = [binary, "start", *(word for flag in flags.items() for word in flag)]
    else:
        (directory / "otelcol.yaml").write_text(json.dumps(_otelcol_config(grpc, http, forward_to)))  # JSON is YAML
        argv = [binary, "--config", directory / "otelcol.yaml"]
    with started(argv, clean_environ(HOME=str(directory))) as program:
        program.wait_for_line(lambda line: "Starting Rotel" in line or "Everything is ready" in line)
        yield listening
        # Not killed: what it still holds is sent on first.
        program.stop()


@contextmanager
def otelcol(directory: Path, *configurations: Path, **overrides: object) -> Iterator[Program]:
    """Runs the OpenTelemetry Collector until the end, with configurations that it merges; ``overrides`` come last."""
    binary = _binary("otelcol")
    assert binary is not None
    last = directory / "overrides.yaml"
    last.write_text(json.dumps(overrides))  # JSON is YAML
    argv = [binary, *(word for path in (*configurations, last) for word in ("--config", path))]
    with started(argv, clean_environ(HOME=str(directory))) as program:
        program.wait_for_line(lambda line: "Everything is ready" in line)
        yield program


def otelcol_defects(configuration: Path) -> str:
    """What the OpenTelemetry Collector finds wrong with a configuration, without running it; empty for nothing."""
    binary = _binary("otelcol")
    assert binary is not None
    done = subprocess.run([binary, "validate", "--config", configuration], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr


def _binary(name: Name) -> Path | None:
    if name == "otelcol":
        return _OTELCOL if _OTELCOL.exists() else None
    package = importlib.util.find_spec("rotel")
    return None if package is None or package.origin is None else Path(package.origin).with_name("rotel-agent")


def _otelcol_config(grpc: str, http: str, forward_to: str) -> object:
    return {
        "receivers": {
            "otlp": {
                "protocols": {"grpc": {"endpoint": grpc}, "http": {"endpoint": http}},
            }
        },
        "exporters": {"otlp_grpc": {"endpoint": forward_to, "tls": {"insecure": True}}},
        "service": {
            "pipelines": {"metrics": {"receivers": ["otlp"], "exporters": ["otlp_grpc"]}},
            "telemetry": {"metrics": {"level": "none"}},
        },
    }


def free_ports(count: int) -> list[int]:
    """Of loopback, that nobody listens on now."""
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports
