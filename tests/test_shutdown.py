"""SIGTERM during anything: the exporter ends within 5 s with code 0, its last reading sent where the receiver takes it.

Each scene is a real process in a state of its own. All of them run side by side, so that together they take as long as
the slowest.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import socket
import sys
import threading
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import pytest
from grpc import StatusCode

from tests.fakes.faulty_otlp import FaultyServer, free_port
from tests.fakes.kube_api import Exchange
from tests.fakes.otlp_receiver import Answer
from tests.kube.support import eventually
from tests.otlp import cpu_time, points
from tests.programs import PATIENCE_SECONDS, clean_environ
from tests.scenes import ENDED_AT_IMPORT, UID, Played, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.fakes.otlp_receiver import OtlpReceiver, Received
    from tests.scenes import Protocol, Scene

# As `python -m otel_k8s_cgroup`, but names are looked up as by a server that never answers: in a C call that nothing
# interrupts.
WITHOUT_DNS = """
import ctypes, socket, sys
from otel_k8s_cgroup.cli import main

def look_up(host, *arguments, **options):
    if not host.endswith(".example"):
        return getaddrinfo(host, *arguments, **options)
    print("looks up", host, flush=True)
    ctypes.CDLL(None).sleep(600)

getaddrinfo, socket.getaddrinfo = socket.getaddrinfo, look_up
sys.exit(main(sys.argv[1:]))
"""

Play = TypeVar("Play", bound="Callable[..., Iterator[None]]")
SCENES: dict[str, Scene] = {}


def scene(name: str, *parameters: str) -> Callable[[Play], Play]:
    """Names a scene, or one for each of the parameters."""

    def add(play: Play) -> Play:
        for parameter in parameters:
            SCENES[f"{name} {parameter}"] = partial(play, parameter)
        if not parameters:
            SCENES[name] = play
        return play

    return add


def nothing_is_lost(receiver: OtlpReceiver, used_usec: int) -> None:
    """Its last reading is there: the whole growth has arrived."""
    assert cpu_time(points(receiver.messages), UID)["total"] == (used_usec - 1000) * 1000


@scene("idle over", "grpc", "http/protobuf")
def idle(protocol: Protocol, site: Site) -> Iterator[None]:
    receiver = site.receiver(protocol)
    site.start(otlp=receiver.endpoint, protocol=protocol)
    yield
    receiver.wait_for(lambda messages: len(messages) >= 1)
    site.used_usec(5000)
    yield
    nothing_is_lost(receiver, 5000)


@scene("signalled by", "SIGINT", "SIGHUP", "SIGTERM SIGTERM")
def signals(which: str, site: Site) -> Iterator[None]:
    site.signals = [signal.Signals[name] for name in which.split()]
    yield from idle("http/protobuf", site)


@scene("an export without an answer", "grpc", "http/protobuf")
def unanswered(protocol: Protocol, site: Site) -> Iterator[None]:
    """The receiver has taken the request, and says nothing."""
    asked = threading.Event()

    def respond(_request: Received) -> Answer:
        asked.set()
        site.over.wait(PATIENCE_SECONDS)
        return Answer()

    receiver = site.receiver(protocol)
    site.stack.callback(site.over.set)
    receiver.respond = respond
    site.signals *= 2
    site.start(otlp=receiver.endpoint, protocol=protocol, flags=("--otlp-timeout", "1h"))
    yield
    assert asked.wait(PATIENCE_SECONDS)
    yield
    assert "undelivered: the OTLP receiver did not take them" in site.program.output


@scene("a receiver that says nothing", "grpc", "http/protobuf")
def silent(protocol: Protocol, site: Site) -> Iterator[None]:
    """It takes connections, but no byte comes back."""
    server = FaultyServer("black hole")
    site.stack.callback(server.close)
    site.start(otlp=f"http://127.0.0.1:{server.port}", protocol=protocol)
    yield
    server.wait_for_connections(1)
    yield


def full_queue(site: Site, port: int, protocol: Protocol) -> Iterator[None]:
    site.start(otlp=f"http://127.0.0.1:{port}", protocol=protocol, poll="10ms", flags=("--queue-bytes", "64KiB"))
    yield
    site.program.wait_for_line(lambda line: "fill the queue" in line)


@scene("a black hole and a full queue", "grpc", "http/protobuf")
def black_hole(protocol: Protocol, site: Site) -> Iterator[None]:
    """Not even a connection comes about: the backlog of the one who listens is full."""
    listener = site.stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(2):
        other = site.stack.enter_context(socket.socket())
        other.setblocking(False)
        other.connect_ex(listener.getsockname())
    yield from full_queue(site, listener.getsockname()[1], protocol)
    yield


@scene("nobody listens and the queue is full", "grpc", "http/protobuf")
def refused(protocol: Protocol, site: Site) -> Iterator[None]:
    yield from full_queue(site, free_port(), protocol)
    yield


@scene("the queue is full and the receiver comes back", "grpc", "http/protobuf")
def comes_back(protocol: Protocol, site: Site) -> Iterator[None]:
    """In the last moment it takes what waits, and the CPU time of what was dropped is in it."""
    port = free_port()
    yield from full_queue(site, port, protocol)
    site.used_usec(5000)
    receiver = site.receiver(protocol, port=port)
    yield
    nothing_is_lost(receiver, 5000)


@scene("a list of pods that never comes")
def no_list(site: Site) -> Iterator[None]:
    api, receiver = site.api(), site.receiver()
    api.always("list", Exchange.hang)
    site.start(otlp=receiver.endpoint, api=api.url)
    yield
    api.wait_for("list", 1)
    yield


@scene("a watch without an answer")
def no_watch(site: Site) -> Iterator[None]:
    api, receiver = site.api(), site.receiver()
    api.always("watch", Exchange.hang)
    site.start(otlp=receiver.endpoint, api=api.url)
    yield
    api.wait_for("watch", 1)
    receiver.wait_for(lambda messages: len(messages) >= 1)
    site.used_usec(5000)
    yield
    nothing_is_lost(receiver, 5000)


@scene("a name server that never answers for", "the API", "the receiver", "both")
def no_dns(whom: str, site: Site) -> Iterator[None]:
    """Nothing can end such a look-up: ticks go on meanwhile, and the process ends with it under way."""
    receiver = site.receiver()
    api = None if whom == "the receiver" else "https://api.example:6443"
    otlp = receiver.endpoint if whom == "the API" else "http://otlp.example:4318"
    site.start(otlp=otlp, api=api, poll="100ms", program=("-c", WITHOUT_DNS))
    yield
    for host in ("api.example",) * (api is not None) + ("otlp.example",) * (whom != "the API"):
        site.program.wait_for_line(f"looks up {host}".__eq__)
    already = len(receiver.messages)
    if whom == "the API":
        receiver.wait_for(lambda messages: len(messages) >= already + 3)
    yield


@scene("a kubectl that hangs")
def no_token(site: Site) -> Iterator[None]:
    api, receiver = site.api(), site.receiver()
    kubectl, pid_file = site.home / "kubectl", site.home / "pid"
    # A login plugin that it waits for ends with it.
    kubectl.write_text(f"#!/bin/sh\nsleep 600 &\necho $! > {pid_file}.new\nmv {pid_file}.new {pid_file}\nwait\n")
    kubectl.chmod(0o755)
    environ = clean_environ() | {"PATH": f"{site.home}:{os.environ['PATH']}"}
    site.start(otlp=receiver.endpoint, api=api.url, environ=environ, flags=("--token-retrieval", "kubectl"))
    yield
    eventually(pid_file.exists)
    yield
    pid = int(pid_file.read_text())
    eventually(lambda: not is_alive(pid))


@scene("a tick that is under way")
def in_a_tick(site: Site) -> Iterator[None]:
    """It waits for a file of another pod's (a pipe stands for a slow kernel); what is behind it is still read."""
    receiver = site.receiver()
    site.start(otlp=receiver.endpoint, poll="10ms")
    yield
    receiver.wait_for(lambda messages: len(messages) >= 1)
    other = "00000000-0000-0000-0000-000000000001"
    slow = site.home / "slow"
    slow.mkdir()
    os.mkfifo(slow / "cpu.stat")
    slow.rename(site.tree.root / site.tree.path(other)[1:])
    pods = json.loads((site.home / "pods.json").read_text())
    pods["items"].append({"metadata": {"uid": other, "name": "b", "namespace": "b"}, "spec": {"nodeName": "node-1"}})
    (site.home / "pods.json").write_text(json.dumps(pods))
    pipe = site.tree.root / site.tree.path(other)[1:] / "cpu.stat"

    def is_opened() -> bool:
        try:
            os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        except OSError:
            return False
        return True

    eventually(is_opened)  # that one read ends by it, and the next one does not
    site.used_usec(5000)
    site.after_the_signal = lambda: site.stack.callback(os.close, os.open(pipe, os.O_RDWR))
    yield
    nothing_is_lost(receiver, 5000)


