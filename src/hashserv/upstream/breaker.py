"""The circuit breaker: whether an upstream is asked at all. No I/O but its log, and no clock.

::

             a lasting failure,                       a good probe
    closed ─ or 3 broken connections ──> open <──────────────────────> half-open ─ answers ─> closed
                                              any failure of the trial

While it is open nobody waits for the upstream; whoever owns the breaker probes it, each time after
`pause` seconds. Half-open, one small batch at a time is let through.
"""

import logging
from enum import Enum
from typing import Final

from hashserv.upstream.failures import Cause

logger = logging.getLogger("hashserv.upstream")

BROKEN_IN_A_ROW: Final = 3
"""Connections that may break, one after the other, before the circuit opens: a server that restarts
breaks one, or one of each idle connection."""

TRIAL_QUESTIONS: Final = 256
"""Questions that are let through at once while the circuit is half-open."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 4.0
"""Seconds before the first probe, and at most between two: with the 2 s that a probe may take and
the trial after it, service is back within 10 s of a fault's end."""

REFUSED_PAUSE: Final = 30.0
"""Seconds between two probes of an upstream that refuses us, which counts our failed logins."""


class State(Enum):
    """The states of the circuit; the values are those of `UpstreamSummary`."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"


class Breaker:
    """Decides whether questions go to the upstream, by what became of those before.

    Args:
        place: The upstream's address, for the log.
    """

    def __init__(self, place: str) -> None:
        self._place = place
        self._broken = 0  # connections in a row
        self._trial = False  # half-open: whether a batch is under way
        self._last_words = ""  # why it opened, until it closes
        self.state = State.CLOSED
        self.pause = FIRST_PAUSE
        """Seconds to wait before the next probe."""

    @property
    def lets_through(self) -> bool:
        """Whether a question would be let through now."""
        return self.state is State.CLOSED or (self.state is State.HALF_OPEN and not self._trial)

    def admit(self, questions: int) -> int:
        """Return how many of some questions may be asked; they count as asked.

        The caller must tell when they are settled: `trial_is_over`, beside what came of it.
        """
        if self.state is State.CLOSED:
            return questions
        if not questions or not self.lets_through:
            return 0
        self._trial = True
        return min(questions, TRIAL_QUESTIONS)

    def trial_is_over(self) -> None:
        """Take note that admitted questions are settled, answered or not."""
        self._trial = False

    def succeeded(self) -> None:
        """Take note that a batch was answered, or that there is nothing wrong with the upstream."""
        if self.state is State.OPEN:
            return
        self._broken = 0
        if self.state is State.HALF_OPEN:
            self.state = State.CLOSED
            self.pause = FIRST_PAUSE
            self._last_words = ""
            logger.warning("The upstream %s answers again: it is asked as usual", self._place)

    def failed(self, cause: Cause) -> bool:
        """Take note that a batch has no answers, and tell whether the circuit is open now."""
        if self.state is not State.OPEN:
            self._broken += 1
            if cause.lasting or self.state is State.HALF_OPEN or self._broken >= BROKEN_IN_A_ROW:
                self._open(cause)
        return self.state is State.OPEN

    def probed(self, cause: Cause | None) -> None:
        """Take note of a probe: why it failed, or `None` where it went well."""
        if self.state is not State.OPEN:
            return
        if cause is not None:
            self._lengthen_pause(cause)
            logger.debug("The upstream %s is still not asked: %s", self._place, cause.words)
            return
        self.state = State.HALF_OPEN
        logger.info(
            "The upstream %s can be reached again: a few questions go there first", self._place
        )

    def _open(self, cause: Cause) -> None:
        if self.state is State.HALF_OPEN or cause.refused:
            self._lengthen_pause(cause)
        self.state = State.OPEN
        self._broken = 0
        self._trial = False
        # Where it comes back and fails again in the same way, that is no news.
        level = logging.INFO if cause.words == self._last_words else logging.WARNING
        self._last_words = cause.words
        logger.log(
            level,
            "The upstream %s is not asked for now: %s. Answers are from the own database only; "
            "it is tried again now and then",
            self._place,
            cause.words,
        )

    def _lengthen_pause(self, cause: Cause) -> None:
        self.pause = REFUSED_PAUSE if cause.refused else min(2 * self.pause, LONGEST_PAUSE)
