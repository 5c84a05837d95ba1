"""What was measured: how many replies, how late, how many a second. Bounded, whatever the time."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from hashserv.errors import loggable

BUCKETS_AN_OCTAVE: Final = 64
"""Latencies in a bucket differ by 1.1 %, so that a percentile is right to 0.6 %."""

FIRST_SLOT: Final = 0.1
"""Seconds of a slot of the throughput, at first."""

MOST_SLOTS: Final = 600
"""Slots of the throughput; when there would be more, each becomes twice as long."""


class Latencies:
    """How often which latency was met, in seconds; some thousand buckets at most."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()
        self.count = 0
        self.most = 0.0
        self._sum = 0.0

    def add(self, seconds: float, count: int) -> None:
        """Take note of replies that came together."""
        self._buckets[int(math.log2(max(seconds * 1e6, 1.0)) * BUCKETS_AN_OCTAVE)] += count
        self.count += count
        self._sum += seconds * count
        self.most = max(self.most, seconds)

    @property
    def mean(self) -> float:
        """The mean, which is exact, as `most` is; 0 for none at all."""
        return self._sum / self.count if self.count else 0.0

    def quantile(self, share: float) -> float:
        """Return the latency that a share of the replies did not exceed; 0 for none at all."""
        reached = 0
        for seconds, count in self.counts():
            reached += count
            if reached >= share * self.count:
                return seconds
        return self.most

    def counts(self) -> Iterator[tuple[float, int]]:
        """Yield latencies, rising, and how many replies had them."""
        for bucket in sorted(self._buckets):
            middle = 2.0 ** ((bucket + 0.5) / BUCKETS_AN_OCTAVE) / 1e6
            yield min(middle, self.most), self._buckets[bucket]


class Throughput:
    """How many replies came when."""

    def __init__(self) -> None:
        self.slot = FIRST_SLOT
        """Seconds in a slot."""
        self.slots: list[int] = []
        """Replies in each of them."""

    def add(self, seconds: float, count: int) -> None:
        """Take note of replies so many seconds after the beginning."""
        while (at := int(seconds / self.slot)) >= MOST_SLOTS:
            self._widen()
        if at >= len(self.slots):
            self.slots += [0] * (at + 1 - len(self.slots))
        self.slots[at] += count

    def rates(self) -> list[tuple[float, float]]:
        """Return replies a second around some moments, in seconds after the beginning.

        The last slot is left out unless it is the only one, since it was not measured whole.
        """
        whole = self.slots[:-1] or self.slots
        return [((at + 0.5) * self.slot, count / self.slot) for at, count in enumerate(whole)]

    def _widen(self) -> None:
        self.slots = [sum(self.slots[at : at + 2]) for at in range(0, len(self.slots), 2)]
        self.slot *= 2


class Wrong(NamedTuple):
    """A reply that is wrong."""

    asked: bytes
    answered: bytes
    expected: bytes

    def __str__(self) -> str:
        asked, answered, expected = (loggable(line.decode(errors="replace")) for line in self)
        return f"asked '{asked}', answered '{answered}', expected '{expected}'"


@dataclass
class Tally:
    """What a kind of load met, in one phase or several. Moments are of `time.perf_counter`.

    Args:
        name: The load.
    """

    name: str
    requests: int = 0
    wrong: int = 0
    missing: int = 0
    first_wrong: Wrong | None = None
    seconds: float = 0.0
    """From the first request of a phase to its last reply, all phases together."""
    latencies: Latencies = field(default_factory=Latencies)
    throughput: Throughput = field(default_factory=Throughput)
    phases: Latencies = field(default_factory=Latencies)
    """How long the phases took that came to their end."""
    _base: float = 0.0
    _before: float = 0.0

    def begin_phase(self, now: float) -> None:
        """Take note that requests are sent from now on."""
        self._base = now - self.seconds
        self._before = self.seconds

    def end_phase(self) -> None:
        """Take note that all of them are answered."""
        self.phases.add(self.seconds - self._before, 1)

    def answered(self, count: int, *, sent: float, arrived: float) -> None:
        """Take note of replies, right or wrong."""
        self.requests += count
        self.seconds = arrived - self._base
        self.latencies.add(arrived - sent, count)
        self.throughput.add(self.seconds, count)

    def refuse(self, wrong: Wrong, count: int = 1) -> None:
        """Take note of wrong replies."""
        self.wrong += count
        self.first_wrong = self.first_wrong or wrong

    @property
    def rate(self) -> float:
        """Replies a second."""
        return self.requests / self.seconds if self.seconds else 0.0
