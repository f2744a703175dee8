"""Real pods' networks, as the node's container runtime and its CNI plugin make them."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from tests.cluster.api import eventually
from tests.cluster.cluster import cgroup_uid
from tests.cluster.conftest import api_flags, write_token
from tests.cluster.pods import pod, shell
from tests.cluster.test_sources import another

if TYPE_CHECKING:
    from tests.cluster.cluster import Cluster
    from tests.cluster.conftest import Observer
    from tests.cluster.exported import PodPoints

SENDS = "ping -c 20 -i 0.1 -s 1000 $(ip route | sed -n 's/^default via \\([^ ]*\\).*/\\1/p'); exec sleep 600"


def kernels(observer: Observer, uid: str) -> tuple[int, int]:
    """What ``eth0`` of the pod has received and sent."""
    root = next(root for root in (Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")) if root.exists())
    for procs in Path(f"{root}{observer.kernel.lives[uid].path}").glob("*/cgroup.procs"):
        for pid in procs.read_text().split():
            with suppress(OSError):
                for line in Path(f"/proc/{pid}/net/dev").read_text().splitlines():
                    name, _, numbers = line.strip().partition(":")
                    if name == "eth0":
                        words = numbers.split()
                        return int(words[0]), int(words[8])
    return 0, 0


def sent(of_pod: PodPoints) -> tuple[int, int]:
    """The same, by the points."""
    points = [point for point in of_pod.of("network_io") if point.attributes["interface"] == "eth0"]
    received, transmitted = (
        sum(int(point.value) for point in points if point.attributes["direction"] == way)
        for way in ("receive", "transmit")
    )
    return received, transmitted


def test_a_pods_network_is_what_its_interface_has_carried(cluster: Cluster, observer: Observer) -> None:
    """From its birth on, to the byte, once though its containers are measured too; none of a pod on the host's."""
    write_token(cluster)
    with another(api_flags() | {"--metrics": "cpu,network", "--containers": "true"}) as exported:
        exported.wait_for(bool)
        cluster.create(pod("sends", shell(SENDS)))
        cluster.create(pod("sends-as-node", shell(SENDS), hostNetwork=True))
        uid, of_host = (cgroup_uid(cluster.wait_for_phase(name, "Running")) for name in ("sends", "sends-as-node"))
        exported.wait_for(lambda pods: {uid, of_host} <= pods.keys())
        eventually(lambda: min(kernels(observer, uid)) > 20_000)
        eventually(lambda: sent(exported.pods()[uid]) == kernels(observer, uid))
        pods = exported.pods()
        assert pods[of_host].of("cpu_time_delta")
        assert not pods[of_host].of("network_io")
