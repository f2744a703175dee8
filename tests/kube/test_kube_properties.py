"""Well-formed answers of the API, of any shape that it may have, come to the right pods; what is not costs nobody else.

(What any JSON does to each parser by itself is in test_kube_objects.py.)
"""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import KubeError
from otel_k8s_cgroup.kube.pods import FilePods
from otel_k8s_cgroup.kube.store import PodStore
from otel_k8s_cgroup.kube.watch import ApiPods, WatchTimes
from otel_k8s_cgroup.model import Pod
from tests.fakes.kube_api import KubeApi, bookmark, event, failing, mirror, stream

from .support import client

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# No deadline: how long an example takes is the machine's affair.
thorough = settings(deadline=None, max_examples=50)

NODE = "node-1"
GONE = event("ERROR", {"kind": "Status", "code": 410, "message": "too old resource version"})

words = st.from_regex(r"[a-z0-9]([a-z0-9.-]{0,20}[a-z0-9])?", fullmatch=True)
any_uids = st.uuids().map(str)
# Keys that are none of ours, with any value: what the API has beside, and what it may have later.
others: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    st.text(st.characters(), max_size=3).map(lambda key: f"x{key}"),
    st.text(st.characters(), max_size=6) | st.sampled_from([None, True, -1, 1e300, [], [[{}]], {"uid": {"uid": None}}]),
    max_size=2,
)


@st.composite
def shuffled(draw: st.DrawFn, ours: dict[str, Any]) -> dict[str, Any]:
    """An object with our keys and others, in any order."""
    return dict(draw(st.permutations([*ours.items(), *draw(others).items()])))


@st.composite
def known_pods(draw: st.DrawFn, uids: st.SearchStrategy[str] = any_uids) -> tuple[dict[str, Any], Pod]:
    """A pod of our node as the API may write it, and what it is to us."""
    uid, name, namespace = draw(uids), draw(words), draw(words)
    config_hash = draw(st.sampled_from([None, uid.replace("-", "")]))
    static = mirror(config_hash or "", node=NODE)
    started = draw(st.none() | st.datetimes().map(lambda moment: f"{moment:%Y-%m-%dT%H:%M:%S}Z".zfill(20)))
    if config_hash is not None:
        name += f"-{NODE}"
    metadata: dict[str, Any] = {"uid": uid, "name": name, "namespace": namespace}
    ordinary = {"kubernetes.io/config.hash": "f" * 32, "kubernetes.io/config.source": "api"}  # as a kubelet has it
    if config_hash is not None or draw(st.booleans()):
        metadata["annotations"] = draw(shuffled(static["annotations"] if config_hash is not None else ordinary))
    if config_hash is not None or draw(st.booleans()):
        metadata["ownerReferences"] = static["ownerReferences"]
    status = {} if started is None else {"startTime": started}
    written = {
        "metadata": draw(shuffled(metadata)),
        "spec": draw(shuffled({"nodeName": NODE})),
        "status": draw(shuffled(status)),
    }
    return draw(shuffled(written)), Pod(uid, name, namespace, NODE, started, config_hash or uid, config_hash)


@st.composite
def lists(draw: st.DrawFn) -> tuple[bytes, list[Pod]]:
    """A PodList as it may be written, with pods of another node or of none yet in it, and which are ours."""
    ours = draw(st.lists(known_pods(), max_size=4, unique_by=lambda known: known[1].cgroup_uid))
    foreign = [
        {**written, "spec": draw(st.sampled_from([{}, {"nodeName": "node-2"}]))}
        for written, _ in draw(st.lists(known_pods(), max_size=2))
    ]
    items = draw(st.permutations([written for written, _ in ours] + foreign))
    answer = draw(shuffled({"items": items, "metadata": draw(shuffled({"resourceVersion": "7"}))}))
    text = json.dumps(answer, ensure_ascii=draw(st.booleans()), indent=draw(st.sampled_from([None, 2])))
    return text.encode("utf-8", "surrogatepass"), [pod for _, pod in ours]


