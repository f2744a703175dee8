"""The tries themselves. Each is made as `run` would make it: with its client, its transport, its reader."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup import sources
from otel_k8s_cgroup.check.bench import IDLE_SECONDS
from otel_k8s_cgroup.check.outcomes import Doubtful, Failed, Skipped
from otel_k8s_cgroup.coverage import no_cgroups
from otel_k8s_cgroup.errors import ApiStatusError, CgroupError, KubeError
from otel_k8s_cgroup.kube import KUBELET_PODS, LIST, PODS, WATCH, Permission
from otel_k8s_cgroup.kube.credentials import token_expiry
from otel_k8s_cgroup.kube.details import PodReader
from otel_k8s_cgroup.kube.pages import split_pods
from otel_k8s_cgroup.kube.store import PodStore

if TYPE_CHECKING:
    from otel_k8s_cgroup.check.bench import Bench

_SHOWN = 3
_DAY_SECONDS = 86_400
_VERSION = Permission("get", "/version")
_NODE = Permission("get", "nodes")
_NO_KUBECONFIG = "Set KUBECONFIG or k8s_kubeconfig: there is no ~/.kube/config, so `kubectl proxy` is looked for."


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
    left = f"{seconds / 60:.0f} min" if seconds < 2 * _DAY_SECONDS else f"{seconds / _DAY_SECONDS:.0f} days"
    return f"{origin}; it expires in {left}"


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
