"""The daemons of a node: how each is configured, started and known to be ready."""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TYPE_CHECKING

from tests.cluster.binaries import CNI_PLUGINS
from tests.cluster.layout import (
    CA,
    CONTAINERD_SOCKET,
    ISSUER,
    KUBELET_KUBECONFIG,
    NODE,
    NODE_ADDRESS,
    PKI,
    POD_RANGE,
    SERVICE_RANGE,
    SIGNING_KEY,
    STATE,
    STATIC_PODS,
    VERIFYING_KEY,
    WORKLOAD_IMAGE,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path


@dataclass(frozen=True, slots=True)
class Daemon:
    name: str
    argv: Sequence[str | Path]
    is_ready: Callable[[], bool]


def daemons(kubernetes: Path, *, cgroup_version: int) -> list[Daemon]:
    """In the order of their start. ``kubernetes`` is the directory of ``binaries.kubernetes``."""
    containerd = STATE / "containerd.toml"
    containerd.write_text(_containerd_config())
    _write_cni_config()
    kubelet = STATE / "kubelet.json"
    kubelet.write_text(json.dumps(_kubelet_config(cgroup_version)))
    STATIC_PODS.mkdir(exist_ok=True)
    return [
        Daemon("etcd", _etcd(), lambda: _answers(HTTPConnection("127.0.0.1", 2379, timeout=1), "/health")),
        Daemon("kube-apiserver", _api_server(kubernetes), lambda: _answers(_api(), "/readyz")),
        Daemon("containerd", ["containerd", "--config", containerd], _containerd_is_ready),
        Daemon(
            "kubelet",
            _kubelet(kubernetes, kubelet),
            lambda: _answers(HTTPConnection("127.0.0.1", 10248, timeout=1), "/healthz"),
        ),
    ]


def _etcd() -> list[str | Path]:
    return [
        "etcd",
        "--data-dir",
        STATE / "etcd",
        # A tmpfs holds it: a sync gains nothing.
        "--unsafe-no-fsync",
        "--logger=zap",
        "--log-level=warn",
    ]


def _api_server(kubernetes: Path) -> list[str | Path]:
    flags: dict[str, str | Path] = {
        "advertise-address": NODE_ADDRESS,
        "allow-privileged": "true",
        "authorization-mode": "Node,RBAC",
        "bind-address": "0.0.0.0",
        "client-ca-file": CA,
        "enable-admission-plugins": "NodeRestriction",
        "etcd-servers": "http://127.0.0.1:2379",
        "kubelet-client-certificate": PKI / "admin.crt",
        "kubelet-client-key": PKI / "admin.key",
        "kubelet-preferred-address-types": "InternalIP",
        "secure-port": "443",
        "service-account-issuer": ISSUER,
        "service-account-key-file": VERIFYING_KEY,
        "service-account-signing-key-file": SIGNING_KEY,
        "service-cluster-ip-range": SERVICE_RANGE,
        "tls-cert-file": PKI / "apiserver.crt",
        "tls-private-key-file": PKI / "apiserver.key",
    }
    return [kubernetes / "kube-apiserver", *(f"--{name}={value}" for name, value in flags.items())]


def _kubelet(kubernetes: Path, config: Path) -> list[str | Path]:
    flags: dict[str, str | Path] = {
        "config": config,
        "hostname-override": NODE,
        "kubeconfig": KUBELET_KUBECONFIG,
        "node-ip": NODE_ADDRESS,
    }
    return [kubernetes / "kubelet", *(f"--{name}={value}" for name, value in flags.items())]


def _kubelet_config(cgroup_version: int) -> dict[str, object]:
    """https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/"""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(CA)},
        },
        "authorization": {"mode": "Webhook"},
        "cgroupDriver": "cgroupfs",
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        # A machine that is short of disk is no reason to evict a test's pods.
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "failCgroupV1": cgroup_version != 1,
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "makeIPTablesUtilChains": False,
        "maxPods": 250,
        "podLogsDir": str(STATE / "pod-logs"),
        "resolvConf": "",
        "staticPodPath": str(STATIC_PODS),
        "fileCheckFrequency": "1s",
        "nodeStatusUpdateFrequency": "5s",
    }


def _containerd_config() -> str:
    return f"""\
version = 2
root = "{STATE}/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{WORKLOAD_IMAGE}"
  disable_apparmor = true
  # Where CAP_SYS_RESOURCE is missing, runc dies of a lower score.
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
        BinaryName = "{shutil.which("runc")}"
        SystemdCgroup = false
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{STATE}/cni"
"""


def _write_cni_config() -> None:
    """A bridge, without address translation: what pods talk to is this node."""
    bridge = {
        "type": "bridge",
        "bridge": "pods",
        "isGateway": True,
        "ipam": {
            "type": "host-local",
            "dataDir": str(STATE / "ipam"),
            "ranges": [[{"subnet": POD_RANGE}]],
            "routes": [{"dst": "0.0.0.0/0"}],
        },
    }
    directory = STATE / "cni"
    directory.mkdir(exist_ok=True)
    config = {"cniVersion": "0.4.0", "name": "pods", "plugins": [bridge]}
    (directory / "pods.conflist").write_text(json.dumps(config))


def _api() -> HTTPSConnection:
    context = ssl.create_default_context(cafile=str(CA))
    context.load_cert_chain(PKI / "admin.crt", PKI / "admin.key")
    return HTTPSConnection(NODE_ADDRESS, timeout=5, context=context)


def _answers(connection: HTTPConnection, path: str) -> bool:
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _containerd_is_ready() -> bool:
    command = ["ctr", "--address", str(CONTAINERD_SOCKET), "plugins", "ls", "id==cri"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode == 0 and any(" cri " in line and " ok" in line for line in done.stdout.splitlines())
