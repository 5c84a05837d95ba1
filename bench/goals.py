"""What we aim at: each goal once, and what of the findings tells whether it was reached."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final, NamedTuple

from bench import batch, fairness, upstream, workloads
from bench.fairness import quantile
from bench.findings import Findings
from bench.growth import Grown
from bench.rounds import Rates

_SMALL: Final = 100_000
_LARGE: Final = 10_000_000

Values = Sequence[float]
"""What was found in each round; empty where it was not measured."""


class Unit(NamedTuple):
    """How figures are shown: a format, what follows it, and by what they are multiplied first."""

    form: str
    name: str = ""
    factor: float = 1


_PER_SECOND: Final = Unit(",.0f", "/s")
_OF_GET: Final = Unit(".2f", " x Redis GET")
_OF_SET: Final = Unit(".2f", " x Redis SET, appendfsync always")
_OF_TCP: Final = Unit(".2f", " x TCP")
_OF_SQLITE: Final = Unit(".2f", " x on SQLite")
_PART: Final = Unit(".2f")
_COUNT: Final = Unit(",.0f")
_SECONDS: Final = Unit(".2f", " s")
_MS: Final = Unit(".1f", " ms", 1e3)
_BYTES: Final = Unit(".0f", " bytes")
_KIB: Final = Unit(".1f", " KiB", 1 / 1024)
_MIB: Final = Unit(".0f", " MiB", 1 / (1 << 20))


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What a figure should be, at least or at most.

    Args:
        name: What it is a figure of.
        limit: The worst that is good enough.
        most: Whether larger is worse.
        unit: How figures are shown.
        values: What of the findings is meant.
    """

    name: str
    limit: float
    most: bool = False
    unit: Unit
    values: Callable[[Findings], Values]

    @property
    def aim(self) -> str:
        """The limit in words."""
        return f"{'<=' if self.most else '>='} {self.shown(self.limit)}"

    def number(self, figure: float) -> str:
        """Return a figure without its unit."""
        return f"{figure * self.unit.factor:{self.unit.form}}"

    def shown(self, figure: float) -> str:
        """Return a figure with its unit."""
        return self.number(figure) + self.unit.name

    def met(self, figure: float) -> bool:
        """Tell whether a figure is good enough."""
        return figure <= self.limit if self.most else figure >= self.limit


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """What became of a goal."""

    goal: Goal
    values: Values

    @property
    def median(self) -> float | None:
        """The figure that is held against the goal; `None` where it was not measured."""
        return median(self.values) if self.values else None

    @property
    def met(self) -> bool | None:
        """Whether it is good enough."""
        return None if self.median is None else self.goal.met(self.median)


def judge(findings: Findings) -> list[Judgement]:
    """Hold the findings against every goal, in the order of `GOALS`."""
    return [Judgement(goal=goal, values=goal.values(findings)) for goal in GOALS]


def _found(rows: Iterable[Rates], name: str) -> Rates | None:
    return next((row for row in rows if row.workload.name == name), None)


def _rates(name: str) -> Callable[[Findings], Values]:
    def values(findings: Findings) -> Values:
        row = _found(findings.rates, name)
        return [] if row is None else row.ours

    return values


def _ratios(name: str) -> Callable[[Findings], Values]:
    def values(findings: Findings) -> Values:
        row = _found(findings.rates, name)
        return [] if row is None else row.ratios

    return values


def _on_postgresql(name: str, *, ratios: bool = False) -> Callable[[Findings], Values]:
    def values(findings: Findings) -> Values:
        row = None if findings.engines is None else _found(findings.engines.rates, name)
        return [] if row is None else row.ratios if ratios else row.ours

    return values


def _grown(findings: Findings, mappings: int) -> Grown:
    """Return what was found of a size, which is nothing where it was not measured."""
    rows = (row for row in findings.growth if row.mappings == mappings)
    return next(rows, Grown(mappings=mappings))


def _shrunk(findings: Findings) -> Values:
    large, small = (_grown(findings, size).look_ups for size in (_LARGE, _SMALL))
    return [a / b for a, b in zip(large, small, strict=False)]


def _pinged(name: str) -> Callable[[Findings], Values]:
    return lambda found: [quantile(row.delays, 0.99) for row in found.greeds if row.name == name]


def _greed(findings: Findings) -> Values:
    return [max(row.growth for row in findings.greeds)] if findings.greeds else []


def _seconds_upstream(findings: Findings) -> Values:
    return next((row.seconds for row in findings.asked if row.name == upstream.UNKNOWN), [])


def _asked_upstream(part: str) -> Callable[[Findings], Values]:
    """Mean the worst of the rows that have this in their name."""

    def values(findings: Findings) -> Values:
        asked = [row.asked_most for row in findings.asked if part in row.name]
        return [max(asked)] if asked else []

    return values


