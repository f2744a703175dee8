"""What other programs write into headers and bodies: read rightly where it is well-formed, and harmless where not."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from otel_k8s_cgroup.http_words import quoted, retry_after_seconds
from otel_k8s_cgroup.kube.complaints import status_message

NOW = 1_000_000_000.0

PIECES = [
    *("Thu, ", "Thursday, ", "Thu", "01", "1", " ", "Jan", "-Jan-", "70", "1970", "0001", "9999", "00:01:40", "0:0"),
    *("GMT", "+0000", "-9999", "+99999999999", "UTC", "EST", "PM", "(", ")", ",", ":", "-", "/", "\t", "9" * 5000),
]
any_text = st.text(st.characters()) | st.lists(
    st.sampled_from(PIECES) | st.text(st.characters(), max_size=2), max_size=9
).map("".join)

_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_FORMS = (
    "{day:.3}, {at.day:02} {month} {at.year:04} {at:%H:%M:%S} GMT",  # IMF-fixdate
    "{day}, {at.day:02}-{month}-{at:%y} {at:%H:%M:%S} GMT",  # RFC 850
    "{day:.3} {month} {at.day:2} {at:%H:%M:%S} {at.year:04}",  # asctime()
)
"""All that a recipient must take: https://www.rfc-editor.org/rfc/rfc9110#name-date-time-formats"""


@given(any_text, st.floats(0, 1e11))
def test_any_retry_after_is_a_time_to_wait_or_none(header: str, now: float) -> None:
    """Never an exception, never less than nothing and never for ever."""
    seconds = retry_after_seconds(header, now)
    assert seconds is None or 0 <= seconds < math.inf


@given(st.integers(0, 10**15), st.sampled_from(["", " ", "\t"]), st.integers(0, 30))
def test_seconds_are_read_as_they_are_written(seconds: int, space: str, zeros: int) -> None:
    """With space around them or not, and with noughts before them."""
    assert retry_after_seconds(f"{space}{'0' * zeros}{seconds}{space}", NOW) == seconds


# Two digits of a year have a century of their own.
@given(st.datetimes(datetime(1970, 1, 1), datetime(2068, 12, 31)), st.sampled_from(_FORMS))  # noqa: DTZ001 - GMT is put on
def test_dates_are_read_in_all_forms_of_http(moment: datetime, form: str) -> None:
    """To the second; one that is past is now."""
    at = moment.replace(microsecond=0, tzinfo=UTC)
    header = form.format(day=_DAYS[at.weekday()], month=_MONTHS[at.month - 1], at=at)
    assert retry_after_seconds(header, NOW) == max(0.0, at.timestamp() - NOW)


@given(st.text(st.characters()) | st.text(st.characters(), min_size=121))
def test_what_is_quoted_is_one_short_line(text: str) -> None:
    """Whatever it is; what has nothing of that is as it was."""
    assert quoted(text).isprintable()
    assert len(quoted(text)) < 125 * 10  # an escape has up to ten characters
    assert len(text) > 120 or quoted(text) == repr(text)


@given(st.binary() | st.text(st.characters()).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_body_of_an_error_is_one_short_line(body: bytes) -> None:
    """Never an exception."""
    assert status_message(body).isprintable()
    assert len(status_message(body)) < 125 * 10


@given(st.text(st.characters(), min_size=1, max_size=100))
def test_the_message_of_a_status_is_what_is_said(message: str) -> None:
    """The API's own words, whatever stands beside them."""
    body = json.dumps({"kind": "Status", "message": message, "code": 403}).encode()
    assert status_message(body) == repr(message)
