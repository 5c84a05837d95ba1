"""What clients do to the servers: the rows of the table of requests a second."""

from dataclasses import dataclass
from typing import Final

from bench.generators import Load

LEAST_REQUESTS: Final = 512  # so that the most clients have two each


@dataclass(frozen=True, kw_only=True)
class Goal:
    """The least that a row should reach: requests a second, or the ratio to Redis."""

    least: float
    of_redis: bool = False
    """Whether it is the ratio to what it is measured beside, where that is not Redis, too."""

    def __str__(self) -> str:
        return f">= {self.least:g}" if self.of_redis else f">= {self.least:,.0f}/s"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A row of the table.

    Args:
        name: What is printed.
        load: What clients do to our server.
        redis_mode: What they do to Redis meanwhile, where it has the like.
        goal: What to reach.
        rehearsed: Whether to do it once unmeasured, so that what it asks for is cached.
        fresh_keys: Whether each round needs keys that no round had.
    """

    name: str
    load: Load
    redis_mode: str | None = None
    goal: Goal | None = None
    rehearsed: bool = False
    fresh_keys: bool = False


def cached(*, mappings: int, scale: float) -> list[Workload]:
    """Return look-ups of what our server has in its cache, and what costs no look-up.

    Args:
        mappings: How many keys the servers have.
        scale: What part of a usual run's requests to make.
    """

    def load(
        mode: str, requests: int, *, clients: int = 1, depth: int = 1, unknown: int = 0
    ) -> Load:
        return Load(
            mode=mode,
            requests=_scaled(requests, scale),
            clients=clients,
            depth=depth,
            unknown=unknown,
            keys=mappings,
        )

    return [
        Workload(
            name="look-ups, 1 client, lock-step",
            load=load("get", 20_000),
            redis_mode="get",
        ),
        Workload(
            name="look-ups, 100 clients, lock-step",
            load=load("get", 400_000, clients=100),
            redis_mode="get",
            goal=Goal(least=0.8, of_redis=True),
        ),
        Workload(
            name="look-ups, 10 clients x 64, half unknown",
            load=load("get", 1_000_000, clients=10, depth=64, unknown=50),
            redis_mode="get",
            goal=Goal(least=0.6, of_redis=True),
            rehearsed=True,
        ),
        Workload(
            name="look-ups, 1 client x 256",
            load=load("get", 1_000_000, depth=256),
            redis_mode="get",
        ),
        Workload(
            name="exists, 10 clients x 64, half unknown",
            load=load("exists", 200_000, clients=10, depth=64, unknown=50),
        ),
        Workload(name="ping, 100 clients, lock-step", load=load("ping", 200_000, clients=100)),
    ]


def uncached(*, mappings: int, scale: float) -> list[Workload]:
    """Return look-ups for a server without a cache."""
    return [
        Workload(
            name="uncached look-ups, 10 x 64, half unknown",
            load=Load(
                mode="get",
                requests=_scaled(300_000, scale),
                clients=10,
                depth=64,
                unknown=50,
                keys=mappings,
            ),
        )
    ]


def durable(*, scale: float) -> list[Workload]:
    """Return reports, each on disk before it is acknowledged, beside such a SET of Redis."""

    def workload(
        clients: str, requests: int, count: int, *, depth: int = 1, goal: Goal | None = None
    ) -> Workload:
        scaled = _scaled(requests, scale)
        return Workload(
            name=f"durable reports, {clients}",
            load=Load(mode="report", requests=scaled, clients=count, depth=depth, keys=scaled),
            redis_mode="set",
            goal=goal,
            fresh_keys=True,
        )

    return [
        workload("1 client, lock-step", 3_000, 1),
        workload("32 clients, lock-step", 20_000, 32, goal=Goal(least=6_000)),
        workload("256 clients, lock-step", 30_000, 256),
        workload("8 clients x 64", 30_000, 8, depth=64),
    ]


def on_postgresql(*, mappings: int, scale: float) -> list[Workload]:
    """Return what is done to our server on PostgreSQL, and beside it to ours on SQLite.

    Those that are rehearsed are for servers with a warm cache, the others for servers with none.
    """

    def load(mode: str, requests: int, clients: int, depth: int) -> Load:
        scaled = _scaled(requests, scale)
        keys = scaled if mode == "report" else mappings
        return Load(mode=mode, requests=scaled, clients=clients, depth=depth, keys=keys)

    return [
        Workload(
            name="uncached look-ups, 10 x 64",
            load=load("get", 300_000, 10, 64),
            redis_mode="get",
            goal=Goal(least=80_000),
        ),
        Workload(
            name="durable reports, 64 clients, lock-step",
            load=load("report", 30_000, 64, 1),
            redis_mode="report",
            goal=Goal(least=4_000),
            fresh_keys=True,
        ),
        Workload(
            name="cached look-ups, 10 x 64",
            load=load("get", 1_000_000, 10, 64),
            redis_mode="get",
            goal=Goal(least=0.9, of_redis=True),
            rehearsed=True,
        ),
    ]


def over_websocket(*, mappings: int, scale: float) -> Workload:
    """Return look-ups over WebSockets, to be measured beside the same over TCP."""
    return Workload(
        name="look-ups, 10 clients x 64",
        load=Load(
            mode="get",
            requests=_scaled(1_000_000, scale),
            clients=10,
            depth=64,
            keys=min(mappings, 100_000),  # so that the rehearsal asks for every one
            websocket=True,
        ),
        goal=Goal(least=0.35, of_redis=True),
        rehearsed=True,
    )


def _scaled(requests: int, scale: float) -> int:
    return max(LEAST_REQUESTS, round(requests * scale))
