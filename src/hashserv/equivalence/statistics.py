"""Request statistics (PROTOCOL.md §5, get-stats), counted in batches."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Summary:
    """Counted requests; times are in seconds."""

    num: int
    total_time: float
    max_time: float
    average: float
    stdev: float


class Statistics:
    """How many requests there were and how long they took."""

    def __init__(self) -> None:
        self._num = 0
        self._total = self._squares = self._max = 0.0

    def add(self, num: int, seconds: float) -> None:
        """Count `num` requests that took `seconds` together, each its share of that."""
        each = seconds / num
        self._num += num
        self._total += seconds
        self._squares += each * seconds
        if each > self._max:
            self._max = each

    def summary(self) -> Summary:
        """Return what was counted."""
        if self._num == 0:
            return Summary(0, 0, 0, 0, 0)
        average = self._total / self._num
        variance = 0.0
        if self._num > 1:
            variance = max(0.0, self._squares - self._num * average * average) / (self._num - 1)
        return Summary(self._num, self._total, self._max, average, math.sqrt(variance))

    def reset(self) -> Summary:
        """Start anew, and return what was counted until now."""
        summary = self.summary()
        self._num = 0
        self._total = self._squares = self._max = 0.0
        return summary
