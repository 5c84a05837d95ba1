"""What ``hashserv bench`` tells of a run: a table for people, JSON for programs, curves."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hashserv.bench.tally import Tally
from hashserv.cli.plotting import Curve

_HEAD: Final = (
    *("load", "requests", "requests/s", "p50 ms", "p99 ms", "max ms", "wrong", "missing"),
)
_QUANTILES: Final = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p999": 0.999}
_MS: Final = 1e3


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What came of a run.

    Args:
        address: The server's.
        method: That of the tasks.
        clients: Connections.
        depth: Requests in flight on each.
        tallies: What each load met.
        reported: How many reports were sent.
        removed: How many rows were removed at the end; `None` if none were to be.
        failures: What went wrong, in words.
    """

    address: str
    method: str
    clients: int
    depth: int
    tallies: Sequence[Tally]
    reported: int
    removed: int | None
    failures: Sequence[str]

    @property
    def bad(self) -> bool:
        """Whether anything went wrong."""
        return bool(self.failures) or any(tally.wrong or tally.missing for tally in self.tallies)

    @property
    def title(self) -> str:
        """What was done, in a line."""
        return f"{self.address}, {self.clients} clients with {self.depth} in flight each"

    def wrongs(self) -> Iterator[str]:
        """Yield a line for each load that got wrong replies, or none."""
        for tally in self.tallies:
            if tally.first_wrong is not None:
                yield f"{tally.name}: {tally.wrong:,} wrong replies, the first: {tally.first_wrong}"
            if tally.missing:
                yield f"{tally.name}: {tally.missing:,} replies are missing"

    def curves(self) -> list[Curve]:
        """Return what can be drawn."""
        return [
            Curve(tally.name, list(tally.latencies.counts()), tally.throughput.rates())
            for tally in self.tallies
            if tally.requests
        ]


def as_text(findings: Findings) -> str:
    """Return the table, and what is to be said of it."""
    lines: list[str] = []
    rows = [_row(tally) for tally in findings.tallies if tally.requests or tally.missing]
    if rows:
        widths = [max(map(len, column)) for column in zip(_HEAD, *rows, strict=True)]
        for row in (_HEAD, *rows):
            cells = [row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]
            lines.append("  ".join(cells))
        lines += ["", f"{findings.title}; a latency is from sending a request to its reply"]
    for tally in findings.tallies:
        if tally.name.startswith("build") and tally.phases.count:
            each = tally.requests // tally.phases.count
            lines.append(
                f"{tally.name}: {each:,} in {tally.phases.quantile(0.5):.3f} s, the median of "
                f"{tally.phases.count}"
            )
    if findings.removed is not None:
        lines.append(f"Removed all {findings.removed:,} rows of {findings.method}")
    elif findings.reported:
        removal = f"remove --where method {findings.method}"
        lines += [
            f"Reported {findings.reported:,} tasks, which stay there. To remove them:",
            f"  bitbake-hashclient --address {findings.address} {removal}",
        ]
    return "\n".join(lines)


def as_json(findings: Findings) -> str:
    """Return the findings as JSON; times are in seconds."""
    found = {
        "address": findings.address,
        "method": findings.method,
        "clients": findings.clients,
        "depth": findings.depth,
        "loads": [_load(tally) for tally in findings.tallies],
        "reported": findings.reported,
        "removed": findings.removed,
        "failures": list(findings.failures),
    }
    return json.dumps(found, indent=2)


def _load(tally: Tally) -> dict[str, Any]:
    latencies = tally.latencies
    wrong = tally.first_wrong
    return {
        "name": tally.name,
        "requests": tally.requests,
        "seconds": tally.seconds,
        "per_second": tally.rate,
        "latency": {
            "mean": latencies.mean,
            **{name: latencies.quantile(share) for name, share in _QUANTILES.items()},
            "max": latencies.most,
        },
        "throughput": {"slot": tally.throughput.slot, "replies": tally.throughput.slots},
        "rounds": tally.phases.count,
        "wrong": tally.wrong,
        "first_wrong": None if wrong is None else str(wrong),
        "missing": tally.missing,
    }


def _row(tally: Tally) -> tuple[str, ...]:
    latencies = tally.latencies
    times = (latencies.quantile(0.5), latencies.quantile(0.99), latencies.most)
    return (
        tally.name,
        f"{tally.requests:,}",
        f"{tally.rate:,.0f}",
        *(f"{seconds * _MS:,.3f}" for seconds in times),
        f"{tally.wrong:,}",
        f"{tally.missing:,}",
    )
