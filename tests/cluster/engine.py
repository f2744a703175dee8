"""The exporter's image by the steps of deploy/Dockerfile, without a container engine.

Run as `unshare --mount python -m tests.cluster.engine OUTPUT`. Each stage is an overlay over this machine's root, in
which its RUN instructions are run as they stand: so `pip` and the package index are those of this machine. In place of
the base image comes the Python that runs the tests, with the libraries that it and the packages load.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.cluster.archive import of_root, write_image
from tests.cluster.layout import EXPORTER_IMAGE
from tests.deploy.files import REPOSITORY, dockerfile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.deploy.files import Instruction

_LEFT_OUT = {"site-packages", "dist-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"}
_LEFT_OUT_MODULES = ("_tkinter.", "_test", "_ctypes_test.")
_PASSWD = "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n"


def main() -> None:
    output = Path(sys.argv[1])
    # Not on the machine's disk: a layer that is written to must not lie below the one that is only read, which is `/`.
    work = output / "work"
    work.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", work], check=True)
    stages: dict[str, Stage] = {}
    for number, instructions in enumerate(dockerfile()):
        name = re.search(r" AS (\S+)$", instructions[0].arguments)
        stage = Stage(work / str(number), stages)
        for instruction in instructions[1:]:
            stage.do(instruction)
        stages[name[1] if name else str(number)] = stage
    base, packages = work / "base.tar", work / "packages.tar"
    with tarfile.open(packages, "w") as tar:
        tar.add(stage.written, ".", filter=of_root)
    with tarfile.open(base, "w") as tar:
        # The dynamic linker's names go through these.
        for path in (Path(name) for name in ("/lib", "/lib64", "/bin") if Path(name).is_symlink()):
            tar.add(path, str(path).lstrip("/"), recursive=False, filter=of_root)
        for path in sorted(set(_python()) | set(_libraries(stage.written))):
            tar.add(path, str(path).lstrip("/"), recursive=False, filter=of_root)
        passwd = work / "passwd"
        passwd.write_text(_PASSWD)
        tar.add(passwd, "etc/passwd", filter=of_root)
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        tar.addfile(temporary)
    write_image(output / "exporter.tar", EXPORTER_IMAGE, [base, packages], stage.config)


class Stage:
    """What the instructions of one stage have written, and set."""

    def __init__(self, directory: Path, earlier: dict[str, Stage]) -> None:
        self.written = directory / "written"
        self._merged, self._work = directory / "merged", directory / "work"
        for each in (self.written, self._merged, self._work):
            each.mkdir(parents=True)
        self._earlier = earlier
        self._directory = "/"
        # `python` and `pip` of the base image.
        path = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._environ = {"PATH": path}
        self.config: dict[str, Any] = {"Env": [f"PATH={path}"]}

    def do(self, instruction: Instruction) -> None:
        arguments = instruction.arguments
        match instruction.word:
            case "WORKDIR":
                self._directory = arguments
                self._below(arguments).mkdir(parents=True, exist_ok=True)
            case "COPY":
                self._copy(*arguments.split())
            case "RUN":
                self._run(arguments)
            case "ENV":
                name, _, value = arguments.partition("=")
                self._environ[name] = re.sub(r"\$(\w+)", lambda match: self._environ[match[1]], value)
                self.config["Env"] = [f"{name}={value}" for name, value in self._environ.items()]
            case "USER":
                self.config["User"] = arguments
            case "ENTRYPOINT" | "CMD" as word:
                self.config[word.capitalize()] = json.loads(arguments)
            case word:
                raise NotImplementedError(f"deploy/Dockerfile: {word} {arguments}")

    def _copy(self, *words: str) -> None:
        *sources, target = words
        origin = REPOSITORY
        if sources[0].startswith("--from="):
            origin = self._earlier[sources.pop(0).removeprefix("--from=")].written
        for source in sources:
            found = origin / source.lstrip("/")
            into = self._below(target)
            if found.is_dir():
                ignored = None if origin != REPOSITORY else shutil.ignore_patterns("__pycache__")
                shutil.copytree(found, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
            else:
                into = into / found.name if target.endswith("/") else into
                into.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(found, into)

    def _run(self, command: str) -> None:
        options = f"lowerdir=/,upperdir={self.written},workdir={self._work}"
        subprocess.run(["mount", "-t", "overlay", "-o", options, "none", self._merged], check=True)
        for name in ("dev", "proc", "sys"):
            subprocess.run(["mount", "--rbind", f"/{name}", self._merged / name], check=True)
        try:
            subprocess.run(
                ["chroot", self._merged, "sh", "-ec", f"cd {self._directory}; {command}"],
                env=os.environ | self._environ,
                stdout=sys.stderr,
                check=True,
            )
        finally:
            subprocess.run(["umount", "--recursive", self._merged], check=True)

    def _below(self, path: str) -> Path:
        return self.written / os.path.join(self._directory, path).lstrip("/")  # noqa: PTH118 an absolute path wins


def _python() -> Iterator[Path]:
    """The interpreter and its standard library."""
    executable = Path(sys._base_executable)  # type: ignore[attr-defined]
    yield from (executable.parent.resolve() / executable.name, executable.resolve())
    for directory, names, files in os.walk(sysconfig.get_path("stdlib", vars=_base())):
        names[:] = [name for name in names if name not in _LEFT_OUT and not name.startswith("config-")]
        yield Path(directory)
        yield from (Path(directory, name) for name in files if not name.startswith(_LEFT_OUT_MODULES))


def _base() -> dict[str, str]:
    return {"base": sys.base_prefix, "installed_base": sys.base_prefix, "platbase": sys.base_exec_prefix}


def _libraries(packages: Path) -> Iterator[Path]:
    """What the dynamic linker loads for them: each name that it looks for, and the file that this is."""
    objects = [path for path in _python() if ".so" in path.suffixes or path.name.startswith("python")]
    objects += [path for path in packages.rglob("*.so*") if path.is_file()]
    done = subprocess.run(["ldd", *objects], capture_output=True, text=True, check=False)  # 1 where one is static
    for found in set(re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", done.stdout, re.MULTILINE)):
        path = Path(found)
        if not path.is_relative_to(packages):
            yield path.parent.resolve() / path.name
            yield path.resolve()


if __name__ == "__main__":
    main()
