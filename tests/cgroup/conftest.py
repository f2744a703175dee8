from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .kernel_tree import KernelTree

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOBODY = 65534


@pytest.fixture
def unprivileged() -> Iterator[Path]:
    """A directory of our own, and, also where root runs the tests, no right to look into what is closed."""
    with tempfile.TemporaryDirectory() as directory:
        was = os.geteuid()
        if was == 0:
            os.chown(directory, _NOBODY, _NOBODY)
            os.seteuid(_NOBODY)
        try:
            yield Path(directory)
        finally:
            os.seteuid(was)
            for below, directories, _ in os.walk(directory):
                for name in directories:
                    Path(below, name).chmod(0o700)


@pytest.fixture
def kernel_tree(tmp_path: Path) -> Iterator[KernelTree]:
    try:
        tree = KernelTree(tmp_path)
    except OSError as error:
        pytest.skip(f"cgroups cannot be made here: {error.filename}: {error.strerror}")
    try:
        yield tree
    finally:
        tree.close()
