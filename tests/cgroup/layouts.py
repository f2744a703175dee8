"""The layouts of pods' cgroups, as a table: where the pods are, and what is beside and below them that is no pod.

A row is a tree below a hierarchy's root. It is made as version 2, and as version 1 below each controller.
"""

from __future__ import annotations

from dataclasses import dataclass, field

HEX = "fc6e9647769050baf7ea79855ca22b8496ed9b6dd2b7f06c2e583e18a25dc920"
OTHER_HEX = "d2bd18310b0f469c8d77b914762d0744aa60963364497fe53887b1f8ef5a1dfa"
GUARANTEED = "f993afb8-4ac9-4b63-b262-a9644fb56022"
BURSTABLE = "d75d892c-9bb2-4b9c-8ce2-7868eb91e665"
BEST_EFFORT = "1e597579-417e-482f-bf65-5fe170c3aebd"
STATIC = "3e61c214bc3ed9ff81e21474dd6cba17"
NESTED = "7922aa99-d4aa-4885-a953-82976860b23a"


@dataclass(frozen=True, slots=True)
class Layout:
    """Each entity's key → its path. ``others``: cgroups that are none's (those above the pods come by themselves)."""

    name: str
    pods: dict[str, str]
    others: tuple[str, ...] = field(default=())
    containers: dict[str, str] = field(default_factory=dict)

    @property
    def no_pods(self) -> tuple[str, ...]:
        return (*self.others, *self.containers.values())


def _systemd(prefix: str = "kubepods") -> dict[str, str]:
    def pod(level: str, uid: str) -> str:
        return f"{level}-pod{uid.replace('-', '_')}.slice"

    top = f"/{prefix}.slice"
    return {
        GUARANTEED: f"{top}/{pod(prefix, GUARANTEED)}",
        BURSTABLE: f"{top}/{prefix}-burstable.slice/{pod(f'{prefix}-burstable', BURSTABLE)}",
        BEST_EFFORT: f"{top}/{prefix}-besteffort.slice/{pod(f'{prefix}-besteffort', BEST_EFFORT)}",
        STATIC: f"{top}/{prefix}-burstable.slice/{pod(f'{prefix}-burstable', STATIC)}",
    }


def _cgroupfs() -> dict[str, str]:
    return {
        GUARANTEED: f"/kubepods/pod{GUARANTEED}",
        BURSTABLE: f"/kubepods/burstable/pod{BURSTABLE}",
        BEST_EFFORT: f"/kubepods/besteffort/pod{BEST_EFFORT}",
        STATIC: f"/kubepods/burstable/pod{STATIC}",
    }


def _below(directory: str, pods: dict[str, str]) -> dict[str, str]:
    return {uid: directory + path for uid, path in pods.items()}


def _in_each(pods: dict[str, str], *names: str) -> tuple[str, ...]:
    return tuple(f"{path}/{name}" for path in pods.values() for name in names)


def _containers(pods: dict[str, str], name: str = "{}", *ids: str) -> dict[str, str]:
    return {
        f"{uid}/{container}": f"{path}/{name.format(container)}"
        for uid, path in pods.items()
        for container in ids or (HEX, OTHER_HEX)
    }


_KIND = _below("/kubelet.slice", _systemd("kubelet-kubepods"))
_KIND_CGROUPFS = _below("/kubelet", _cgroupfs())
_SCOPE = f"/system.slice/docker-{HEX}.scope"
_A_POD = _systemd()[BURSTABLE]

