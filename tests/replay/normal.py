"""What may vary between two correct replies is made equal; nothing else is."""

import json
import re
from typing import Any

Normal = Any
"""A decoded reply without what may vary, or its text where it is not a JSON object."""

_TIMES = frozenset({"total_time", "max_time", "average", "stdev"})


def normalise(text: str | None, *, known_ids: int = 0, downstream: bool = False) -> Normal:
    """Return what two replies to the same request must agree in.

    * a row that the conversation itself made has an ``id`` and ``created`` of its own; both must
      be there, a number and a text;
    * the statistics must be there, but only ``num`` counts;
    * a new token is another each time; it must be 64 characters of base64;
    * ``columns`` is a set; keys have no order, JSON has no spacing.

    Lines of the stream modes, ``"ok"`` and ``null`` count to the letter.

    * downstream of another server, how much was still to be copied is chance, and the statistics
      tell of the upstream, too.

    Args:
        text: A reply, or nothing where the connection was closed.
        known_ids: Rows up to this id were there before.
        downstream: Whether the server has an upstream.
    """
    if text is None or not text.startswith("{"):
        return text
    message: dict[str, Any] = json.loads(text)
    if isinstance(message.get("id"), int) and message["id"] > known_ids:
        message["id"] = "<new id>"
        if isinstance(message.get("created"), str):
            message["created"] = "<now>"
    if re.fullmatch(r"[A-Za-z0-9._]{64}", message.get("token", "")):
        message["token"] = "<token>"
    if "columns" in message:
        message["columns"] = sorted(message["columns"])
    if "requests" in message:
        message["requests"] = {
            name: "<seconds>" if name in _TIMES and isinstance(number, int | float) else number
            for name, number in message["requests"].items()
        }
    if downstream:
        message.pop("upstream", None)
        if isinstance(message.get("tasks"), int):
            message["tasks"] = "<a number>"
    return message


def token_in(text: str | None) -> str | None:
    """Return the token in a reply, if there is one."""
    token = json.loads(text).get("token") if text is not None and text.startswith("{") else None
    return token if isinstance(token, str) else None


def without_gc_mark(reply: Normal) -> Normal:
    """Return a reply as the reference gives it on SQL servers, where it leaves the mark out."""
    if isinstance(reply, dict):
        return {name: value for name, value in reply.items() if name != "gc_mark"}
    return reply


def with_gc_mark(reply: Normal) -> Normal:
    """Return a reply of a server before 2024, which had no ``gc_mark``, as one of today."""
    if isinstance(reply, dict) and {"outhash", "unihash"} <= reply.keys():
        return {"gc_mark": "", **reply}
    return reply
