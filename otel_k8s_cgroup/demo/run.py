"""The demo from beginning to end: what it starts, what happens to its pods, and how it ends."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
import tempfile
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from otel_k8s_cgroup.demo.api_server import ApiServer
from otel_k8s_cgroup.demo.cgroups import CgroupTree
from otel_k8s_cgroup.demo.claims import claimed_work_dir
from otel_k8s_cgroup.demo.exporter import OWN_COMMAND, ExporterProcess, clean_environment, settings_flags
from otel_k8s_cgroup.demo.pods import PODS
from otel_k8s_cgroup.demo.receiver import Receiver
from otel_k8s_cgroup.demo.simulated import SimulatedTree
from otel_k8s_cgroup.demo.store import PointStore
from otel_k8s_cgroup.demo.views import JsonLines, Progress
from otel_k8s_cgroup.errors import CgroupRootError, ExporterError
from otel_k8s_cgroup.signals import STOPPING, StopFlag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import FrameType
    from typing import TextIO

    from otel_k8s_cgroup.demo.pods import DemoPod
    from otel_k8s_cgroup.demo.receiver import Point
    from otel_k8s_cgroup.demo.views import View

_TICK_SECONDS = 0.25
# The exporter needs about 2 s to its first point; a machine may be slow.
_FIRST_POINT_SECONDS = 30.0
# After the last process has ended: one poll of the exporter and its export.
_SETTLE_SECONDS = 5.0
_LOG_LINES_SHOWN = 20


class PodTree(Protocol):
    """Pods as directories, real or simulated."""

    description: str
    reason: str | None
    """Why it is simulated; None where it is real."""
    cgroup_root: Path

    def start(self, pod: DemoPod) -> None: ...
    def stop(self, pod: DemoPod) -> None: ...
    def remove(self, pod: DemoPod) -> None: ...
    def cpu_usage_ns(self, pod: DemoPod) -> int | None: ...
    def close(self) -> None: ...


def run_demo(
    *,
    duration_seconds: float,
    as_json: bool,
    out: TextIO,
    err: TextIO | None = None,
    work_parent: Path | None = None,
    cgroup_mount: Path = Path("/sys/fs/cgroup"),
    simulate_because: str | None = None,
    exporter_command: Sequence[str] = OWN_COMMAND,
) -> int:
    """Runs the demo; the exit code. To be called in the main thread: it answers SIGINT, SIGTERM and SIGHUP meanwhile.

    Args:
        duration_seconds: from the first received point on.
        as_json: one JSON object a point on ``out``, instead of the table.
        err: for notices and errors; None: stderr.
        work_parent: where the demo makes a directory of its own; None: the system's place for temporary files.
        cgroup_mount: where this machine's cgroups are.
        simulate_because: a reason not to make cgroups even where it could.
        exporter_command: what runs the exporter, without settings.
    """
    err = err or sys.stderr
    stop = StopFlag()
    try:
        with (
            _stopped_by_signals(stop),
            contextlib.closing(_view(as_json, out, err, stop)) as view,
            claimed_work_dir(work_parent or Path(tempfile.gettempdir())) as work_dir,
            contextlib.closing(_tree_with_pods(cgroup_mount, work_dir, simulate_because)) as tree,
        ):
            _Demo(tree, work_dir, view, stop, duration_seconds).run(exporter_command)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "rich":
            raise
        return _say(
            err, 2, "the table needs rich: pip install 'otel-k8s-cgroup[demo]' installs it; with --json none is needed"
        )
    except ExporterError as error:
        return _say(err, 1, str(error))
    except OSError as error:
        return _say(err, 1, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror or error))
    return 0


def _say(err: TextIO, exit_code: int, message: str) -> int:
    err.write(f"otel-k8s-cgroup demo: {message}\n")
    return exit_code


def _view(as_json: bool, out: TextIO, err: TextIO, stop: StopFlag) -> View:
    if as_json:
        return JsonLines(out, err, stop)
    from otel_k8s_cgroup.demo.table import table_view  # noqa: PLC0415 - rich is an extra

    return table_view(out, stop)


class _Demo:
    """One run of the pipeline around a tree whose first pods are there."""

    def __init__(self, tree: PodTree, work_dir: Path, view: View, stop: StopFlag, duration_seconds: float) -> None:
        self._tree = tree
        self._work_dir = work_dir
        self._view = view
        self._stop = stop
        self._duration = duration_seconds
        self._store = PointStore()
        self._events: list[str] = []
        self._otlp_url = ""
        self._phase = "starting"

    def run(self, exporter_command: Sequence[str]) -> None:
        """Until the time is over or ``stop`` is set.

        Raises:
            ExporterError: the exporter ended early or sent nothing.
        """
        token = secrets.token_urlsafe(32)
        token_file = self._work_dir / "token"
        token_file.touch(mode=0o600)
        token_file.write_text(token)
        with contextlib.ExitStack() as stack:
            api = stack.enter_context(contextlib.closing(ApiServer(token)))
            receiver = stack.enter_context(contextlib.closing(Receiver(self._receive)))
            self._otlp_url = receiver.url
            for pod in PODS:
                if pod.born_at is None:
                    api.pods.apply(pod.as_object(now=_now(), running=True))
            flags = settings_flags(
                api_url=api.url, token_file=token_file, cgroup_root=self._tree.cgroup_root, otlp_url=receiver.url
            )
            exporter = stack.enter_context(
                contextlib.closing(ExporterProcess([*exporter_command, *flags], clean_environment(os.environ)))
            )
            self._wait_for_first_point(exporter)
            self._play(api, exporter)
            proof = self._settle(exporter)
            self._phase = "done"
            # As it was before the exporter's last reading: that may follow the one before within milliseconds, and
            # percentages of so short a time are not what a user should be left with.
            progress = self._progress()
            status = exporter.stop()
            progress = replace(progress, pod_points=self._store.pod_points, own_points=self._store.own_points)
            self._view.finish(progress, [self._totals(), *proof])
            if status not in (0, -signal.SIGTERM):  # the latter: it had only begun to start
                raise ExporterError(_with_log(f"the exporter did not end cleanly: exit status {status}", exporter))

    def _receive(self, points: list[Point]) -> None:
        self._store.add(points)
        self._view.received(points)

    def _wait_for_first_point(self, exporter: ExporterProcess) -> None:
        give_up = time.monotonic() + _FIRST_POINT_SECONDS
        while not self._store.rows():
            if time.monotonic() > give_up:
                raise ExporterError(_with_log(f"the exporter sent nothing within {_FIRST_POINT_SECONDS:g} s", exporter))
            if not self._tick(exporter):
                return

    def _play(self, api: ApiServer, exporter: ExporterProcess) -> None:
        start = time.monotonic()
        waiting = [(pod.born_at, pod, self._bear) for pod in PODS if pod.born_at is not None]
        waiting += [(pod.ended_at, pod, self._end) for pod in PODS if pod.ended_at is not None]
        while True:
            elapsed = min(time.monotonic() - start, self._duration)
            self._phase = f"{elapsed:.0f} s of {self._duration:g} s"
            for item in [item for item in waiting if elapsed >= item[0] * self._duration]:
                waiting.remove(item)
                _, pod, happen = item
                self._events.append(f"{elapsed:.0f} s: {happen(api, pod)}")
            if not self._tick(exporter) or elapsed == self._duration:
                return

    def _bear(self, api: ApiServer, pod: DemoPod) -> str:
        # In the order of a real node: the API knows the pod, the kubelet makes its cgroup, then its process runs.
        api.pods.apply(pod.as_object(now=_now(), running=False))
        self._tree.start(pod)
        api.pods.apply(pod.as_object(now=_now(), running=True))
        return f"{pod.label} was born; its CPU time is counted from zero"

    def _end(self, api: ApiServer, pod: DemoPod) -> str:
        api.pods.apply(pod.as_object(now=_now(), running=True, ending=True))
        self._tree.remove(pod)
        api.pods.delete(pod.as_object(now=_now(), running=True, ending=True))
        return f"{pod.label} has ended; no more points of it come"

    def _settle(self, exporter: ExporterProcess) -> list[str]:
        """What the deltas of the pod born here add up to, against the counter that they were taken from.

        Its processes are ended and one more reading of the exporter is awaited, so that both tell of the same time.
        """
        pod = next(pod for pod in PODS if pod.born_at is not None)
        if self._stop.is_set():
            return []
        self._phase = "last points"
        self._events.append(f"{self._duration:g} s: {pod.label} has completed; its last reading is awaited")
        self._tree.stop(pod)
        stopped_unix_nano = time.time_ns()
        give_up = time.monotonic() + _SETTLE_SECONDS
        while (row := self._store.row(pod.uid)) is None or row.last_time_unix_nano <= stopped_unix_nano:
            if time.monotonic() > give_up or not self._tick(exporter):
                return []
        counted = self._tree.cpu_usage_ns(pod)
        if row.cpu_time_ns is None or counted is None:
            return []
        verdict = "the same" if row.cpu_time_ns == counted else f"{abs(row.cpu_time_ns - counted)} ns apart"
        born = f"{pod.label}, born during the demo: its cpu_time_delta points add up to {row.cpu_time_ns} ns"
        return [f"{born}, its cgroup's counter is {counted} ns: {verdict}."]

    def _tick(self, exporter: ExporterProcess) -> bool:
        """Shows how things are and waits a moment; false where the demo is to stop.

        Raises:
            ExporterError: the exporter is no more.
        """
        status = exporter.exit_status
        if status is not None:
            raise ExporterError(_with_log(f"the exporter ended early with exit status {status}", exporter))
        self._view.show(self._progress())
        return not self._stop.wait(_TICK_SECONDS)

    def _progress(self) -> Progress:
        return Progress(
            self._tree.description,
            self._tree.reason,
            self._otlp_url,
            self._phase,
            self._store.pod_points,
            self._store.own_points,
            self._store.rows(),
            tuple(self._events),
            time.time_ns(),
        )

    def _totals(self) -> str:
        return (
            f"{self._store.pod_points} points of {len(self._store.rows())} pods and {self._store.own_points} of the "
            "exporter itself came over OTLP; the README shows how to run it on the nodes of a cluster."
        )


def _with_log(message: str, exporter: ExporterProcess) -> str:
    lines = exporter.log[-_LOG_LINES_SHOWN:]
    return "\n  ".join([f"{message}; its last lines:", *lines]) if lines else f"{message}, and logged nothing"


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _tree_with_pods(mount: Path, work_dir: Path, simulate_because: str | None) -> PodTree:
    """Real cgroups where they can be made, else a simulated tree, with the pods that are there from the start."""
    pods = [pod for pod in PODS if pod.born_at is None]
    if simulate_because is None:
        try:
            return _started(CgroupTree(mount, work_dir), pods)
        except CgroupRootError as error:
            simulate_because = str(error)
    return _started(SimulatedTree(work_dir / "simulated", clock=time.monotonic, reason=simulate_because), pods)


def _started(tree: PodTree, pods: Sequence[DemoPod]) -> PodTree:
    try:
        for pod in pods:
            tree.start(pod)
    except BaseException:
        tree.close()
        raise
    return tree


@contextlib.contextmanager
def _stopped_by_signals(stop: StopFlag) -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP (the terminal is gone) set ``stop``, so that everything is removed again."""

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    before = {number: signal.signal(number, on_signal) for number in STOPPING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
