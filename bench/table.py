"""The findings as tables."""

from collections.abc import Sequence
from statistics import median
from typing import NamedTuple

from bench import delay, goals
from bench.engines import Engines
from bench.fairness import Greed, quantile
from bench.findings import Findings
from bench.goals import Judgement
from bench.growth import Grown
from bench.memory import Memory
from bench.rounds import Rates, Series
from bench.snapshot import Copied
from bench.sweep import Swept
from bench.upstream import Asked

_KIB = 1024
_MIB = 1024 * 1024
_MS = 1e3

_GOALS = ("goal", "aim", "measured", "min-max", "met")


class Table(NamedTuple):
    """What is printed: a head, whose first cell tells what it is about, and rows."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]

    def aligned(self) -> str:
        """Return it as columns: the first to the left, the others to the right."""
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join(
                [line[0].ljust(widths[0])]
                + [cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)]
            ).rstrip()
            for line in lines
        )


def of(findings: Findings) -> list[Table]:
    """Return the tables, that of the goals first; without those for which there is nothing."""
    beside = ("ratio", "min-max")
    delays = ("p99 ms before", "p50 ms meanwhile", "p99 ms", "max ms")
    tables = [
        Table(_GOALS, [*map(_judged, goals.judge(findings))]),
        Table(("requests", "ours/s", "Redis/s", *beside), [*map(_rates, findings.rates)]),
        Table(
            ("Python client, one batch", "look-ups/s", "min-max"),
            [*map(_batched, findings.batches)],
        ),
        Table(("memory and file", "ours", "Redis"), _memory(findings)),
        Table(
            ("fairness", "p50 ms", "p99 ms", "max ms", "growth MiB"),
            [*map(_greed, findings.greeds)],
        ),
        Table(
            ("reports while a sweep runs", "removed/s", *delays),
            [] if findings.swept is None else [_swept(findings.swept)],
        ),
        Table(
            (
                *("growth", "bytes a task", "ready s", "memory MiB", "look-ups/s", "min-max"),
                *("cold look-ups/s", "KiB read each", "reports/s", "min-max"),
            ),
            [*map(_grown, findings.growth)],
        ),
        Table(
            ("look-ups of Python clients", "ours/s", "of TCP", "min-max"),
            [_carried(row, findings.carried[0]) for row in findings.carried],
        ),
        Table(
            ("over WebSockets", "ours/s", "over TCP/s", *beside),
            [] if findings.websocket is None else [_rates(findings.websocket)],
        ),
        Table(
            (
                f"look-ups, upstream {delay.ROUND_TRIP_SECONDS * _MS:.0f} ms away",
                *("seconds", "min-max", "asked there"),
            ),
            [*map(_asked, findings.asked)],
        ),
        Table(
            ("snapshot", "copied/s", *delays),
            [] if findings.copied is None else [_copied(findings.copied)],
        ),
        Table(
            ("on PostgreSQL", "ours/s", "on SQLite/s", *beside),
            [] if findings.engines is None else _engines(findings.engines),
        ),
    ]
    return [table for table in tables if table.rows]


def _judged(judgement: Judgement) -> list[str]:
    goal, values = judgement.goal, judgement.values
    measured = "not measured" if judgement.median is None else goal.shown(judgement.median)
    spread = f"{goal.number(min(values))}-{goal.number(max(values))}" if len(values) > 1 else ""
    met = {None: "", True: "yes", False: "no"}[judgement.met]
    return [goal.name, goal.aim, measured, spread, met]


def _rates(row: Rates) -> list[str]:
    return [
        row.workload.name,
        f"{median(row.ours):,.0f}",
        f"{median(row.redis):,.0f}" if row.redis else "-",
        f"{median(row.ratios):.2f}" if row.ratios else "-",
        _spread(row.ratios, ".2f") if row.ratios else "-",
    ]


def _batched(row: Series) -> list[str]:
    return [row.name, f"{median(row.rates):,.0f}", _spread(row.rates)]


def _memory(findings: Findings) -> list[list[str]]:
    rows = []
    if findings.mapping is not None:
        name = f"a cached mapping of {findings.mapping.count:,}"
        rows.append([name, f"{findings.mapping.bytes_each:.0f} bytes", "-"])
    if findings.idle is not None:
        name = f"an idle connection of {findings.idle.count:,}"
        rows.append([name, *map(_kib_each, (findings.idle, findings.idle_redis))])
    if findings.reported is not None:
        name = f"in the file, a task of {findings.reported.tasks:,} reported"
        rows.append([name, f"{findings.reported.bytes_each:.0f} bytes", "-"])
    return rows


def _kib_each(row: Memory | None) -> str:
    return "-" if row is None else f"{row.bytes_each / _KIB:.1f} KiB"


def _greed(row: Greed) -> list[str]:
    return [row.name, *_ms(row.delays, 0.5, 0.99, 1), f"{row.growth / _MIB:.1f}"]


def _swept(row: Swept) -> list[str]:
    return [
        f"{row.mappings:,} mappings",
        f"{row.mappings / row.seconds:,.0f}",
        *_ms(row.before, 0.99),
        *_ms(row.meanwhile, 0.5, 0.99, 1),
    ]


def _grown(row: Grown) -> list[str]:
    return [
        f"{row.mappings:,} mappings",
        f"{row.file_bytes / row.mappings:.0f}",
        f"{median(row.ready_seconds):.2f}",
        f"{median(row.own_bytes) / _MIB:.0f}",
        f"{median(row.look_ups):,.0f}",
        _spread(row.look_ups),
        f"{median(row.cold_look_ups):,.0f}",
        f"{median(row.cold_bytes) / _KIB:.1f}",
        f"{median(row.reports):,.0f}",
        _spread(row.reports),
    ]


def _carried(row: Series, tcp: Series) -> list[str]:
    ratios = [rate / of_tcp for rate, of_tcp in zip(row.rates, tcp.rates, strict=True)]
    return [
        f"over {row.name}",
        f"{median(row.rates):,.0f}",
        f"{median(ratios):.2f}",
        _spread(ratios, ".2f"),
    ]


def _asked(row: Asked) -> list[str]:
    return [
        row.name,
        f"{median(row.seconds):.2f}",
        _spread(row.seconds, ".2f"),
        f"{row.asked_most:,}",
    ]


def _copied(row: Copied) -> list[str]:
    return [
        f"{row.mappings:,} mappings",
        f"{median(row.rates):,.0f}",
        *_ms(row.before, 0.99),
        *_ms(row.meanwhile, 0.5, 0.99, 1),
    ]


def _engines(row: Engines) -> list[list[str]]:
    rate = f"{row.rows / row.seconds:,.0f}"
    copied = [f"copy of {row.rows:,} rows, found equal", rate, "-", "-", "-"]
    return [*map(_rates, row.rates), copied]


def _ms(delays: Sequence[float], *parts: float) -> list[str]:
    return [f"{quantile(delays, part) * _MS:.2f}" for part in parts]


def _spread(figures: Sequence[float], form: str = ",.0f") -> str:
    return f"{min(figures):{form}}-{max(figures):{form}}"
