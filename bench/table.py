"""The findings as tables for people and as JSON for programs."""

from collections.abc import Sequence
from statistics import median
from typing import Any

from bench import delay, engines, fairness, idle, snapshot
from bench.campaign import Findings
from bench.engines import Engines
from bench.fairness import Greed
from bench.idle import Idle
from bench.rounds import Rates
from bench.snapshot import Copied, p99
from bench.transports import Carried
from bench.upstream import Asked

_KIB = 1024
_MIB = 1024 * 1024
_MS = 1e3

_RATES = ("requests", "ours/s", "Redis/s", "ratio", "min-max", "goal", "")
_IDLE = ("memory", "ours", "Redis", "goal", "")
_CARRIED = ("look-ups of Python clients", "ours/s", "of TCP", "min-max")
_WEBSOCKET = ("over WebSockets", "ours/s", "over TCP/s", "ratio", "min-max", "goal", "")
_ASKED = (
    f"look-ups, upstream {delay.ROUND_TRIP_SECONDS * _MS:.0f} ms away",
    *("seconds", "min-max", "asked there", "goal", ""),
)
_ENGINES = ("on PostgreSQL", "ours/s", "on SQLite/s", "ratio", "min-max", "goal", "")
_COPIED = ("snapshot", "mappings/s", "p99 ms before", "p99 ms meanwhile", "goal", "")
_GREEDS = ("fairness", "p50 ms", "p99 ms", "max ms", "growth MiB", "goal", "")


def of(findings: Findings) -> str:
    """Return the tables."""
    idle_goal = f"<= {idle.MOST_BYTES / _KIB:.0f} KiB"
    tables = [aligned(_RATES, [_rates(row) for row in findings.rates])]
    if findings.idle is not None:
        name = f"an idle connection of {findings.idle.connections:,}"
        cells = [_bytes_each(findings.idle), _bytes_each(findings.idle_redis)]
        row = [name, *cells, idle_goal, _verdict(met=findings.idle.met)]
        tables.append(aligned(_IDLE, [row]))
    tables.append(aligned(_GREEDS, [_greed(row) for row in findings.greeds]))
    if findings.carried:
        tables.append(
            aligned(_CARRIED, [_carried(row, findings.carried[0]) for row in findings.carried])
        )
    if findings.websocket is not None:
        tables.append(aligned(_WEBSOCKET, [_rates(findings.websocket)]))
    if findings.asked:
        tables.append(aligned(_ASKED, [_asked(row) for row in findings.asked]))
    if findings.copied is not None:
        tables.append(aligned(_COPIED, [_copied(findings.copied)]))
    if findings.engines is not None:
        rows = [*map(_rates, findings.engines.rates), _copied_over(findings.engines)]
        tables.append(aligned(_ENGINES, rows))
    return "\n\n".join(tables)


def as_json(findings: Findings) -> dict[str, Any]:
    """Return what JSON has of the findings; seconds, bytes and requests a second throughout."""
    return {
        "rates": [_rates_as_json(row, "redis") for row in findings.rates],
        "idle": {
            server: {"connections": row.connections, "bytes_each": row.bytes_each, "met": row.met}
            for server, row in (("ours", findings.idle), ("redis", findings.idle_redis))
            if row is not None
        },
        "fairness": [
            {
                "name": row.name,
                "pings": len(row.delays),
                "p50": row.quantile(0.5),
                "p99": row.quantile(0.99),
                "max": max(row.delays),
                "growth": row.growth,
                "met": row.met,
                "wrong": row.wrong,
            }
            for row in findings.greeds
        ],
        "transports": [
            {"name": row.name, "ours": row.rates, "wrong": row.wrong} for row in findings.carried
        ],
        "websocket": [
            _rates_as_json(row, "tcp") for row in (findings.websocket,) if row is not None
        ],
        "upstream": [
            {
                "name": row.name,
                "seconds": row.seconds,
                "questions": row.questions,
                "goal": _asked_goal(row),
                "met": row.met,
                "wrong": row.wrong,
            }
            for row in findings.asked
        ],
        "snapshot": [
            {
                "mappings": row.mappings,
                "seconds": row.seconds,
                "p99_before": p99(row.before),
                "p99_meanwhile": p99(row.meanwhile),
                "met": row.met,
                "wrong": row.wrong,
            }
            for row in (findings.copied,)
            if row is not None
        ],
        "engines": [
            {
                "rates": [_rates_as_json(rates, "sqlite") for rates in row.rates],
                "rows_copied": row.rows,
                "copying_seconds": row.seconds,
                "met": row.met,
            }
            for row in (findings.engines,)
            if row is not None
        ],
        "wrong": findings.wrong,
    }


