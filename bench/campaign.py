"""One run from loading to the last number: which server is measured with what, and when."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from tqdm import tqdm

from bench import growth, loading, sweep, transports, websocket, workloads
from bench.batch import Batches
from bench.engines import Comparison
from bench.fairness import Fairness
from bench.findings import Findings
from bench.generators import Generators
from bench.growth import Growth
from bench.memory import of_connections, of_mappings
from bench.rounds import Rounds
from bench.servers import Hashserv, Redis, Server
from bench.snapshot import Copying
from bench.transports import Transports
from bench.upstream import Downstream
from bench.workloads import Workload

CACHE_BYTES: Final = 2 << 30
"""The cache for the cached rows: room for a million mappings and as many unknown keys."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How much to measure.

    Args:
        mappings: How many keys the servers have.
        rounds: How often each workload is measured.
        scale: What part of a usual run's requests to make.
        connections: How many idle ones to open.
        look_ups: How many a greedy client makes.
        pings: How many others make meanwhile, at least.
        crowd: How many clients at once each transport is measured with.
        batch: How many look-ups a Python client makes at once.
        reported: How many tasks to report to an empty file.
        sizes: How many mappings the databases have that growth is measured with.
        redis: The redis-server program; `None` measures ours alone.
    """

    mappings: int = 1_000_000
    rounds: int = 3
    scale: float = 1.0
    connections: int = 5_000
    look_ups: int = 1_000_000
    pings: int = 500
    crowd: int = transports.CLIENTS
    batch: int = 100_000
    reported: int = 100_000
    sizes: Sequence[int] = growth.SIZES
    redis: str | None = None


_Found = TypeVar("_Found")


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
        self._comparison = Comparison(
            self._database,
            self._generators,
            mappings=plan.mappings,
            cache_bytes=CACHE_BYTES,
            scale=plan.scale,
        )
        self._growth = Growth(directory, self._generators, sizes=plan.sizes, scale=plan.scale)

    def run(self) -> Findings:
        """Load, measure, and return the findings; show progress on a terminal."""
        with tqdm(total=self._steps(), disable=None, leave=False) as self._bar:
            self._rounds = Rounds(self._plan.rounds, advance=self._bar.update)
            self._step("loading")
            loading.fill_database(self._database, self._plan.mappings)
            self._step("sweep")  # before anything else is reported, so that it can be counted
            self._findings.swept = sweep.measure(
                self._database, self._generators, mappings=self._plan.mappings
            )
            self._measure_requests()
            with self._hashserv(cache_bytes=0) as ours:
                self._measure_fairness(ours)
            self._measure_transports()
            self._measure_websocket()
            self._measure_upstream()
            self._measure_snapshot()
            self._measure_engines()
            self._measure_growth()
        return self._findings

    def _steps(self) -> int:
        """Return how often the bar advances."""
        n_workloads = len(self._cached + self._durable + self._uncached) + self._comparison.steps
        each_round = n_workloads + 5  # batches, transports, WebSockets, upstream, snapshot
        # Loading, sweep, warming, idle connections, and reporting; three for fairness.
        once = 5 + 3 + self._comparison.steps + 1
        return once + self._plan.rounds * each_round + self._growth.steps(self._plan.rounds)

    def _measure_requests(self) -> None:
        """Measure all that is measured beside Redis, and memory."""
        with ExitStack() as stack:
            memory, disk = self._start_redis(stack)
            with self._hashserv(cache_bytes=CACHE_BYTES) as ours:
                self._step("warming the cache")
                self._findings.mapping = of_mappings(ours, self._generators, self._plan.mappings)
                self._measure(self._cached, ours, memory)
                self._measure_batches(ours)
                self._measure(self._durable, ours, disk)
            with self._hashserv(cache_bytes=0) as ours:
                self._step("idle connections")
                self._findings.idle = of_connections(ours, self._plan.connections)
                if disk is not None:
                    self._findings.idle_redis = of_connections(disk, self._plan.connections)
                self._measure(self._uncached, ours, None)

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

    def _measure_batches(self, ours: Hashserv) -> None:
        batches = Batches(
            ours,
            self._generators,
            mappings=self._plan.mappings,
            look_ups=self._plan.batch,
        )
        self._findings.batches = self._through("batches", batches.measure(self._plan.rounds))

    def _measure_fairness(self, ours: Hashserv) -> None:
        fairness = Fairness(
            ours,
            self._generators,
            mappings=self._plan.mappings,
            look_ups=self._plan.look_ups,
            pings=self._plan.pings,
        )
        self._findings.greeds = self._through("fairness", fairness.measure())

    def _measure_transports(self) -> None:
        measuring = Transports(
            self._database,
            self._generators,
            clients=self._plan.crowd,
            look_ups=transports.LOOK_UPS,
        )
        found = self._through("transports", measuring.measure(self._plan.rounds))
        self._findings.carried = found

    def _measure_websocket(self) -> None:
        rounds = websocket.measure(
            workloads.over_websocket(mappings=self._plan.mappings, scale=self._plan.scale),
            self._database,
            self._generators,
            rounds=self._plan.rounds,
        )
        self._findings.websocket = self._through("WebSockets", rounds)

    def _measure_upstream(self) -> None:
        measuring = Downstream(self._database, self._generators, mappings=self._plan.mappings)
        self._findings.asked = self._through("upstream", measuring.measure(self._plan.rounds))

    def _measure_snapshot(self) -> None:
        measuring = Copying(self._database, self._generators, mappings=self._plan.mappings)
        self._findings.copied = self._through("snapshot", measuring.measure(self._plan.rounds))

    def _measure_engines(self) -> None:
        found = self._through("PostgreSQL", self._comparison.measure(self._rounds))
        self._findings.engines = found

    def _measure_growth(self) -> None:
        self._step("reporting to a new file")
        self._findings.reported = growth.reported(
            self._directory, self._generators, self._plan.reported
        )
        self._findings.growth = self._through("growth", self._growth.measure(self._plan.rounds))

    def _through(self, description: str, stages: Iterator[_Found]) -> _Found:
        """Advance with each stage, and return what was found by the last of them."""
        self._bar.set_description(description)
        for stage in stages:
            found = stage
            self._bar.update()
        return found

    def _step(self, description: str) -> None:
        self._bar.set_description(description)
        self._bar.update()
