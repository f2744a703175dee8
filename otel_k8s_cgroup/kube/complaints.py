"""What the API says of its errors, as one line for a user."""

from __future__ import annotations

import json

from otel_k8s_cgroup.http_words import quoted


def status_message(body: bytes) -> str:
    """What the body of an error says: the ``message`` of a Status object, else its text."""
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("message"), str) and answer["message"]:
        return quoted(answer["message"])
    text = body.decode(errors="replace").strip()
    return quoted(text) if text else "it gives no reason"
