"""Write docs/performance.md and its plots: ``python -m bench.page FILE``, the JSON of a run."""

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from bench import plots

PAGE: Final = Path(__file__).parents[1] / "docs" / "performance.md"

_INTRODUCTION: Final = """\
# Performance

What `{command}` measured on {date}; `make bench-full` writes this page.
[How to measure](how-to/measure.md) tells what the rows and columns mean.

{machine}

Clients, our server (one process) and Redis share the cores of this one machine. Figures are medians
of {rounds} rounds, in which ours and Redis take turns; min-max is their spread, of the ratio where
there is one. What has no min-max was measured once. Where no size is named the database has
{mappings:,} mappings.

## Goals

Ratios are those of one run. What lock-step, the file and SQLite allow at most, and what that was
measured with, is told in [what limits](how-to/measure.md#what-limits-look-ups-in-lock-step).

{goals}
"""

_PLOTS: Final = """
## Plots

![Requests a second over the size of the database](performance/growth.svg)

Medians over the size of the database; the shades are min-max.

![Which part of requests took at most how long](performance/delays.svg)

Pings of one client while another one streams look-ups or never reads its replies; reports of one
client before and while another one sweeps.
"""


def write(found: Mapping[str, Any], page: Path) -> None:
    """Write the page, and its plots into the directory beside it that has its name.

    Args:
        found: What JSON has of a run.
        page: The Markdown file.

    Raises:
        OSError: It can't be written.
    """
    goals, *others = found["tables"]
    machine = _table(("machine", ""), [*found["machine"].items()])
    text = _INTRODUCTION.format(**{**found, "machine": machine, "goals": _of(goals)}) + _PLOTS
    for each in others:
        title = each["head"][0]
        text += f"\n## {title[0].upper()}{title[1:]}\n\n{_of(each)}\n"
    page.write_text(text)
    directory = page.with_suffix("")
    directory.mkdir(exist_ok=True)
    plots.draw_growth(found["growth"], directory / "growth.svg")
    plots.draw_delays(_delays(found), directory / "delays.svg")


def _delays(found: Mapping[str, Any]) -> dict[str, Sequence[float]]:
    """Return the curves of the plot of delays."""
    curves = {row["name"]: row["delays"]["quantiles"] for row in found["fairness"]}
    for row in found["sweep"]:
        curves["report, before the sweep"] = row["before"]["quantiles"]
        curves["report, 1 client sweeps"] = row["meanwhile"]["quantiles"]
    return curves


def _of(table: Mapping[str, Any]) -> str:
    return _table(table["head"], table["rows"])


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown: the first column to the left, the others to the right."""
    rule = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *rows))


def main() -> int:
    """Write the page of the file that the arguments name."""
    parser = argparse.ArgumentParser(prog="python -m bench.page", description=__doc__)
    parser.add_argument("file", type=Path, metavar="FILE", help="what bench --json wrote")
    parser.add_argument("--page", type=Path, default=PAGE, help="what to write (%(default)s)")
    arguments = parser.parse_args()
    write(json.loads(arguments.file.read_text()), arguments.page)
    return 0


if __name__ == "__main__":
    sys.exit(main())
