"""What is tried of where metrics go: the receiver, clocks, the state file, the exporter that runs. As `probes`."""

from __future__ import annotations

import http.client
import os
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup import sources
from otel_k8s_cgroup.check.bench import IDLE_SECONDS
from otel_k8s_cgroup.check.outcomes import Doubtful, Failed, Skipped
from otel_k8s_cgroup.errors import ExportError, ExportRetryable
from otel_k8s_cgroup.http_words import quoted
from otel_k8s_cgroup.kube.addresses import is_loopback
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from otel_k8s_cgroup.check.bench import Bench

_SKEW_SECONDS = 5.0
_SKEW_TOO_LARGE_SECONDS = 60.0
_OF_DELTAS = re.compile(r"\bdeltas?\b|temporality", re.IGNORECASE)


# --- the receiver ---------------------------------------------------------------------------------------------------


def otlp_send(bench: Bench) -> str:
    target = bench.receiver
    try:
        bench.send(b"")
    except ExportError as error:
        if bench.before_install and "does not resolve" in str(error):
            raise Skipped(f"{error}, or is it a name inside the cluster, which only a pod can resolve?") from None
        raise
    return f"{target.endpoint} ({target.protocol}) takes an empty request"


def otlp_deltas(bench: Bench) -> str:
    from otel_k8s_cgroup.export.trial import delta_without_points  # noqa: PLC0415 protobuf takes a while

    settings = bench.settings
    of_deltas = [metric for metric in sources.metrics_of(settings) if metric.has_deltas]
    if not of_deltas:
        raise Skipped("no counter is sent as deltas")
    endpoint = settings.otlp.endpoint
    try:
        # Its name is that of a metric that is sent: nothing new comes to be in a receiver that keeps names.
        receipt = bench.send(delta_without_points(of_deltas[0].named(EntityKind.POD)))
    except ExportRetryable as error:
        raise Doubtful(f"not known: {error}") from None
    except ExportError as error:
        words = str(error)
    else:
        words = receipt.message and f"{endpoint}: {quoted(receipt.message)}"
    if not words:
        return f"{endpoint} takes a counter of deltas"
    if _OF_DELTAS.search(words):
        raise Failed(f"{words}: it takes no deltas, and refuses a whole request for one")
    raise Doubtful(f"a counter of deltas without points is refused: {words}")


def otlp_private(bench: Bench) -> str:
    target = bench.receiver
    if not target.headers:
        raise Skipped("no otlp_headers are set")
    host = target.endpoint.partition("://")[2].partition("/")[0].rpartition(":")[0].strip("[]")
    if target.endpoint.startswith("http:") and not is_loopback(host):
        raise Doubtful("otlp_headers go over plain http: whoever is on the way can read them")
    return "otlp_headers are sent over TLS, or stay on this machine"


# --- clocks, state, the exporter that runs ----------------------------------------------------------------------------


def clock(bench: Bench) -> str:
    return _compared(*bench.client.server_date, bench.client.base_url)


def clock_receiver(bench: Bench) -> str:
    target = bench.receiver
    if target.protocol == "grpc":
        raise Skipped("answers over gRPC have no date")
    return _compared(*bench.receiver_date, target.endpoint)


def _compared(date: str, came_at: float, server: str) -> str:
    """This machine's clock with the ``Date`` of an answer of ``server``."""
    try:
        moment = parsedate_to_datetime(date)
        # A date without a zone is GMT: HTTP knows no other.
        seconds = came_at - (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise Skipped(f"the answers of {server} have no date") from None
    # A Date is cut to the second.
    ahead = seconds - 0.5
    said = f"{abs(ahead):.0f} s {'ahead of' if ahead > 0 else 'behind'} {server}"
    if abs(ahead) > _SKEW_TOO_LARGE_SECONDS:
        raise Failed(f"this machine's clock is {said}")
    if abs(ahead) > _SKEW_SECONDS:
        raise Doubtful(f"this machine's clock is {said}")
    return f"within {_SKEW_SECONDS:g} s of {server}"


def state_file(bench: Bench) -> str:
    from otel_k8s_cgroup.export.state import HEAD, is_ours  # noqa: PLC0415 as above

    name = bench.settings.state_file
    if name is None:
        raise Skipped("state_file is not set: after a restart, pods that are there count from their first reading")
    path = Path(name)
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise Failed(f"the directory {str(path.parent)!r} of state_file cannot be written to as user {os.getuid()}")
    if not path.exists():
        return f"{name} is not there yet, and can be made"
    if not path.is_file():
        raise Failed(f"{name} is no plain file")
    try:
        with path.open("rb") as file:
            head = file.read(len(HEAD))
    except OSError as error:
        raise Failed(f"{name} cannot be read: {error.strerror}") from None
    if head.strip(b"\0") and not is_ours(head):
        raise Failed(f"{name} holds something that is not ours")
    return f"{name}, written {max(0.0, bench.wall_clock() - path.stat().st_mtime):.0f} s ago"


def exporter_ready(bench: Bench) -> str:
    address = bench.settings.health_listen
    if address is None:
        raise Skipped("health_listen is not set")
    host, _, port = address.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host).strip("[]")  # noqa: S104 whom one asks there
    connection = http.client.HTTPConnection(host, int(port), timeout=IDLE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        response = connection.getresponse()
        text = response.read(4096).decode(errors="replace").strip().replace("\n", "; ")
    except (OSError, http.client.HTTPException) as error:
        if bench.before_install or isinstance(error, ConnectionRefusedError):
            raise Skipped(f"no exporter runs at {address}") from None
        raise Failed(f"{address} does not answer: {error}") from None
    finally:
        connection.close()
    if response.status != 200:
        raise Failed(f"the exporter at {address}: {text}")
    return text
