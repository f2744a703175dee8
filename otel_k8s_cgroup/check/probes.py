"""The tries themselves. Each is made as `run` would make it: with its client, its transport, its reader."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
from datetime import UTC
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup import sources
from otel_k8s_cgroup.check.bench import IDLE_SECONDS
from otel_k8s_cgroup.check.model import Doubtful, Failed, Skipped
from otel_k8s_cgroup.coverage import no_cgroups
from otel_k8s_cgroup.errors import ApiStatusError, CgroupError, ExportError, ExportRetryable, KubeError
from otel_k8s_cgroup.http_words import quoted
from otel_k8s_cgroup.kube import KUBELET_PODS, LIST, PODS, WATCH, Permission
from otel_k8s_cgroup.kube.addresses import is_loopback
from otel_k8s_cgroup.kube.credentials import token_expiry
from otel_k8s_cgroup.kube.details import PodReader
from otel_k8s_cgroup.kube.pages import split_pods
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from otel_k8s_cgroup.check.bench import Bench

_SKEW_SECONDS = 5.0
_SKEW_TOO_LARGE_SECONDS = 60.0
_SHOWN = 3
_VERSION = Permission("get", "/version")
_NODE = Permission("get", "nodes")
_NO_KUBECONFIG = "Set KUBECONFIG or k8s_kubeconfig: there is no ~/.kube/config, so `kubectl proxy` is looked for."
_OF_DELTAS = re.compile(r"\bdeltas?\b|temporality", re.IGNORECASE)


# --- settings -------------------------------------------------------------------------------------------------------


def settings_valid(bench: Bench) -> str:
    if bench.problem:
        raise Failed(bench.problem)
    given = [key for key, origin in bench.origins.items() if origin != "default"]
    found = f"{len(bench.origins)} settings, {len(given)} of them not the default's: {', '.join(given) or 'none'}"
    absent = "".join(f"; not tried here: {key} ({why})" for key, why in bench.absent.items())
    return found + absent


def settings_effect(bench: Bench) -> str:
    if bench.settings.sdk_disabled:
        raise Doubtful("OTEL_SDK_DISABLED is true: nothing is measured or sent", "Start `run` without it.")
    if bench.warnings:
        raise Doubtful("; ".join(bench.warnings))
    return "each has an effect"


# --- cgroups --------------------------------------------------------------------------------------------------------


def cgroup_root(bench: Bench) -> str:
    hierarchy = bench.cgroups.hierarchy
    return f"cgroup v{hierarchy.version} at {hierarchy.listed}"


def cgroup_controllers(bench: Bench) -> str:
    hierarchy = bench.cgroups.hierarchy
    if hierarchy.version == 1:
        missing = [name for name, directory in hierarchy.directories.items() if directory is None]
        if missing:
            raise Doubtful(f"not mounted: {', '.join(missing)}; their figures are absent")
        return f"mounted: {', '.join(hierarchy.directories)}"
    found = Path(hierarchy.listed, "cgroup.controllers").read_text().split()
    if missing := [name for name in ("cpu", "memory") if name not in found]:
        raise Doubtful(f"{', '.join(missing)} is not among {' '.join(found) or 'none'}; its figures are absent")
    return f"enabled: {' '.join(found)}"


def cgroup_pods(bench: Bench) -> str:
    errors: list[CgroupError] = []
    bench.cgroups.read((), errors.append)
    found = bench.cgroups.found
    bench.cgroup_uids = frozenset(found)
    if not found:
        why = f": {errors[0]}" if errors else ""
        raise Failed(f"no pod has a cgroup below {bench.settings.cgroup_root}{why}")
    return f"{_counted(len(found))}, such as {found[min(found)][0]}"


def cgroup_readable(bench: Bench) -> str:
    errors: list[CgroupError] = []
    readings = bench.cgroups.read(bench.cgroup_uids, errors.append)
    if errors:
        kind = Failed if len(errors) >= len(readings) else Doubtful
        of_pods = _counted(len(readings))
        raise kind(f"{len(errors)} figures of {of_pods} cannot be read as user {os.getuid()}: {errors[0]}")
    return f"{_counted(len(readings))} read as user {os.getuid()}"


def processes_visible(bench: Bench) -> str:
    if "network" not in bench.settings.metrics:
        raise Skipped("metrics has no network, which alone asks processes")
    hierarchy = bench.cgroups.hierarchy
    pods = seen = 0
    for path in bench.cgroups.found_pods.values():
        lists = [_pids(procs) for procs in Path(hierarchy.listed + path).glob("*/cgroup.procs")]
        pids = [pid for each in lists for pid in each]
        # The exporter sees those of its own pod wherever it is.
        if lists and str(os.getpid()) not in pids:
            pods += 1
            seen += any(pid != "0" and Path("/proc", pid).exists() for pid in pids)
    # v2 lists processes of another PID namespace as 0, v1 does not list them.
    if pods and not seen:
        raise Failed(f"of none of {_counted(pods)} a process can be seen from here: no pod has metrics of network")
    return f"processes of {seen} of {_counted(pods)} can be seen" if pods else "no other pod has a container"


def _counted(count: int) -> str:
    return "1 pod" if count == 1 else f"{count} pods"


def _pids(procs: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # a container that ends
        return procs.read_text().split()
    return []


# --- the node, the API and the pods ---------------------------------------------------------------------------------


def node_name(bench: Bench) -> str:
    if bench.before_install:
        raise Skipped("--pre is for a machine that is no node")
    name, origin = bench.settings.k8s_node, bench.origins.get("k8s_node", "")
    if origin == "host name" and "KUBERNETES_SERVICE_HOST" in os.environ:
        raise Doubtful(f"{name!r} is the host name, which in a pod is mostly the pod's")
    return f"{name!r} ({origin})"


def token(bench: Bench) -> str:
    found, origin = bench.token()
    if found is None:
        return f"none is sent ({origin})"
    expiry = token_expiry(found)
    if expiry is None:
        return f"{origin}; when it expires it does not say"
    seconds = expiry - bench.wall_clock()
    if seconds <= 0:
        raise Failed(f"{origin}: it expired {-seconds:.0f} s ago, by this machine's clock")
    return f"{origin}; it expires in {seconds / 60:.0f} min"


def api_reachable(bench: Bench) -> str:
    client = bench.client
    try:
        with client.body("/version", {}, _VERSION) as chunks:
            version = json.loads(b"".join(chunks)).get("gitVersion")
    except ApiStatusError:
        version = None  # it answers, and that is what was asked
    except KubeError as error:
        if bench.before_install and bench.origins.get("k8s_api_url") == "default":
            raise Failed(str(error), _NO_KUBECONFIG) from None
        raise
    except (ValueError, AttributeError):
        raise Failed(f"{client.base_url}: its answer is not that of an API") from None
    return f"{client.base_url} answers" + (f" ({version})" if isinstance(version, str) else "")


def api_verified(bench: Bench) -> str:
    settings, url = bench.settings, bench.client.base_url
    if not url.startswith("https:"):
        raise Skipped("plain http: there is no certificate")
    kubelet = settings.pod_source.method == "kubelet"
    if settings.kubelet_insecure if kubelet else settings.k8s_access.insecure:
        raise Doubtful(f"the certificate of {url} is not verified: whoever answers there gets the token")
    return "its certificate is verified"


def api_list(bench: Bench) -> str:
    settings, client = bench.settings, bench.client
    store = _store(bench)
    if settings.pod_source.method == "kubelet":
        path, query, needs = "/pods", {}, KUBELET_PODS
    else:
        path, query, needs = PODS, {"limit": "1"} if bench.before_install else _of_node(bench), LIST
    with client.body(path, query, needs) as chunks:
        store.replace(split_pods(chunks, client.named(path), store.skip))
    bench.pods, bench.left_out = store.pods, store.excluded
    return "pods can be listed" if bench.before_install else f"{_counted(_listed(bench))} on {settings.k8s_node!r}"


def _store(bench: Bench) -> PodStore:
    """Of all pods of the node, also those that pod_selector leaves out, of which `run` does not ask the API."""
    settings = bench.settings
    return PodStore(settings.k8s_node, reader=PodReader(settings.wanted, settings.choice))


def _listed(bench: Bench) -> int:
    return len(bench.pods) + len(bench.left_out)


def _of_node(bench: Bench) -> dict[str, str]:
    return {"resourceVersion": "0", "fieldSelector": f"spec.nodeName={bench.settings.k8s_node}"}


def api_watch(bench: Bench) -> str:
    client = bench.client
    if bench.settings.pod_source.method == "kubelet":
        raise Skipped("a kubelet has no watch: it is asked again and again")
    where = {} if bench.before_install else _of_node(bench)
    if selector := bench.settings.choice.pod_selector:
        where["labelSelector"] = selector
    query = where | {"watch": "true", "timeoutSeconds": "1"}
    with client.lines(PODS, query, WATCH, end_seconds=IDLE_SECONDS):
        return "pods can be watched"


def node_known(bench: Bench) -> str:
    if bench.before_install or bench.settings.pod_source.method == "kubelet":
        raise Skipped("--pre is for a machine that is no node" if bench.before_install else "the kubelet is the node's")
    name, client = bench.settings.k8s_node, bench.client
    if _listed(bench):
        return f"the API has {_counted(_listed(bench))} on {name!r}"
    try:
        with client.body(f"/api/v1/nodes/{name}", {}, _NODE) as chunks:
            for _ in chunks:
                pass
    except ApiStatusError as error:
        if error.status == 404:
            raise Failed(f"the API knows no node {name!r}") from None
        raise Failed(f"the API has no pod on {name!r}; whether there is such a node it does not tell us") from None
    raise Doubtful(f"the API knows {name!r}, and has no pod on it", "Start a pod there.")


def pods_chosen(bench: Bench) -> str:
    if bench.before_install:
        raise Skipped("--pre is for a machine that is no node")
    _read_file_of_pods(bench)
    if not _listed(bench):
        raise Skipped("no pod is listed")
    if not bench.pods:
        raise Doubtful(f"the settings leave out all {_counted(_listed(bench))} of {bench.settings.k8s_node!r}")
    left_out = len(bench.left_out)
    return _counted(len(bench.pods)) + (f"; the settings leave out {_counted(left_out)}" if left_out else "")


def pods_cgroups(bench: Bench) -> str:
    if bench.before_install:
        raise Skipped("--pre is for a machine that is no node")
    settings, where = bench.settings, sources.LISTED_BY[bench.settings.pod_source.method]
    # Also of those that are left out: whether this is their node does not depend on what is measured.
    pods = bench.pods + bench.left_out
    running = {pod.cgroup_uid: pod for pod in pods if not pod.finished}
    found = bench.cgroup_uids
    missing, unnamed = running.keys() - found, found - {pod.cgroup_uid for pod in pods}
    if running and len(missing) == len(running):
        raise Failed(no_cgroups(len(running), len(found), where, settings.cgroup_root))
    said = []
    if missing:
        names = sorted(f"{running[uid].namespace}/{running[uid].name}" for uid in missing)
        said.append(f"{_counted(len(missing))} without a cgroup ({', '.join(names[:_SHOWN])})")
    if unnamed:
        uids = ", ".join(sorted(unnamed)[:_SHOWN])
        said.append(f"cgroups of {_counted(len(unnamed))} that {where} does not list ({uids})")
    if said:
        raise Doubtful("; ".join(said))
    return f"{_counted(len(running))}, each with its cgroup"


def _read_file_of_pods(bench: Bench) -> None:
    """Nobody is asked for the pods of a file, so no check before has them."""
    source = bench.settings.pod_source
    if source.method != "file" or source.file is None:
        return
    store = _store(bench)
    try:
        content = Path(source.file).read_bytes()
    except OSError as error:
        remedy = "Set pod_source to a file with what `kubectl get pods -A -o json` prints."
        raise Failed(f"pod_source: {source.file!r}: {error.strerror}", remedy) from None
    store.replace(split_pods([content], source.file, store.skip))
    bench.pods, bench.left_out = store.pods, store.excluded
    if not _listed(bench):
        node = bench.settings.k8s_node
        raise Failed(f"{source.file!r} has no pod on node {node!r}", "Set k8s_node to a node whose pods it has.")


# --- the receiver ---------------------------------------------------------------------------------------------------


def otlp_send(bench: Bench) -> str:
    target = bench.receiver
    bench.send(b"")
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
