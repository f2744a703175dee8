"""What all tests share: an environment that holds nothing of the machine's that the program would read."""

from __future__ import annotations

import os
import re

import hypothesis
import pytest

# How long an example takes is the machine's affair.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# The standard's and our own variables, those of a pod, a terminal's size (pytest-xdist's workers have one), and those
# that requests and gRPC take proxies and CAs from.
_READ_BY_THE_PROGRAM = re.compile(
    r"OTEL_.*|NODE_NAME|COLUMNS|LINES|KUBERNETES_.*|KUBECONFIG|(?i:(http|https|grpc|no|all)_proxy)|REQUESTS_CA_BUNDLE|CURL_CA_BUNDLE"
)

# Assertions of modules that are not test files by name show their values too.
pytest.register_assert_rewrite("tests.kernel.scenarios")


def pytest_configure(config: pytest.Config) -> None:
    for name in [name for name in os.environ if _READ_BY_THE_PROGRAM.fullmatch(name)]:
        del os.environ[name]


@pytest.fixture
def preads_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """sys.setprofile is not called where C calls C, as map() calls os.pread: it is called from Python here."""
    pread = os.pread

    def seen(fd: int, size: int, offset: int) -> bytes:
        return pread(fd, size, offset)

    monkeypatch.setattr(os, "pread", seen)
