"""The images that the node's pods run, as archives in the cache."""

from __future__ import annotations

import tarfile
from typing import TYPE_CHECKING

from deploy.image.archive import of_root, write_image
from deploy.image.engine import kept_image
from tests.cluster import binaries
from tests.cluster.layout import EXPORTER_IMAGE, WORKLOAD_IMAGE

if TYPE_CHECKING:
    from pathlib import Path


def archives(directory: Path) -> list[str]:
    """All of them, made in ``directory``."""
    return [str(workload(directory)), str(kept_image(EXPORTER_IMAGE))]


def workload(directory: Path) -> Path:
    """The tests' own program and busybox. A pod's sandbox is started from it too."""
    layer = directory / "workload-layer.tar"
    with tarfile.open(layer, "w") as tar:
        tar.add(binaries.workload(), "bin/workload", filter=of_root)
        tar.add(binaries.BUSYBOX.resolve(), "bin/busybox", filter=of_root)
        link = tarfile.TarInfo("bin/sh")
        link.type, link.linkname = tarfile.SYMTYPE, "busybox"
        tar.addfile(link)
    archive = directory / "workload.tar"
    config = {"Entrypoint": ["/bin/workload"], "Cmd": ["pause"], "Env": ["PATH=/bin"]}
    write_image(archive, WORKLOAD_IMAGE, [layer], config)
    return archive
