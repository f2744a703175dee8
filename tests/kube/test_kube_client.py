"""The API client: what it sends, what it takes, and what it says when it gets something else."""

from __future__ import annotations

import gc
import gzip
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from urllib3.exceptions import ConnectTimeoutError

from otel_k8s_cgroup.errors import ApiStatusError, ApiUnreachable, KubeError, MalformedObject
from otel_k8s_cgroup.http_words import Peer, retry_after_seconds, why_unreachable
from otel_k8s_cgroup.kube import ApiClient, Credentials, Permission
from otel_k8s_cgroup.model import TokenRetrieval
from tests.fakes.faulty_otlp import free_port
from tests.fakes.kube_api import Exchange, KubeApi, body, failing, pod, stream

from .support import SECRET, client, get, listed, refused

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.kube_api import Answer

    from .support import Kubectl


# --- the token, and whom it is for ---


def test_the_token_is_sent_as_a_bearer(api: KubeApi, token_file: Path) -> None:
    """A server that asks for the token gets it, and answers."""
    api.token = SECRET
    api.add(pod("a"))
    (answer,) = get(client(api.url, token_file=token_file))
    assert b'"kind": "Pod"' in answer


def test_no_token_is_no_header(api: KubeApi) -> None:
    """token_retrieval "none": the request has no Authorization header at all."""
    get(client(api.url))
    assert "authorization" not in api.requests[0].headers


def test_a_401_is_tried_once_more_with_the_token_of_now(api: KubeApi, kubectl: Kubectl) -> None:
    """The token in use was revoked before its time: one 401, then the new one, and no error."""
    kubectl.prints("revoked")
    retrieval = TokenRetrieval("kubectl")
    mine = ApiClient(api.url, credentials=Credentials(retrieval, api.url, environ=kubectl.environ))
    listed(mine)
    kubectl.prints("new")
    api.token = "new"
    assert get(mine) is not None
    assert mine.request_counts == {("list", "200"): 2, ("list", "401"): 1}


def test_a_401_that_stays_names_where_the_token_is_from(api: KubeApi, token_file: Path) -> None:
    """Two requests, no more, and a message with the token's origin but not the token."""
    api.token = "another"
    mine = client(api.url, token_file=token_file)
    message = refused(mine)
    assert "HTTP 401" in message
    assert repr(str(token_file)) in message
    assert "token_retrieval" in message
    assert mine.request_counts == {("list", "401"): 2}


def test_a_token_never_goes_over_plain_http_to_another_machine(token_file: Path) -> None:
    """Refused before anything is sent, naming the URL and the way out; an anonymous API may be plain http."""
    message = refused(client("http://192.0.2.1:8080", token_file=token_file))
    assert "'http://192.0.2.1:8080'" in message
    assert "https://" in message
    assert "none" in message


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_may_go_to_this_machine(api: KubeApi, token_file: Path, host: str) -> None:
    """kubectl proxy and a port-forward are plain http on loopback."""
    api.token = SECRET
    assert get(client(f"http://{host}:{api.port}", token_file=token_file)) is not None


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:8080@192.0.2.1/",
        "http://user:s3cret-password@127.0.0.1",
        "ftp://127.0.0.1",
        "127.0.0.1:8080",
        "https://",
        "http://127.0.0.1\\@192.0.2.1",
        "http://127.0.0.1\r\nX: y",
        "http://127.0.0.1\\.evil.example",
        "https://host/a b",
        "https://host/\n",
        "https://h\u00f6st",
        "https://[::1",
        "https://host:99999",
        "https://host?a=b",
        "https://host/#f",
        "",
    ],
)
def test_an_address_that_could_be_read_in_two_ways_is_refused(url: str) -> None:
    """Whatever is not plainly scheme://host:port/path, with one line; a password in it is not shown."""
    with pytest.raises(KubeError) as caught:
        client(url)
    assert str(caught.value).isprintable()
    assert "s3cret-password" not in str(caught.value)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_not_followed(api: KubeApi, token_file: Path, status: int) -> None:
    """The token stays with the host that was configured; the message names the other one, escaped."""
    with KubeApi() as other:
        api.on("list", failing(status, Location=f"{other.url}/api/v1/pods?\x1b[31m"))
        message = refused(client(api.url, token_file=token_file))
        assert other.requests == []
    assert other.url in message
    assert f"HTTP {status}" in message
    assert "k8s_api_url" in message


