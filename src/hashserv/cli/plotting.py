"""Latencies and throughput as a picture, drawn by matplotlib where it is installed."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from hashserv.errors import SettingsError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PERCENTILES: Final = (0, 50, 90, 99, 99.9, 99.99, 99.999)
_INCHES: Final = (9.0, 9.0)


class Curve(NamedTuple):
    """What was measured of one thing.

    Args:
        name: Its name in the legend.
        latencies: Latencies in seconds, rising, and how many replies had each.
        throughput: Moments, in seconds after the beginning, and replies a second then.
    """

    name: str
    latencies: Sequence[tuple[float, int]]
    throughput: Sequence[tuple[float, float]]


def check(file: Path) -> None:
    """Look whether `draw` will be able to, before an hour is spent on measuring.

    Raises:
        SettingsError: matplotlib is not installed, or the file can't be written.
    """
    try:
        import matplotlib.figure  # noqa: F401 - late, as it takes a second
    except ImportError:
        raise SettingsError(
            "A plot needs matplotlib, which is not installed: pip install 'hashserv[plot]'"
        ) from None
    place = file if file.exists() else file.parent
    if file.is_dir() or not os.access(place, os.W_OK):
        raise SettingsError(
            f"The plot {file} can't be written: look at the directory and its rights"
        )


def draw(file: Path, title: str, curves: Iterable[Curve]) -> None:
    """Draw two charts into an SVG file: the distribution of latencies, throughput over time.

    Args:
        file: Where to.
        title: What stands above them.
        curves: A line each, in both charts.

    Raises:
        OSError: The file can't be written.
    """
    # Late, as above. No pyplot: that looks for a screen.
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.fonttype": "none"}):  # text stays text, which can be searched
        figure = Figure(figsize=_INCHES, layout="constrained")
        figure.suptitle(title)
        latencies, throughput = figure.subplots(2)
        latencies.set_gid("latencies")
        throughput.set_gid("throughput")
        for curve in curves:
            _add(curve, latencies, throughput)
        _label(latencies, throughput)
        figure.savefig(file, format="svg")


def _add(curve: Curve, latencies: "Axes", throughput: "Axes") -> None:
    total = sum(count for _, count in curve.latencies)
    below, shares, values = 0, [], []
    for seconds, count in curve.latencies:
        # Of the slowest bucket, too, the share is below one: there is no percentile 100.
        shares.append(1 - below / total)
        values.append(seconds * 1e3)
        below += count
    latencies.step(
        [1 / share for share in shares] + [float(total)],
        values + values[-1:],
        where="post",
        label=curve.name,
    )
    throughput.plot(
        [moment for moment, _ in curve.throughput],
        [rate for _, rate in curve.throughput],
        marker="." if len(curve.throughput) == 1 else "",
        label=curve.name,
    )


def _label(latencies: "Axes", throughput: "Axes") -> None:
    latencies.set_title("Latency")
    latencies.set_xscale("log")
    latencies.set_yscale("log")
    latencies.set_xticks(
        [100 / (100 - each) for each in _PERCENTILES],
        [f"{each} %" for each in _PERCENTILES],
        minor=False,
    )
    latencies.set_xticks([], minor=True)
    latencies.set_xlabel("so many of the replies took no longer")
    latencies.set_ylabel("ms")
    latencies.yaxis.set_major_formatter("{x:,g}")
    throughput.set_title("Throughput")
    throughput.set_yscale("log", nonpositive="clip")  # loads differ by a hundred times
    throughput.yaxis.set_major_formatter("{x:,g}")
    throughput.set_xlabel("seconds since the load began")
    throughput.set_ylabel("replies/s")
    for chart in (latencies, throughput):
        chart.grid(visible=True, alpha=0.3)
    if latencies.lines:
        latencies.legend()
