"""Everything that can happen to the state file and the disk below it: nothing counts twice, and the sending goes on."""

from __future__ import annotations

import fcntl
import json
import logging
import os
import subprocess
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ExportError, ExportRejected, ExportRetryable, SettingsError
from otel_k8s_cgroup.export import Exporter, StateFile, StateSaver
from otel_k8s_cgroup.instruments import Instruments
from otel_k8s_cgroup.schemas import ALUMET
from tests.fakes.node import DirectReceiver, Node
from tests.otlp import cpu_time, points

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from otel_k8s_cgroup.export.state import Remembered

STALE = "it is out of date, and after a restart pods count from their first reading"


class Site:
    """A receiver that may be down, and a node whose state file is in ``home``."""

    def __init__(self, home: Path, root: Path) -> None:
        self.error: ExportError | None = None
        self.receiver = DirectReceiver(lambda: self.error)
        self.path = home / "state.json"
        root.mkdir()
        self.node = Node(root, self.receiver, state_file=self.path)

    def tick(self, usec: int = 1000) -> None:
        for uid in self.node.pods:
            self.node.use(uid, usec)
        self.node.read()
        self.node.deliver()

    def restart(self) -> None:
        """As after SIGKILL."""
        self.node.cgroups.close()
        self.node.restart()

    def total_usec(self, uid: str) -> int:
        return cpu_time(points(self.receiver.requests), uid).get("total", 0) // 1000

    def close(self) -> None:
        self.node.close()


@pytest.fixture
def make_site(tmp_path: Path) -> Iterator[Callable[..., Site]]:
    made: list[Site] = []

    def make(home: Path = tmp_path) -> Site:
        made.append(Site(home, tmp_path / f"cgroup-{len(made)}"))
        return made[-1]

    yield make
    for site in made:
        site.close()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of its own."""
    at = tmp_path / "disk"
    at.mkdir()
    mount: list[str | Path] = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", at]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("nothing may be mounted here")
    yield at
    subprocess.run(["umount", "-l", at], check=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_after_a_full_disk_the_old_file_is_not_believed(
    make_site: Callable[..., Site], disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What was delivered meanwhile is not counted again; the log says what a restart does, and that it is over."""
    site = make_site(disk)
    uid = site.node.start(1)
    for _ in range(3):
        site.tick()
    _fill(disk)
    for _ in range(3):
        site.tick()
    assert warnings(caplog) == [
        (f"state_file {site.path} is not used: it cannot be written: No space left on device; {STALE}")
    ]
    assert json.loads(site.path.read_bytes())["version"] == 0
    site.restart()
    assert "it was out of date: its exporter could not write it; set aside" in warnings(caplog)[1]
    (disk / "full").unlink()
    for _ in range(3):
        site.tick()
    assert site.total_usec(uid) == 5000 + 2000, "from the second process's first reading on"
    site.restart()
    site.tick()
    assert site.total_usec(uid) == 5000 + 3000, "and by then it is written again"


def _fill(disk: Path) -> None:
    with (disk / "full").open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1024))


