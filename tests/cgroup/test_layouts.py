"""Every layout of pods' cgroups: found where it is, and nothing else taken for a pod."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.cgroup import Hierarchy, detect
from otel_k8s_cgroup.cgroup.locate import pod_uid
from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.figures import Stats
from otel_k8s_cgroup.model import EntityKind

from .layouts import BURSTABLE, GUARANTEED, HEX, LAYOUTS, STATIC, Layout
from .support import Node
from .trees import Tree, Version

if TYPE_CHECKING:
    from pathlib import Path

SYSTEMD_POD = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{BURSTABLE.replace('-', '_')}.slice"
CGROUPFS_POD = f"/kubepods/burstable/pod{BURSTABLE}"


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("version", [1, 2])
def test_each_pod_is_found_where_it_is_and_nothing_else(tmp_path: Path, layout: Layout, version: Version) -> None:
    """uid and path of every pod, each once, and no other cgroup's figures among them."""
    tree = Tree(tmp_path / "cgroup", version)
    for other in layout.no_pods:
        tree.make(other, usage_us=999_999, memory=999_999)
    tree.make_all(layout.pods.values())
    readings = Node(tree.root).read_well()
    assert {uid: reading.path for uid, reading in readings.items()} == layout.pods
    stats = Stats(300_000, 100_000, 200_000, 4096, 11, 22, *((33, 44) if version == 2 else (None, None)))
    assert [reading.stats for reading in readings.values()] == [stats] * len(layout.pods)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@pytest.mark.parametrize("version", [1, 2])
def test_each_entity_is_found_where_it_is_and_nothing_else(tmp_path: Path, layout: Layout, version: Version) -> None:
    """Containers, QoS levels and kubepods, too, where they are asked for: key, kind and path, each once."""
    tree = Tree(tmp_path / "cgroup", version)
    for path in (*layout.others, *layout.containers.values(), *layout.pods.values()):
        tree.make(path)
    parents = {uid: path.rpartition("/")[0] for uid, path in layout.pods.items()}
    tree.make_all(parents.values())
    node = Node(tree.root, containers=True, node_totals=True)
    by_kind: dict[EntityKind, dict[str, str]] = {kind: {} for kind in EntityKind}
    for key, reading in node.read_well().items():
        by_kind[reading.kind][key] = reading.path
    assert by_kind[EntityKind.POD] == layout.pods
    assert by_kind[EntityKind.CONTAINER] == layout.containers
    if parents:
        top = parents.pop(GUARANTEED)
        assert by_kind[EntityKind.NODE] == {top: top}
        assert by_kind[EntityKind.QOS] == {path: path for path in {*parents.values()}}
    assert node.cgroups.found_pods == layout.pods


@pytest.mark.parametrize(
    ("name", "qos_class"),
    [
        ("/kubepods/besteffort", "besteffort"),
        ("/kubepods/burstable", "burstable"),
        ("/kubepods.slice/kubepods-besteffort.slice", "besteffort"),
        ("/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice", "burstable"),
    ],
)
def test_the_qos_class_of_a_level(tmp_path: Path, name: str, qos_class: str) -> None:
    """As the kubelet names it; what is no level has none."""
    tree = Tree(tmp_path / "cgroup")
    top = name.rpartition("/")[0]
    tree.make_all([top, name])
    readings = Node(tree.root, node_totals=True).read_well()
    assert {path: (reading.kind, reading.qos_class) for path, reading in readings.items()} == {
        top: (EntityKind.NODE, None),
        name: (EntityKind.QOS, qos_class),
    }


@pytest.mark.parametrize(
    ("name", "uid"),
    [
        (f"pod{BURSTABLE}", BURSTABLE),
        (f"kubepods-pod{BURSTABLE.replace('-', '_')}.slice", BURSTABLE),
        (f"kubelet-kubepods-besteffort-pod{BURSTABLE.replace('-', '_')}.slice", BURSTABLE),
        (f"pod{STATIC}", STATIC),
        (f"kubepods-burstable-pod{STATIC}.slice", STATIC),
        (f"pod{BURSTABLE}\n", None),
        (f"a\nb-pod{BURSTABLE}", None),
        (f"\udcff-pod{BURSTABLE}", None),
        (f"pod{BURSTABLE.replace('-', '_', 1)}", None),
        (f"pod{BURSTABLE.upper()}", None),
        (f"pod{BURSTABLE}0", None),
        (f"pod{BURSTABLE}.scope", None),
        (f"libpod-{HEX}", None),
        (f"libpod-{HEX}.scope", None),
        (HEX, None),
        ("pod", None),
        ("", None),
    ],
)
def test_what_names_a_pod(name: str, uid: str | None) -> None:
    """A whole name, nothing around it; and never one that could break a log line or a protobuf string."""
    assert pod_uid(name) == uid


@pytest.mark.parametrize("together", ["cpu,cpuacct", "cpuacct,cpu"])
def test_v1_controllers_that_are_mounted_together(tmp_path: Path, together: str) -> None:
    """The directory of both, with the links that distributions make."""
    tree = Tree(tmp_path / "cgroup", 1, cpu=together)
    for name in ("cpu", "cpuacct"):
        (tree.root / name).symlink_to(together)
    tree.make(SYSTEMD_POD)
    directories = {"cpuacct": str(tree.root / together), "memory": str(tree.root / "memory")}
    assert detect(str(tree.root)) == Hierarchy(1, directories)
    assert Node(tree.root).read_well()[BURSTABLE].stats.cpu_usage_ns == 300_000


