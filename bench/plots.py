"""What is drawn of the findings: rates by size of the database, and how delays are distributed."""

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any, Final

from matplotlib import rc_context
from matplotlib.figure import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

_INCHES: Final = (8.0, 4.5)
_MS: Final = 1e3
_RATES: Final = {
    "look_ups": "look-ups, uncached",
    "cold_look_ups": "look-ups, file not in the system's cache",
    "reports": "durable reports",
}


def draw_growth(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Draw the median of each rate, and its least and most, over the size of the database.

    Args:
        rows: What JSON has of `bench.growth.Grown`.
        file: The SVG file to write.
    """
    sizes = [row["mappings"] for row in rows]
    with _chart(file) as axes:
        for key, label in _RATES.items():
            rates = [row[key] for row in rows]
            (line,) = axes.plot(sizes, [*map(median, rates)], marker="o", label=label)
            lowest, highest = [*map(min, rates)], [*map(max, rates)]
            axes.fill_between(sizes, lowest, highest, alpha=0.2, color=line.get_color())
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xlabel("mappings in the database")
        axes.set_ylabel("requests a second")


def draw_delays(delays: Mapping[str, Sequence[float]], file: Path) -> None:
    """Draw which part of requests took at most how long.

    Args:
        delays: For each curve its quantiles in seconds, in even parts from the least to the most.
        file: The SVG file to write.
    """
    with _chart(file) as axes:
        for label, quantiles in delays.items():
            last = len(quantiles) - 1
            parts = [100 * number / last for number in range(len(quantiles))]
            axes.plot([seconds * _MS for seconds in quantiles], parts, label=label)
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds")
        axes.set_ylabel("% of requests that took at most so long")


@contextmanager
def _chart(file: Path) -> "Iterator[Axes]":
    # Text stays text, and the same figures give the same file.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": file.name}):
        figure = Figure(figsize=_INCHES, layout="constrained")
        axes = figure.subplots()
        yield axes
        axes.grid(visible=True, alpha=0.3)
        axes.legend()
        figure.savefig(file, format="svg", metadata={"Date": None})
