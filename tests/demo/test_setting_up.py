"""What ``make demo`` shows while it sets up the virtual environment, which takes up to half a minute."""

from __future__ import annotations

import os
import pty
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]

FAKE_PIP = """#!/bin/sh
case "$*" in
*constraints.txt*)
    echo 'Looking in indexes: https://index.example'
    echo 'Collecting grpcio==1.2.3 (from -r constraints.txt (line 3))'
    echo '  Downloading grpcio-1.2.3.whl (5.9 MB)'
    echo 'Collecting rich==15.0.0 (from -r constraints.txt (line 9))'
    echo 'Installing collected packages: rich, grpcio'
    [ -z "$PIP_FAILS" ] || { echo 'ERROR: no such package' >&2; exit 1; }
esac
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The Makefile, two pinned packages, and a virtual environment whose pip only prints what pip does."""
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    shutil.copy(PROJECT / "Makefile", tmp_path)
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "constraints.txt").write_text(
        "grpcio==1.2.3 \\\n    --hash=sha256:1\nrich==15.0.0 \\\n    --hash=sha256:2\n"
    )
    python = tmp_path / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE_PIP)
    python.chmod(0o755)
    return tmp_path


def _make(project: Path, **environ: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        ["make", "--silent", ".venv/.demo-stamp"],
        cwd=project,
        env={"PATH": os.environ["PATH"], **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_a_terminal_shows_which_package_it_is_at(project: Path) -> None:
    """In one line that is redrawn and is gone at the end."""
    terminal, theirs = pty.openpty()
    with subprocess.Popen(["make", "--silent", ".venv/.demo-stamp"], cwd=project, stdout=theirs) as make:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(terminal, 65536):
                shown += chunk
        except OSError:  # EIO: the other side is closed
            os.close(terminal)
    assert make.returncode == 0
    assert b"package 1 of 2: grpcio==1.2.3" in shown
    assert b"package 2 of 2: rich==15.0.0" in shown
    assert shown.endswith(b"\r\x1b[K")


def test_elsewhere_it_says_how_much_there_is_to_do(project: Path) -> None:
    """One line, without control codes: a build log keeps it."""
    out, err = _make(project).communicate()
    assert out == b"installing 2 packages into .venv\n"
    assert err == b""


def test_a_package_that_cannot_be_had_is_an_error(project: Path) -> None:
    """In pip's own words; the environment is not taken for complete."""
    make = _make(project, PIP_FAILS="1")
    _, err = make.communicate()
    assert make.returncode != 0
    assert b"no such package" in err
    assert not (project / ".venv/.demo-stamp").exists()
