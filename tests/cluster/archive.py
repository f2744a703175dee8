"""Container images without an engine: a root file system and a few settings → a tar that `ctr image import` takes.

The format is that of `docker save`: https://github.com/moby/docker-image-spec/blob/main/v1.2.md
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import tarfile
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


def write_image(archive: Path, name: str, layers: Sequence[Path], config: Mapping[str, Any]) -> None:
    """``layers`` are tars, the lowest first; ``config`` is the image's ``config`` (``Entrypoint``, ``User``, …)."""
    image = {
        "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{_sha256(layer)}" for layer in layers]},
    }
    manifest = [{"Config": "config.json", "RepoTags": [name], "Layers": [layer.name for layer in layers]}]
    with tarfile.open(archive, "w") as tar:
        for file_name, content in (("config.json", image), ("manifest.json", manifest)):
            data = json.dumps(content).encode()
            info = tarfile.TarInfo(file_name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for layer in layers:
            tar.add(layer, layer.name)


def of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A filter for ``TarFile.add``: in an image all belongs to root."""
    info.uid = info.gid = 0
    info.uname = info.gname = "root"
    return info


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
