"""Container images without an engine: layers and a few settings → an archive that every engine takes.

It is an OCI image layout (https://github.com/opencontainers/image-spec/blob/v1.1.1/image-layout.md) with the index of
`docker save` (https://github.com/moby/docker-image-spec/blob/main/v1.2.md) beside it, as that itself writes it:
for `docker load`, `podman load`, `ctr images import`, `kind load image-archive`, `minikube image load`.
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
_OCI = "application/vnd.oci.image"


def write_image(archive: Path, name: str, layers: Sequence[Path], config: Mapping[str, Any]) -> None:
    """``layers`` are tars, the lowest first; ``config`` is the image's ``config`` (``Entrypoint``, ``User``, …)."""
    platform_of_image = {"architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()), "os": "linux"}
    digests = [_digest_of_file(layer) for layer in layers]
    image = _json(platform_of_image | {"config": config, "rootfs": {"type": "layers", "diff_ids": digests}})
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_OCI}.manifest.v1+json",
            "config": _descriptor(image, f"{_OCI}.config.v1+json"),
            "layers": [
                {"mediaType": f"{_OCI}.layer.v1.tar", "digest": digest, "size": layer.stat().st_size}
                for digest, layer in zip(digests, layers, strict=True)
            ],
        }
    )
    # The first names the whole image to containerd, the second its tag to others.
    names = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    described = _descriptor(manifest, f"{_OCI}.manifest.v1+json") | {
        "platform": platform_of_image,
        "annotations": names,
    }
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "mediaType": f"{_OCI}.index.v1+json", "manifests": [described]}),
        "manifest.json": _json(
            [{"Config": _blob(_digest(image)), "RepoTags": [name], "Layers": [_blob(digest) for digest in digests]}]
        ),
        _blob(_digest(image)): image,
        _blob(_digest(manifest)): manifest,
    }
    with tarfile.open(archive, "w") as tar:
        for file_name, data in files.items():
            info = tarfile.TarInfo(file_name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for digest, layer in zip(digests, layers, strict=True):
            tar.add(layer, _blob(digest), filter=of_root)


def write_layer(layer: Path, root: Path) -> None:
    """All below ``root``. The same files make the same layer, whenever and by whom they were written."""
    with tarfile.open(layer, "w") as tar:
        for path in sorted(root.rglob("*")):
            tar.add(path, str(path.relative_to(root)), recursive=False, filter=of_root)


def of_root(info: tarfile.TarInfo) -> tarfile.TarInfo:
    """A filter for ``TarFile.add``: in an image all belongs to root, and has no time."""
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = "root"
    return info


def _json(content: object) -> bytes:
    return json.dumps(content, sort_keys=True).encode()


def _descriptor(data: bytes, media_type: str) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": _digest(data), "size": len(data)}


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def _digest_of_file(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
