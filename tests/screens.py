"""The README's pictures, of what the commands really print: ``python -m tests.screens`` makes docs/*.svg anew.

The demo runs for half a minute, with real cgroups where it can. ``check`` runs against a node, an API and a receiver of
the tests that have two faults; their addresses and paths are written as those of a cluster.
"""

from __future__ import annotations

import io
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import trustme
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

from otel_k8s_cgroup.demo import run as demo
from otel_k8s_cgroup.demo.table import render, signs_for
from tests.fakes.cgroup_tree import CgroupTree, Figures
from tests.fakes.kube_api import KubeApi, failing, pod
from tests.fakes.otlp_receiver import OtlpReceiver
from tests.kube.support import server_tls
from tests.programs import clean_environ

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from otel_k8s_cgroup.demo.views import Progress

DOCS = Path(__file__).parents[1] / "docs"
WIDTH = 132
UIDS = [f"d75d892c-9bb2-4b9c-8ce2-7868eb91e66{digit}" for digit in "12"]
DENIED = (
    'pods is forbidden: User "system:serviceaccount:otel-k8s-cgroup:otel-k8s-cgroup" cannot watch resource "pods" in '
    'API group "" at the cluster scope'
)


def picture(title: str, *shown: RenderableType) -> str:
    """A terminal that shows that, as SVG: with the reader's own fonts, for nothing is to be fetched from elsewhere."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True, color_system="truecolor")
    console.print(*shown, sep="\n")
    no_fonts = re.sub(r"@font-face \{\{.*?\}\}\n", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    svg = console.export_svg(title=title, code_format=no_fonts, unique_id=title.replace(" ", "-"))
    return "\n".join(line.rstrip() for line in svg.splitlines() if line.strip()) + "\n"


class _Last:
    """A view that keeps what it was to show last."""

    def __init__(self) -> None:
        self.shown: list[Progress] = []
        self.summary: list[str] = []

    def received(self, points: Sequence[object]) -> None:
        """Is in ``show``."""

    def show(self, progress: Progress) -> None:
        self.shown = [progress]

    def finish(self, progress: Progress, summary: Sequence[str]) -> None:
        self.shown, self.summary = [progress], [*summary]

    def close(self) -> None:
        """Nothing to close."""


def of_demo(duration_seconds: float = 30, **places: Any) -> str:
    """``otel-k8s-cgroup demo``, at its end."""
    view = _Last()
    with patch.object(demo, "_view", lambda *_: view):
        if demo.run_demo(duration_seconds=duration_seconds, as_json=False, out=io.StringIO(), **places) != 0:
            raise RuntimeError("the demo failed")
    (progress,) = view.shown
    console = Console(width=WIDTH, force_terminal=True)
    screen = render(progress, console, signs_for("utf-8"))
    return picture("otel-k8s-cgroup demo", screen, *(Text(line) for line in view.summary))


def of_check() -> str:
    """``otel-k8s-cgroup check``, with a token that lacks ``watch``, and an endpoint without a scheme."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        tree = CgroupTree(directory / "cgroup")
        for uid in UIDS:
            tree.write(uid, Figures(user_usec=1000))
        token = directory / "token"
        token.write_text("not-shown")
        ca = trustme.CA()
        ca_file = directory / "ca.crt"
        ca.cert_pem.write_to_path(str(ca_file))
        api = stack.enter_context(KubeApi(tls=server_tls(ca), token="not-shown"))
        receiver = stack.enter_context(OtlpReceiver("grpc"))
        api.add(*(pod(name, uid=uid) for name, uid in zip(("cart", "web"), UIDS, strict=True)))
        api.always("watch", failing(403, DENIED))
        argv = [
            *(sys.executable, "-m", "otel_k8s_cgroup", "check", "--k8s-node", "node-1", "--k8s-api-url", api.url),
            *("--cgroup-root", str(tree.root), "--token-retrieval", f'{{ file = "{token}" }}'),
            *("--otlp-endpoint", f"127.0.0.1:{receiver.port}", "--k8s-ca-file", str(ca_file)),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, check=False, env=clean_environ())
        output = done.stdout
        for found, written in (
            (api.url, "https://10.96.0.1:443"),
            (f"127.0.0.1:{receiver.port}", "10.0.0.7:4317"),
            (str(tree.root), "/sys/fs/cgroup"),
            (str(token), "/var/run/secrets/kubernetes.io/serviceaccount/token"),
        ):
            output = output.replace(found, written)
    text = Text(output.rstrip())
    for sign, style in (("√", "green"), ("‼", "yellow"), ("×", "bold red")):
        text.highlight_words([f"  {sign}"], style)
    return picture("otel-k8s-cgroup check", text)


if __name__ == "__main__":
    (DOCS / "check.svg").write_text(of_check())
    (DOCS / "demo.svg").write_text(of_demo())
