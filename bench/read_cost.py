"""What a reading of every pod costs, beside a C program that reads the same files and does nothing with them.

python -m bench.read_cost [PODS ...]
"""

from __future__ import annotations

import gc
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from bench.nodes import ALL_CONTROLLERS, DEFAULT_CONTROLLERS, made
from otel_k8s_cgroup.cgroup import NodeCgroups, OpenFiles
from otel_k8s_cgroup.cgroup.plan import Plan
from otel_k8s_cgroup.cgroup.reader import CgroupReader
from otel_k8s_cgroup.figures import DEFAULT_FIGURES, FIGURES, Figure, Format, Source
from otel_k8s_cgroup.model import EntityKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.nodes import Node
    from otel_k8s_cgroup.errors import CgroupError

_SOURCE = Path(__file__).with_name("read_limit.c")

_ABSENT = Figure(
    "absent",
    v2=(Source("memory.none_such", format=Format.SINGLE),),
    v1=(Source("memory.none_such", controller="memory", format=Format.SINGLE),),
)

# A slice of one program's measurement: short, so that what slows the machine down slows both of a pair.
_SLICE_PODS = 2000
_SLICES_A_RUN = 5


def read_cost(node: Node, runs: int = 5, figures: Sequence[Figure] = DEFAULT_FIGURES) -> dict[str, object]:
    """CPU µs a pod, medians of ``5 × runs`` slices measured in turns, and ratios to the C program's slice beside each:

    - ``read``: reading and parsing, of what the C program reads.
    - ``look``: all of ``NodeCgroups.read``, which also lists the pods' directories and makes percentages.
    - ``absent``: as ``read``, with an optional file more that no cgroup has.
    - ``c``: the C program. Without a C compiler it and the ratios are None.

    ``absent_ratio`` is the ratio to ``read``.
    """
    pods = len(node.uids)
    rounds = max(1, _SLICE_PODS // pods)
    wanted = dict.fromkeys(node.uids)
    cgroups = NodeCgroups(str(node.root), open_files=OpenFiles(1 << 20), clock=time.monotonic_ns, parts=((figures, 1),))
    found = len(cgroups.read(wanted, _fail))
    if found != pods:
        raise RuntimeError(f"{found} of {pods} pods were read")
    paths = _open_paths(node.root)
    plan = cgroups.plans(EntityKind.POD)[0]
    plan_with_absent = Plan([*figures, _ABSENT], cgroups.hierarchy.version)
    found_paths = [path for path, _ in cgroups.found.values()]
    files = [_files(cgroups, plan, path) for path in found_paths]
    files_with_absent = [_files(cgroups, plan_with_absent, path) for path in found_paths]

    def read() -> None:
        for each in files:
            each.read(0, _fail)

    def read_with_absent() -> None:
        for each in files_with_absent:
            each.read(0, _fail)

    def look() -> None:
        cgroups.read(wanted, _fail)

    slices: dict[str, list[float]] = {"read": [], "look": [], "absent": [], "c": []}
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, 50, 1_000)
    with _c_program(rounds, paths) as c_program_ns:
        for _ in range(runs * _SLICES_A_RUN):
            for name, work in (("read", read), ("look", look), ("absent", read_with_absent)):
                work()
                before = time.process_time_ns()
                for _ in range(rounds):
                    work()
                slices[name].append((time.process_time_ns() - before) / rounds / pods / 1000)
            if c_program_ns:
                slices["c"].append(c_program_ns() / pods / 1000)
    gc.unfreeze()
    cgroups.close()
    c = slices["c"]
    return {
        "pods": pods,
        "kind": node.kind,
        "figures": len(figures),
        "files_a_pod": len(paths) / pods,
        **{f"{name}_us_a_pod": statistics.median(each) if each else None for name, each in slices.items()},
        **{
            f"{name}_ratio": statistics.median(a / b for a, b in zip(slices[name], c, strict=True)) if c else None
            for name in ("read", "look")
        },
        "absent_ratio": statistics.median(a / b for a, b in zip(slices["absent"], slices["read"], strict=True)),
    }


def _files(cgroups: NodeCgroups, plan: Plan, path: str) -> CgroupReader:
    """One pod's, open from here on."""
    mounts = cgroups.hierarchy.directories
    directories = {controller: mount and mount + path for controller, mount in mounts.items()}
    files = CgroupReader(plan, directories, OpenFiles(1 << 20))
    files.read(0, _fail)
    return files


def _fail(error: CgroupError) -> None:
    raise error


def _open_paths(root: Path) -> list[str]:
    """The cgroup files that this process holds open, in the order in which they were opened (and are read)."""
    below = tuple(f"{os.path.realpath(directory)}/" for directory in (root, *root.iterdir()))
    paths: list[str] = []
    for descriptor in sorted(os.listdir("/proc/self/fd"), key=int):  # noqa: PTH208 names, not paths, are wanted
        with suppress(FileNotFoundError):  # the listing's own
            path = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 a string is wanted
            if path.startswith(below):
                paths.append(path)
    return paths


@contextmanager
def _c_program(rounds: int, paths: list[str]) -> Iterator[Callable[[], float] | None]:
    """What measures CPU nanoseconds a round of the C program; None where there is no compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as directory:
        command = [f"{directory}/read_limit", str(rounds)]
        subprocess.run([compiler, "-O2", "-o", command[0], str(_SOURCE)], check=True)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as program:
            assert program.stdin is not None
            assert program.stdout is not None
            program.stdin.write("\n".join(paths) + "\n\n")
            stdin, stdout = program.stdin, program.stdout

            def measure() -> float:
                stdin.write("\n")
                stdin.flush()
                return float(stdout.readline())

            yield measure


def main() -> None:
    """Prints two JSON objects for each number of pods: of the default figures, and of everything a cgroup knows."""
    # Everything of a pod is some 25 files, and two readers have them open.
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    for pods in [int(argument) for argument in sys.argv[1:]] or [110]:
        for controllers, figures in ((DEFAULT_CONTROLLERS, DEFAULT_FIGURES), (ALL_CONTROLLERS, FIGURES)):
            with made(pods, controllers) as node:
                print(json.dumps(read_cost(node, figures=figures)), flush=True)  # noqa: T201 its output


if __name__ == "__main__":
    main()
