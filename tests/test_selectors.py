"""Patterns of names, and label selectors as the Kubernetes API evaluates them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.selectors import Included, LabelSelector, Patterns

WEB = {"app": "web", "tier": "front", "example.com/team": "a", "empty": ""}
KEYS, VALUES = st.sampled_from(["app", "tier", "x.io/y"]), st.sampled_from(["", "web", "a.b_c-D"])
LABELS = st.dictionaries(KEYS, VALUES, max_size=3)


@pytest.mark.parametrize(
    ("selector", "matches"),
    [
        ("", True),
        ("  ", True),
        ("app=web", True),
        ("app==web,tier=front", True),
        (" app = web , tier != back ", True),
        ("app=db", False),
        ("app=web,tier=back", False),
        ("app!=web", False),
        ("absent!=x", True),
        ("app", True),
        ("!app", False),
        ("! absent", True),
        ("absent", False),
        ("app in (db, web)", True),
        ("app in (db)", False),
        ("absent in (db)", False),
        ("app notin (db, web)", False),
        ("absent notin (db)", True),
        ("tier notin (back),app in (web)", True),
        ("example.com/team=a", True),
        ("empty=", True),
        ("empty", True),
        ("empty in (,x)", True),
        ("app=", False),
        ("in", False),
        ("in!=web", True),
    ],
)
def test_a_label_selector(selector: str, matches: bool) -> None:
    """Each operator, on a label that the pod has and on one that it has not."""
    assert LabelSelector(selector).matches(WEB) is matches


@pytest.mark.parametrize(
    "selector",
    [
        "app=web,",
        ",app",
        "app=web tier",
        "app in web",
        "app in (web",
        "=web",
        "app=we b",
        "app>1",
        "!",
        "-app",
        "a/b/c",
        "app=-web",
        "app=" + "x" * 64,
        "x" * 64,
        "app=wéb",
        "app\x00",
        "app in ((web))",
        "!app=web",
        "app === web",
    ],
)
def test_what_is_no_selector_is_refused(selector: str) -> None:
    """With what one looks like."""
    with pytest.raises(ValueError, match="a label selector as of `kubectl get pods -l`"):
        LabelSelector(selector)


@given(LABELS, LABELS)
def test_equality_is_that_of_the_labels(labels: dict[str, str], required: dict[str, str]) -> None:
    """A selector made of labels takes the pods that have them all, and its negation of one label the others."""
    selector = LabelSelector(",".join(f"{key}={value}" for key, value in required.items()))
    assert selector.matches(labels) is (required.items() <= labels.items())
    for key, value in required.items():
        assert LabelSelector(f"{key}!={value}").matches(labels) is (labels.get(key) != value)


@given(st.text(max_size=30) | st.text("abin!=(), /.", max_size=30))
def test_any_text_is_a_selector_or_refused(text: str) -> None:
    """Nothing else is raised, and a selector that is one evaluates."""
    try:
        selector = LabelSelector(text)
    except ValueError:
        return
    assert selector.matches({}) in (True, False)


@pytest.mark.parametrize(
    ("patterns", "name", "matches"),
    [
        ((), "a", False),
        (("*",), "", True),
        (("team-*",), "team-a", True),
        (("team-*",), "Team-a", False),
        (("team-*",), "my-team-a", False),
        (("team-?",), "team-ab", False),
        (("a", "b*"), "bc", True),
        (("a.c",), "abc", False),
        (("a*c",), "a\nc", True),
        (("a",), "a\n", False),
    ],
)
def test_patterns(patterns: tuple[str, ...], name: str, matches: bool) -> None:
    """The whole name, capitals and all."""
    assert Patterns(patterns).match(name) is matches


@given(st.text(min_size=1, max_size=20).filter(lambda name: not set("[]*?") & set(name)), st.integers(0, 20))
def test_a_pattern_stands_for_what_was_cut_out(name: str, place: int) -> None:
    """Of any name."""
    assert Patterns((name,)).match(name)
    assert Patterns((f"{name[:place]}*",)).match(name)
    assert not Patterns((f"{name}?",)).match(name)


@pytest.mark.parametrize(
    ("include", "exclude", "included"),
    [((), (), "abc"), (("a", "b"), (), "ab"), ((), ("a",), "bc"), (("a", "b"), ("b",), "a"), (("*",), ("*",), "")],
)
def test_what_is_excluded_wins(include: tuple[str, ...], exclude: tuple[str, ...], included: str) -> None:
    """Nothing that is included: all."""
    assert "".join(name for name in "abc" if name in Included(include, exclude)) == included
