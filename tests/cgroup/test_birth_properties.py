"""Whatever pods and containers do between two looks, on a real kernel: each counts from its birth, none is missed."""

from __future__ import annotations

import os
import tempfile
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import CgroupRootError
from otel_k8s_cgroup.model import EntityKind, container_key

from .kernel_tree import KernelTree
from .support import SECOND, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

EXAMPLES = int(os.environ.get("PROPERTY_EXAMPLES", "60"))
LEVEL = "/kubepods/burstable"

actions = st.sampled_from(
    [
        "begin",
        "begin",
        "end",
        "renew",
        "add",
        "add",
        "add wanted",
        "add wanted",
        "remove",
        "swap",
        "swap",
        "want",
        "lose",
    ]
)
lives = st.lists(st.lists(st.tuples(actions, st.integers(0, 2), st.integers(0, 3)), max_size=6), min_size=2, max_size=8)

Origin = tuple[bool, int]
"""Whether it was born while we ran, and when it was not there yet or, of one that was not born, first read."""


@dataclass
class PodModel:
    number: int
    containers: dict[str, str] = field(default_factory=dict)
    """Key → path."""

    @property
    def uid(self) -> str:
        return str(uuid.UUID(int=self.number))

    @property
    def path(self) -> str:
        return f"{LEVEL}/pod{self.uid}"


class World:
    """Cgroups of the kernel, what is wanted of them, and what has to be known of each."""

    def __init__(self, tree: KernelTree) -> None:
        self.tree = tree
        self.node = Node(tree.root, containers=True, node_totals=True)
        self.pods: dict[int, PodModel] = {}
        self.wanted: set[str] = set()
        self.origins: dict[str, Origin | None] = {}
        """None where it is not determined."""
        self.is_blind = True
        """The last look failed, or there was none: what is new may be older."""
        self.found: set[str] = set()
        """By the last look that did not fail."""
        self.fresh: set[str] = set()
        """Not found yet, or not as it is now."""
        self.loses_root = False
        self._ids = 0

    def act(self, action: str, number: int, which: int) -> None:
        pod = self.pods.get(number)
        if action == "lose":
            self.loses_root = self.tree.version == 1  # v2 renames no directory
        elif pod is None:
            if action == "begin":
                self._begin(PodModel(number))
        elif action in ("end", "renew"):
            for key in [*pod.containers]:
                self._remove(pod, key)
            self.tree.remove(pod.path)
            del self.pods[number]
            self.origins.pop(pod.uid, None)
            if action == "renew":
                self._begin(PodModel(number))
        else:
            if action in ("remove", "swap") and pod.containers:
                self._remove(pod, [*pod.containers][which % len(pod.containers)])
            if action.startswith(("add", "swap")):
                self._add(pod, wanted=action != "add" and which % 2 == 0)
            if action == "want":
                self.wanted ^= {key for place, key in enumerate(pod.containers) if place == which}

    def look(self) -> None:
        """One tick, and what must hold after it."""
        self.node.clock.now_ns += SECOND
        if self.loses_root:
            self.tree.root.rename(self.tree.root.with_name("elsewhere"))
            with pytest.raises(CgroupRootError):
                self.node.cgroups.read(self.wanted, self.node.errors.append)
            self.tree.root.with_name("elsewhere").rename(self.tree.root)
            self.loses_root, self.is_blind = False, True
            for key in self.origins.keys() & self.fresh:
                self._born(key)
            return
        readings = {each.key: each for each in self.node.cgroups.read(self.wanted, self.node.errors.append)}
        assert self.node.errors == []
        found = self.node.cgroups.found
        there = {pod.uid: pod.path for pod in self.pods.values()}
        for pod in self.pods.values():
            there |= pod.containers
        totals = {key for key, each in readings.items() if each.kind in (EntityKind.QOS, EntityKind.NODE)}
        assert {key: path for key, (path, _) in found.items() if key not in totals} == there
        assert readings.keys() - totals == there.keys() & self.wanted
        for key in there:
            _, origin = found[key]
            assert origin is not None
            is_new = key not in self.origins
            expected = self.origins.setdefault(key, (origin.born, origin.mono_ns))
            assert expected is None or (origin.born, origin.mono_ns) == expected
            assert not is_new or (origin.born, origin.mono_ns) == (False, self.node.clock.now_ns)
        self.is_blind = False
        self.found, self.fresh = {*found}, self.origins.keys() - found.keys()
        assert self.node.open_files.count == len(readings) * (3 if self.tree.version == 2 else 5)

    def _begin(self, pod: PodModel) -> None:
        self.tree.make(pod.path)
        self.pods[pod.number] = pod
        self.wanted.add(pod.uid)
        self._born(pod.uid)

    def _add(self, pod: PodModel, *, wanted: bool) -> None:
        self._ids += 1
        container = f"{self._ids:064x}"
        key = container_key(pod.uid, container)
        pod.containers[key] = f"{pod.path}/{container}"
        self.tree.make(pod.containers[key])
        if wanted:
            self.wanted.add(key)
        self._born(key)

    def _remove(self, pod: PodModel, key: str) -> None:
        self.tree.remove(pod.containers.pop(key))

    def _born(self, key: str) -> None:
        self.fresh.add(key)
        self.origins.pop(key, None)
        if not self.is_blind:
            self.origins[key] = (True, self.node.clock.now_ns)
        elif key in self.found:
            self.origins[key] = None  # there is no telling it from the one that was there


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as directory:
        try:
            KernelTree(Path(directory)).close()
        except OSError as error:
            pytest.skip(f"cgroups cannot be made here: {error.filename}: {error.strerror}")
        yield Path(directory)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(lives)
def test_each_counts_from_its_birth(home: Path, life: list[list[tuple[str, int, int]]]) -> None:
    """Found by the next look, whatever place it took; counted from the last look that was without it."""
    with tempfile.TemporaryDirectory(dir=home) as directory:
        tree = KernelTree(Path(directory))
        world = World(tree)
        try:
            for each in life:
                for action, number, which in each:
                    world.act(action, number, which)
                world.look()
        finally:
            world.node.cgroups.close()
            tree.close()
