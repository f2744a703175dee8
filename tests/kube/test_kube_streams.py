"""Streams of the API client, and the end of whatever hangs."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import TYPE_CHECKING

import pytest

from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, MalformedObject
from otel_k8s_cgroup.kube import PODS, WATCH, ApiClient
from tests.fakes.faulty_otlp import FaultyServer
from tests.fakes.kube_api import Exchange, KubeApi, stream

from .support import client, listed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.fakes.faulty_otlp import Fault
    from tests.fakes.kube_api import Answer, Verb


def _lines(api: ApiClient, end_seconds: float = 10.0) -> AbstractContextManager[Iterator[bytes]]:
    return api.lines(PODS, {"watch": "true"}, WATCH, end_seconds=end_seconds)


def test_lines_come_as_soon_as_they_are_there(api: KubeApi) -> None:
    """Though the stream goes on: a line in three pieces, two lines in one piece, a blank one, one without an end. What
    completes no line is told as an empty one.
    """
    pieces = [b'{"a"', b":", b"1}\n", b"2\n3\n", b"\r\n", b"4"]
    api.on("watch", stream(*pieces, then=Exchange.hang), stream(*pieces))
    mine = client(api.url)
    with _lines(mine) as lines:
        assert [next(lines) for _ in range(5)] == [b"", b"", b'{"a":1}', b"2", b"3"]
    with _lines(mine) as lines:
        assert [line for line in lines if line] == [b'{"a":1}', b"2", b"3", b"\r", b"4"]
    mine.close()


def test_lines_of_a_server_that_does_not_chunk(api: KubeApi) -> None:
    """HTTP/1.0 style: the body ends with the connection; still no line waits for the next."""

    def play(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n1\n")
        exchange.hang()

    api.on("watch", play)
    mine = client(api.url)
    with _lines(mine) as lines:
        assert next(lines) == b"1"
    mine.close()


def test_a_line_that_is_too_long_ends_the_stream(api: KubeApi) -> None:
    """max_line_bytes bounds what is kept of a line that never ends."""

    def endless(exchange: Exchange) -> None:
        exchange.stream_head()
        while True:
            exchange.chunk(b"x" * 10_000)

    api.on("watch", endless)
    mine = client(api.url, max_line_bytes=20_000)
    with _lines(mine) as lines, pytest.raises(MalformedObject, match="over 20000 bytes"):
        deque(lines, maxlen=0)
    mine.close()


def _drip(data: bytes) -> Answer:
    def play(exchange: Exchange) -> None:
        exchange.stream_head()
        exchange.chunk(b"1\n")
        while not exchange.is_over(10):
            exchange.chunk(data)

    return play


def _drip_trailers(exchange: Exchange) -> None:
    exchange.stream_head()
    exchange.chunk(b"1\n")
    exchange.raw(b"0\r\n")
    while not exchange.is_over(10):
        exchange.raw(b"X: y\r\n")


@pytest.mark.parametrize(
    "answer",
    [stream(b"1\n", then=Exchange.hang), _drip(b"\n"), _drip(b" "), _drip(b"x"), _drip(b"2\n"), _drip_trailers],
    ids=["silence", "blank lines", "spaces", "a line that never ends", "lines", "trailers"],
)
def test_a_stream_has_an_end(api: KubeApi, answer: Answer) -> None:
    """Nothing comes and nothing is closed, or bytes come for ever: end_seconds is the end, and the client goes on."""
    api.on("watch", answer)
    mine = client(api.url)
    with pytest.raises(ApiUnreachable, match=r"did not end within 0\.2 s"), _lines(mine, end_seconds=0.2) as lines:
        deque(lines, maxlen=0)
    api.on("watch", stream(b"1\n"))
    with _lines(mine) as lines:
        assert list(lines) == [b"1"]
    assert mine.request_counts == {("watch", "200"): 2, ("watch", "broken"): 1}
    mine.close()


@pytest.mark.parametrize("verb", ["list", "watch"])
@pytest.mark.parametrize("fixture", ["api", "tls_api"])
def test_close_ends_what_hangs(request: pytest.FixtureRequest, ca_file: Path, fixture: str, verb: Verb) -> None:
    """A request without an answer and a stream without a line end at once, and nothing more is sent after that."""
    server: KubeApi = request.getfixturevalue(fixture)
    server.on("list", Exchange.hang)
    server.on("watch", stream(then=Exchange.hang))
    mine = client(server.url, ca_file=str(ca_file) if fixture == "tls_api" else None)
    ended = threading.Event()

    def work() -> None:
        with contextlib.suppress(ApiUnreachable):
            if verb == "list":
                listed(mine)
            else:
                with _lines(mine, end_seconds=1000.0) as lines:
                    next(lines)
        ended.set()

    threading.Thread(target=work, daemon=True).start()
    server.wait_for(verb, 1)
    mine.close()
    assert ended.wait(10)
    with pytest.raises(ApiUnreachable, match="closed"):
        listed(mine)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "fault", ["black hole", "drip of headers", "drip of interim answers", "drip of a body", "closed at once"]
)
def test_a_stream_that_does_not_begin_is_given_up(fault: Fault) -> None:
    """A stream may be silent for minutes, but its head must be there within the client's own idle_seconds, and so must
    the words of a server that refuses it; however many bytes come meanwhile.
    """
    with FaultyServer(fault) as server:
        mine = client(f"http://127.0.0.1:{server.port}", idle_seconds=0.2)
        with pytest.raises((ApiUnreachable, ApiStatusError)) as caught, _lines(mine, end_seconds=1000.0):
            pytest.fail("it began")
        said = str(caught.value)
        if fault == "drip of a body":
            assert "HTTP 503: 'later later" in said
        elif fault != "closed at once":
            assert "no answer within 0.2 s" in said
        mine.close()


def test_a_client_goes_on_after_a_stream_that_did_not_begin(api: KubeApi) -> None:
    """The connection that was given up is not used again; one that has begun may be silent for longer than that."""
    api.on("watch", Exchange.hang, Exchange.hang)
    mine = client(api.url, idle_seconds=0.4)
    for _ in range(2):
        with pytest.raises(ApiUnreachable, match=r"no answer within 0\.4 s"), _lines(mine, end_seconds=1000.0):
            pytest.fail("it began")
    late = threading.Event()

    def play(exchange: Exchange) -> None:
        exchange.stream_head()
        late.wait(0.6)
        exchange.chunk(b"1\n")
        exchange.finish()

    api.on("watch", play)
    with _lines(mine, end_seconds=1000.0) as lines:
        assert list(lines) == [b"1"]
    assert mine.request_counts == {("watch", "unreachable"): 2, ("watch", "200"): 1}
    mine.close()
