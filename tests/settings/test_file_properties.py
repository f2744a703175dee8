"""A well-formed file, whatever its order and shape, is what the same values are as flags."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .test_order import NEEDS, SAMPLES, attribute

if TYPE_CHECKING:
    from .conftest import Read

# The file is written anew each time; how long that takes is the machine's affair.
in_one_file = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=50)

ALUMETS_OWN = [
    "[plugins.rapl]\npoll_interval = 7",
    "[plugins.csv]\noutput_path = 'x'",
    "[plugins.perf]\nenabled = true",
]


@in_one_file
@given(
    data=st.data(),
    given_keys=st.lists(st.sampled_from(list(SAMPLES)), unique=True),
    style=st.sampled_from(["top", "top, with a plugin", "plugin", "dotted"]),
)
def test_any_well_formed_file_is_its_values(
    read: Read, pem: str, data: st.DataObject, given_keys: list[str], style: str
) -> None:
    """Any of the keys, in any order, at the top level or in Alumet's table, between tables that are Alumet's alone."""
    needed = {NEEDS[key] for key in given_keys if key in NEEDS}
    keys = data.draw(st.permutations(sorted({*given_keys, *needed})))
    values = {key: SAMPLES[key][data.draw(st.integers(0, 1))].replace("PEM", pem) for key in keys}
    if "poll_interval" in values:
        values["poll_interval"] = "500ms"  # no sample of the other interval is less
    prefix = "plugins.k8s." if style == "dotted" else ""
    ours = "".join(f"{prefix}{key} = '{value}'\n" for key, value in values.items())
    others = data.draw(st.permutations(ALUMETS_OWN))
    file = {
        "top": ours,
        "top, with a plugin": "\n".join([ours, *others]),
        "plugin": "\n".join([*others[:1], "[plugins.k8s]", ours, *others[1:]]),
        "dotted": ours,
    }[style]
    flags: dict[str, Any] = dict(values)
    settings_of_file, settings_of_flags = read(file), read(flags=flags)
    for key in SAMPLES:
        assert attribute(settings_of_file, key) == attribute(settings_of_flags, key)
    assert [key for key, source in settings_of_file.sources.items() if source.startswith("file ")] == [
        key for key in SAMPLES if key in values
    ]


plain = st.text(st.characters(codec="utf-8", exclude_characters="${\\\0"), max_size=6)
variables = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,5}", fullmatch=True).map(lambda name: f"X{name}"),
    plain | st.sampled_from(["${XA}", "$", "\\${"]),  # what a variable holds is not looked at again
    min_size=1,
    max_size=3,
)


@in_one_file
@given(data=st.data(), environ=variables)
def test_strings_are_what_is_written_with_the_variables_in_place(
    read: Read, data: st.DataObject, environ: dict[str, str]
) -> None:
    """``${NAME}`` is the variable, ``\\${`` a plain ``${``, all else stays as it is; in both kinds of strings."""
    pieces = plain.map(lambda text: (text, text)) | st.sampled_from(
        [("\\${", "${"), ("$", "$"), *((f"${{{name}}}", value) for name, value in environ.items())]
    )
    drawn = data.draw(st.lists(pieces, max_size=6))
    written, expected = ("/" + "".join(side) for side in zip(*drawn, strict=True)) if drawn else ("/", "/")
    toml = json.dumps(written, ensure_ascii=False).replace("\\\\$", "\\$").replace("\x7f", "\\u007f")
    assert read(f"state_file = {toml}", environ=environ).state_file == expected
    if written.isprintable() and "'" not in written:
        assert read(f"state_file = '{written}'", environ=environ).state_file == expected
