"""One run from loading to the last number: which server is measured with what, and when."""

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tqdm import tqdm

from bench import idle, loading, transports, websocket, workloads
from bench.engines import Comparison, Engines
from bench.fairness import Fairness, Greed
from bench.generators import Generators
from bench.idle import Idle
from bench.rounds import Rates, Rounds
from bench.servers import Hashserv, Redis, Server
from bench.snapshot import Copied, Copying
from bench.transports import Carried, Transports
from bench.upstream import Asked, Downstream
from bench.workloads import Workload

CACHE_BYTES: Final = 2 << 30
"""The cache for the cached rows: room for a million mappings and as many unknown keys."""

_PINGS: Final = 500


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure.

    Args:
        mappings: How many keys the servers have.
        rounds: How often each workload is measured.
        scale: What part of a usual run's requests to make.
        connections: How many idle ones to open.
        look_ups: How many a greedy client makes.
        crowd: How many clients at once each transport is measured with.
        redis: The redis-server program; `None` measures ours alone.
    """

    mappings: int = 1_000_000
    rounds: int = 3
    scale: float = 1.0
    connections: int = 5_000
    look_ups: int = 1_000_000
    crowd: int = transports.CLIENTS
    redis: str | None = None


@dataclass(kw_only=True)
class Findings:
    """What was measured."""

    rates: list[Rates] = field(default_factory=list)
    idle: Idle | None = None
    idle_redis: Idle | None = None
    greeds: list[Greed] = field(default_factory=list)
    carried: list[Carried] = field(default_factory=list)
    websocket: Rates | None = None
    asked: list[Asked] = field(default_factory=list)
    copied: Copied | None = None
    engines: Engines | None = None
    wrong_when_warming: int = 0

    @property
    def wrong(self) -> int:
        """How many replies of all were wrong."""
        return (
            self.wrong_when_warming
            + sum(row.wrong for row in self.rates)
            + sum(row.wrong for row in (self.idle, self.idle_redis) if row is not None)
            + sum(row.wrong for row in self.greeds)
            + sum(row.wrong for row in self.carried)
            + (0 if self.websocket is None else self.websocket.wrong)
            + sum(row.wrong for row in self.asked)
            + (0 if self.copied is None else self.copied.wrong)
            + (0 if self.engines is None else self.engines.wrong)
        )


class Campaign:
    """Measures everything.

    Args:
        plan: How much.
        directory: Where databases go, so the disk that syncs are measured on.
    """

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self._directory = directory
        self._database = directory / "hashserv.db"
        self._generators = Generators(directory)
        self._findings = Findings()
        self._cached = workloads.cached(mappings=plan.mappings, scale=plan.scale)
        self._durable = workloads.durable(scale=plan.scale)
        self._uncached = workloads.uncached(mappings=plan.mappings, scale=plan.scale)

    def run(self) -> Findings:
        """Load, measure, and return the findings; show progress on a terminal."""
        n_measured = len(self._cached + self._durable + self._uncached)
        # And loading, warming, idle, copying, three for fairness; in each round transports,
        # WebSockets, upstream, snapshot, and what is measured on PostgreSQL.
        self._comparison = Comparison(
            self._database,
            self._generators,
            mappings=self._plan.mappings,
            cache_bytes=CACHE_BYTES,
            scale=self._plan.scale,
        )
        steps = 7 + self._plan.rounds * (n_measured + 4 + self._comparison.steps)
        with (
            tqdm(total=steps, disable=None, leave=False) as self._bar,
            ExitStack() as stack,
        ):
            self._rounds = Rounds(self._plan.rounds, advance=self._bar.update)
            self._step("loading")
            loading.fill_database(self._database, self._plan.mappings, self._generators)
            memory, disk = self._start_redis(stack)
            with self._hashserv(cache_bytes=CACHE_BYTES) as ours:
                self._step("warming the cache")
                rows = self._generators.rows(self._plan.mappings)
                self._findings.wrong_when_warming = loading.warm(ours, rows)
                self._measure(self._cached, ours, memory)
                self._measure(self._durable, ours, disk)
            with self._hashserv(cache_bytes=0) as ours:
                self._step("idle connections")
                self._findings.idle = idle.measure(ours, self._plan.connections)
                if disk is not None:
                    self._findings.idle_redis = idle.measure(disk, self._plan.connections)
                self._measure(self._uncached, ours, None)
            with self._hashserv(cache_bytes=0) as ours:
                self._measure_fairness(ours)
            self._measure_transports()
            self._measure_websocket()
            self._measure_upstream()
            self._measure_snapshot()
            self._measure_engines()
        return self._findings

    def _start_redis(self, stack: ExitStack) -> tuple[Redis | None, Redis | None]:
        """Start Redis with the keys in memory, and another that syncs what it is told."""
        program = self._plan.redis
        if program is None:
            return None, None
        memory, disk = (
            stack.enter_context(
                Redis(program, self._directory / name, durable=durable, generators=self._generators)
            )
            for name, durable in (("redis-memory", False), ("redis-disk", True))
        )
        loading.fill_redis(memory, self._plan.mappings)
        return memory, disk

    def _hashserv(self, *, cache_bytes: int) -> Hashserv:
        return Hashserv(self._database, cache_bytes=cache_bytes, generators=self._generators)

    def _measure(self, rows: Sequence[Workload], ours: Server, redis: Server | None) -> None:
        for workload in rows:
            self._bar.set_description(workload.name)
            self._findings.rates.append(self._rounds.measure(workload, ours, redis))

    def _measure_fairness(self, ours: Hashserv) -> None:
        fairness = Fairness(
            ours,
            self._generators,
            mappings=self._plan.mappings,
            look_ups=self._plan.look_ups,
            pings=_PINGS,
        )
        self._bar.set_description("fairness")
        for greed in fairness.measure():
            self._findings.greeds.append(greed)
            self._bar.update()

    def _measure_transports(self) -> None:
        self._bar.set_description("transports")
        measuring = Transports(
            self._database,
            self._generators,
            clients=self._plan.crowd,
            look_ups=transports.LOOK_UPS,
        )
        for carried in measuring.measure(self._plan.rounds):
            self._findings.carried = carried
            self._bar.update()

    def _measure_websocket(self) -> None:
        self._bar.set_description("WebSockets")
        workload = workloads.over_websocket(mappings=self._plan.mappings, scale=self._plan.scale)
        for rates in websocket.measure(
            workload, self._database, self._generators, rounds=self._plan.rounds
        ):
            self._findings.websocket = rates
            self._bar.update()

    def _measure_upstream(self) -> None:
        self._bar.set_description("upstream")
        measuring = Downstream(self._database, self._generators, mappings=self._plan.mappings)
        for asked in measuring.measure(self._plan.rounds):
            self._findings.asked = asked
            self._bar.update()

    def _measure_snapshot(self) -> None:
        self._bar.set_description("snapshot")
        measuring = Copying(self._database, self._generators, mappings=self._plan.mappings)
        for copied in measuring.measure(self._plan.rounds):
            self._findings.copied = copied
            self._bar.update()

    def _measure_engines(self) -> None:
        self._bar.set_description("copying to PostgreSQL")
        for engines in self._comparison.measure(self._rounds):
            if self._findings.engines is None:
                self._bar.update()
            self._findings.engines = engines
            self._bar.set_description("on PostgreSQL")

    def _step(self, description: str) -> None:
        self._bar.set_description(description)
        self._bar.update()
