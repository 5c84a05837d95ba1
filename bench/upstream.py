"""What an upstream far away costs: look-ups of what only it may know, once and again."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Final

from bench import crowd
from bench.delay import LongLine
from bench.generators import Generators
from bench.servers import Hashserv
from hashserv import create_client

LOOK_UPS: Final = 10_000
"""What a build asks for while it starts."""

CROWD: Final = 50
"""How many clients ask for the same at once."""

CROWD_LOOK_UPS: Final = 2_000

UNKNOWN: Final = f"{LOOK_UPS:,} unknown there"
AGAIN: Final = ", again"
CROWDED: Final = f"{CROWD} clients x the same {CROWD_LOOK_UPS:,} unknown"

_CACHE_BYTES: Final = 64 << 20


@dataclass(kw_only=True)
class Asked:
    """Look-ups, what they took, and what of them went upstream."""

    name: str
    seconds: list[float] = field(default_factory=list)
    """Of each round."""

    questions: list[int] = field(default_factory=list)
    """That went upstream, in each round."""

    wrong: int = 0

    @property
    def asked_most(self) -> int:
        """How many questions went upstream in the worst round."""
        return max(self.questions)


class Downstream:
    """Measures a server without a mapping of its own, whose upstream is a long line away.

    Args:
        database: The upstream's, filled; the downstream's go beside it.
        generators: Tell what is in it.
        mappings: How many keys that is.
    """

    def __init__(self, database: Path, generators: Generators, *, mappings: int) -> None:
        self._database = database
        self._generators = generators
        rows = [*islice(generators.rows(mappings), LOOK_UPS)]
        self._known = [taskhash for taskhash, _, _ in rows]
        self._unihashes = [unihash for _, _, unihash in rows]
        unknown = [f"{number:064x}" for number in range(LOOK_UPS + CROWD_LOOK_UPS)]
        self._unknown, self._unknown_to_crowd = unknown[:LOOK_UPS], unknown[LOOK_UPS:]

    def measure(self, rounds: int) -> Iterator[list[Asked]]:
        """Yield the findings so far, after each round."""
        known = f"{len(self._known):,} known there"
        again = f"{known}{AGAIN} when stored"
        names = (UNKNOWN, f"{UNKNOWN}{AGAIN}", known, again, CROWDED)
        found = [Asked(name=name) for name in names]
        with (
            self._server(self._database) as upstream,
            LongLine(upstream.address) as line,
        ):
            for number in range(rounds):
                database = self._database.with_name(f"downstream-{number}.db")
                with self._server(database, "--upstream", line.address) as server:
                    self._measure_once(server.address, line, found)
                yield found

    def _server(self, database: Path, *more: str) -> Hashserv:
        return Hashserv(database, cache_bytes=_CACHE_BYTES, generators=self._generators, more=more)

    def _measure_once(self, address: str, line: LongLine, found: Sequence[Asked]) -> None:
        unknown, unknown_again, known, known_again, crowded = found
        nothing = [None] * LOOK_UPS
        for asked in (unknown, unknown_again):
            _ask(asked, line, _task(address, self._unknown, nothing))
        _ask(known, line, _task(address, self._known, self._unihashes))
        with create_client(address) as client:
            client.backfill_wait()
        _ask(known_again, line, _task(address, self._known, self._unihashes))
        nothing = [None] * CROWD_LOOK_UPS
        _ask(crowded, line, _task(address, self._unknown_to_crowd, nothing, clients=CROWD))


def _task(
    address: str, taskhashes: list[str], unihashes: Sequence[str | None], *, clients: int = 1
) -> crowd.Task:
    return crowd.Task(
        address=address, clients=clients, taskhashes=taskhashes, unihashes=[*unihashes]
    )


def _ask(asked: Asked, line: LongLine, task: crowd.Task) -> None:
    before = line.questions()
    outcome = crowd.outcome(task)
    asked.seconds.append(task.clients * len(task.taskhashes) / outcome.per_second)
    asked.questions.append(line.questions() - before)
    asked.wrong += outcome.wrong
