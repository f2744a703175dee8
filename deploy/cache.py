"""Where built things are kept, outside of the checkout: `make clean` and a new clone leave them alone."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


def cache_directory() -> Path:
    """``$XDG_CACHE_HOME/otel-k8s-cgroup``, or where that is by default."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "otel-k8s-cgroup"


def install(directory: Path, build: Callable[[Path], None]) -> None:
    """``directory`` as ``build`` fills it: whole, or not there."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{directory.name}.", dir=directory.parent))
    try:
        build(unfinished)
        unfinished.chmod(0o755)
        unfinished.rename(directory)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def short_hash(text: str) -> str:
    """Of a recipe or of sources, to keep what is made of them apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