def test_neither_netrc_nor_a_proxy_variable_touches_a_request_to_this_machine(
    api: KubeApi, token_file: Path, tmp_path: Path
) -> None:
    """In a process whose environment has both: the token is ours and goes straight to the server."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login thief password thief\n")
    netrc.chmod(0o600)
    program = (
        "import sys; from pathlib import Path; from tests.kube.support import client, listed; "
        "mine = client(sys.argv[1], token_file=Path(sys.argv[2])); listed(mine); mine.close(); "
        "none = client(sys.argv[1]); listed(none); none.close()"
    )
    with KubeApi() as proxy:
        proxies = dict.fromkeys(("http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy"), proxy.url)
        environment = os.environ | proxies | {"NETRC": str(netrc), "no_proxy": "", "NO_PROXY": ""}
        subprocess.run([sys.executable, "-c", program, api.url, str(token_file)], env=environment, check=True)
        assert proxy.requests == []
    assert [request.headers.get("authorization") for request in api.requests] == [f"Bearer {SECRET}", None]


def test_a_proxy_variable_holds_for_https_elsewhere() -> None:
    """As for kubectl: the request goes to the proxy as a CONNECT, so the proxy never sees the token."""
    listener = socket.create_server(("127.0.0.1", 0))
    asked: list[bytes] = []

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            asked.append(connection.recv(4096))
            connection.sendall(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    program = (
        "from tests.kube.support import client, listed\n"
        "try: listed(client('https://api.example:6443'))\n"
        "except Exception as error: print(error)"
    )
    environment = os.environ | {"https_proxy": f"http://127.0.0.1:{listener.getsockname()[1]}", "no_proxy": ""}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, check=True, capture_output=True, text=True)
    thread.join(10)
    listener.close()
    assert asked[0].startswith(b"CONNECT api.example:6443 ")
    assert b"uthorization" not in asked[0]
    assert "the proxy of HTTPS_PROXY" in ended.stdout


# --- answers ---


FORBIDDEN = (
    'pods is forbidden: User "system:serviceaccount:otel-k8s-cgroup:otel-k8s-cgroup" cannot list resource "pods" in '
    'API group "" at the cluster scope'
)


def test_a_403_names_the_missing_verb_and_resource(api: KubeApi) -> None:
    """The API's words with the user in them; what to grant is apart, for where it lasts."""
    api.on("list", failing(403, FORBIDDEN))
    with pytest.raises(ApiStatusError) as caught:
        get(client(api.url))
    assert 'User "system:serviceaccount:otel-k8s-cgroup:otel-k8s-cgroup" cannot' in str(caught.value)
    assert "ClusterRole" not in str(caught.value)
    assert caught.value.remedy == "grant the verb 'list' on 'pods' by a ClusterRole and its binding"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            lambda exchange: exchange.answer(404, b"404 page not found\n"),
            "HTTP 404: '404 page not found'; is k8s_api_url",
        ),
        (failing(404, "the server could not find the requested resource"), "resource'; is k8s_api_url right?"),
        (
            lambda exchange: exchange.answer(200, b"<html>log in</html>", Content_Type="text/html; charset=utf-8"),
            "an HTML page, no answer of an API; is k8s_api_url right?",
        ),
        *(
            (
                lambda exchange, status=status: exchange.answer(status, b"<html>log in</html>"),
                "an HTML page: '<html>log in</html>'; is k8s_api_url right?",
            )
            for status in (401, 403, 404)
        ),
        (
            lambda exchange: exchange.answer(502, b"<html>Bad Gateway"),
            "an HTML page: '<html>Bad Gateway'; is k8s_api_url",
        ),
        (
            lambda exchange: exchange.answer(400, b"Client sent an HTTP request to an HTTPS server.\n"),
            "it speaks TLS there; does k8s_api_url mean https://?",
        ),
        (
            lambda exchange: exchange.answer(400, b"<html>The plain HTTP request was sent to HTTPS port"),
            "it speaks TLS there; does k8s_api_url mean https://?",
        ),
        (
            lambda exchange: exchange.raw(b"\x15\x03\x01\x00\x02\x02\x46"),
            "it speaks TLS there; does k8s_api_url mean https://?",
        ),
    ],
    ids=[
        "404",
        "404 of an API",
        "log in",
        "401",
        "403",
        "404 of a page",
        "502",
        "TLS of Go",
        "TLS of nginx",
        "TLS alert",
    ],
)
def test_an_answer_of_something_else_names_the_setting(api: KubeApi, answer: Answer, said: str) -> None:
    """A wrong path, a web page, a port for TLS: k8s_api_url is what to look at."""
    api.always("list", answer)
    message = refused(client(api.url))
    assert said in message
    assert len(message) < 250


