"""The table of checks, in the order in which they are tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

from otel_k8s_cgroup.check import probes, sending
from otel_k8s_cgroup.check.model import Check, Result
from otel_k8s_cgroup.check.outcomes import Outcome, Skipped, Status
from otel_k8s_cgroup.errors import ApiStatusError, ExporterError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from otel_k8s_cgroup.check.bench import Bench

_MOUNT = "Mount the host's /sys/fs/cgroup into the pod (hostPath, read-only), or set cgroup_root to where it is."
_GRANT = "Bind a ClusterRole with the verbs list and watch on pods to the service account, as the manifest has it."

_NTP = (
    "Let NTP (chrony, systemd-timesyncd) set the clock of this machine, or of the other: points carry this one's time."
)

CHECKS: tuple[Check, ...] = (
    Check(
        "settings", "settings-valid", "the settings can be read", probes.settings_valid,
        "Mend the key that is named; `otel-k8s-cgroup config` shows what is in force.", before_install=True,
    ),
    Check(
        "settings", "settings-effect", "each setting has an effect", probes.settings_effect,
        "Mend or remove what is named.", ("settings-valid",), before_install=True,
    ),
    Check("cgroup", "cgroup-root", "a cgroup hierarchy is there", probes.cgroup_root, _MOUNT, ("settings-valid",)),
    Check(
        "cgroup", "cgroup-controllers", "it has the controllers", probes.cgroup_controllers,
        "Enable them on the node: on v1 by the kernel's command line (cgroup_enable=memory), on v2 by systemd or the "
        "kubelet.", ("cgroup-root",),
    ),
    Check("cgroup", "cgroup-pods", "pods have cgroups in it", probes.cgroup_pods, _MOUNT, ("cgroup-root",)),
    Check(
        "cgroup", "cgroup-readable", "they can be read", probes.cgroup_readable,
        "Run as a user that may read them: no more than the world's right to read is needed, so look at SELinux, "
        "AppArmor and the mount's options.", ("cgroup-pods",),
    ),
    Check(
        "cgroup", "processes-visible", "pods' processes can be seen", probes.processes_visible,
        "Set hostPID: true (of the pod, or of the chart): metrics of network are asked of a process of each pod.",
        ("cgroup-pods",),
    ),
    Check(
        "node", "node-name", "the node has a name", probes.node_name,
        "Set NODE_NAME by the downward API (fieldRef spec.nodeName), or k8s_node.", ("settings-valid",),
    ),
    Check(
        "token", "token", "a token can be had", probes.token, "See token_retrieval; in a pod, the service account's "
        "token is mounted unless automountServiceAccountToken is false.", ("settings-valid",), before_install=True,
    ),
    Check(
        "api", "api-reachable", "the API answers", probes.api_reachable,
        "Set k8s_api_url (or kubelet_url) and the CA as the message says; a NetworkPolicy or firewall may be between.",
        ("token",), before_install=True,
    ),
    Check(
        "api", "api-verified", "its certificate is verified", probes.api_verified,
        "Set the CA of the cluster (k8s_ca_file, kubelet_ca_file) instead.", ("api-reachable",), before_install=True,
    ),
    Check("api", "api-list", "pods can be listed", probes.api_list, _GRANT, ("api-reachable",), before_install=True),
    Check("api", "api-watch", "pods can be watched", probes.api_watch, _GRANT, ("api-reachable",), before_install=True),
    Check(
        "api", "node-known", "the API knows the node", probes.node_known,
        "Set k8s_node to the node's name as `kubectl get nodes` shows it; in a pod by NODE_NAME from the downward API.",
        ("api-list",),
    ),
    Check(
        "pods", "pods-chosen", "the settings choose pods", probes.pods_chosen,
        "Look at include_namespaces, exclude_namespaces, pod_selector and qos_classes.", ("api-list",),
    ),
    Check(
        "pods", "pods-cgroups", "pods and cgroups belong together", probes.pods_cgroups,
        "Of pods that start or end, one side comes first: try again. Else look at k8s_node and cgroup_root: both must "
        "be this node's.", ("pods-chosen", "cgroup-pods"),
    ),
    Check(
        "otlp", "otlp-send", "the OTLP receiver takes a request", sending.otlp_send,
        "Mend what the message names: otlp_endpoint (with its scheme, host and port), otlp_protocol, the CA or the "
        "credentials; a NetworkPolicy or firewall may be between.", ("settings-valid",), before_install=True,
    ),
    Check(
        "otlp", "otlp-deltas", "it takes the counters' deltas", sending.otlp_deltas,
        "Start Prometheus with --enable-feature=otlp-deltatocumulative (3.2 or newer), send by way of a Collector with "
        "its deltatocumulative processor, or use schema semconv with cumulative temporality.", ("otlp-send",),
        before_install=True,
    ),
    Check(
        "otlp", "otlp-private", "credentials are not readable on the way", sending.otlp_private,
        "Begin otlp_endpoint with https://.", ("settings-valid",), before_install=True,
    ),
    Check(
        "clock", "clock", "the clock is the API's", sending.clock, _NTP, ("api-reachable",), before_install=True,
    ),
    Check(
        "clock", "clock-receiver", "the clock is the OTLP receiver's", sending.clock_receiver, _NTP, ("otlp-send",),
        before_install=True,
    ),
    Check(
        "state", "state-file", "the state file can be used", sending.state_file,
        "Set state_file to a path in a directory that this user may write to, where nothing of others is.",
        ("settings-valid",),
    ),
    Check(
        "exporter", "exporter-ready", "the exporter that runs is ready", sending.exporter_ready,
        "Mend what the other checks find; the exporter's log has the reason.", ("settings-valid",),
    ),
)  # fmt: skip


def run_checks(bench: Bench, checks: Sequence[Check] = CHECKS) -> list[Result]:
    """What comes of each; what cannot be tried is skipped, with why."""
    results: dict[str, Result] = {}
    for check in checks:
        if bench.before_install and not check.before_install:
            continue
        results[check.code] = _result(check, bench, results)
    return list(results.values())


def _result(check: Check, bench: Bench, before: dict[str, Result]) -> Result:
    for code in check.needs:
        needed = before.get(code)
        if needed is None or needed.status is Status.FAILED or _is_for_lack(needed):
            return Result(check, Status.SKIPPED, f"it needs {code}")
    try:
        return Result(check, Status.OK, check.try_it(bench))
    except Outcome as outcome:
        remedy = "" if isinstance(outcome, Skipped) else check.remedy if outcome.remedy is None else outcome.remedy
        return Result(check, outcome.status, str(outcome), remedy)
    except ApiStatusError as error:
        granted = f"{error.remedy[:1].upper()}{error.remedy[1:]}." if error.remedy else ""
        return Result(check, Status.FAILED, str(error), granted or check.remedy)
    except ExporterError as error:
        return Result(check, Status.FAILED, str(error), check.remedy)
    except Exception as error:  # noqa: BLE001 one check that cannot be made must not take the others with it
        return Result(check, Status.FAILED, f"unexpected {type(error).__name__}: {error}", check.remedy)


def _is_for_lack(needed: Result) -> bool:
    """Whether it was skipped because something before it failed: then this one cannot be tried either."""
    return needed.status is Status.SKIPPED and needed.evidence.startswith("it needs ")
