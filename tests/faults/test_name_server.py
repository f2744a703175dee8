"""A name server that never answers, asked by gRPC's own resolver."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from tests.scenes import Site

if TYPE_CHECKING:
    from pathlib import Path

# As `python -m otel_k8s_cgroup`, with its first argument in the place of the system's resolv.conf, for it alone.
WITH_RESOLV_CONF = """
import ctypes, sys

CLONE_NEWNS, MS_BIND, MS_REC, MS_PRIVATE = 0x20000, 0x1000, 0x4000, 0x40000
libc = ctypes.CDLL(None, use_errno=True)
resolv_conf = sys.argv.pop(1).encode()
if (
    libc.unshare(CLONE_NEWNS) != 0
    or libc.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None) != 0
    or libc.mount(resolv_conf, b"/etc/resolv.conf", None, MS_BIND, None) != 0
):
    sys.exit("nothing can be mounted here")

from otel_k8s_cgroup.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_look_up_without_an_end(tmp_path: Path) -> None:
    """The exporter ends in time all the same, and says what became of its readings."""
    address = "127.0.0.253"
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with ExitStack() as stack:
        stack.enter_context(server)
        try:
            server.bind((address, 53))
        except OSError as error:
            pytest.skip(f"no name server can be started here: {error}")
        (tmp_path / "resolv.conf").write_text(f"nameserver {address}\noptions timeout:30 attempts:5\n")
        program = ("-c", WITH_RESOLV_CONF, str(tmp_path / "resolv.conf"))
        if subprocess.run([sys.executable, *program, "--version"], check=False, capture_output=True).returncode != 0:
            pytest.skip("nothing can be mounted here")
        site = Site(tmp_path, stack)
        site.start(otlp="http://otlp.example:4317", protocol="grpc", poll="100ms", program=program)
        server.settimeout(30)
        assert b"otlp" in server.recv(4096)
        site.end()
        site.finish()
        assert site.code == 0, site.program.output
        assert "readings undelivered" in site.program.output
        assert "Traceback" not in site.program.output