def _rates_as_json(row: Rates, beside: str) -> dict[str, Any]:
    return {
        "name": row.workload.name,
        "ours": row.ours,
        beside: row.redis,
        "ratios": row.ratios,
        "goal": _text(row.workload.goal),
        "met": row.met,
        "wrong": row.wrong,
    }


def aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as columns: the first to the left, the others to the right."""
    lines = [head, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0])]
            + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
        ).rstrip()
        for line in lines
    )


def _rates(row: Rates) -> list[str]:
    ratios = row.ratios
    return [
        row.workload.name,
        f"{median(row.ours):,.0f}",
        f"{median(row.redis):,.0f}" if row.redis else "-",
        f"{median(ratios):.2f}" if ratios else "-",
        f"{min(ratios):.2f}-{max(ratios):.2f}" if ratios else "-",
        _text(row.workload.goal) or "",
        _verdict(met=row.met),
    ]


def _greed(row: Greed) -> list[str]:
    goal = f"p99 <= {fairness.MOST_SECONDS * _MS:.0f} ms, +{fairness.MOST_GROWTH / _MIB:.0f} MiB"
    return [
        row.name,
        *(f"{delay * _MS:.2f}" for delay in (row.quantile(0.5), row.quantile(0.99))),
        f"{max(row.delays) * _MS:.2f}",
        f"{row.growth / _MIB:.1f}",
        goal,
        _verdict(met=row.met),
    ]


def _carried(row: Carried, tcp: Carried) -> list[str]:
    ratios = [rate / of_tcp for rate, of_tcp in zip(row.rates, tcp.rates, strict=True)]
    return [
        f"over {row.name}",
        f"{median(row.rates):,.0f}",
        f"{median(ratios):.2f}",
        f"{min(ratios):.2f}-{max(ratios):.2f}",
    ]


def _copied_over(row: Engines) -> list[str]:
    return [
        f"copy of {row.rows:,} rows, found equal",
        *(f"{row.rows / row.seconds:,.0f}", "-", "-", "-"),
        f">= {engines.LEAST_COPIED:,}/s",
        _verdict(met=row.met),
    ]


def _copied(row: Copied) -> list[str]:
    return [
        f"{row.mappings:,} mappings",
        f"{row.rate:,.0f}",
        *(f"{p99(delays) * _MS:.2f}" for delays in (row.before, row.meanwhile)),
        f">= {snapshot.LEAST_RATE:,}/s, p99 <= {snapshot.MOST_SECONDS * _MS:.0f} ms",
        _verdict(met=row.met),
    ]


def _asked(row: Asked) -> list[str]:
    return [
        row.name,
        f"{median(row.seconds):.2f}",
        f"{min(row.seconds):.2f}-{max(row.seconds):.2f}",
        f"{row.asked_most:,}",
        _asked_goal(row) or "",
        _verdict(met=row.met),
    ]


def _asked_goal(row: Asked) -> str | None:
    goals = []
    if row.most_seconds is not None:
        goals.append(f"<= {row.most_seconds} s")
    if row.most_questions is not None:
        goals.append(f"asked <= {row.most_questions:,}")
    return ", ".join(goals) or None


def _bytes_each(row: Idle | None) -> str:
    return "-" if row is None else f"{row.bytes_each / _KIB:.1f} KiB"


def _text(goal: object) -> str | None:
    return None if goal is None else str(goal)


def _verdict(*, met: bool | None) -> str:
    return "" if met is None else "ok" if met else "short"
