"""What is scraped is what the last tick read, and of what is read more rarely the last value."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from otel_k8s_cgroup.model import Details
from tests.scrape.scraping import families_of, scraped
from tests.test_seldom import CONTAINER, OTHER, POD, SECOND, UID, Node

if TYPE_CHECKING:
    from pathlib import Path

OTHER_POD = replace(POD, uid=OTHER, cgroup_uid=OTHER, name="db")


def values(node: Node, family: str, label: str = "name") -> dict[str, float]:
    """By a label of each sample."""
    found = [each for each in families_of(scraped(node.latest)) if each.name == family]
    return {sample.labels[label]: sample.value for each in found for sample in each.samples}


def test_a_counter_goes_on_whatever_the_receiver_does(tmp_path: Path) -> None:
    """It is the kernel's, since the cgroup's birth: what OTLP's deltas are made of, which are what they were."""
    node = Node(tmp_path, "cpu")
    node.listed = (POD,)
    node.use(500)
    for used, is_up in ((500, True), (700, False), (1_000, False), (1_000, True)):
        node.receiver.is_up = is_up
        node.use(used)
        node.tick()
        assert values(node, "cpu_time_delta_nanoseconds", "kind")["total"] == used * 1000
    assert sum(point.value for point in node.sent("cpu_time_delta") if point.attributes["kind"] == "total") == 500_000


def test_a_pod_that_has_ended_vanishes_at_the_next_tick(tmp_path: Path) -> None:
    """And one that was born is there."""
    node = Node(tmp_path, "cpu")
    node.listed = (POD, OTHER_POD)
    node.use(500)
    node.tick()
    assert values(node, "cpu_time_delta_nanoseconds").keys() == {"web"}
    node.tree.remove(UID)
    node.use(300, uid=OTHER)
    node.tick()
    assert values(node, "cpu_time_delta_nanoseconds") == {"db": 300_000}


def test_nothing_is_there_before_the_first_tick_nor_once_ticks_have_come_to_a_halt(tmp_path: Path) -> None:
    """Prometheus then marks the series as stale; an old value would look like a new one."""
    node = Node(tmp_path, "cpu")
    node.listed = (POD,)
    node.use(500)
    assert scraped(node.latest) == "# EOF\n"
    node.tick()
    node.now_ns += 29 * SECOND
    assert values(node, "cpu_time_delta_nanoseconds")
    node.now_ns += 1
    assert scraped(node.latest) == "# EOF\n"


def test_what_is_read_more_rarely_keeps_its_last_value(tmp_path: Path) -> None:
    """Until it is read again, also of a pod that was born meanwhile; what is absent then is absent."""
    node = Node(tmp_path, "cpu", "limits", intervals={"limits": timedelta(seconds=3)})
    node.listed = (POD, OTHER_POD)
    node.use(100)
    limit = node.tree.root / node.tree.path(UID)[1:] / "pids.max"
    limit.write_text("50\n")
    seen = []
    for number in range(7):
        if number == 1:
            limit.write_text("60\n")
            node.use(200, uid=OTHER)
            (node.tree.root / node.tree.path(OTHER)[1:] / "pids.max").write_text("90\n")
        if number == 4:
            limit.write_text("max\n")
        node.tick()
        seen.append(values(node, "cgroup_pids_max"))
    early, late = {"web": 50.0, "db": 90.0}, {"web": 60.0, "db": 90.0}
    assert seen == [{"web": 50.0}, early, early, late, late, late, {"db": 90.0}]


def test_what_is_made_of_two_groups_keeps_the_value_of_when_both_were_read(tmp_path: Path) -> None:
    """CPU use by its limit, where both are read more rarely, and not together."""
    intervals = {"cpu": timedelta(seconds=2), "limits": timedelta(seconds=3)}
    node = Node(tmp_path, "cpu", "limits", schemas=("semconv",), intervals=intervals)
    node.listed = (replace(POD, details=Details(containers=(CONTAINER,))),)
    limit = node.tree.root / node.tree.path(UID)[1:] / f"cri-containerd-{CONTAINER.id}.scope/cpu.max"
    seen = []
    for number in range(10):
        node.use(number * 1_000_000)
        limit.write_text(f"{(number + 1) * 100_000} 100000\n")
        node.tick()
        seen.append(values(node, "k8s_container_cpu_limit_utilization_ratio", "k8s_container_name"))
    assert seen == [{}] * 6 + [{"app": 1 / 7}] * 4


def test_a_device_comes_with_the_tick_that_finds_it(tmp_path: Path) -> None:
    """Also where its group is read more rarely, and the rows of before do not have it."""
    node = Node(tmp_path, "cpu", "io", intervals={"io": timedelta(seconds=2)})
    node.listed = (POD, OTHER_POD)
    node.use(100)
    seen = []
    for number in range(4):
        if number == 1:
            node.use(70, uid=OTHER, device="8:16")
        node.tick()
        seen.append(values(node, "cgroup_io_rbytes_bytes", "device"))
    assert seen == [{"8:0": 100.0}, {"8:0": 100.0, "8:16": 70.0}, *[{"8:0": 100.0, "8:16": 70.0}] * 2]


def test_a_container_beside_its_pod(tmp_path: Path) -> None:
    """Each of them is a series; what else is known of it is joined by its id."""
    node = Node(tmp_path, "cpu", schemas=("semconv",))
    node.listed = (replace(POD, details=Details(containers=(replace(CONTAINER, image_name="registry/app"),))),)
    node.use(500)
    node.tick()
    assert values(node, "k8s_pod_cpu_time_seconds", "k8s_pod_uid") == {UID: 0.0005}
    assert values(node, "container_cpu_time_seconds", "container_id") == {CONTAINER.id: 0.0}
    (info,) = (family for family in families_of(scraped(node.latest)) if family.name == "container")
    (sample,) = info.samples
    assert (sample.name, sample.labels["container_image_name"]) == ("container_info", "registry/app")
    assert (sample.labels["container_id"], sample.labels["k8s_pod_name"]) == (CONTAINER.id, "web")
