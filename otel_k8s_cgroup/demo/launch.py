"""Becomes another program, inside given cgroups and bound to the life of the process that started it.

``python -I -S launch.py PARENT SIGNAL [CGROUP_PROCS …] -- PROGRAM [ARGUMENT …]``

The cgroups are entered before the program is loaded, so all its memory is charged to them. When the parent dies in any
way, SIGKILL included, the kernel sends SIGNAL (Linux only: elsewhere the demo has no processes but the exporter).
Exit status before the program has begun: the errno of what was refused.
"""

from __future__ import annotations

import ctypes
import os
import sys

_PR_SET_PDEATHSIG = 1  # prctl(2); it stays over an execve


def main(arguments: list[str]) -> None:
    divide = arguments.index("--")
    parent, signal_number, *procs_files = arguments[:divide]
    program = arguments[divide + 1 :]
    try:
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != int(parent):
            return  # it died before the kernel was told
        for procs_file in procs_files:
            descriptor = os.open(procs_file, os.O_WRONLY)
            os.write(descriptor, str(os.getpid()).encode())
            os.close(descriptor)
        os.execv(program[0], program)  # noqa: S606 - to become that program is what this one is for
    except OSError as error:
        sys.stderr.write(f"{program[0]}: {error}\n")
        sys.exit(error.errno)


if __name__ == "__main__":
    main(sys.argv[1:])
