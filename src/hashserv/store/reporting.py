"""The rule of reporting (PROTOCOL.md §8.1 and §9), worked out for a group of reports at once.

The database is asked three set-wise questions about the whole group; then the reports are gone
through in order, each seeing what those before it did; then the outcome is written set-wise.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from hashserv.model import Mapping, MappingKey, Report

OutputKey = tuple[str, str]
"""Method and outhash: the class of equivalent tasks."""


@dataclass
class Known:
    """What the database holds that bears on a group of reports."""

    mappings: dict[MappingKey, tuple[str, str]] = field(default_factory=dict)
    """Unihash and gc mark of each taskhash that has a mapping."""

    outhashes: dict[MappingKey, dict[str, str]] = field(default_factory=dict)
    """The outhashes stored for each taskhash, and their `created`."""

    oldest: dict[OutputKey, tuple[str, str]] = field(default_factory=dict)
    """`created` and unihash of the oldest row of a class whose taskhash has a mapping.

    Complete for the classes of reports without a mapping, and only they ask for it."""

    def take_note(self, output: OutputKey, created: str, unihash: str) -> None:
        """Take note that a row of a class has a mapping now."""
        oldest = self.oldest.get(output)
        if oldest is None or created < oldest[0]:
            self.oldest[output] = (created, unihash)


class Row(NamedTuple):
    """An outhash row to insert."""

    report: Report
    created: str


@dataclass
class Outcome:
    """What a group of reports comes to."""

    unihashes: list[str] = field(default_factory=list)
    """The answer to each report."""

    rows: list[Row] = field(default_factory=list)
    mappings: list[Mapping] = field(default_factory=list)
    reported_again: list[MappingKey] = field(default_factory=list)
    """Mappings there were before, which the current mark must keep."""


def resolve(reports: Sequence[Report], created: Sequence[str], known: Known, mark: str) -> Outcome:
    """Work out what a group of reports comes to, in order.

    Args:
        reports: The group.
        created: When each is taken to have come, later ones later, in the text form of rows.
        known: What the database holds. It is brought up to date on the way.
        mark: The current mark of the collection, or empty.
    """
    outcome = Outcome()
    for report, now in zip(reports, created, strict=True):
        key = report.key
        outhashes = known.outhashes.setdefault(key, {})
        held = known.mappings.get(key)
        if held is None:
            oldest = known.oldest.get((report.method, report.outhash))
            held = (oldest[1] if oldest else report.known_as or report.unihash, mark)
            known.mappings[key] = held
            outcome.mappings.append(Mapping(*key, held[0]))
            for outhash, created in outhashes.items():  # rows that had lost their mapping
                known.take_note((report.method, outhash), created, held[0])
        elif held[1] != mark and mark:
            known.mappings[key] = (held[0], mark)
            outcome.reported_again.append(key)
        if report.outhash not in outhashes:
            outhashes[report.outhash] = now
            outcome.rows.append(Row(report, now))
            known.take_note((report.method, report.outhash), now, held[0])
        outcome.unihashes.append(held[0])
    return outcome
