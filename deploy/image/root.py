"""Fills an empty directory with all that a program in a virtual environment needs to run, and nothing else.

`python root.py ROOT VENV`: the interpreter, its standard library and the shared libraries that these and the
environment's packages load, each at its own path below ROOT. There is no shell, no pip and no package manager.
deploy/Dockerfile runs it in the base image, so it needs Python's standard library, glibc's `ldd` and nothing else.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of the standard library: tests, graphics, databases, terminals, other protocols, and what installs packages.
_LEFT_OUT = frozenset(
    {
        "site-packages",
        "dist-packages",
        "test",
        "tests",
        "idlelib",
        "tkinter",
        "turtledemo",
        "turtle.py",
        "sqlite3",
        "dbm",
    }
    | {
        "curses",
        "ensurepip",
        "venv",
        "lib2to3",
        "distutils",
        "pydoc_data",
        "msilib",
        "__phello__",
        "unittest",
        "xmlrpc",
    }
    | {"wsgiref", "doctest.py"}
)
_EXTENSIONS_LEFT_OUT = re.compile(
    r"(_tkinter|_test\w*|_ctypes_test|xx\w*|_sqlite3|_curses\w*|readline|_dbm|_gdbm|nis|_crypt|_codecs_\w+)\..*so"
)
# Of the environment: what only a shell or an installer reads.
_ENVIRONMENT_LEFT_OUT = re.compile(
    r"([Aa]ctivate.*|pip[\d.]*|pip-.*|setuptools.*|pkg_resources|_distutils_hack|wheel.*)"
)
# What glibc loads by name at run time: to look up hosts, and to end threads.
_BY_NAME = ("libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2", "libgcc_s.so.1")
_FILES = {
    "etc/passwd": "root:x:0:0:root:/:/nologin\nnonroot:x:65532:65532:nonroot:/nonexistent:/nologin\n",
    "etc/group": "root:x:0:\nnonroot:x:65532:\n",
    # Else /etc/hosts, which a kubelet writes, would come after DNS.
    "etc/nsswitch.conf": "hosts: files dns\n",
}
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# Where libraries are that are in no directory of the dynamic linker's own, as /usr/local/lib.
_LOADERS_CACHE = Path("/etc/ld.so.cache")
_DIRECTORIES = ("dev", "proc", "sys", "tmp")


def make_root(root: Path, environment: Path) -> None:
    """``root`` is empty; ``environment`` is a virtual environment of the Python that runs this."""
    for name in ("/bin", "/lib", "/lib64"):
        if Path(name).is_symlink():  # the dynamic linker's own path goes through one
            _copy(root, Path(name))
    for path in _interpreter(environment):
        _copy(root, path)
    for path in _files(Path(sysconfig.get_path("stdlib", vars=_base())), _is_left_out):
        _copy(root, path)
    for path in _files(environment, lambda name: _ENVIRONMENT_LEFT_OUT.fullmatch(name) is not None):
        _copy(root, path)
    for path in _libraries([path for path in root.rglob("*") if path.is_file() and _is_object(path)], root):
        _copy(root, path)
    if _CERTIFICATES.exists():
        _copy(root, _CERTIFICATES)
        by_default = root / ssl.get_default_verify_paths().openssl_cafile.lstrip("/")
        if not by_default.exists():
            by_default.parent.mkdir(parents=True, exist_ok=True)
            by_default.symlink_to(_CERTIFICATES)
    if _LOADERS_CACHE.exists():
        _copy(root, _LOADERS_CACHE)
    for name, text in _FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    for name in _DIRECTORIES:
        (root / name).mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    _strip(root)
    _compile(root)


def _interpreter(environment: Path) -> Iterator[Path]:
    """Each name that the environment's ``python`` goes through, and the file that it is."""
    yield from _links(environment / "bin/python")


def _links(path: Path) -> Iterator[Path]:
    """Each link that leads from ``path`` to a file, and the file. Links of directories on the way are followed."""
    path = path.parent.resolve() / path.name
    while path.is_symlink():
        yield path
        path = path.parent / path.readlink()
        path = path.parent.resolve() / path.name
    yield path


def _base() -> dict[str, str]:
    return {"base": sys.base_prefix, "installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}


def _is_left_out(name: str) -> bool:
    return name in _LEFT_OUT or name.startswith("config-") or _EXTENSIONS_LEFT_OUT.fullmatch(name) is not None


def _files(directory: Path, is_left_out: object) -> Iterator[Path]:
    assert callable(is_left_out)
    for where, names, files in os.walk(directory):
        names[:] = [name for name in names if name != "__pycache__" and not is_left_out(name)]
        yield from (Path(where, name) for name in files if not is_left_out(name))
        yield from (Path(where, name) for name in names if Path(where, name).is_symlink())


def _is_object(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _libraries(objects: Iterable[Path], root: Path) -> Iterator[Path]:
    """What the dynamic linker loads for them: each name that it looks for, and the file that this is."""
    done = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=False)  # 1 where one is static
    missing = re.findall(r"^\s+(\S+) => not found$", done.stdout, re.MULTILINE)
    if missing:
        raise SystemExit(f"root.py: the base image has no {', '.join(sorted(set(missing)))}")
    found = {Path(name) for name in re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)}
    libc = {path.parent for path in found if path.name == "libc.so.6"}
    found |= {directory / name for directory in libc for name in _BY_NAME if (directory / name).exists()}
    for path in found:
        if not path.is_relative_to(root):
            yield from _links(path)


def _copy(root: Path, path: Path) -> None:
    target = root / str(path).lstrip("/")
    if not target.is_symlink() and not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, target, follow_symlinks=False)


def _strip(root: Path) -> None:
    """Debugging symbols, where there is a tool for it: those of an official Python image are gone already."""
    if tool := shutil.which("strip"):
        for path in root.rglob("*"):
            if path.is_file() and not path.is_symlink() and _is_object(path):
                subprocess.run([tool, "--strip-unneeded", path], check=False, stderr=subprocess.DEVNULL)


def _compile(root: Path) -> None:
    """Byte code that holds by content: a read-only root is never compiled for, and times may change as it is copied."""
    options = {"stripdir": root, "prependdir": "/", "invalidation_mode": py_compile.PycInvalidationMode.UNCHECKED_HASH}
    compileall.compile_dir(root, maxlevels=32, quiet=2, force=True, **options)  # type: ignore[arg-type]


if __name__ == "__main__":
    make_root(Path(sys.argv[1]), Path(sys.argv[2]))