def as_set(pods: tuple[Pod, ...] | list[Pod]) -> set[Pod]:
    assert len(set(pods)) == len(pods)
    return set(pods)


@pytest.fixture(scope="module")
def pods_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pods") / "pods.json"


@thorough
@given(listed=lists())
def test_a_well_formed_file_is_its_pods(pods_file: Path, listed: tuple[bytes, list[Pod]]) -> None:
    """Each field as it was written, whatever stands around it and in whatever order."""
    content, ours = listed
    pods_file.write_bytes(content)
    store = PodStore(NODE)
    FilePods(str(pods_file), wait=lambda _seconds: None).list(store)
    assert as_set(store.pods) == set(ours)
    assert store.skipped_objects == 0


@thorough
@given(
    st.binary(max_size=100)
    | lists().flatmap(lambda listed: st.integers(0, len(listed[0]) - 1).map(lambda cut: listed[0][:cut]))
    | others.map(lambda answer: json.dumps(answer).encode())
)
def test_any_other_file_is_an_error_and_changes_nothing(pods_file: Path, content: bytes) -> None:
    """The pods that were known stay, and the same file is tried again."""
    pods_file.write_bytes(content)
    store = PodStore(NODE)
    store.put(b'{"metadata":{"uid":"u","name":"n","namespace":"ns"},"spec":{"nodeName":"%s"}}' % NODE.encode())
    before = store.pods
    source = FilePods(str(pods_file), wait=lambda _seconds: None)
    for _ in range(2):
        with pytest.raises(KubeError) as caught:
            source.list(store)
        assert str(caught.value).isprintable()
    assert store.pods is before


# --- a watch --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def api() -> Iterator[KubeApi]:
    with KubeApi() as server:
        server.always("watch", failing(500))  # a stream whose end is not understood is not waited for
        yield server


@pytest.fixture(scope="module")
def source(api: KubeApi) -> Iterator[ApiPods]:
    mine = client(api.url)
    yield ApiPods(
        mine,
        stopping=threading.Event(),
        wait=lambda _seconds: None,
        jitter=lambda: 0.0,
        clock=lambda: 0.0,
        times=WatchTimes(),
    )
    mine.close()


few_uids = st.sampled_from([f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{number}" for number in range(3)])
events = st.tuples(st.sampled_from(["ADDED", "MODIFIED", "DELETED"]), known_pods(few_uids))
# What costs nothing but itself: (line, whether it is counted as skipped).
noise = st.sampled_from(
    [
        (bookmark(7), 0),
        (b"\n", 0),
        (event("LATER", {}), 1),
        (event("ADDED", None), 1),
        (event("MODIFIED", {"metadata": {"uid": 7}}), 1),
        (event("DELETED", []), 1),
    ]
)


@thorough
@given(data=st.data(), told=st.lists(events | noise, max_size=8))
def test_any_well_formed_watch_is_followed(api: KubeApi, source: ApiPods, data: st.DataObject, told: list[Any]) -> None:
    """In whatever pieces its lines come; what is known after it is what its events say, one after the other."""
    lines: list[bytes] = []
    skipped = 0
    model: dict[str, Pod] = {}
    for each in told:
        match each:
            case (str(kind), (written, Pod() as pod)):
                lines.append(event(kind, written))
                if kind == "DELETED":
                    model.pop(pod.uid, None)
                else:
                    model[pod.uid] = pod
            case (line, counted):
                lines.append(line)
                skipped += counted
    content = b"".join(lines) + GONE
    cuts = sorted(data.draw(st.sets(st.integers(1, len(content) - 1), max_size=6)))
    pieces = [content[start:end] for start, end in zip([0, *cuts], [*cuts, len(content)], strict=True)]
    api.on("watch", stream(*pieces))
    store = PodStore(NODE)
    source.list(store)
    source.follow(store)
    assert as_set(store.pods) == set(model.values())
    assert store.skipped_objects == skipped
