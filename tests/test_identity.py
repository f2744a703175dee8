"""Whose figures a cgroup's are: a Resource stays as it is for the life of its cgroup, and no tenant takes another's."""

from __future__ import annotations

import sys
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest

from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, mirror, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.otlp import cpu_time, points
from tests.programs import started

if TYPE_CHECKING:
    from pathlib import Path

HASH = "3e61c214bc3ed9ff81e21474dd6cba17"
WEB, THIEF, LATE = (f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{digit}" for digit in "123")


def _etcd(uid: str, started_at: str) -> dict[str, Any]:
    """The mirror of a static pod."""
    return pod("etcd-node-1", uid=uid, **mirror(HASH)) | {"status": {"startTime": started_at}}


def test_a_pod_is_one_resource_for_the_life_of_its_cgroup(tmp_path: Path) -> None:
    """Though its start time comes late, a kubelet restarts, a mirror is made anew, and a tenant claims both."""
    tree = CgroupTree(tmp_path / "cgroup")
    paths = {uid: tree.path(uid) for uid in (HASH, WEB, THIEF, LATE)}
    for uid in paths:
        tree.write(uid, Figures(user_usec=1000))
    late = pod("late", uid=LATE)
    with KubeApi() as api, OtlpReceiver("http/protobuf") as receiver:
        # Before the others in the list; its own annotations hide nothing of what it uses.
        api.add(pod("a-thief", uid=THIEF, annotations=mirror(HASH)["annotations"]))
        api.add(_etcd("mirror-1", "2026-01-01T00:00:00Z"), pod("web", uid=WEB), late | {"status": {}})
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "50ms"),
            *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
            *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf"),
        ]

        def has(*wanted: str) -> None:
            """Waits for points of a further tick, of these cgroups."""
            before = len(receiver.messages)
            receiver.wait_for(
                lambda messages: (
                    {each.resource.get("cgroup.path") for each in points(messages[before:])}
                    >= {paths[uid] for uid in wanted}
                )
            )

        with started(argv) as program:
            has(HASH, WEB, THIEF)
            api.add(late)
            has(LATE)
            api.add(_etcd("mirror-1", "2026-02-02T00:00:00Z"))
            has(HASH)
            api.delete("etcd-node-1")
            # Both are gone from the API and run on; a tenant says of both what a kubelet would say.
            api.delete("web")
            for number, claimed in enumerate((HASH, WEB)):
                api.add(pod(f"zz-{number}-node-1", uid=f"claim-{number}", **mirror(claimed)))
            has(HASH, WEB)
            api.add(_etcd("mirror-2", "2026-03-03T00:00:00Z"))
            has(HASH, WEB)
            for uid in paths:
                tree.write(uid, Figures(user_usec=5000))
            assert program.stop() == 0
        received = points(receiver.messages)
    resources = defaultdict(set)
    for point in received:
        if "cgroup.path" in point.resource:
            resources[point.resource["cgroup.path"]].add(tuple(sorted(point.resource.items())))
    assert {path: len(each) for path, each in resources.items()} == dict.fromkeys(paths.values(), 1)
    names = {dict(each)["k8s.pod.name"] for (each,) in resources.values()}
    assert names == {"etcd-node-1", "web", "a-thief", "late"}
    (etcd,) = resources[paths[HASH]]
    assert dict(etcd)["k8s.pod.uid"] == "mirror-1"
    assert dict(etcd)["k8s.pod.annotation.kubernetes.io/config.hash"] == HASH
    assert {uid: cpu_time(received, uid)["total"] for uid in ("mirror-1", WEB, THIEF, LATE)} == dict.fromkeys(
        ("mirror-1", WEB, THIEF, LATE), 4_000_000
    )
    assert "zz-0-node-1 claims the cgroup" in program.output


@pytest.mark.parametrize("is_another", [False, True], ids=["the same cgroup", "a cgroup made anew"])
def test_a_restart_with_a_state_file_changes_no_resource(tmp_path: Path, is_another: bool) -> None:
    """A mirror is made anew while no exporter runs, a pod is deleted by force and claimed; their cgroups live on."""
    tree = CgroupTree(tmp_path / "cgroup")
    for uid in (HASH, WEB):
        tree.write(uid, Figures(user_usec=1000))
    with KubeApi() as api, OtlpReceiver("http/protobuf") as receiver:
        api.add(_etcd("mirror-1", "2026-01-01T00:00:00Z"), pod("web", uid=WEB))
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "run", "--k8s-node", "node-1", "--poll-interval", "50ms"),
            *("--cgroup-root", str(tree.root), "--k8s-api-url", api.url, "--token-retrieval", "none"),
            *("--otlp-endpoint", receiver.endpoint, "--otlp-protocol", "http/protobuf"),
            *("--state-file", str(tmp_path / "state.json")),
        ]

        def names() -> set[tuple[str, str]]:
            return {
                (each.resource["k8s.pod.uid"], each.resource["cgroup.path"])
                for each in points(receiver.messages)
                if "cgroup.path" in each.resource
            }

        first = {("mirror-1", tree.path(HASH)), (WEB, tree.path(WEB))}
        with started(argv) as program:
            receiver.wait_for(lambda _messages: names() >= first)
            assert program.stop() == 0
        api.delete("etcd-node-1")
        api.delete("web")
        api.add(_etcd("mirror-2", "2026-03-03T00:00:00Z"), pod("zz-node-1", uid="claim", **mirror(WEB)))
        after = first
        if is_another:
            tree.remove(HASH)
            after = first | {("mirror-2", tree.path(HASH))}
        for uid in (HASH, WEB):
            tree.write(uid, Figures(user_usec=5000))
        with started(argv) as program:
            api.wait_for("watch", 2)
            before = len(receiver.messages)
            receiver.wait_for(lambda messages: len(messages) > before + 3 and names() >= after)
            assert program.stop() == 0
        assert names() == after
        received = points(receiver.messages)
    assert cpu_time(received, WEB)["total"] == 4_000_000
    assert cpu_time(received, "mirror-2" if is_another else "mirror-1")["total"] == (5 if is_another else 4) * 1_000_000