@scene("a configuration that never comes", "SIGTERM", "SIGKILL")
def no_configuration(which: str, site: Site) -> Iterator[None]:
    """It is a pipe that nobody writes into: the process that reads it ends with the exporter, however that ends."""
    pipe = site.home / "config.toml"
    os.mkfifo(pipe)
    site.signals = [signal.Signals[which]]
    site.expected_code = -signal.SIGKILL if which == "SIGKILL" else 0
    site.start(otlp="http://127.0.0.1:9", flags=("--config", str(pipe)))
    yield
    eventually(lambda: is_open_for_reading(pipe, site))
    pid = site.program.process.pid
    child = int(Path(f"/proc/{pid}/task/{pid}/children").read_text())
    yield
    eventually(lambda: not is_alive(child))


def is_open_for_reading(pipe: Path, site: Site) -> bool:
    """From here on it has a writer, until the scene is over."""
    try:
        site.stack.callback(os.close, os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    except OSError:
        return False
    return True


@scene("standard error that nobody reads", "grpc", "http/protobuf")
def stalled_log(protocol: Protocol, site: Site) -> Iterator[None]:
    """The pipe is full from the beginning: readings go on, are sent, and what is not written is counted."""
    receiver = site.receiver(protocol)
    reading, writing = os.pipe()
    site.stack.callback(os.close, reading)
    os.set_blocking(writing, False)
    with suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)
    # Each second export fails: there is something to log at each.
    numbers = itertools.count()
    receiver.respond = lambda _request: Answer() if next(numbers) % 2 else Answer(400, code=StatusCode.INTERNAL)
    site.start(otlp=receiver.endpoint, protocol=protocol, poll="10ms", flags=("--log-level", "debug"), stderr=writing)
    os.close(writing)
    yield
    receiver.wait_for(lambda messages: len(messages) >= 20)
    yield