def test_plain_http_to_a_port_for_tls_names_the_setting(tls_api: KubeApi) -> None:
    """A server that only closes the connection, as this one, gives no other hint."""
    message = refused(client(tls_api.url.replace("https:", "http:")))
    assert "does k8s_api_url mean https://?" in message


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_that_is_not_needed(api: KubeApi, token_file: Path, status: int) -> None:
    """Behind plain http on this machine, as of kubectl proxy, none may do; elsewhere that is no advice."""
    api.always("list", failing(status, "no"))
    assert 'try token_retrieval = "none"' in refused(client(api.url, token_file=token_file))
    assert "none" not in refused(client(api.url)).replace("'none'", "").replace("none is sent", "")


def test_an_api_that_wants_a_token_says_that_none_is_sent(api: KubeApi) -> None:
    """Not that it was refused."""
    api.token = SECRET
    mine = ApiClient(api.url, credentials=Credentials(TokenRetrieval("auto", file="/nonexistent"), api.url))
    assert (
        "it wants a token, and none is sent (token_retrieval 'auto' over http to this machine); see token_retrieval"
        in refused(mine)
    )


@pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 429, 500])
def test_messages_are_short(api: KubeApi, token_file: Path, status: int) -> None:
    """One can read them though the server writes much."""
    api.always("list", failing(status, FORBIDDEN * 100, Location="https://elsewhere.example/" + "x" * 1000))
    assert len(refused(client(api.url, token_file=token_file))) < 350


def test_a_body_that_drips_below_what_is_read_is_given_up(api: KubeApi) -> None:
    """Inside the frame of a chunk, where no byte of the answer comes: its time is over by the real clock, too."""

    def drip(exchange: Exchange) -> None:
        exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;")
        while not exchange.is_over(20):
            exchange.raw(b"x")

    api.on("list", drip)
    with pytest.raises(ApiUnreachable, match=r"did not end within 0\.2 s"):
        get(client(api.url, answer_seconds=0.2))


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_read(api: KubeApi, status: int) -> None:
    """Seconds, as the API's priority and fairness sends them."""
    api.on("list", failing(status, "too many requests", Retry_After="7"))
    with pytest.raises(ApiStatusError) as caught:
        get(client(api.url))
    assert (caught.value.status, caught.value.retry_after_seconds) == (status, 7.0)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("0", 0.0),
        (" 12 ", 12.0),
        ("Thu, 01 Jan 1970 00:01:40 GMT", 90.0),
        ("Thu, 01 Jan 1970 00:01:40 -0000", 90.0),
        ("Thu, 01 Jan 1970 00:00:01 GMT", 0.0),
        ("-1", None),
        ("1.5", None),
        ("soon", None),
        ("٣", None),
        ("Thu, 99 Jan 1970 00:00:01 GMT", None),
        ("", None),
    ],
)
def test_retry_after_forms(header: str | None, seconds: float | None) -> None:
    """RFC 9110: seconds or a date (here at ten seconds past 1970); a past one is now, and what is neither is None."""
    assert retry_after_seconds(header, 10.0) == seconds


def test_what_others_wrote_cannot_break_a_line(api: KubeApi) -> None:
    """An error body with line breaks, escapes and 100 kB is quoted and cut."""
    api.on("list", lambda exchange: exchange.answer(500, b"bad\n\x1b[31mINFO all is well\n" + b"x" * 100_000))
    message = refused(client(api.url))
    assert len(message) < 500
    assert r"bad\n\x1b[31mINFO" in message


def test_an_answer_that_is_too_large_is_not_read_to_its_end(api: KubeApi) -> None:
    """max_body_bytes bounds it, whatever Content-Length says or does not say."""

    def endless(exchange: Exchange) -> None:
        exchange.stream_head()
        while True:
            exchange.chunk(b" " * 10_000)

    api.on("list", endless, body(b'"' + b"x" * 50_000 + b'"'))
    for _ in range(2):
        mine = client(api.url, max_body_bytes=20_000)
        with pytest.raises(MalformedObject, match="over 20000 bytes"):
            get(mine)


def test_a_compressed_answer_is_bounded_by_what_it_unpacks_to(api: KubeApi) -> None:
    """A gateway may compress though we ask for identity: a bomb of 50 MB in 50 kB is cut off as well."""
    bomb = gzip.compress(b" " * 50_000_000)
    api.on("list", lambda exchange: exchange.answer(200, bomb, Content_Encoding="gzip"))
    with pytest.raises(MalformedObject, match="over 1000000 bytes"):
        get(client(api.url, max_body_bytes=1_000_000))