LAYOUTS = (
    Layout("systemd driver, containerd", _systemd(), containers=_containers(_systemd(), "cri-containerd-{}.scope")),
    Layout("cgroupfs driver, containerd", _cgroupfs(), containers=_containers(_cgroupfs())),
    Layout(
        "systemd driver, CRI-O",
        _systemd(),
        _in_each(_systemd(), f"crio-conmon-{HEX}.scope", f"crio-{HEX}.scope/container"),
        _containers(_systemd(), "crio-{}.scope"),
    ),
    Layout(
        "cgroupfs driver, CRI-O",
        _cgroupfs(),
        _in_each(_cgroupfs(), f"crio-conmon-{HEX}"),
        _containers(_cgroupfs(), "crio-{}"),
    ),
    Layout("systemd driver, Docker", _systemd(), containers=_containers(_systemd(), "docker-{}.scope")),
    Layout(
        "what is in a pod and no container",
        _systemd(),
        _in_each(
            _systemd(),
            f"libpod-{HEX}.scope",
            f"libpod-conmon-{HEX}.scope",
            f"conmon-{HEX}.scope",
            f"cri-containerd-{HEX[1:]}.scope",
            f"{HEX}.mount",
            f"run-{HEX}.slice",
            HEX.upper(),
            "system.slice",
            "init.scope",
        ),
    ),
    Layout(
        "kind, seen from its node",
        _KIND,
        ("/kubelet.slice/kubelet.service", "/init.scope"),
        _containers(_KIND, "cri-containerd-{}.scope"),
    ),
    Layout(
        "kind with the cgroupfs driver, seen from its node",
        _KIND_CGROUPFS,
        containers=_containers(_KIND_CGROUPFS),
    ),
    Layout(
        "kind, seen from the host",
        _below(_SCOPE, _KIND),
        ("/system.slice/ssh.service",),
        _containers(_below(_SCOPE, _KIND), "cri-containerd-{}.scope"),
    ),
    Layout(
        "minikube, seen from the host",
        _below(_SCOPE, _systemd()),
        containers=_containers(_below(_SCOPE, _systemd()), "docker-{}.scope"),
    ),
    Layout(
        "minikube with Docker's cgroupfs driver, seen from the host",
        _below(f"/docker/{HEX}", _cgroupfs()),
        containers=_containers(_below(f"/docker/{HEX}", _cgroupfs())),
    ),
    Layout(
        "kind in rootless podman, seen from the host",
        _below(f"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-{HEX}.scope/container", _KIND),
    ),
    Layout(
        "a systemd inside a container makes more slices",
        _systemd(),
        (
            f"{_A_POD}/cri-containerd-{HEX}.scope/system.slice/cron.service",
            f"{_A_POD}/cri-containerd-{HEX}.scope/user.slice/user-0.slice",
            f"{_A_POD}/cri-containerd-{HEX}.scope/init.scope",
        ),
        _containers({BURSTABLE: _A_POD}, "cri-containerd-{}.scope", HEX),
    ),
    Layout(
        "a cluster inside a container of a pod is another node's",
        _systemd(),
        (
            f"{_A_POD}/cri-containerd-{HEX}.scope/kubepods.slice/kubepods-pod{NESTED.replace('-', '_')}.slice",
            f"{_A_POD}/cri-containerd-{HEX}.scope/kubelet/kubepods/besteffort/pod{NESTED}/{OTHER_HEX}",
        ),
        _containers({BURSTABLE: _A_POD}, "cri-containerd-{}.scope", HEX),
    ),
    Layout(
        "podman's pods, mounts and services are no pods",
        _systemd(),
        (
            f"/machine.slice/libpod-{HEX}.scope",
            f"/machine.slice/machine-libpod_pod_{HEX}.slice/libpod-{OTHER_HEX}.scope",
            f"/libpod-{HEX}",
            "/system.slice/var-lib-kubelet-pods-"
            + GUARANTEED.replace("-", r"\x2d")
            + r"-volumes-kubernetes.io\x7eprojected-kube\x2dapi\x2daccess.mount",
            "/system.slice/kubelet.service",
            "/kubepods.slice/kubepods-podman.slice",
            "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-podd75d892c_9bb2_4b9c_8ce2.slice",
            f"/kubepods.slice/pod{NESTED}x",
            f"/system.slice/pod{NESTED}",
            f"/pod{NESTED}",
        ),
    ),
    Layout("a node with no pod yet", {}, ("/kubepods.slice/kubepods-besteffort.slice",)),
    Layout("a node whose kubelet has not started yet", {}, ("/system.slice/kubelet.service",)),
)
