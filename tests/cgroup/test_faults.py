"""Files that cannot be read: each costs itself, and no other pod a point."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import CgroupReadError
from otel_k8s_cgroup.figures import Stats

from .layouts import BURSTABLE, GUARANTEED
from .support import Node
from .trees import Tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BAD = f"/kubepods/burstable/pod{BURSTABLE}"
GOOD = f"/kubepods/burstable/pod{GUARANTEED}"
WHOLE = Stats(300_000, 100_000, 200_000, 4096, 11, 22, 33, 44)


def _directory_in_its_place(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _link_to_itself(file: Path) -> None:
    file.unlink()
    file.symlink_to(file)


def _forbidden(file: Path) -> None:
    file.chmod(0)


FAULTS: dict[str, Callable[[Path], None]] = {
    "EISDIR": _directory_in_its_place,
    "ELOOP": _link_to_itself,
    "EACCES": _forbidden,
}


@pytest.mark.parametrize("cause", FAULTS)
@pytest.mark.parametrize(
    ("name", "stats"),
    [
        ("cpu.stat", Stats(None, None, None, *WHOLE[3:])),
        ("memory.current", WHOLE._replace(memory_usage_bytes=None)),
        ("memory.stat", Stats(*WHOLE[:4])),
    ],
)
def test_a_file_that_the_kernel_refuses(unprivileged: Path, cause: str, name: str, stats: Stats) -> None:
    """Its figures are absent, the rest is there; it is reported by cause and path, each time; and then it is mended."""
    tree = Tree(unprivileged / "cgroup")
    tree.make_all([BAD, GOOD])
    file = tree.directory(BAD) / name
    FAULTS[cause](file)
    node = Node(tree.root)
    for times in (1, 2):
        readings = node.read()
        assert (readings[BURSTABLE].stats, readings[GUARANTEED].stats) == (stats, WHOLE)
        assert [(type(error), error.path, error.cause) for error in node.errors] == [
            (CgroupReadError, str(file), cause)
        ] * times
    assert f"({cause})" in str(node.errors[0])
    if file.is_dir():
        file.rmdir()
    else:
        file.unlink()
    tree.make(BAD)
    assert node.read()[BURSTABLE].stats == WHOLE
    assert len(node.errors) == 2


def test_a_pod_directory_that_links_to_itself(tmp_path: Path) -> None:
    """A loop is walked by nobody: the pod has no figures, and the other all."""
    tree = Tree(tmp_path / "cgroup")
    tree.make(GOOD)
    loop = tree.directory(BAD)
    loop.symlink_to(loop)
    node = Node(tree.root)
    readings = node.read()
    assert readings[GUARANTEED].stats == WHOLE
    assert readings[BURSTABLE].stats == Stats()
    assert {error.cause for error in node.errors} == {"ELOOP"}


def test_no_link_is_followed_where_parents_are_looked_for(tmp_path: Path) -> None:
    """Not round in a circle, and not out of the tree."""
    tree, other = Tree(tmp_path / "cgroup"), Tree(tmp_path / "other")
    tree.make(GOOD)
    other.make(BAD)
    (tree.root / "system.slice").symlink_to(tree.root)
    (tree.root / "kubelet").symlink_to(other.root)
    assert Node(tree.root).read_well().keys() == {GUARANTEED}


def test_a_pod_that_is_a_file(tmp_path: Path) -> None:
    """No cgroup: silently none, at each reading."""
    tree = Tree(tmp_path / "cgroup")
    tree.make(GOOD)
    tree.directory(BAD).write_text("")
    node = Node(tree.root)
    assert [node.read_well().keys() for _ in range(3)] == [{GUARANTEED}] * 3


def test_a_qos_level_that_is_a_file(tmp_path: Path) -> None:
    """It is reported, and hides no pod of another level."""
    tree = Tree(tmp_path / "cgroup")
    tree.make(GOOD)
    (tree.root / "kubepods" / "besteffort").write_text("")
    node = Node(tree.root)
    assert node.read().keys() == {GUARANTEED}
    assert [error.cause for error in node.errors] == ["ENOTDIR"]


def test_a_figure_that_is_missing_once_costs_no_later_ones(tmp_path: Path) -> None:
    """A reading without memory.stat lies between two whole ones; the CPU figures never notice."""
    tree = Tree(tmp_path / "cgroup")
    tree.make(GOOD)
    node = Node(tree.root, limit=0)
    file = tree.directory(GOOD) / "memory.stat"
    seen = []
    for content in ("", None, "anon 1\n"):
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content)
        seen.append(node.read_well()[GUARANTEED].stats)
    assert [stats.anon_bytes for stats in seen] == [None, None, 1]
    assert {stats.cpu_usage_ns for stats in seen} == {300_000}


def test_a_tree_that_nobody_may_write(unprivileged: Path) -> None:
    """Reading needs no right to write."""
    tree = Tree(unprivileged / "cgroup")
    tree.make(GOOD)
    for path in sorted(tree.root.rglob("*"), reverse=True):
        path.chmod(0o500 if path.is_dir() else 0o400)
    assert Node(tree.root).read_well()[GUARANTEED].stats == WHOLE
