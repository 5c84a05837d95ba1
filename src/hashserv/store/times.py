"""The `created` of outhash rows, in the spelling of an engine's tables (PROTOCOL.md §8)."""

import time
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from typing import Final

_SECOND: Final = 1_000_000
"""In microseconds."""


class Clock:
    """Gives each row its `created`: now, and later than any before it, so that age is clear.

    Args:
        local: Whether the tables hold local time without a zone, as those of the reference's SQL
            engines do, in the place of UTC with one.
    """

    def __init__(self, *, local: bool = False) -> None:
        self._zone = None if local else UTC
        self._suffix = "" if local else "+00:00"
        self._last = 0  # microseconds since 1970

    def times(self, count: int) -> list[str]:
        """Return `count` times in the text form of rows, each later than the one before."""
        first = max(time.time_ns() // 1000, self._last + 1)
        self._last = first + count - 1
        return [self._text_of(at) for at in range(first, first + count)]

    def ago(self, seconds: float) -> str:
        """Return the time so many seconds ago, 1970 at most, as the tables spell it."""
        return self._text_of(max(0, int((time.time() - seconds) * _SECOND)))

    def respelled(self, created: str | None) -> str | None:
        """Return the `created` of another database as these tables spell it.

        Returns `None` where it does not tell its zone: which time it means is not known then.
        """
        try:
            parsed = datetime.fromisoformat(created or "")
        except ValueError:
            return None
        if parsed.tzinfo is None:
            return None
        here = parsed.astimezone(self._zone)
        return f"{here.replace(tzinfo=None).isoformat(timespec='microseconds')}{self._suffix}"

    def kept(self, created: str | None) -> str | None:
        """Return the `created` of another database, which is to mean the same here.

        Text without a zone is the local time of its writer everywhere. What is no time at all is
        kept where the tables take any text, and is `None` elsewhere.
        """
        if self._zone is not None:
            return created
        try:
            return self.respelled(created) or datetime.fromisoformat(created or "").isoformat()
        except ValueError:
            return None

    def _text_of(self, microseconds: int) -> str:
        seconds, rest = divmod(microseconds, _SECOND)
        return f"{_text_of_second(seconds, self._zone)}.{rest:06}{self._suffix}"


@lru_cache(maxsize=4)
def _text_of_second(seconds: int, zone: tzinfo | None) -> str:
    return datetime.fromtimestamp(seconds, zone).strftime("%Y-%m-%dT%H:%M:%S")
