"""``make soak``: faults, churn and restarts at random against a real collector, and the books balanced at the end.

    python -m tests.soak.soak [--duration 10m] [--seed N] [--directory DIRECTORY] [--without FAULT]

The exporter is a process of its own. What it sends goes through a front that breaks (``faults``) to the OpenTelemetry
Collector, and on to a receiver that adds up what came (``arrivals``). The pods are a tree of files whose counters only
the soak moves, so what each has used is known to the nanosecond (``node``). For three fifths of the time the exporter
is ended by SIGTERM and SIGKILL and started again, over one protocol or the other; then one process goes on, so that the
slope of its memory can be told. Now and then all else stands still for a fault that goes over a restart (``episodes``).
Tenants claim the cgroups of other pods all the while (``tenants``). At the end all faults are over, and what has not
arrived then is lost.

A point may rightly arrive twice where its answer was lost, or where the process was killed between the answer and the
note of it in the state file. Such points are counted, and each has to be explained by one of the two.

Exit codes: 0 the books balance, 1 they do not, 3 it cannot be run here (why is said).
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from otel_k8s_cgroup.settings.values import duration
from tests.collectors.programs import collector, why_not
from tests.fakes.kube_api import KubeApi
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.soak.arrivals import Arrivals
from tests.soak.balance import Truth, balance
from tests.soak.disk import SmallDisk
from tests.soak.episodes import PATIENCE_SECONDS, Episodes
from tests.soak.faults import ApiFaults, ReceiverFaults, Turns
from tests.soak.front import Front
from tests.soak.lives import Lives, Pulse
from tests.soak.node import NODE, Node
from tests.soak.report import Report
from tests.soak.tenants import Tenants

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STEP_SECONDS = 0.05
_RESTARTS_FOR = 0.6
_EPISODES_APART_SECONDS = (4.0, 20.0)
"""From one's beginning to the next one's, at least and at most. A soak that is not very short has one of each kind."""
_LEAST_CALM_SECONDS = 2.0
"""In which the other faults go on."""

FAULTS = ("claims", "full disk", "outage", "stalled stderr", "wrong root")
"""Those that can be left out by name, to see what the others do."""


class Log:
    """A file of what happened and when, to find out with why the books do not balance."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("w", buffering=1)
        self._began = time.monotonic()

    def __call__(self, text: str) -> None:
        self._file.write(f"{time.monotonic() - self._began:8.3f} {time.time_ns()} {text}\n")

    def close(self) -> None:
        self._file.close()


