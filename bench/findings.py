"""What was measured, as objects and as JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol

from bench.engines import Engines
from bench.fairness import Greed, quantile
from bench.growth import Filed, Grown
from bench.memory import Memory
from bench.rounds import Rates, Series
from bench.snapshot import Copied
from bench.sweep import Swept
from bench.upstream import Asked

_QUANTILES: Final = 200


class _Checked(Protocol):
    """What knows how many replies were wrong."""

    @property
    def wrong(self) -> int: ...


@dataclass(kw_only=True)
class Findings:
    """What was measured; what was not is `None` or empty."""

    rates: list[Rates] = field(default_factory=list)
    batches: list[Series] = field(default_factory=list)
    growth: list[Grown] = field(default_factory=list)
    reported: Filed | None = None
    mapping: Memory | None = None
    """What a cached mapping takes."""

    idle: Memory | None = None
    """What an idle connection takes, and to Redis:"""

    idle_redis: Memory | None = None
    greeds: list[Greed] = field(default_factory=list)
    swept: Swept | None = None
    carried: list[Series] = field(default_factory=list)
    websocket: Rates | None = None
    """Beside the same over TCP."""

    asked: list[Asked] = field(default_factory=list)
    copied: Copied | None = None
    engines: Engines | None = None

    @property
    def wrong(self) -> int:
        """How many replies of all were wrong."""
        several: tuple[Sequence[_Checked], ...] = (
            *(self.rates, self.batches, self.growth),
            *(self.greeds, self.carried, self.asked),
        )
        single: tuple[_Checked | None, ...] = (
            *(self.reported, self.mapping, self.idle, self.idle_redis),
            *(self.swept, self.websocket, self.copied, self.engines),
        )
        return sum(row.wrong for rows in several for row in rows) + sum(
            row.wrong for row in single if row is not None
        )

    def as_json(self) -> dict[str, Any]:
        """Return what JSON has of it; seconds, bytes and requests a second throughout."""
        return {
            "rates": [_rates(row, "redis") for row in self.rates],
            "batches": [asdict(row) for row in self.batches],
            "growth": [asdict(row) for row in self.growth],
            "reported": [asdict(row) for row in (self.reported,) if row is not None],
            "mapping": [asdict(row) for row in (self.mapping,) if row is not None],
            "idle": {
                server: asdict(row)
                for server, row in (("ours", self.idle), ("redis", self.idle_redis))
                if row is not None
            },
            "fairness": [
                {
                    "name": row.name,
                    "delays": _delays(row.delays),
                    "growth": row.growth,
                    "wrong": row.wrong,
                }
                for row in self.greeds
            ],
            "sweep": [] if self.swept is None else [_meanwhile(self.swept)],
            "transports": [asdict(row) for row in self.carried],
            "websocket": [] if self.websocket is None else [_rates(self.websocket, "tcp")],
            "upstream": [asdict(row) for row in self.asked],
            "snapshot": [] if self.copied is None else [_meanwhile(self.copied)],
            "engines": [] if self.engines is None else [_engines(self.engines)],
            "wrong": self.wrong,
        }


def _rates(row: Rates, beside: str) -> dict[str, Any]:
    return {
        "name": row.workload.name,
        "ours": row.ours,
        beside: row.redis,
        "ratios": row.ratios,
        "wrong": row.wrong,
    }


def _engines(row: Engines) -> dict[str, Any]:
    return {
        "rates": [_rates(rates, "sqlite") for rates in row.rates],
        "rows_copied": row.rows,
        "copying_seconds": row.seconds,
    }


def _meanwhile(row: Swept | Copied) -> dict[str, Any]:
    delays = {"before": _delays(row.before), "meanwhile": _delays(row.meanwhile)}
    return {**asdict(row), **delays}


def _delays(delays: Sequence[float]) -> dict[str, Any]:
    """Return how many there were, and their distribution in even parts of them."""
    parts = [quantile(delays, number / _QUANTILES) for number in range(_QUANTILES + 1)]
    return {"count": len(delays), "quantiles": parts}
