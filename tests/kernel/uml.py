"""Boots a User-Mode-Linux kernel as a program, to run tests in it (see ``uml_init.py``)."""

from __future__ import annotations

import os
import platform
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from tests.kernel import uml_init

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_KERNEL = "linux.uml"
_TIMEOUT_SECONDS = 180.0


def why_not() -> str | None:
    """Why it cannot be booted on this machine; None where it can."""
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return "User-Mode-Linux is for Linux on x86_64"
    if shutil.which(_KERNEL) is None:
        return f"{_KERNEL} is not installed (Debian and Ubuntu: apt-get install user-mode-linux)"
    return None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a test has ended there; ``failure`` is pytest's own report of it, ``skipped`` the reason."""

    failure: str | None = None
    skipped: str | None = None


def run_pytest(directory: Path, tests: str, disks: int = 0) -> Mapping[str, Outcome]:
    """Test name (with its parameters) → outcome, of the file ``tests`` run there. ``directory`` must be empty. So many
    ``disks`` of 64 MiB, ``/dev/ubda`` the first, are empty.

    Raises:
        AssertionError: it did not boot, or pytest made no report; with the console's last lines.
    """
    boot(directory, uml_init.__file__, [tests], memory="1G", timeout_seconds=_TIMEOUT_SECONDS, disks=disks)
    return outcomes(directory / uml_init.REPORT)


def boot(
    directory: Path, init: str, arguments: Sequence[str], *, memory: str, timeout_seconds: float, disks: int = 0
) -> None:
    """Runs the kernel with the Python file ``init`` as its first process, which is given ``directory`` and
    ``arguments``, and which must print ``uml_init.DONE`` and leave ``uml_init.REPORT`` in the directory.

    Raises:
        AssertionError: it did not; with the console's last lines.
    """
    images = [directory / f"disk{number}" for number in range(disks)]
    for image in images:
        image.touch()
        os.truncate(image, 64 << 20)
    command = [
        _KERNEL,
        "root=none",
        "rootfstype=hostfs",
        "hostfs=/",
        "ro",
        f"mem={memory}",
        "quiet",
        "con=null",
        "con0=fd:0,fd:1",
        f"uml_dir={directory}",
        *(f"ubd{number}={image}" for number, image in enumerate(images)),
        f"init={sys.executable}",
        "--",
        # Isolated: the kernel hands what it does not know to the first process as environment.
        "-I",
        init,
        str(directory),
        *arguments,
    ]
    console = directory / "console.txt"
    with console.open("wb") as output:
        # In a session of its own, so that all of its processes can be ended at once.
        kernel = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            kernel.wait(timeout_seconds)
            ended = f"exit code {kernel.returncode}"
        except subprocess.TimeoutExpired:
            ended = f"not within {timeout_seconds:g} s"
        finally:
            if kernel.returncode is None:
                os.killpg(kernel.pid, signal.SIGKILL)
                kernel.wait()
    text = console.read_text("utf-8", "replace")
    if uml_init.DONE not in text or not (directory / uml_init.REPORT).exists():
        raise AssertionError(f"{_KERNEL} ended without a report ({ended}); its console:\n{text[-4000:]}")


def outcomes(report: Path) -> dict[str, Outcome]:
    """Of a report of pytest's in JUnit's XML."""
    found: dict[str, Outcome] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        failed = [case.find(tag) for tag in ("failure", "error")]
        skipped = case.find("skipped")
        found[case.attrib["name"]] = Outcome(
            next((each.text or "failed" for each in failed if each is not None), None),
            None if skipped is None else skipped.attrib.get("message", ""),
        )
    return found
