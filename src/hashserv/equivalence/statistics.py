"""Request statistics (PROTOCOL.md §5, get-stats), counted in batches by one or more processes."""

import math
import mmap
from dataclasses import dataclass
from typing import Final, TypeAlias

_NUM: Final = 0
_TOTAL: Final = 1
_SQUARES: Final = 2
_MAX: Final = 3
_SINCE: Final = 4
_FIELDS: Final = 5
"""What each worker writes: four counts, and since which reset it counts."""

_BYTES: Final = 8  # of a double

Numbers: TypeAlias = "list[float] | memoryview[float]"
"""Numbers that can be read and written, of one process or of several."""


@dataclass(frozen=True)
class Summary:
    """Counted requests; times are in seconds."""

    num: int
    total_time: float
    max_time: float
    average: float
    stdev: float


class Counts:
    """Where workers count together: in memory that processes share which are forked later.

    Each worker writes a part of its own, so that none waits for another. Only the number of resets
    is written by all of them: whoever finds that it has grown starts its own part anew.

    Args:
        workers: How many there are. A single one has plain lists, which cost half as much.
    """

    def __init__(self, workers: int = 1) -> None:
        self.resets: Numbers = [0.0]
        """How often the statistics were reset."""
        self.parts: list[Numbers] = [[0.0] * _FIELDS]
        """What each worker counts."""
        self.connections: Numbers = [0.0]
        """How many connections each worker has."""
        if workers > 1:
            memory = mmap.mmap(-1, _BYTES * (1 + workers + workers * _FIELDS))
            numbers = memoryview(memory).cast("d")
            self.resets, self.connections = numbers[:1], numbers[1 : 1 + workers]
            parts = numbers[1 + workers :]
            self.parts = [parts[at : at + _FIELDS] for at in range(0, len(parts), _FIELDS)]


class Statistics:
    """How many requests there were and how long they took, of all workers together.

    Args:
        counts: Where they are counted.
        worker: Which of the workers counts here. A worker that takes another's place goes on with
            what that one counted.
    """

    def __init__(self, counts: Counts | None = None, worker: int = 0) -> None:
        counts = counts or Counts()
        self._resets = counts.resets
        self._parts = counts.parts
        self._own = counts.parts[worker]

    def add(self, num: int, seconds: float) -> None:
        """Count `num` requests that took `seconds` together, each its share of that."""
        own = self._own
        if own[_SINCE] != self._resets[0]:
            self._start_anew()
        each = seconds / num
        own[_NUM] += num
        own[_TOTAL] += seconds
        own[_SQUARES] += each * seconds
        if each > own[_MAX]:
            own[_MAX] = each

    def summary(self) -> Summary:
        """Return what was counted."""
        resets = self._resets[0]
        parts = [list(part) for part in self._parts if part[_SINCE] == resets]
        num = int(sum(part[_NUM] for part in parts))
        if num == 0:
            return Summary(0, 0, 0, 0, 0)
        total = sum(part[_TOTAL] for part in parts)
        average = total / num
        variance = 0.0
        if num > 1:
            squares = sum(part[_SQUARES] for part in parts)
            variance = max(0.0, squares - num * average * average) / (num - 1)
        longest = max(part[_MAX] for part in parts)
        return Summary(num, total, longest, average, math.sqrt(variance))

    def reset(self) -> Summary:
        """Start anew, in all workers, and return what was counted until now."""
        summary = self.summary()
        self._resets[0] += 1
        return summary

    def _start_anew(self) -> None:
        own = self._own
        own[_NUM] = own[_TOTAL] = own[_SQUARES] = own[_MAX] = 0.0
        own[_SINCE] = self._resets[0]  # last: until then the others leave this part out
