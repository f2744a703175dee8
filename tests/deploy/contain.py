"""Starts a program as a container runtime does: `unshare --mount python -m tests.deploy.contain SPEC`.

SPEC is a JSON object: ``root`` (a directory, which becomes ``/``, read-only), ``mounts`` (``[source, path,
read-only]``), ``uid``, ``environ`` and ``argv``. It becomes the program: a signal to it goes there.
"""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
import sys
from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 24, 38


def main(spec: dict[str, object]) -> None:
    root, uid, environ, argv = Path(str(spec["root"])), spec["uid"], spec["environ"], spec["argv"]
    mounts = spec["mounts"]
    assert isinstance(mounts, list)
    assert isinstance(uid, int)
    assert isinstance(environ, dict)
    assert isinstance(argv, list)
    _mount("--bind", str(root), str(root))
    for source, path, read_only in mounts:
        target = root / path.lstrip("/")
        if Path(source).is_dir():
            target.mkdir(parents=True, exist_ok=True)
        else:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.touch()
        _mount("--rbind", source, str(target))
        if read_only:
            _mount("-o", "remount,bind,ro", str(target))
    for path in ("/dev", "/proc"):
        _mount("--rbind", path, str(root / path.lstrip("/")))
    _mount("-o", "remount,bind,ro", str(root))
    os.chroot(root)
    os.chdir("/")
    libc = ctypes.CDLL(None)
    for capability in range(int(Path("/proc/sys/kernel/cap_last_cap").read_text()) + 1):
        libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    os.execvpe(argv[0], argv, environ)


def _mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
