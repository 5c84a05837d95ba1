"""How many questions go into one batch, by how long batches took. No I/O, and no clock."""

from typing import Final

FIRST_SHARE: Final = 2
"""The first batches are this part of the most: it is not known yet how fast the line is."""

LEAST: Final = 128
"""Questions that a batch may always have."""

_FAST: Final = 0.1
_SLOW: Final = 0.3
"""Parts of the time-out. A batch that took less than the former may grow; one that took more than
the latter shrinks, long before it would be too late."""


class Pace:
    """The size of batches over a line of unknown speed.

    A line that is too slow for a large batch would otherwise never answer one: each would be cut
    at its time-out, and the circuit opened, though small ones pass.

    Args:
        most: What a kind of questions admits in one batch.
        timeout: The seconds that a batch may take.
    """

    def __init__(self, most: int, timeout: float) -> None:
        self._most = most
        self._timeout = timeout
        self.size = most // FIRST_SHARE
        """How many questions the next batch may have."""

    def took(self, questions: int, seconds: float) -> None:
        """Take note of a batch that was answered, or cut off at its time-out."""
        if seconds > _SLOW * self._timeout:
            self.size = max(min(questions, self.size) // 2, min(LEAST, self._most))
        elif seconds < _FAST * self._timeout and questions >= self.size:
            self.size = min(2 * self.size, self._most)
