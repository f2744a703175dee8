"""A PodList as it comes in, one pod at a time: what is held is one pod, however many there are and however large.

The API server ignores ``limit`` with ``resourceVersion=0``, and a kubelet or a file has no pages at all. Pages without
``resourceVersion=0`` would cost the cluster more: for one node's pods, etcd reads those of all nodes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from otel_k8s_cgroup.errors import MalformedObject

from .objects import parse_page

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from .objects import Page

MAX_POD_BYTES = 8 * 1024 * 1024
"""etcd takes objects of 1.5 MiB; as JSON they are larger, but not by so much."""
_MAX_ENVELOPE_BYTES = 1024 * 1024
"""What a list may have beside its pods."""
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"

_TOP, _LIST, _ITEM = 1, 2, 3
"""Depths: in the PodList, in one of its lists, in an item of that."""

# No escapes are left in what these are applied to, see `_without_escapes`.
_STRING = rb'"[^"]*+"'
_PLAIN = rb'[^"{}\[\]]*+'
_BRACKET = rb"([{}\[\]]?)"


def _up_to_bracket(depth: int) -> re.Pattern[bytes]:
    """All up to the next bracket that matters, and that; whole values of up to ``depth`` levels do not matter."""
    values = _STRING
    for _ in range(depth):
        values = _STRING + rb"|[{\[]" + _PLAIN + rb"(?:(?:" + values + rb")" + _PLAIN + rb")*+[}\]]"
    return re.compile(_PLAIN + rb"(?:(?:" + values + rb")" + _PLAIN + rb")*+" + _BRACKET)


# Inside a pod, small values are passed over by the regular expression, many times faster than bracket by bracket.
_OUTSIDE, _INSIDE = _up_to_bracket(0), _up_to_bracket(2)
_ITEMS = re.compile(rb'(?<!\\)"items"\s*:\s*\Z')


def split_pods(
    chunks: Iterable[bytes],
    where: str,
    skip: Callable[[MalformedObject], None],
    *,
    max_pod_bytes: int = MAX_POD_BYTES,
) -> Generator[bytes, None, Page]:
    """Yields the items of the PodList that ``chunks`` are, not decoded, and returns what it says beside them.

    ``skip`` is told of items that are no objects or larger than ``max_pod_bytes``. Raises MalformedObject, at the end
    at the latest, where it is no PodList; what ``chunks`` raises goes on.
    """
    splitter = _Splitter(where, skip, max_pod_bytes)
    rest = b""
    for chunk in chunks:
        # An escape is not cut in two.
        whole = rest + chunk if rest else chunk
        end = len(whole.rstrip(b"\\")) if whole.endswith(b"\\") else len(whole)
        rest = whole[end:]
        if len(rest) > max_pod_bytes:
            break
        yield from splitter.feed(whole[:end])
    yield from splitter.feed(rest)
    page = parse_page(splitter.envelope, where)
    for _ in range(page.others):
        skip(MalformedObject(f"{where}: an item of the list is no object"))
    return page


class _Splitter:
    def __init__(self, where: str, skip: Callable[[MalformedObject], None], max_pod_bytes: int) -> None:
        self._where = where
        self._skip = skip
        self._max_pod_bytes = max_pod_bytes
        self._depth = 0
        self._in_string = False
        self._in_items = False
        self._in_item = False
        self._envelope = bytearray()
        self._item: list[bytes] = []
        self._item_bytes = 0

    @property
    def envelope(self) -> bytes:
        """All but the items, with ``{}`` for each."""
        return bytes(self._envelope).removeprefix(_BYTE_ORDER_MARK)

    def feed(self, chunk: bytes) -> Iterable[bytes]:
        """The items that end in ``chunk``."""
        flat = _without_escapes(chunk)
        kept = position = 0
        """Up to where of ``chunk`` is taken, and looked at."""
        while position < len(flat):
            if self._in_string:
                quote = flat.find(b'"', position)
                if quote < 0:
                    break
                self._in_string = False
                position = quote + 1
            found = (_INSIDE if self._depth >= _ITEM else _OUTSIDE).match(flat, position)
            if found is None:  # never: all of it may be empty
                break
            position = found.end()
            match found[1]:
                case b"":
                    # The end of the chunk, or a string that has no end in it.
                    self._in_string = position < len(flat)
                    position = position + 1 if self._in_string else position
                case b"{" | b"[":
                    self._take(chunk[kept : position - 1])
                    kept = position - 1
                    self._opened()
                    self._depth += 1
                case _:
                    self._depth -= 1
                    if self._in_item and self._depth == _LIST:
                        self._take(chunk[kept:position])
                        kept = position
                        if item := self._ended():
                            yield item
                    elif self._depth == _TOP:
                        self._in_items = False
        self._take(chunk[kept:])

    def _opened(self) -> None:
        if self._depth == _TOP:
            self._in_items = _ITEMS.search(self._envelope[-256:]) is not None
        elif self._depth == _LIST and self._in_items:
            self._in_item = True

    def _ended(self) -> bytes | None:
        self._in_item = False
        item = b"".join(self._item) if self._item_bytes <= self._max_pod_bytes else None
        self._item.clear()
        self._item_bytes = 0
        self._take(b"{}")
        if item is None:
            self._skip(MalformedObject(f"{self._where}: a pod of over {self._max_pod_bytes} bytes"))
        return item

    def _take(self, piece: bytes) -> None:
        if self._in_item:
            self._item_bytes += len(piece)
            if self._item_bytes <= self._max_pod_bytes:
                self._item.append(piece)
            else:
                self._item.clear()
            return
        self._envelope += piece
        if len(self._envelope) > _MAX_ENVELOPE_BYTES:
            raise MalformedObject(f"{self._where}: over {_MAX_ENVELOPE_BYTES} bytes beside the pods")


def _without_escapes(text: bytes) -> bytes:
    """As long as ``text``, and every quote in it begins or ends a string."""
    return text.replace(b"\\\\", b"__").replace(b'\\"', b"__")
