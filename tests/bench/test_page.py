"""docs/performance.md: it has the goals of the code, and is made of a run's JSON alone."""

import re
from pathlib import Path

import pytest

from bench import goals, page, table
from bench.findings import Findings
from bench.generators import Load
from bench.goals import Goal, Unit
from bench.growth import Grown
from bench.rounds import Rates
from bench.sweep import Swept
from bench.workloads import PIPELINED, Workload

RATIOS = (0.8, 1.2, 0.95)


def found() -> Findings:
    """Return what a run may find."""
    rates = Rates(
        workload=Workload(name=PIPELINED, load=Load(mode="get", requests=1)),
        ours=[ratio * 1000 for ratio in RATIOS],
        redis=[1000.0] * len(RATIOS),
    )
    growth = [
        Grown(
            mappings=mappings,
            file_bytes=mappings * 900,
            ready_seconds=[0.5],
            look_ups=[100_000.0, rate],
            own_bytes=[30 << 20],
            cold_look_ups=[20_000.0],
            cold_bytes=[4096.0],
            reports=[9_000.0],
        )
        for mappings, rate in ((100_000, 160_000.0), (10_000_000, 120_000.0))
    ]
    swept = Swept(mappings=10, seconds=1.0, before=[0.001], meanwhile=[0.2])
    return Findings(rates=[rates], growth=growth, swept=swept)


def rows_of(text: str) -> list[list[str]]:
    """Return the cells of the table of goals."""
    (_, section) = text.split("## Goals", 1)
    lines = section.split("\n## ", 1)[0].splitlines()
    rows = [line.strip("| ").split(" | ") for line in lines if line.startswith("|")]
    return rows[2:]


def test_page_has_the_goals_of_the_code() -> None:
    told = [(name, aim) for name, aim, *_ in rows_of(page.PAGE.read_text())]
    assert told == [(goal.name, goal.aim) for goal in goals.GOALS]


def test_page_of_a_run(tmp_path: Path) -> None:
    findings = found()
    written = tmp_path / "performance.md"
    page.write(
        {
            "date": "2030-01-02",
            "command": "make bench-full",
            "machine": {"processor": "Abacus, 2 cores"},
            "mappings": 1_000_000,
            "rounds": 3,
            "tables": [each._asdict() for each in table.of(findings)],
            **findings.as_json(),
        },
        written,
    )
    text = written.read_text()
    assert "What `make bench-full` measured on 2030-01-02" in text
    assert "| processor | Abacus, 2 cores |" in text
    rows = {name: rest for name, *rest in rows_of(text)}
    assert next(iter(rows.values())) == [
        *(">= 0.90 x Redis GET", "0.95 x Redis GET", "0.80-1.20", "yes")
    ]
    assert rows["look-ups, uncached, 10 x 64, 10,000,000 mappings"][1:] == [
        *("110,000/s", "100,000-120,000", "no")
    ]
    assert rows["the same, to the rate with 100,000 mappings"][1:] == ["0.88", "0.75-1.00", "yes"]
    assert "## Growth\n" in text
    assert "## Upstream" not in text
    links = re.findall(r"!\[[^]]+\]\(([^)]+)\)", text)
    assert len(links) == 2
    assert all((tmp_path / link).read_text().endswith("</svg>\n") for link in links)


@pytest.mark.parametrize(
    ("most", "figure", "met"),
    [(False, 2.0, True), (False, 1.9, False), (True, 2.0, True), (True, 2.1, False)],
)
def test_goal_is_met_at_its_limit(*, most: bool, figure: float, met: bool) -> None:
    goal = Goal(name="x", limit=2.0, most=most, unit=Unit(".1f", " s"), values=lambda _: [figure])
    assert goal.met(figure) is met
    assert goal.aim == ("<= 2.0 s" if most else ">= 2.0 s")


def test_every_goal_bears_a_run_that_measured_nothing() -> None:
    judged = goals.judge(Findings())
    assert [(each.median, each.met) for each in judged] == [(None, None)] * len(goals.GOALS)