def test_all_v1_controllers_in_one_mount(tmp_path: Path) -> None:
    """One directory serves for CPU and memory."""
    tree = Tree(tmp_path / "cgroup", 1, cpu="cpuacct,memory", memory="cpuacct,memory")
    tree.make(SYSTEMD_POD)
    assert Node(tree.root).read_well()[BURSTABLE].stats[:6] == (300_000, 100_000, 200_000, 4096, 11, 22)


def test_the_hybrid_layout_is_v1(tmp_path: Path) -> None:
    """Beside the v1 controllers `unified` is a v2 mount without controllers: no figure comes from there."""
    tree = Tree(tmp_path / "cgroup", 1)
    unified = Tree(tree.root / "unified")
    tree.make(SYSTEMD_POD)
    unified.make(SYSTEMD_POD, usage_us=999_999)
    assert detect(str(tree.root)).version == 1
    assert Node(tree.root).read_well()[BURSTABLE].stats.cpu_usage_ns == 300_000


@pytest.mark.parametrize("missing", ["cpuacct", "memory"])
def test_a_v1_node_with_one_of_the_controllers(tmp_path: Path, missing: str) -> None:
    """The other's figures are had, and the missing one's are absent."""
    tree = Tree(tmp_path / "cgroup", 1)
    tree.make(SYSTEMD_POD)
    tree.hierarchies[missing].rename(tmp_path / "elsewhere")
    stats = Node(tree.root).read_well()[BURSTABLE].stats
    if missing == "cpuacct":
        assert stats == Stats(None, None, None, 4096, 11, 22)
    else:
        assert stats == Stats(300_000, 100_000, 200_000)


def test_a_v1_pod_that_has_no_memory_cgroup_yet(tmp_path: Path) -> None:
    """The kubelet makes them one after the other: CPU at once, memory as soon as it is there."""
    tree = Tree(tmp_path / "cgroup", 1)
    tree.make(SYSTEMD_POD)
    aside = tmp_path / "memory of the pod"
    tree.directory(SYSTEMD_POD, "memory").rename(aside)
    node = Node(tree.root)
    assert node.read_well()[BURSTABLE].stats == Stats(300_000, 100_000, 200_000)
    aside.rename(tree.directory(SYSTEMD_POD, "memory"))
    assert node.read_well()[BURSTABLE].stats == Stats(300_000, 100_000, 200_000, 4096, 11, 22)


@pytest.mark.parametrize("alive", [SYSTEMD_POD, CGROUPFS_POD])
def test_a_pod_under_two_roots_counts_once(tmp_path: Path, alive: str) -> None:
    """After a change of the cgroup driver one is left behind: the one that has containers is the pod."""
    tree = Tree(tmp_path / "cgroup")
    tree.make_all([SYSTEMD_POD, CGROUPFS_POD, f"{alive}/{HEX}"])
    node = Node(tree.root)
    assert node.read_well()[BURSTABLE].path == alive
    assert node.read_well().keys() == {BURSTABLE}


@pytest.mark.parametrize("containers", [(), (f"{SYSTEMD_POD}/{HEX}", f"{CGROUPFS_POD}/{HEX}")], ids=["none", "both"])
def test_a_pod_under_two_roots_that_look_alike(tmp_path: Path, containers: tuple[str, ...]) -> None:
    """Where containers do not tell, it is the same one each time, whatever comes and goes beside it."""
    tree = Tree(tmp_path / "cgroup")
    tree.make_all([SYSTEMD_POD, CGROUPFS_POD, *containers])
    node = Node(tree.root)
    first = node.read_well()[BURSTABLE]
    for path in (f"/kubepods/pod{STATIC}", f"/kubepods.slice/kubepods-pod{GUARANTEED.replace('-', '_')}.slice"):
        tree.make(path)
        assert node.read_well()[BURSTABLE].origin is first.origin


def test_what_was_left_behind_is_read_once_the_other_has_ended(tmp_path: Path) -> None:
    """It was there all the time, also while others came: it counts from its first reading, not from birth."""
    tree = Tree(tmp_path / "cgroup")
    tree.make_all([SYSTEMD_POD, CGROUPFS_POD, f"{SYSTEMD_POD}/{HEX}"])
    node = Node(tree.root)
    node.read_well()
    tree.make(f"/kubepods/burstable/pod{STATIC}")
    assert node.read_well()[STATIC].origin.born
    tree.remove(SYSTEMD_POD)
    reading = node.read_well()[BURSTABLE]
    assert (reading.path, reading.origin.born) == (CGROUPFS_POD, False)


def _empty(root: Path) -> None:
    root.mkdir()


def _missing(root: Path) -> None: ...


def _a_file(root: Path) -> None:
    root.write_text("")


def _a_controller_of_v1(root: Path) -> None:
    (root / "kubepods").mkdir(parents=True)
    (root / "cgroup.procs").write_text("")


def _v1_not_mounted(root: Path) -> None:
    for name in ("cpuacct", "memory", "cpu,cpuacct"):
        (root / name).mkdir(parents=True)


def _strange_names(root: Path) -> None:
    (root / "two\nlines").mkdir(parents=True)


@pytest.mark.parametrize("make", [_empty, _missing, _a_file, _a_controller_of_v1, _v1_not_mounted, _strange_names])
def test_a_root_that_is_none(tmp_path: Path, make: object) -> None:
    """One clear line that names the path, what was found and what is wanted."""
    root = tmp_path / "root"
    assert callable(make)
    make(root)
    with pytest.raises(CgroupRootError) as caught:
        Node(root).read()
    message = str(caught.value)
    assert message.startswith(f"{root}: ")
    assert "cgroup_root must be the node's /sys/fs/cgroup" in message
    assert "\n" not in message