@pytest.mark.parametrize("content", [b"", b"<html>", b'{"a":', b"[" * 100_000, b"\xff\xfe", b"1" * 10_000])
def test_an_answer_that_is_no_json(api: KubeApi, content: bytes) -> None:
    """One error of one line, whatever it is."""
    api.on("list", body(content))
    with pytest.raises(MalformedObject, match=r"\(k8s_api_url\): (not JSON|not a PodList)") as caught:
        get(client(api.url))
    assert str(caught.value).isprintable()


def test_an_answer_that_drips_is_given_up(api: KubeApi) -> None:
    """A byte now and then keeps a socket alive, but the whole answer has its time (by a clock that leaps)."""
    api.on("list", stream(b"{", b"}", then=Exchange.hang))
    clock = iter(range(0, 10_000, 61))
    mine = client(api.url, clock=lambda: float(next(clock)))
    with pytest.raises(ApiUnreachable, match="not complete after 60 s"):
        get(mine)


def test_a_silent_server_is_given_up(api: KubeApi) -> None:
    """Neither head nor body comes within idle_seconds."""
    api.on("list", Exchange.hang)
    assert "no answer within 0.05 s" in refused(client(api.url, idle_seconds=0.05))


@pytest.mark.parametrize(
    "fault",
    [
        Exchange.reset,
        lambda exchange: exchange.raw(b""),
        lambda exchange: exchange.raw(b"SSH-2.0-OpenSSH\r\n"),
        lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"),
        lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nabc"),
        lambda exchange: exchange.raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000 + b"\r\n\r\n"),
    ],
    ids=["reset", "closed", "not-http", "cut", "bad-chunk", "bad-gzip", "huge-header"],
)
def test_a_connection_that_breaks(api: KubeApi, fault: Answer) -> None:
    """Every way of it is ApiUnreachable, in one line."""
    api.always("list", fault)
    mine = client(api.url)
    with pytest.raises(ApiUnreachable) as caught:
        get(mine)
    assert str(caught.value).isprintable()


def test_nobody_there() -> None:
    """Refused and a name that does not resolve each ask whether the setting is right."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    message = refused(client(f"http://127.0.0.1:{port}"))
    assert "connection refused; is k8s_api_url right" in message
    assert "does not resolve" in refused(client("https://no-such-host.invalid"))
    dropped = ConnectTimeoutError("[Errno 110] Connection timed out")
    said = why_unreachable(dropped, Peer("k8s_api_url", "the API server", "", ""), 5).text
    assert said == "no connection within the time limit; is k8s_api_url right, and does a firewall let us through?"


def test_requests_are_counted_by_verb_and_result(api: KubeApi) -> None:
    """For the exporter's own metrics."""
    api.on("list", failing(500), Exchange.reset, stream(b"[", then=Exchange.reset))
    mine = client(api.url)
    for _ in range(4):
        try:
            listed(mine)
        except KubeError:
            continue
    with pytest.raises(ApiStatusError), mine.body("/version", {}, Permission("get", "/version")):
        pass
    mine.close()
    assert mine.request_counts == {
        ("list", "500"): 1,
        ("list", "unreachable"): 1,
        ("list", "200"): 2,
        ("list", "broken"): 1,
        ("get", "404"): 1,
    }


def test_failures_leave_no_garbage() -> None:
    """What the libraries raise is freed at once: in an outage of days it is not left to the next collection."""
    asked = client(f"http://127.0.0.1:{free_port()}")

    def fail(times: int) -> None:
        for _ in range(times):
            with suppress(ApiUnreachable):
                listed(asked)

    fail(1)
    gc.collect()
    gc.disable()
    try:
        fail(20)
        assert gc.collect() < 20
    finally:
        gc.enable()
        asked.close()


def test_debug_shows_each_request(api: KubeApi, token_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where it went, what it asked for and what came back; not the token."""
    with caplog.at_level("DEBUG", "otel_k8s_cgroup"):
        get(client(api.url, token_file=token_file))
    (line,) = [r.getMessage() for r in caplog.records if r.name == "otel_k8s_cgroup.kube.client"]
    assert line.startswith(f"GET {api.url}/api/v1/pods {{")
    assert ": HTTP 200 after " in line
    assert SECRET not in line