class Soak:
    """All that takes part; ``run`` runs it.

    Args:
        directory: an empty one, for all files.
        seed: of all that is random. (When a thing happens also depends on the machine.)
        seconds: how long faults and churn go on.
        without: which of ``FAULTS`` are left out.
    """

    def __init__(self, directory: Path, seed: int, seconds: float, without: Sequence[str] = ()) -> None:
        self._directory = directory
        self._seconds = seconds
        self._chance = random.Random(seed)
        self._exits = ExitStack()
        self._log = Log(directory / "soak.log")
        self._exits.callback(self._log.close)
        self._arrivals = Arrivals()
        far = self._exits.enter_context(OtlpReceiver("grpc", respond=self._arrivals.respond))
        self._collector = self._exits.enter_context(collector("otelcol", directory, far.endpoint))
        self._api = self._exits.enter_context(KubeApi())
        self._token_file = directory / "token"
        self._rotate_token()
        self._left_out = [f"{fault}: --without" for fault in without]
        disk = self._small_disk(directory / "state", without)
        self._state_file = directory / "state" / "state.json"
        self._node = Node(
            self._api,
            directory / "cgroup",
            self._chance,
            self._arrivals.newest_ns,
            self._log,
            forges="claims" not in without,
        )
        self._front = Front(0)
        self._exits.callback(self._front.close)
        self._front.relay()
        self._api_front = Front(self._api.port)
        self._exits.callback(self._api_front.close)
        self._api_front.relay()
        self._receiver_faults = ReceiverFaults(
            self._front, self._collector, self._chance, may_reject=lambda: not self._node.ended
        )
        self._exits.callback(self._receiver_faults.close)
        self._lives = Lives(self._flags, self._state_file, self._log)
        self._exits.callback(self._lives.close)
        self._pulse = Pulse()
        api_faults = ApiFaults(self._api, self._api_front, self._chance)
        self._receiver_turns = self._turns(
            self._receiver_faults.break_it, self._receiver_faults.mend_it, (0.5, 6), (0.2, 4), 15
        )
        self._turns_of_others = [
            self._turns(api_faults.break_it, api_faults.mend_it, (1, 6), (0.2, 5), 15),
            self._turns(self._unmount, self._node.mount_again, (10, 40), (0.3, 3), 6),
            self._turns(self._rotate_token, lambda: None, (5, 30), (0, 0), 0),
        ]
        if "stalled stderr" not in without:
            self._turns_of_others.append(self._turns(self._lives.stall, self._lives.read_on, (3, 15), (2, 8), 15))
        self._tenants = None
        if "claims" not in without:
            self._tenants = Tenants(self._api, NODE, self._chance, lambda: [p for p in self._node.pods if p.told])
        self._episodes = Episodes(
            node=self._node,
            lives=self._lives,
            start=self._start,
            mend=self._mend,
            front=self._front,
            arrivals=self._arrivals,
            disk=disk,
            state_file=self._state_file,
            directory=directory,
            chance=self._chance,
            log=self._log,
            without=without,
        )
        self._next_restart = self._next_episode = 0.0
        least, most = _EPISODES_APART_SECONDS
        self._episodes_apart = min(most, max(least, seconds * _RESTARTS_FOR / 4))

    def run(self) -> Report:
        """All of it, to the end."""
        with self._exits:
            self._lives.start()
            # What was there before is counted from its first reading, so until then it stands still.
            old = [pod.path for pod in self._node.pods]
            if not self._arrivals.wait_for(lambda: self._step_quietly(old), PATIENCE_SECONDS):
                self._lives.failures.append("nothing arrived at all")
                return self._report(0)
            began = time.monotonic()
            self._next_restart = began + self._chance.uniform(2, 6)
            self._next_episode = began + self._episodes_apart
            while (elapsed := time.monotonic() - began) < self._seconds and not self._lives.failures:
                self._step(restarts=elapsed < self._seconds * _RESTARTS_FOR)
                time.sleep(_STEP_SECONDS)
            self._log("all is mended")
            self._end()
            return self._report(time.monotonic() - began)

    def _step_quietly(self, old: Sequence[str]) -> bool:
        self._node.step(runs=False, rejecting=False, acts=False)
        return all(self._arrivals.newest_ns(path) for path in old)

    def _step(self, *, restarts: bool) -> None:
        if restarts and time.monotonic() >= self._next_episode and self._lives.runs:
            self._episodes.run_next()
            self._pulse = Pulse()
            self._next_episode = max(self._next_episode + self._episodes_apart, time.monotonic() + _LEAST_CALM_SECONDS)
            self._next_restart = time.monotonic() + self._chance.uniform(1, 4)
        self._node.use()
        self._lives.step()
        self._node.step(runs=self._lives.runs, rejecting=self._receiver_faults.rejects)
        if self._tenants is not None:
            self._tenants.step()
        if reason := self._pulse.missing(self._node.ticks_seen, ticks=self._lives.runs and self._node.is_mounted):
            self._lives.failures.append(reason)
        self._receiver_turns.step()
        for turns in self._turns_of_others:
            turns.step()
        if time.monotonic() < self._next_restart and restarts:
            return
        if not self._lives.is_there:
            self._start()
            self._next_restart = time.monotonic() + self._chance.choice(
                [self._chance.uniform(0, 3), self._chance.uniform(3, 15)]
            )
        elif restarts and self._lives.runs and self._may_restart():
            self._lives.end(self._chance.choice([signal.SIGTERM, signal.SIGKILL, signal.SIGKILL]))
            self._next_restart = time.monotonic() + self._chance.choice([0, self._chance.uniform(0, 3)])

    def _may_restart(self) -> bool:
        return bool(self._lives.remembered()) and self._node.may_restart

    def _start(self, *flags_instead: str) -> None:
        if self._receiver_turns.is_ill:
            self._receiver_turns.mend()  # what breaks is broken in the protocol of a process
        self._lives.start(*flags_instead)
        self._node.restarted()
        self._pulse = Pulse()

    def _flags(self) -> list[str]:
        chance, faults = self._chance, self._receiver_faults
        faults.protocol = chance.choice(["grpc", "http/protobuf"])
        url = self._collector.grpc if faults.protocol == "grpc" else self._collector.http
        self._front.target_port = int(url.rpartition(":")[2])
        return [
            *("--k8s-node", NODE),
            *("--k8s-api-url", f"http://127.0.0.1:{self._api_front.port}"),
            *("--token-retrieval", f'{{ file = "{self._token_file}" }}'),
            *("--cgroup-root", str(self._directory / "cgroup")),
            *("--state-file", str(self._state_file)),
            *("--poll-interval", "200ms"),
            *("--export-interval", chance.choice(["200ms", "200ms", "600ms"])),
            *("--queue-bytes", chance.choice(["128KiB", "16MiB"])),
            *("--otlp-endpoint", f"http://127.0.0.1:{self._front.port}"),
            *("--otlp-protocol", faults.protocol),
            *("--otlp-timeout", "3s"),
            *("--otlp-compression", chance.choice(["none", "gzip"])),
        ]

    def _turns(
        self,
        break_it: Callable[[], str | None],
        mend_it: Callable[[], None],
        well_seconds: tuple[float, float],
        ill_seconds: tuple[float, float],
        longest_seconds: float,
    ) -> Turns:
        return Turns(self._chance, break_it, mend_it, self._log, well_seconds, ill_seconds, longest_seconds)

    def _small_disk(self, directory: Path, without: Sequence[str]) -> SmallDisk | None:
        if "full disk" not in without:
            try:
                disk = SmallDisk(directory)
            except OSError as error:
                self._left_out.append(f"full disk: a tmpfs cannot be mounted here ({error.strerror})")
            else:
                self._exits.callback(disk.close)
                return disk
        directory.mkdir(exist_ok=True)
        return None

    def _mend(self) -> None:
        for turns in [self._receiver_turns, *self._turns_of_others]:
            turns.mend()

    def _unmount(self) -> str | None:
        return "cgroup root gone" if self._node.unmount() else None

    def _rotate_token(self) -> str:
        self._api.token = f"token-{self._chance.randrange(10**9)}"
        self._token_file.write_text(self._api.token)
        return "token rotated"

    def _end(self) -> None:
        """Everything is well again; all is delivered, and the exporter ends."""
        self._episodes.settle()
        if self._lives.runs:
            self._lives.end(signal.SIGTERM)
        while self._lives.is_there:
            self._lives.step()
            time.sleep(_STEP_SECONDS)

    def _report(self, seconds: float) -> Report:
        lives, node = self._lives, self._node
        faults: dict[str, int] = dict(self._receiver_turns.counts)
        for turns in self._turns_of_others:
            faults |= turns.counts
        for name, count in self._episodes.counts.items():
            faults[f"over a restart: {name}"] = count
        if self._tenants is not None:
            for flaw, count in self._tenants.counts.items():
                faults[f"claim of a cgroup: {flaw}"] = count
        truth = Truth(node.used, node.absences, node.names, self._episodes.pauses, self._episodes.ended_in_outage)
        return Report(
            seconds=seconds,
            balance=balance(truth, self._arrivals, self._receiver_faults.lost, lives.all),
            points=self._arrivals.points,
            series=len(self._arrivals.series),
            own=self._arrivals.own(),
            faults=faults,
            pods=node.counts,
            alive=len(node.pods),
            restarts=lives.counts,
            lives=lives.all,
            failures=lives.failures,
            left_out=self._left_out,
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.soak", description=__doc__.split("\n")[0])
    parser.add_argument("--duration", default="10m", help="how long faults and churn go on (default: 10m)")
    parser.add_argument("--seed", type=int, default=None, help="of an earlier run, to have the same again")
    parser.add_argument(
        "--directory", type=Path, default=None, help="an empty one for all files (default: a temporary one)"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=FAULTS, help="a fault to leave out; can be given repeatedly"
    )
    given = parser.parse_args(arguments)
    seconds = duration(timedelta(seconds=1), timedelta(days=7))(given.duration).total_seconds()
    seed = random.SystemRandom().randrange(10**6) if given.seed is None else given.seed
    if reason := why_not("otelcol"):
        sys.stdout.write(f"no soak: {reason}\n")
        return 3
    directory = given.directory or Path(tempfile.mkdtemp(prefix="soak-"))
    directory.mkdir(parents=True, exist_ok=True)
    if any(directory.iterdir()):
        sys.stdout.write(f"no soak: --directory {directory} must be empty: what is in it would be read too\n")
        return 2
    # Ended by force, it takes its processes with it: one that is left would read the next soak's files.
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    sys.stdout.write(f"soak: {given.duration}, seed {seed}, files in {directory}\n")
    sys.stdout.flush()
    report = Soak(directory, seed, seconds, given.without).run()
    sys.stdout.write(report.text())
    return 1 if report.problems() else 0


if __name__ == "__main__":
    sys.exit(main())
