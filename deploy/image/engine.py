"""The image by the steps of deploy/Dockerfile, without a container engine: needs root on Linux.

`python -m deploy.image.engine ARCHIVE NAME`. Each stage is an overlay over this machine's root, in which its RUN
instructions are run as they stand: so in place of the base image come the Python that runs this, and the `pip` and the
package index of this machine. The last stage has nothing below it, here as there.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deploy.cache import cache_directory, install, short_hash
from deploy.image.archive import write_image, write_layer
from deploy.image.dockerfile import DOCKERFILE, REPOSITORY, copied_from_context, dockerfile, labels

if TYPE_CHECKING:
    from deploy.image.dockerfile import Instruction

_INSIDE = "--in-own-mounts"
_UNUSED_SECONDS = 24 * 3600.0
"""After which an image of sources as they were is removed."""


def why_not() -> str | None:
    """Why no image can be assembled on this machine; None where it can."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "an image is assembled only by root on Linux"
    if missing := [program for program in ("unshare", "mount", "chroot", "ldd") if shutil.which(program) is None]:
        return f"not installed: {', '.join(missing)}"
    with tempfile.TemporaryDirectory() as made:
        script = f"mount -t tmpfs none {made} && cd {made} && mkdir upper work merged && "
        script += "mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work none merged"
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script], capture_output=True, text=True, check=False)
    return f"an overlay over / cannot be mounted: {done.stderr.strip()}" if done.returncode != 0 else None


def assemble(archive: Path, name: str) -> None:
    """Writes the image of this checkout, as it is, to ``archive``; takes about half a minute."""
    command = ["unshare", "--mount", sys.executable, "-m", "deploy.image.engine", _INSIDE, str(archive), name]
    subprocess.run(command, cwd=REPOSITORY, check=True)


def kept_image(name: str) -> Path:
    """The archive of the image of this checkout, made once for each state of its sources."""
    inputs = [Path(__file__), Path(__file__).with_name("archive.py"), DOCKERFILE]
    for source in copied_from_context(dockerfile()):
        path = REPOSITORY / source
        inputs += [each for each in path.rglob("*.py*") if each.suffix != ".pyc"] if path.is_dir() else [path]
    text = "".join(f"{path.relative_to(REPOSITORY)} {path.read_text()}" for path in sorted(inputs))
    directory = cache_directory() / f"exporter-{short_hash(text + name + sys.version + sys.prefix)}"
    if not directory.is_dir():
        sys.stderr.write("making the exporter's image: about half a minute, once for each state of the sources\n")
        for old in cache_directory().glob("exporter-*"):
            if old.stat().st_mtime < time.time() - _UNUSED_SECONDS:
                shutil.rmtree(old, ignore_errors=True)
        install(directory, lambda unfinished: assemble(unfinished / "exporter.tar", name))
    return directory / "exporter.tar"


def main(archive: Path, name: str) -> None:
    """In a mount namespace of its own."""
    with tempfile.TemporaryDirectory(prefix="otel-k8s-cgroup-image-") as made:
        # Not on the machine's disk: a layer that is written to must not lie below the one that is only read, `/`.
        subprocess.run(["mount", "-t", "tmpfs", "none", made], check=True)
        try:
            _build(Path(made), archive, name)
        finally:
            subprocess.run(["umount", "--recursive", made], check=True)


def _build(work: Path, archive: Path, name: str) -> None:
    stages: dict[str, Stage] = {}
    for number, instructions in enumerate(dockerfile()):
        named = re.search(r" AS (\S+)$", instructions[0].arguments)
        stage = Stage(work / str(number), stages, from_scratch=instructions[0].arguments == "scratch")
        for instruction in instructions[1:]:
            stage.do(instruction)
        stages[named[1] if named else str(number)] = stage
    layer = work / "layer.tar"
    write_layer(layer, stage.written)
    base = f"Python {sys.version.split()[0]} of the machine that assembled it"
    write_image(archive, name, [layer], stage.config | {"Labels": labels({"BASE": base, "REVISION": revision()})})


def revision() -> str:
    """The commit that is checked out."""
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


class Stage:
    """What the instructions of one stage have written, and set."""

    def __init__(self, directory: Path, earlier: dict[str, Stage], *, from_scratch: bool) -> None:
        self.written = directory / "written"
        self._merged, self._work = directory / "merged", directory / "work"
        for each in (self.written, self._merged, self._work):
            each.mkdir(parents=True)
        self._earlier = earlier
        self._directory = "/"
        # `python` and `pip` of the base image.
        path = f"{sys.prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        self._environ = {} if from_scratch else {"PATH": path}
        self.config: dict[str, Any] = {}

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
            case "ARG" | "LABEL":
                pass  # `labels` reads them
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


if __name__ == "__main__":
    if sys.argv[1] == _INSIDE:
        main(Path(sys.argv[2]), sys.argv[3])
    else:
        assemble(Path(sys.argv[1]), sys.argv[2])
