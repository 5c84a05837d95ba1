"""Rounds of ours and Redis in turn, so that both meet the same weather on the machine."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from bench.generators import Load, Outcome
from bench.servers import Server
from bench.workloads import Workload

FRESH_KEYS: Final = 1 << 32
"""Where keys begin that nobody has: beyond what is loaded, below what loadgen's look-ups miss."""


@dataclass(kw_only=True)
class Rates:
    """Requests a second of a workload in each round, and how many replies were wrong."""

    workload: Workload
    ours: list[float] = field(default_factory=list)
    redis: list[float] = field(default_factory=list)
    wrong: int = 0

    @property
    def ratios(self) -> list[float]:
        """Ours to Redis, by round; empty without Redis."""
        return [a / b for a, b in zip(self.ours, self.redis, strict=False)]


@dataclass(kw_only=True)
class Series:
    """Look-ups a second of something of ours in each round, and how many answers were wrong."""

    name: str
    rates: list[float] = field(default_factory=list)
    wrong: int = 0

    def add(self, outcome: Outcome) -> None:
        """Take note of a round."""
        self.rates.append(outcome.per_second)
        self.wrong += outcome.wrong


class Rounds:
    """Measures workloads.

    Args:
        rounds: How often each.
        advance: Called after each round.
    """

    def __init__(self, rounds: int, *, advance: Callable[[], object]) -> None:
        self._rounds = rounds
        self._advance = advance
        self._next_key = FRESH_KEYS

    def measure(self, workload: Workload, ours: Server, redis: Server | None) -> Rates:
        """Measure a workload, beside Redis where it is given and has the like."""
        rates = Rates(workload=workload)
        if workload.rehearsed:
            rates.wrong += ours.under(workload.load).wrong
        for _ in range(self._rounds):
            load = self._with_fresh_keys(workload.load) if workload.fresh_keys else workload.load
            rates.wrong += _measure_once(ours, load, rates.ours)
            if redis is not None and workload.redis_mode is not None:
                mode = workload.redis_mode
                rates.wrong += _measure_once(redis, replace(load, mode=mode), rates.redis)
            self._advance()
        return rates

    def _with_fresh_keys(self, load: Load) -> Load:
        offset = self._next_key
        self._next_key += load.keys
        return replace(load, offset=offset)


def _measure_once(server: Server, load: Load, rates: list[float]) -> int:
    outcome = server.under(load)
    rates.append(outcome.per_second)
    return outcome.wrong
