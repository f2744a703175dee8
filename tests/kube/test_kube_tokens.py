"""What is read out of a token: its life, and whether it is one."""

from __future__ import annotations

import base64
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.errors import TokenError
from otel_k8s_cgroup.kube import Credentials
from otel_k8s_cgroup.kube.credentials import token_life_seconds
from otel_k8s_cgroup.model import TokenRetrieval

from .support import jwt

HTTPS = "https://api.example:6443"


@pytest.mark.parametrize(
    ("token", "life"),
    [
        (jwt(iat=100, exp=700), 600.0),
        (jwt(exp=1_000_600), 600.0),
        (jwt(iat=100.5, exp=700.5), 600.0),
        (jwt(exp=999_999), None),
        (jwt(iat=700, exp=100), None),
        (jwt(iat=100), None),
        (jwt(exp="700"), None),
        (jwt(iat=0.5, exp=True), None),
        (jwt(exp=float("nan")), None),
        (jwt(exp=float("inf")), None),
        (jwt(exp=10**400), None),
        (jwt(exp=-5), None),
        ("opaque", None),
        ("a.b.c", None),
        ("a.!!.c", None),
        ("..", None),
        (f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c", None),
        (f"a.{base64.urlsafe_b64encode(b'[' * 20_000).decode()}.c", None),
    ],
)
def test_life_of_a_jwt(token: str, life: float | None) -> None:
    """``exp`` less ``iat``, or less now (here 1,000,000); what does not say has none and is kept until a 401."""
    assert token_life_seconds(token, 1_000_000.0) == life


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["exp", "iat", "sub"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_claims_have_a_sensible_life_or_none(claims: object) -> None:
    """Never an exception, never a life that is not positive and finite."""
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
    life = token_life_seconds(f"h.{payload}.s", 1_000_000.0)
    assert life is None or 0 < life < 1e12


@given(st.text())
def test_any_text_has_a_life_or_none(text: str) -> None:
    """Never an exception."""
    for token in (text, f"a.{text}.c"):
        assert token_life_seconds(token, 0.0) is None or "." in token


@given(st.integers(min_value=1, max_value=10**11), st.integers(min_value=1, max_value=10**9))
def test_a_well_formed_token_has_its_life(issued: int, life: int) -> None:
    """Whatever our clock says."""
    assert token_life_seconds(jwt(iat=issued, exp=issued + life), 0.0) == life


SPACE = st.text(" \t\r\n", max_size=3).map(str.encode)


@given(content=st.binary(max_size=200))
def test_any_file_is_a_token_or_an_error(content: bytes) -> None:
    """What comes out is what went in without the white space around it, fit for a header; else TokenError."""
    token = _token_or_none(content)
    if token is not None:
        assert token.encode() == content.strip()
        assert token.isascii()
        assert token.isprintable()
        assert " " not in token


@given(token=st.from_regex(rb"[!-~]{1,200}", fullmatch=True), before=SPACE, after=SPACE)
def test_a_well_formed_file_is_its_token(token: bytes, before: bytes, after: bytes) -> None:
    """With a line's end behind it, as most have, or any other white space around it."""
    assert _token_or_none(before + token + after) == token.decode()


def _token_or_none(content: bytes) -> str | None:
    read, write = os.pipe()
    try:
        os.write(write, content)
        os.close(write)
        return Credentials(TokenRetrieval("file", file=f"/dev/fd/{read}"), HTTPS).token()
    except TokenError:
        return None
    finally:
        os.close(read)
