"""Secrets stay out of messages: those that have the shape of one, and those that are known by their value.

`hide_shapes` is a pure function, for whoever cuts or quotes a text: what is cut first is hidden no more. A `Redactor`
also knows values. Every line that the exporter writes goes through one (`logs.py`).
"""

from __future__ import annotations

import base64
import logging
import re
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, quote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

HIDDEN: Final = "***"

SHORTEST_SECRET: Final = 6
"""Characters. A shorter value ("1", "true") is not hidden: it would take half of each line with it."""

_PIECE = 12
"""Characters. So much of a known secret, or three quarters of a shorter one, is hidden also where it was cut off."""
_TOKENS_KEPT = 4
"""A token that is refused or renewed may still be in an answer that is under way; one of hours ago has expired."""

_PASTED = 16
"""Characters. What is so long and does not look like a path may be a token."""
_LIKE_A_PATH = re.compile(r"[/.~]|[\w.-]{1,32}/|.*\.(?:token|txt|json|jwt|pem)\Z", re.DOTALL)

# Each shape, and what stays of it. A PEM block and a JWT (RFC 7515: base64url of '{"' begins with eyJ) may be cut at
# their end, and the line breaks of a PEM block may be escaped. None may look again and again through what follows: a
# receiver or an API server that repeats the beginning of a shape would hold up every thread (CPython's regular
# expressions let no other one run).
_SHAPES: Final = (
    (
        re.compile(r"-----BEGIN\b(?:(?!-----BEGIN).)*?-----END[ \w%+]*(?:-----)?|-----BEGIN\b[^'\"…]*", re.DOTALL),
        HIDDEN,
    ),
    # A PEM block's inside, which is DER in base64: a certificate or a key begins with a SEQUENCE of over 127 bytes.
    (re.compile(r"\bMI[GHIJ](?:[A-Za-z0-9+/=]|\\[nr]|%0[AaDd]|\s(?=[A-Za-z0-9+/=]{16})){29,}"), HIDDEN),
    (re.compile(r"eyJ[\w-]{6,}(?:(?:\.|%2[Ee])[\w-]*)*"), HIDDEN),
    (re.compile(r"\b(Bearer|Basic)(?:\s+|%20)(?=\S*\d|\S{24})[^\s'\",;…]{8,}", re.IGNORECASE), rf"\1 {HIDDEN}"),
)
_AFTER_SCHEME = re.compile(r"(?<=://)[^\s'\"<>…]+")
_QUERY = re.compile(r"(?P<begin>://(?:(?!://)[^\s'\"<>?#])*[?#]|[\w/.-][?#&](?=[\w.~%+-]+=))(?P<query>[^\s'\"<>…]+)")
_QUERY_PART = re.compile(r"(?P<name>[^=&;#]*=)?[^&;#]+")


def hide_shapes(text: str) -> str:
    """``text`` without what looks like a JWT or a PEM block, and without URLs' user information and query values."""
    for shape, instead in _SHAPES:
        text = shape.sub(instead, text)
    text = _AFTER_SCHEME.sub(_hide_user, text)
    return _QUERY.sub(lambda found: found["begin"] + _QUERY_PART.sub(_hide_part, found["query"]), text)


def _hide_user(after_scheme: re.Match[str]) -> str:
    _, sign, rest = after_scheme[0].rpartition("@")
    return f"{HIDDEN}@{rest}" if sign else after_scheme[0]


def _hide_part(part: re.Match[str]) -> str:
    return (part["name"] or "") + HIDDEN


