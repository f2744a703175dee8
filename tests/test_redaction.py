"""Secrets in messages: by their shape, by their value, whole, cut and in other clothes."""

from __future__ import annotations

import base64
import logging
import re
import subprocess
import sys
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.http_words import quoted
from otel_k8s_cgroup.redaction import SHORTEST_SECRET, RedactedRecords, Redactor, hide_shapes

JWT = "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJzeXN0ZW0ifQ.c2lnbmF0dXJlLW9mLXRoaXMtdGVzdA"
KEY = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj"
PEM = f"-----BEGIN PRIVATE KEY-----\n{KEY}\n{KEY}\n-----END PRIVATE KEY-----"

SHAPES = [
    (f"no token {JWT!r} here", "no token '***' here"),
    (f"cut {JWT[:30]}… there", "cut ***… there"),
    (f"Location: /login/{JWT.replace('.', '%2E')}/x", "Location: /login/***/x"),
    (f"found {PEM!r} (flag)", "found '***' (flag)"),
    (f"found\n{PEM}\nin it", "found\n***\nin it"),
    (f"found {PEM[:60]!r}… (flag)", "found '***'… (flag)"),
    (f"found {KEY!r} (flag)", "found '***' (flag)"),
    (f"quote {quote(PEM)} end", "quote *** end"),
    ("to http://user:pass@host:1/x", "to http://***@host:1/x"),
    ("to 'https://p@ss@host/'", "to 'https://***@host/'"),
    ("https://h:4318/v1/metrics?api_key=abc&t=1: HTTP 503", "https://h:4318/v1/metrics?api_key=***&t=***"),
    ("https://h/?s3cret was it", "https://h/?*** was it"),
    ("to '/login?token=abc', which", "to '/login?token=***', which"),
    ("to 'https://h/cb#access_token=abc'", "to 'https://h/cb#access_token=***'"),
    ("Authorization: Bearer abc-12345678", "Authorization: Bearer ***"),
]


@pytest.mark.parametrize(("text", "instead"), SHAPES)
def test_what_has_the_shape_of_a_secret_is_hidden(text: str, instead: str) -> None:
    """Also where nobody knew of it; the rest of the line stays."""
    assert hide_shapes(text).startswith(instead)


@pytest.mark.parametrize(
    "text",
    [
        "http://localhost:4317: connection refused; is otlp_endpoint right, and does the receiver run there?",
        "node node-1: pods from api, cgroups below /sys/fs/cgroup, every 5 s to https://otlp.example:4318/v1/metrics",
        "token file '/var/run/secrets/token': No such file; name another by token_retrieval = { file = \"…\" }",
        "HTTP 401: 'Bearer authentication required'; 415: 'application/json;charset=utf-8' is not taken",
        "[fd00::1]:4317 ? a=b, user@host and c#d",
        "",
    ],
)
def test_ordinary_lines_stay_as_they_are(text: str) -> None:
    """Nothing is hidden that a user needs."""
    assert hide_shapes(text) == text
    assert Redactor()(text) == text


SECRET = "pa'ss \"w\\ord+/=% 12"


@pytest.mark.parametrize(
    "clothes",
    [
        SECRET,
        repr(SECRET)[1:-1],
        quote(SECRET, safe=""),
        base64.b64encode(SECRET.encode()).decode(),
        base64.urlsafe_b64encode(SECRET.encode()).decode().rstrip("="),
        f"Bearer {SECRET}",
    ],
)
def test_a_headers_value_is_hidden_in_whatever_it_wears(clothes: str) -> None:
    """As it is sent, in quotes, in a URL, in base64; the scheme before it may stay."""
    redact = Redactor()
    redact.add_headers([("authorization", f"Bearer {SECRET}")])
    assert redact(f"it said <{clothes}>").removeprefix("it said <").removesuffix(">").rstrip("=") in {
        "***",
        "Bearer ***",
    }


def test_the_password_of_basic_credentials_is_hidden_too() -> None:
    """A receiver that decodes them may say it."""
    redact = Redactor()
    redact.add_headers([("authorization", "Basic " + base64.b64encode(b"user:open sesame").decode())])
    assert redact("wrong password 'open sesame' of user") == "wrong password '***' of user"


def test_query_values_and_proxies_passwords_are_hidden_alone() -> None:
    """The receiver may say the key without the URL, decoded or not."""
    redact = Redactor()
    redact.add_url("https://h/v1/metrics?api_key=abc%2Fdef&x=1")
    redact.add_environ({"HTTPS_PROXY": "http://me:sesame-street@proxy:3128", "PATH": "/usr/bin/env"})
    assert (
        redact("bad key abc/def or abc%2Fdef, sesame-street, /usr/bin/env") == "bad key *** or ***, ***, /usr/bin/env"
    )


def test_short_values_are_not_hidden() -> None:
    """A header "x-scope: 1" must not take every 1 out of the log."""
    redact = Redactor()
    redact.add("1", "true", "x" * (SHORTEST_SECRET - 1))
    assert redact("1 true xxxxx") == "1 true xxxxx"


def test_only_the_last_tokens_are_kept() -> None:
    """A process that runs for years does not look for each token that it ever had."""
    redact = Redactor()
    for number in range(100):
        redact.add_token(f"opaque-token-{number:04}-{'abcdefgh'[number % 8] * 12}")
    assert redact("opaque-token-0099-dddddddddddd") == "***"
    assert len(redact._tokens) < 10  # of no use to anybody else


