"""What clients do to the servers: the rows of the table of requests a second."""

from dataclasses import dataclass
from typing import Final

from bench.generators import Load

LEAST_REQUESTS: Final = 512  # so that the most clients have two each

# Rows that have goals.
ONE_CLIENT: Final = "look-ups, 1 client, lock-step"
MANY_CLIENTS: Final = "look-ups, 100 clients, lock-step"
PIPELINED: Final = "look-ups, 10 clients x 64, half unknown"
WEBSOCKET: Final = "look-ups over WebSocket, 10 clients x 64"
REPORTS_OF_32: Final = "durable reports, 32 clients, lock-step"
REPORTS_PIPELINED: Final = "durable reports, 8 clients x 64"
POSTGRESQL_UNCACHED: Final = "uncached look-ups, 10 x 64"
POSTGRESQL_REPORTS: Final = "durable reports, 64 clients, lock-step"
POSTGRESQL_CACHED: Final = "cached look-ups, 10 x 64"


@dataclass(frozen=True, kw_only=True)
class Workload:
    """A row of the table.

    Args:
        name: What is printed.
        load: What clients do to our server.
        redis_mode: What they do to Redis meanwhile, where it has the like.
        rehearsed: Whether to do it once unmeasured, so that what it asks for is cached.
        fresh_keys: Whether each round needs keys that no round had.
    """

    name: str
    load: Load
    redis_mode: str | None = None
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
            name=ONE_CLIENT,
            load=load("get", 20_000),
            redis_mode="get",
        ),
        Workload(
            name=MANY_CLIENTS,
            load=load("get", 400_000, clients=100),
            redis_mode="get",
        ),
        Workload(
            name=PIPELINED,
            load=load("get", 1_000_000, clients=10, depth=64, unknown=50),
            redis_mode="get",
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
    load = uncached_look_ups(mappings=mappings, scale=scale)
    return [Workload(name="uncached look-ups, 10 x 64, half unknown", load=load)]


def uncached_look_ups(*, mappings: int, scale: float) -> Load:
    """Return look-ups that are pipelined on ten connections, half of them of what is unknown.

    Args:
        mappings: How many keys the server has.
        scale: What part of a usual run's requests to make.
    """
    requests = _scaled(300_000, scale)
    return Load(mode="get", requests=requests, clients=10, depth=64, unknown=50, keys=mappings)


def pipelined_reports(*, scale: float) -> Load:
    """Return reports of 8 clients with 64 in flight each; see `uncached_look_ups`."""
    return _reports(30_000, scale, clients=8, depth=64)


def durable(*, scale: float) -> list[Workload]:
    """Return reports, each on disk before it is acknowledged, beside such a SET of Redis."""

    def workload(name: str, load: Load) -> Workload:
        return Workload(name=name, load=load, redis_mode="set", fresh_keys=True)

    return [
        workload("durable reports, 1 client, lock-step", _reports(3_000, scale, clients=1)),
        workload(REPORTS_OF_32, _reports(20_000, scale, clients=32)),
        workload("durable reports, 256 clients, lock-step", _reports(30_000, scale, clients=256)),
        workload(REPORTS_PIPELINED, pipelined_reports(scale=scale)),
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
            name=POSTGRESQL_UNCACHED,
            load=load("get", 300_000, 10, 64),
            redis_mode="get",
        ),
        Workload(
            name=POSTGRESQL_REPORTS,
            load=load("report", 30_000, 64, 1),
            redis_mode="report",
            fresh_keys=True,
        ),
        Workload(
            name=POSTGRESQL_CACHED,
            load=load("get", 1_000_000, 10, 64),
            redis_mode="get",
            rehearsed=True,
        ),
    ]


def over_websocket(*, mappings: int, scale: float) -> Workload:
    """Return look-ups over WebSockets, to be measured beside the same over TCP."""
    return Workload(
        name=WEBSOCKET,
        load=Load(
            mode="get",
            requests=_scaled(1_000_000, scale),
            clients=10,
            depth=64,
            keys=min(mappings, 100_000),  # so that the rehearsal asks for every one
            websocket=True,
        ),
        rehearsed=True,
    )


def _reports(requests: int, scale: float, *, clients: int, depth: int = 1) -> Load:
    scaled = _scaled(requests, scale)
    return Load(mode="report", requests=scaled, clients=clients, depth=depth, keys=scaled)


def _scaled(requests: int, scale: float) -> int:
    return max(LEAST_REQUESTS, round(requests * scale))