def test_a_disk_that_turns_read_only(
    make_site: Callable[..., Site], disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing can be done to the old file, and the log says so; while it stays so, a restart does not believe it."""
    site = make_site(disk)
    uid = site.node.start(1)
    for _ in range(3):
        site.tick()
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for _ in range(3):
        site.tick()
    (line,) = warnings(caplog)
    assert line == (
        f"state_file {site.path} is not used: it cannot be written: Read-only file system ({site.path}.tmp); "
        "remove it before the next start, which else counts twice what is delivered from here on"
    )
    site.restart()
    for _ in range(3):
        site.tick()
    assert site.total_usec(uid) == 5000 + 2000
    assert warnings(caplog)[1:] == [
        (
            f"state_file {site.path} is not used: {disk} cannot be written to; "
            "remove it before the next start, which else counts twice what is delivered from here on"
        )
    ]
    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    site.tick()
    site.restart()
    site.tick()
    assert site.total_usec(uid) == 5000 + 4000, "written again as soon as that is possible"


def test_a_file_that_can_neither_be_replaced_nor_removed_is_marked(
    make_site: Callable[..., Site], disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In place; the next start sets it aside."""
    site = make_site(disk)
    uid = site.node.start(1)
    for _ in range(3):
        site.tick()
    holder = os.open(site.path, os.O_RDONLY)
    # A mount point can be neither removed nor renamed over.
    subprocess.run(["mount", "--bind", site.path, site.path], check=True)
    try:
        for _ in range(3):
            site.tick()
        assert STALE in warnings(caplog)[0]
        assert os.pread(holder, 46, 0).endswith(b'"version":0,')
    finally:
        subprocess.run(["umount", site.path], check=True)
        os.close(holder)
    site.restart()
    for _ in range(2):
        site.tick()
    assert "it was out of date: its exporter could not write it; set aside" in warnings(caplog)[1]
    assert site.total_usec(uid) == 5000 + 1000


def test_another_cgroup_root_is_another_node(make_site: Callable[..., Site], caplog: pytest.LogCaptureFixture) -> None:
    """A first run below a wrong root has seen no pod: the next one does not send their whole lives."""
    wrong = make_site()
    wrong.node.start(7)
    wrong.tick()
    wrong.tick()
    wrong.close()
    saved = wrong.path.read_bytes()
    wrong.path.unlink()
    right = make_site()
    right.node.mono_ns = wrong.node.mono_ns
    right.path.write_bytes(saved)
    right.restart()
    uid = right.node.start(1, used_usec=10**9)
    right.tick()
    right.tick()
    assert right.total_usec(uid) == 1000
    assert "the state file is of another cgroup root" in caplog.text


def test_a_level_that_could_not_be_listed_hides_pods(make_site: Callable[..., Site]) -> None:
    """A pod that was there unseen is no new one to the next process; one elsewhere that it had not seen is."""
    site = make_site()
    site.node.start(1)
    site.tick()
    site.tick()
    saved = json.loads(site.path.read_bytes())
    assert saved["unlisted"] == []
    site.path.write_text(json.dumps(saved | {"unlisted": ["/kubepods/burstable/"], "pods": {}}))
    site.restart()
    hidden = site.node.start(2, used_usec=10**9)
    level = site.node.root / "kubepods" / "burstable"
    level.mkdir()
    (site.node.root / "kubepods" / f"pod{hidden}").rename(level / f"pod{hidden}")
    new = site.node.start(3, used_usec=500)
    site.tick()
    site.tick()
    assert site.total_usec(hidden) == 1000
    assert site.total_usec(new) == 500 + 2000
    (level / f"pod{hidden}").rename(site.node.root / "kubepods" / f"pod{hidden}")


def test_a_file_of_version_2_is_read_as_far_as_it_is_sure(make_site: Callable[..., Site]) -> None:
    """Known cgroups go on; one that it does not name may have been below another root."""
    site = make_site()
    known = site.node.start(1)
    for _ in range(3):
        site.tick()
    saved = json.loads(site.path.read_bytes()) | {"version": 2}
    saved["pods"] = saved["cgroups"]
    for key in ("root", "unlisted", "values", "waiting", "cgroups", "kinds"):
        del saved[key]
    site.path.write_text(json.dumps(saved))
    site.restart()
    unknown = site.node.start(2, used_usec=10**9)
    site.tick()
    site.tick()
    assert site.total_usec(known) == 4000
    assert site.total_usec(unknown) == 1000


@pytest.mark.parametrize("end", ["kill", "close"])
def test_a_pod_that_ended_in_an_outage_outlives_a_restart(make_site: Callable[..., Site], end: str) -> None:
    """All that was read of it arrives, whenever the receiver is back; so does that of one that ends in between."""
    site = make_site()
    node = site.node
    node.read()
    ended, ends, stays = node.start(1), node.start(2), node.start(3)
    site.tick()
    site.error = ExportRetryable("receiver", "refused", "down")
    site.tick()
    site.tick()
    node.end(ended)
    node.read()
    for _ in range(2):
        if end == "close":
            node.exporter.start()
            assert not node.exporter.close(0.6)
        site.restart()
        if ends in node.pods:
            node.end(ends)
        site.tick()
    site.error = None
    node.read()
    node.deliver()
    node.tick()
    node.assert_conserved(site.receiver.requests)
    assert site.total_usec(stays) == 5000
    assert node.exporter.stats.lost_ns == 0
    assert json.loads(site.path.read_bytes())["waiting"] == []


def test_what_waits_and_is_refused_after_a_restart_is_counted_as_lost(make_site: Callable[..., Site]) -> None:
    """It has no next point."""
    site = make_site()
    site.node.read()
    uid = site.node.start(1)
    site.error = ExportRetryable("receiver", "refused", "down")
    site.tick()
    site.node.end(uid)
    site.node.read()
    site.restart()
    site.error = ExportRejected("receiver", "HTTP 400", "too old")
    site.node.read()
    site.node.deliver()
    site.node.read()
    assert site.node.exporter.stats.lost_ns == 1_000_000


def test_a_second_exporter_does_without(
    make_site: Callable[..., Site], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It says so in one line, leaves the file alone while the first runs, and has it from then on."""
    first = make_site()
    first.node.start(1)
    first.tick()
    first.tick()
    before = first.path.read_bytes()
    second = make_site()
    second.node.start(1)
    for _ in range(3):
        second.tick()
    assert first.path.read_bytes() == before
    assert warnings(caplog) == [
        (
            f"state_file {first.path} is not used: another exporter uses it; "
            "after a restart pods count from their first reading"
        )
    ]
    first.close()
    second.tick()
    second.restart()
    second.tick()
    assert cpu_time(points(second.receiver.requests), next(iter(second.node.pods)))["total"] == 4_000_000


def test_the_lock_ends_with_the_process(tmp_path: Path) -> None:
    """It is the system's: a lock file that is left behind locks nothing."""
    path = tmp_path / "state"
    (tmp_path / "state.lock").write_text("")
    file = StateFile(str(path))
    with (tmp_path / "state.lock").open() as lock:
        exporter = Exporter(DirectReceiver(), Instruments(ALUMET), queue_bytes=1, state=StateSaver(file))
        with pytest.raises(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        exporter.start()
        exporter.close(1)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("place", ["state.json.tmp", "state.json.lock"])
def test_a_pipe_in_place_of_a_file_stops_nothing(make_site: Callable[..., Site], tmp_path: Path, place: str) -> None:
    """Whoever may write to the directory may put one there."""
    os.mkfifo(tmp_path / place)
    site = make_site()
    uid = site.node.start(1)
    for _ in range(3):
        site.tick()
    assert site.total_usec(uid) == 2000
    assert site.path.exists() == (place == "state.json.tmp")


class Hanging(StateFile):
    """On a disk that hangs until ``disk`` is set."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.disk = threading.Event()

    def load(self) -> Remembered | None:
        self.disk.wait(60)
        return super().load()

    def save(self, remembered: Remembered) -> None:
        self.disk.wait(60)
        super().save(remembered)


def test_a_disk_that_hangs_stops_neither_the_sending_nor_the_end(
    make_site: Callable[..., Site], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One line says that a save is late, the next that it is done; the file then has the newest state."""
    site = make_site()
    node = site.node
    file = Hanging(tmp_path / "hanging")
    file.disk.set()
    saver = StateSaver(file, save_seconds=0.05)
    node.exporter = Exporter(site.receiver, Instruments(ALUMET), queue_bytes=1 << 20, state=saver)
    node.agent._exporter = node.exporter  # the agent's; a Node makes its own saver
    uid = node.start(1)
    site.tick()
    file.disk.clear()
    for _ in range(5):
        site.tick()
    assert site.total_usec(uid) == 5000
    assert warnings(caplog) == [
        (
            f"state_file {file.path}: a save takes longer than 0.05 s; sending goes on, and a restart before it is "
            "done counts twice what is delivered meanwhile"
        )
    ]
    threading.Timer(0.2, file.disk.set).start()
    node.exporter.start()
    node.exporter.close(1.0)
    saver.close(60)
    assert json.loads(file.path.read_bytes())["cgroups"][uid]["bases"][0][2] == 6_000_000


def test_a_disk_that_hangs_at_the_start_is_not_waited_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What it holds is not used; what is not ours there is left alone when that is found out."""
    path = tmp_path / "state"
    path.write_text("precious")
    file = Hanging(path)
    saver = StateSaver(file, load_seconds=0.05, save_seconds=0.05)
    exporter = Exporter(DirectReceiver(), Instruments(ALUMET), queue_bytes=1, state=saver)
    assert "cannot be read within 0.05 s: pods that are there count from their first reading" in caplog.text
    file.disk.set()
    exporter.start()
    exporter.close(1.0)
    saver.close(60)
    assert path.read_text() == "precious"
    assert "it is no state file of this exporter; allowed is a path where nothing is yet; this run" in caplog.text


def test_what_is_not_ours_is_refused_at_the_start(tmp_path: Path) -> None:
    """By the exporter as a whole."""
    path = tmp_path / "state"
    path.write_text("precious")
    with pytest.raises(SettingsError, match="no state file"):
        Exporter(DirectReceiver(), Instruments(ALUMET), queue_bytes=1, state=StateSaver(StateFile(str(path))))
    assert path.read_text() == "precious"