GOALS: Final = (
    Goal(
        name="look-ups, 10 clients with 64 in flight, cached, half unknown",
        limit=0.9,
        unit=_OF_GET,
        values=_ratios(workloads.PIPELINED),
    ),
    Goal(
        name="look-ups, 100 clients, lock-step",
        limit=1.0,
        unit=_OF_GET,
        values=_ratios(workloads.MANY_CLIENTS),
    ),
    Goal(
        name="look-ups, 1 client, lock-step",
        limit=0.85,
        unit=_OF_GET,
        values=_ratios(workloads.ONE_CLIENT),
    ),
    Goal(
        name=f"look-ups, uncached, 10 x 64, {_LARGE:,} mappings",
        limit=150_000,
        unit=_PER_SECOND,
        values=lambda found: _grown(found, _LARGE).look_ups,
    ),
    Goal(
        name="the same, to the rate with 100,000 mappings",
        limit=0.7,
        unit=_PART,
        values=_shrunk,
    ),
    Goal(
        name="durable reports, 32 clients, lock-step",
        limit=0.25,
        unit=_OF_SET,
        values=_ratios(workloads.REPORTS_OF_32),
    ),
    Goal(
        name="durable reports, 8 clients with 64 in flight",
        limit=15_000,
        unit=_PER_SECOND,
        values=_rates(workloads.REPORTS_PIPELINED),
    ),
    Goal(
        name="look-ups over WebSocket, 10 x 64",
        limit=0.35,
        unit=_OF_TCP,
        values=lambda found: [] if found.websocket is None else found.websocket.ratios,
    ),
    Goal(
        name="blocking Python client, a batch of 100,000 look-ups",
        limit=150_000,
        unit=_PER_SECOND,
        values=lambda found: next(
            (row.rates for row in found.batches if row.name == batch.BLOCKING_KNOWN), []
        ),
    ),
    Goal(
        name="99 % of pings while a client streams 1,000,000 look-ups",
        limit=0.020,
        most=True,
        unit=_MS,
        values=_pinged(fairness.STREAMING),
    ),
    Goal(
        name="99 % of reports while a sweep removes 1,000,000 mappings",
        limit=0.100,
        most=True,
        unit=_MS,
        values=lambda found: [] if found.swept is None else [quantile(found.swept.meanwhile, 0.99)],
    ),
    Goal(
        name="memory of a cached mapping",
        limit=150,
        most=True,
        unit=_BYTES,
        values=lambda found: [] if found.mapping is None else [found.mapping.bytes_each],
    ),
    Goal(
        name="memory of an idle connection",
        limit=10 * 1024,
        most=True,
        unit=_KIB,
        values=lambda found: [] if found.idle is None else [found.idle.bytes_each],
    ),
    Goal(
        name="file size of a task, as clients report it",
        limit=650,
        most=True,
        unit=_BYTES,
        values=lambda found: [] if found.reported is None else [found.reported.bytes_each],
    ),
    Goal(
        name=f"ready after the start, {_LARGE:,} mappings",
        limit=1.0,
        most=True,
        unit=_SECONDS,
        values=lambda found: _grown(found, _LARGE).ready_seconds,
    ),
    Goal(
        name="99 % of pings while a client never reads its replies",
        limit=0.010,
        most=True,
        unit=_MS,
        values=_pinged(fairness.NEVER_READING),
    ),
    Goal(
        name="memory that a greedy client takes",
        limit=20 << 20,
        most=True,
        unit=_MIB,
        values=_greed,
    ),
    Goal(
        name=f"{upstream.LOOK_UPS:,} look-ups of what an upstream 50 ms away does not know",
        limit=1.5,
        most=True,
        unit=_SECONDS,
        values=_seconds_upstream,
    ),
    Goal(
        name="questions that go upstream when tasks are looked up again",
        limit=0,
        most=True,
        unit=_COUNT,
        values=_asked_upstream(upstream.AGAIN),
    ),
    Goal(
        name=f"questions of {upstream.CROWDED}",
        limit=upstream.CROWD_LOOK_UPS,
        most=True,
        unit=_COUNT,
        values=_asked_upstream(upstream.CROWDED),
    ),
    Goal(
        name="mappings copied from an upstream",
        limit=100_000,
        unit=_PER_SECOND,
        values=lambda found: [] if found.copied is None else found.copied.rates,
    ),
    Goal(
        name="99 % of look-ups meanwhile",
        limit=0.030,
        most=True,
        unit=_MS,
        values=lambda found: (
            [] if found.copied is None else [quantile(found.copied.meanwhile, 0.99)]
        ),
    ),
    Goal(
        name="uncached look-ups on PostgreSQL, 10 x 64",
        limit=80_000,
        unit=_PER_SECOND,
        values=_on_postgresql(workloads.POSTGRESQL_UNCACHED),
    ),
    Goal(
        name="durable reports on PostgreSQL, 64 clients, lock-step",
        limit=4_000,
        unit=_PER_SECOND,
        values=_on_postgresql(workloads.POSTGRESQL_REPORTS),
    ),
    Goal(
        name="cached look-ups on PostgreSQL, 10 x 64",
        limit=0.9,
        unit=_OF_SQLITE,
        values=_on_postgresql(workloads.POSTGRESQL_CACHED, ratios=True),
    ),
    Goal(
        name="rows copied from SQLite to PostgreSQL",
        limit=20_000,
        unit=_PER_SECOND,
        values=lambda found: (
            [] if found.engines is None else [found.engines.rows / found.engines.seconds]
        ),
    ),
)
"""All of them; first those of the server's speed and size, then those of its other parts."""
