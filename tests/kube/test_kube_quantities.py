"""Quantities and image references, as the API writes them."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.kube.images import Image, parse_image, repo_digest
from otel_k8s_cgroup.kube.quantities import nanocores, parse_quantity, whole_bytes

DIGEST = f"sha256:{'0a' * 32}"
SUFFIXES = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("0", 0),
        ("1.5", Fraction(3, 2)),
        ("100m", Fraction(1, 10)),
        ("1u", Fraction(1, 10**6)),
        ("1n", Fraction(1, 10**9)),
        ("128Mi", 128 * 2**20),
        ("1Ki", 1024),
        ("0.5Gi", 2**29),
        ("1Ei", 2**60),
        ("5G", 5 * 10**9),
        ("1k", 1000),
        ("1e3", 1000),
        ("1E3", 1000),
        ("1E", 10**18),
        ("12e-3", Fraction(3, 250)),
        ("1e+2", 100),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("+1", 1),
        ("-1", -1),
    ],
)
def test_a_quantity(text: str, number: Fraction | int) -> None:
    """Exactly: no floating-point number comes between."""
    assert parse_quantity(text) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        " 1",
        "1 ",
        "1K",
        "1ki",
        "1mi",
        "1e",
        "1e1.5",
        "e3",
        ".",
        "+",
        "1..5",
        "0x10",
        "1_000",
        "١",
        "1Gi ",
        "nan",
        "inf",
        "1e999",
        "1e-999",
        "9" * 65,
        "1e3k",
        "1 k",
        "1,5",
        "--1",
        "1\n",
    ],
)
def test_what_is_no_quantity(text: str) -> None:
    """It is refused, and as an amount it is absent."""
    with pytest.raises(ValueError, match="not a quantity"):
        parse_quantity(text)
    assert nanocores(text) is whole_bytes(text) is None


@given(st.integers(0, 10**6), st.integers(0, 999), st.sampled_from(list(SUFFIXES)))
def test_every_decimal_suffix_is_its_exponent(whole: int, decimals: int, suffix: str) -> None:
    """And the two forms of one number are the same amount."""
    number = f"{whole}.{decimals:03}"
    exact = Fraction(whole * 1000 + decimals, 1000) * Fraction(10) ** SUFFIXES[suffix]
    assert parse_quantity(number + suffix) == parse_quantity(f"{number}e{SUFFIXES[suffix]}") == exact


@given(st.text(max_size=12) | st.text("0123456789.+-eEinumkKMGTP", max_size=12))
def test_any_text_is_a_quantity_or_refused(text: str) -> None:
    """No other error; an amount is never negative, and fits OTLP's integers."""
    for amount in (nanocores(text), whole_bytes(text)):
        assert amount is None or 0 <= amount < 2**63


@pytest.mark.parametrize(
    ("text", "cpu", "memory"),
    [
        ("100m", 100_000_000, 1),
        ("1.5", 1_500_000_000, 2),
        ("0.1n", 1, 1),
        ("-1", None, None),
        ("1Ei", None, 2**60),
        ("8Ei", None, None),
    ],
)
def test_amounts_are_rounded_up_as_the_api_does(text: str, cpu: int | None, memory: int | None) -> None:
    """To a nanocore and a byte; what is negative or too large is absent."""
    assert (nanocores(text), whole_bytes(text)) == (cpu, memory)


@pytest.mark.parametrize(
    ("reference", "image"),
    [
        ("nginx", Image("nginx")),
        ("nginx:1.25", Image("nginx", "1.25")),
        ("library/nginx:1.25", Image("library/nginx", "1.25")),
        ("docker.io/library/nginx:1.25-alpine", Image("docker.io/library/nginx", "1.25-alpine")),
        ("registry:5000/app", Image("registry:5000/app")),
        ("registry:5000/app:v1", Image("registry:5000/app", "v1")),
        ("registry.example.com:5000/team/app:v1", Image("registry.example.com:5000/team/app", "v1")),
        ("[fd00::1]:5000/app:v1", Image("[fd00::1]:5000/app", "v1")),
        ("localhost:5000", Image("localhost", "5000")),
        (f"app@{DIGEST}", Image("app", None, DIGEST)),
        (f"registry:5000/app@{DIGEST}", Image("registry:5000/app", None, DIGEST)),
        (f"app:v1@{DIGEST}", Image("app", "v1", DIGEST)),
        (f"docker-pullable://app@{DIGEST}", Image("app", None, DIGEST)),
        (DIGEST, Image()),
        (f"docker://{DIGEST}", Image()),
        (None, Image()),
        ("", Image()),
        ("App", Image()),
        ("app:", Image()),
        ("app@", Image()),
        ("app@sha256:short", Image()),
        ("a//b", Image()),
        ("app:v 1", Image()),
        ("app\n", Image()),
        ("a" * 1025, Image()),
    ],
)
def test_an_image_reference(reference: str | None, image: Image) -> None:
    """Name with registry and port, tag, digest; of an id or of what is no reference nothing."""
    assert parse_image(reference) == image


@given(st.text(max_size=60) | st.text("aA0.:/@-_[]", max_size=1100))
def test_any_text_is_a_reference_or_nothing(text: str) -> None:
    """No error, and none takes long."""
    image = parse_image(text)
    assert image.name is not None or image == Image()


@pytest.mark.parametrize(
    ("image_id", "digest"),
    [
        (f"docker.io/library/nginx@{DIGEST}", f"docker.io/library/nginx@{DIGEST}"),
        (f"docker-pullable://nginx@{DIGEST}", f"nginx@{DIGEST}"),
        (DIGEST, None),
        ("nginx:1.25", None),
        ("", None),
        (None, None),
    ],
)
def test_the_digest_of_a_repository(image_id: str | None, digest: str | None) -> None:
    """Of what a runtime gives as an image's id; a bare id is not a repository's."""
    assert repo_digest(image_id) == digest