@scene("standard streams that are closed", "2", "1", "0 1 2")
def closed_streams(which: str, site: Site) -> Iterator[None]:
    """No socket or file of the exporter's takes their places."""
    receiver = site.receiver()
    closing = (
        "import os, sys\nfor number in sys.argv[1].split(): os.close(int(number))\nos.execv(sys.argv[2], sys.argv[2:])"
    )
    program = ("-c", closing, which, sys.executable, "-m", "otel_k8s_cgroup")
    site.start(otlp=receiver.endpoint, program=program)
    yield
    receiver.wait_for(lambda messages: len(messages) >= 1)
    site.used_usec(5000)
    descriptors = Path(f"/proc/{site.program.process.pid}/fd")
    for number in which.split():
        assert (descriptors / number).readlink() == Path(os.devnull)
    yield
    nothing_is_lost(receiver, 5000)


@scene("a disabled SDK")
def disabled(site: Site) -> Iterator[None]:
    """One line says so, and nothing is read or sent."""
    receiver = site.receiver()
    site.start(otlp=receiver.endpoint, poll="10ms", environ=clean_environ(OTEL_SDK_DISABLED="true"))
    yield
    site.program.wait_for_line(lambda line: "OTEL_SDK_DISABLED is true: nothing is measured or sent" in line)
    yield
    assert not receiver.messages
    assert len(site.program.lines) == 1


@scene("start-up, at the import of", "argparse", "otel_k8s_cgroup.settings", "opentelemetry.sdk.metrics", "grpc")
def start_up(module: str, site: Site) -> Iterator[None]:
    receiver = site.receiver("grpc")
    site.signals = []
    site.start(otlp=receiver.endpoint, protocol="grpc", program=("-c", ENDED_AT_IMPORT, module))
    yield
    yield


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"  # the first process of a container may never ask for its end


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Played]]:
    with ExitStack() as stack:
        scenes = {name: Played(play, Site(tmp_path_factory.mktemp("site"), stack)) for name, play in SCENES.items()}
        for each in scenes.values():
            each.advance()
        for each in scenes.values():
            each.site.end()
        for each in scenes.values():
            each.site.finish()
        yield scenes


@pytest.mark.parametrize("name", SCENES)
def test_it_ends_in_time(played: dict[str, Played], name: str) -> None:
    """Whatever hangs or fails at that moment."""
    scene = played[name]
    if scene.error is not None:
        raise scene.error
    assert scene.site.code == scene.site.expected_code, scene.site.program.output
    assert "Traceback" not in scene.site.program.output
    scene.advance()
    if scene.error is not None:
        raise scene.error
