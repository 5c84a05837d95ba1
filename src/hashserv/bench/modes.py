"""The loads that users can choose from."""

from enum import StrEnum
from typing import Final


class Mode(StrEnum):
    """A load."""

    HITS = "hits"
    MISSES = "misses"
    EXISTS = "exists"
    REPORTS = "reports"
    MIX = "mix"
    BUILD = "build"


EXPLAINED: Final = {
    Mode.HITS: "look-ups of known tasks",
    Mode.MISSES: "look-ups of unknown tasks, each another one",
    Mode.EXISTS: "whether unihashes exist, half of which do",
    Mode.REPORTS: "reports of new tasks",
    Mode.MIX: "60 %% hits, 20 %% misses, 10 %% exists, 10 %% reports",
    Mode.BUILD: "whole builds: a burst of look-ups, then reports as tasks end",
}
"""What each does, in argparse's spelling."""

READING: Final = frozenset({Mode.MISSES})
"""Loads that report nothing, not even tasks to be known."""

MIX_SHARES: Final = {Mode.HITS: 60, Mode.MISSES: 20, Mode.EXISTS: 10, Mode.REPORTS: 10}
"""How many requests of each load `Mode.MIX` makes in turn."""