@pytest.mark.parametrize(
    ("path", "is_hidden"),
    [
        ("/var/run/secrets/kubernetes.io/serviceaccount/token", False),
        ("../secrets/token-of-the-cluster", False),
        ("secrets/token-of-the-cluster", False),
        ("token-of-the-cluster.txt", False),
        ("short-token", False),
        ("abcdef.0123456789abcdef", True),
        ("kubeconfig-u-abcde12345:wxyz67890", True),
    ],
)
def test_a_token_in_the_place_of_its_files_path(path: str, is_hidden: bool) -> None:
    """What is long and looks like no path is taken for one."""
    redact = Redactor()
    redact.add_unless_path(path)
    assert (path in redact(f"token file {path!r}: no such file")) is not is_hidden


TOKEN = st.from_regex(re.compile(r"[A-Za-z0-9_-]{40,80}"), fullmatch=True)


@given(token=TOKEN, before=st.text(max_size=320), after=st.text(max_size=20))
def test_a_token_is_hidden_wherever_an_answer_is_cut(token: str, before: str, after: str) -> None:
    """Of a token that the cut goes through, no twelve characters are left."""
    redact = Redactor()
    redact.add_token(token)
    line = redact(quoted(before + token + after))
    assert not any(
        token[at : at + 12] in line for at in range(len(token) - 11) if token[at : at + 12] not in before + after
    )


HOSTILE = {
    "the beginnings of PEM blocks": "-----BEGIN'",
    "the beginnings of URLs": "://",
    "URLs with users": "://a@",
    "URLs with queries": "://a?b=c",
    "the beginnings of keys": "MIG ",
    "the beginnings of JWTs": "eyJ.",
    "authorizations": "Bearer%20 Basic ",
    "words": "a-b/",
}


@pytest.mark.parametrize("piece", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_text_costs_time_that_grows_with_its_length_and_no_faster(piece: str) -> None:
    """1 MiB of it is done within some seconds of CPU: a regular expression holds up every thread while it runs."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_CPU, (20, 20))\n"
        "from otel_k8s_cgroup.redaction import hide_shapes\n"
        "hide_shapes(sys.argv[1] * ((1 << 20) // len(sys.argv[1])))"
    )
    subprocess.run([sys.executable, "-c", program, piece], check=True)


@pytest.mark.parametrize(
    ("readers", "handlers", "lines"),
    [(0, "", ["x: token=s3cr3t"]), (1, "", ["x: token=***"]), (2, "", ["x: token=***"]), (2, "basicConfig()", ["***"])],
)
def test_a_program_has_each_log_line_once(readers: int, handlers: str, lines: list[str]) -> None:
    """Without a handler of its own on standard error, as of any library, and with one there alone."""
    program = f"""
import logging
from otel_k8s_cgroup.redaction import RedactedRecords, Redactor
{f"logging.{handlers}" if handlers else ""}
log = logging.getLogger("otel_k8s_cgroup.x")
redact = Redactor()
redact.add("s3cr3t")
for _ in range({readers}):
    RedactedRecords(redact).begin()
log.warning("x: token=%s", "s3cr3t")
logging.getLogger("another").error("of another")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    *ours, another = done.stderr.splitlines()
    assert another.endswith("of another")
    assert len(ours) == len(lines)
    assert all(line.endswith(expected) for line, expected in zip(ours, lines, strict=True))


class Lines(logging.Handler):
    """What a handler of a program's own writes."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.text += f"{self.format(record)}\n"


@pytest.mark.parametrize("name", ["otel_k8s_cgroup.kube.retry", "otel_k8s_cgroup", ""])
def test_no_handler_has_a_secret_wherever_in_a_program_it_is(name: str) -> None:
    """Also one on a logger of the package that was there before; of two readers each hides its own token."""
    tokens = "s3cr3t-of-one", "0123456789abcdef"
    readers = []
    for token in tokens:
        redact = Redactor()
        redact.add_token(token)
        readers.append(RedactedRecords(redact))
    log, lines = logging.getLogger("otel_k8s_cgroup.kube.retry"), Lines()
    logging.getLogger(name).addHandler(lines)
    try:
        for reader in readers:
            reader.begin()
        log.warning("with %s and %s", *tokens)
        try:
            int(" ".join(tokens))
        except ValueError:
            log.exception("a defect")
        for reader in readers:
            reader.end()
        hidden, lines.text = lines.text, ""
        log.warning("%s", "nobody's s3cr3t")
    finally:
        logging.getLogger(name).removeHandler(lines)
    first, second, *_, last = hidden.splitlines()
    assert (first, second) == ("with *** and ***", "a defect")
    assert last == "ValueError: invalid literal for int() with base 10: '*** ***'"
    assert not any(token in hidden for token in tokens)
    assert lines.text == "nobody's s3cr3t\n"


def test_who_hides_waits_for_no_other_thread() -> None:
    """A process that was forked while one added a token has that thread's lock for good, and must not end at it."""
    redact = Redactor()
    redact.add("s3cr3t")
    with redact._lock:
        assert redact("a s3cr3t") == "a ***"
