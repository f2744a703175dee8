"""The first process of a User-Mode-Linux kernel: makes a machine with cgroup v2 of it, runs pytest, powers it off.

Started by the kernel with no environment to speak of, on the host's files (read-only); its arguments are a directory of
the host that may be written, and the file of the tests.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
import subprocess
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REPORT = "report.xml"
DONE = "User-Mode-Linux: pytest has ended"

# From <linux/if.h>, <linux/sockios.h>, <linux/reboot.h>.
_IFF_UP = 1
_SIOCSIFFLAGS = 0x8914
_RB_POWER_OFF = 0x4321FEDC

_REPOSITORY = Path(__file__).parents[2]
_libc = ctypes.CDLL(None, use_errno=True)


def mount(kind: str, target: str, options: str = "") -> None:
    Path(target).mkdir(exist_ok=True)
    if _libc.mount(b"none", target.encode(), kind.encode(), 0, options.encode()) != 0:
        number = ctypes.get_errno()
        if number != errno.EBUSY:  # mounted already: the kernel itself does so with /dev, where it is built to
            raise OSError(number, f"mount {kind}: {os.strerror(number)}", target)


def set_loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))


def _run_pytest(arguments: Sequence[str]) -> None:
    host_directory, tests = arguments[:2]
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("devtmpfs", "/dev")
    # The one place that may be written. Not /tmp: the repository or its virtual environment may be there.
    mount("tmpfs", "/run")
    mount("hostfs", "/run/host", host_directory)
    mount("cgroup2", "/sys/fs/cgroup")
    Path("/sys/fs/cgroup/cgroup.subtree_control").write_text("+cpu +memory +pids +io", encoding="ascii")
    set_loopback_up()
    for name in ("tmp", "home"):
        Path("/run", name).mkdir()
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            f"--junitxml=/run/host/{REPORT}",
            "-p",
            "no:cacheprovider",
            "--color=no",
            tests,
        ],
        cwd=_REPOSITORY,
        env={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/run/home",
            "TMPDIR": "/run/tmp",
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        check=False,
    )


def run(work: Callable[[Sequence[str]], None]) -> None:
    """Does the work of the first process, which is given its arguments, and switches the machine off."""
    try:
        # The kernel adds a word of its own (`console=…`) behind ours.
        work(sys.argv[1:])
        print(DONE)  # noqa: T201 to the console, which the harness reads
    except Exception:  # noqa: BLE001 whatever it is, the machine must be switched off, or it waits for ever
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os.sync()
        _libc.reboot(_RB_POWER_OFF)


if __name__ == "__main__":
    run(_run_pytest)