class Redactor:
    """Hides what it knows to be secret, and what has the shape of a secret. Thread-safe."""

    def __init__(self) -> None:
        # Of who adds. Hiding takes no lock: a process that was forked while another thread held it would wait for ever.
        self._lock = threading.Lock()
        self._values: tuple[str, ...] = ()
        self._tokens: tuple[tuple[str, ...], ...] = ()

    def add(self, *values: str) -> None:
        """``values`` are secret for good."""
        forms = {form for value in values for form in _forms(value)}
        with self._lock:
            self._values = _longest_first({*self._values, *forms})

    def add_token(self, token: str) -> None:
        """``token`` is secret until several others have taken its place."""
        forms = _longest_first(_forms(token))
        with self._lock:
            if forms and forms not in self._tokens:
                self._tokens = (*self._tokens, forms)[-_TOKENS_KEPT:]

    def add_headers(self, headers: Iterable[tuple[str, str]]) -> None:
        """The values of ``headers``; of ``Bearer x`` and ``Basic x`` also the ``x``, and the password in it."""
        for _name, value in headers:
            self.add(value, *_credentials(value))

    def add_url(self, url: str) -> None:
        """The user information and the query values of ``url``."""
        try:
            parts = urlsplit(url)
            self.add(
                *(text for text in (parts.username, parts.password) if text),
                *(value for _name, value in parse_qsl(parts.query)),
                *(part.partition("=")[2] or part for part in parts.query.split("&")),
            )
        except ValueError:
            pass  # no URL: it is refused, or never used

    def add_environ(self, environ: Mapping[str, str]) -> None:
        """What the environment tells the libraries that is secret: users and passwords of proxies."""
        for name, value in environ.items():
            if name.lower().endswith("_proxy"):
                self.add_url(value)

    def add_unless_path(self, path: str) -> None:
        """What was given as the path of a file, where it looks more like a token that was put there instead."""
        if not _LIKE_A_PATH.match(path) and len(path) >= _PASTED:
            self.add(path)

    def __call__(self, text: str) -> str:
        known = (*self._values, *(form for forms in self._tokens for form in forms))
        for secret in known:
            text = text.replace(secret, HIDDEN)
        for secret in known:
            text = _without_pieces(text, secret)
        return hide_shapes(text)


class RedactedRecords(logging.Filter):
    """Hides secrets in the package's log records before any handler has them, wherever in a program it is.

    Between ``begin`` and ``end`` it is on each of the package's loggers: one on their parent alone would not see their
    records, and a handler comes after those that were there before.
    """

    _PACKAGE = __name__.partition(".")[0]

    def __init__(self, redact: Redactor) -> None:
        super().__init__()
        self._redact = redact
        self._loggers: list[logging.Logger] = []

    def begin(self) -> None:
        """From here on, of all modules that are imported by now."""
        parent = logging.getLogger(self._PACKAGE)
        there = [*parent.manager.loggerDict.items()]  # threads may add some meanwhile
        children = [each for name, each in there if name.startswith(f"{self._PACKAGE}.")]
        # Where a logger is only the beginning of others' names, there is a placeholder.
        self._loggers = [parent, *(each for each in children if isinstance(each, logging.Logger))]
        for logger in self._loggers:
            logger.addFilter(self)

    def end(self) -> None:
        """Until here."""
        for logger in self._loggers:
            logger.removeFilter(self)
        self._loggers = []

    def filter(self, record: logging.LogRecord) -> bool:
        """Redacts ``record``, and lets it through."""
        record.msg, record.args = self._redact(record.getMessage()), None
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        if record.exc_text:
            # Also where another reader's filter has made it: each knows its own token.
            record.exc_text, record.exc_info = self._redact(record.exc_text), None
        return True


def _longest_first(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def _forms(value: str) -> set[str]:
    """``value`` as it is, and as it is written in quotes, in a URL, and in base64."""
    value = value.strip()
    if len(value) < SHORTEST_SECRET:
        return set()
    encoded = base64.b64encode(value.encode("utf-8", "surrogatepass")).decode().rstrip("=")
    return {
        value,
        repr(value)[1:-1],
        value.replace("\\", "\\\\").replace('"', '\\"'),
        quote(value.encode("utf-8", "surrogatepass"), safe=""),
        encoded,
        encoded.replace("+", "-").replace("/", "_"),
    }


def _credentials(value: str) -> Iterator[str]:
    """``x`` of ``Bearer x``; of ``Basic x`` also its password (RFC 7617)."""
    scheme, _, rest = value.strip().partition(" ")
    if not rest:
        return
    yield rest.strip()
    if scheme.lower() == "basic":
        with suppress(ValueError):  # it is not what it should be, and is hidden as it is
            yield base64.b64decode(rest.strip(), validate=True).decode().partition(":")[2]


def _without_pieces(text: str, secret: str) -> str:
    """``text`` without pieces of ``secret``, which was cut: runs of characters that are also in it, if long enough."""
    size = max(SHORTEST_SECRET, min(_PIECE, len(secret) * 3 // 4))
    step = size // 2
    # In a piece, one of every other few characters is a whole one: as many times fewer to look up than all of them.
    if not any(text[at : at + step] in secret for at in range(0, len(text) - step + 1, step)):
        return text
    kept: list[str] = []
    at = 0
    while at < len(text):
        end = at + size
        if end > len(text) or text[at:end] not in secret:
            kept.append(text[at])
            at += 1
            continue
        while end < len(text) and text[at : end + 1] in secret:
            end += 1
        kept.append(HIDDEN)
        at = end
    return "".join(kept)
