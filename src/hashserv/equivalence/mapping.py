"""Looking up and reporting mappings, through a cache that is exact (PROTOCOL.md §8)."""

from collections.abc import Awaitable, Sequence
from typing import Final

from hashserv.equivalence.cache import new_cache
from hashserv.errors import InvokeError
from hashserv.model import (
    UNIHASH_DIGITS,
    Equivalent,
    Mapping,
    MappingKey,
    Outhash,
    Report,
    is_valid_unihash,
)
from hashserv.store.base import Freshness, Store

_SAME: Final = Freshness.SAME  # at hand: it is nearly always that
TRUE = b"true"
FALSE = b"false"

DEFAULT_CACHE_BYTES = 256 * 1024 * 1024
"""Memory for answers: room for some 2,500,000 mappings, or 600,000 where nothing is compiled."""


class Equivalences:
    """The mappings of a store: look-ups through a cache, and reports.

    The cache is keyed by questions as they travel: a *lookup* is method and taskhash with one
    space between, and its answer the unihash or nothing; an *existence* question is a unihash,
    and its answer `TRUE` or `FALSE`. What the cache says is what the database would say: own
    changes are taken over before they are acknowledged, and for each batch of questions the store
    is asked whether another process changed anything.

    `DownstreamEquivalences` asks an upstream, too, for what the store does not know.

    Args:
        store: Who answers what the cache can't. It tells this object of its changes from now on.
        cache_bytes: How much memory to use for answers at most, about.
        unihash_digits: How many digits a reported unihash must have at least.
    """

    def __init__(
        self,
        store: Store,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        unihash_digits: int = UNIHASH_DIGITS,
    ) -> None:
        self._store = store
        store.listener = self
        self._lookups = new_cache(cache_bytes * 7 // 8)
        self._existences = new_cache(cache_bytes // 8)
        self._unihash_digits = unihash_digits
        self._additions = 0
        self._removals = 0

    # What the store tells (`ChangeListener`).

    def mappings_added(self, mappings: Sequence[Mapping]) -> None:
        """Take over mappings that are new."""
        self._additions += 1
        for method, taskhash, unihash in mappings:
            answer = unihash.encode()
            self._lookups.put(f"{method} {taskhash}".encode(), answer)
            self._existences.put(answer, TRUE)

    def mappings_removed(self) -> None:
        """Forget all answers: any of them may be wrong now."""
        self._removals += 1
        self._lookups.clear()
        self._existences.clear()

    # Questions in batches.

    def lookup_reply(self, data: bytes) -> bytes | None:
        """Return the lines that answer lines, if all are at hand. Does not wait.

        Args:
            data: Whole lines, each a lookup as it travelled.
        """
        return self._lookups.reply(data) if self._is_usable() else None

    def existence_reply(self, data: bytes) -> bytes | None:
        """Return the lines that answer lines, if all are at hand; see `lookup_reply`."""
        return self._existences.reply(data) if self._is_usable() else None

    def known_lookups(self, questions: list[bytes]) -> list[bytes | None]:
        """Return the answers that are at hand, `None` for the others. Does not wait."""
        return self._lookups.answers(questions) if self._is_usable() else [None] * len(questions)

    def known_existences(self, questions: list[bytes]) -> list[bytes | None]:
        """Return the answers that are at hand, `None` for the others. Does not wait."""
        return self._existences.answers(questions) if self._is_usable() else [None] * len(questions)

    async def lookup(self, keys: Sequence[MappingKey]) -> list[bytes]:
        """Ask the store for mappings; the answers are the unihash, or nothing where unknown."""
        additions, removals = self._additions, self._removals
        unihashes = await self._store.lookup(keys)
        answers = [b"" if unihash is None else unihash.encode() for unihash in unihashes]
        if removals == self._removals:
            unchanged = additions == self._additions
            misses_too = unchanged and self._store.hears_of_additions
            for at, (method, taskhash) in enumerate(keys):
                question = f"{method} {taskhash}".encode()
                if answers[at] or misses_too:
                    self._lookups.put(question, answers[at])
                elif not unchanged:  # if it was reported meanwhile, an upstream's answer comes late
                    (reported,) = self._lookups.answers([question])
                    answers[at] = reported or b""
        return answers

    async def exist(self, unihashes: Sequence[str]) -> list[bytes]:
        """Ask the store which unihashes exist; the answers are `TRUE` or `FALSE`."""
        additions, removals = self._additions, self._removals
        answers = [TRUE if found else FALSE for found in await self._store.exists(unihashes)]
        if removals == self._removals:
            misses_too = additions == self._additions and self._store.hears_of_additions
            for unihash, answer in zip(unihashes, answers, strict=True):
                if answer is TRUE or misses_too:
                    self._existences.put(unihash.encode(), answer)
        return answers

    # Beyond the store: there is nothing here, but downstream of another server.

    def further_lookups(
        self, keys: Sequence[MappingKey], answers: list[bytes]
    ) -> Awaitable[list[bytes]] | None:
        """Return what waits for better answers than the store's, `None` where these are the best.

        Args:
            keys: What was asked.
            answers: What `lookup` returned.
        """
        del keys, answers
        return None

    def further_existences(
        self, unihashes: Sequence[str], answers: list[bytes]
    ) -> Awaitable[list[bytes]] | None:
        """Return what waits for better answers than those of `exist`, as `further_lookups`."""
        del unihashes, answers
        return None

    def upstream_summary(self) -> dict[str, object] | None:
        """Return how the upstream does, `None` without one."""
        return None

    async def backfill_wait(self) -> int:
        """Wait until what the upstream answered is stored; return how many mappings waited."""
        return 0

    async def close(self) -> None:
        """Stop what goes on in the background. Idempotent."""

    # Single questions.

    async def get(self, key: MappingKey) -> str | None:
        """Return the unihash of a taskhash, or `None`."""
        return (await self._store.lookup([key]))[0]

    async def task(self, key: MappingKey) -> Equivalent | None:
        """Return the oldest outhash row of a taskhash, with its mapping (PROTOCOL.md §5, get)."""
        return await self._store.task(key)

    async def equivalent(self, method: str, outhash: str, asking: str) -> Equivalent | None:
        """Return the oldest row of an outhash that has a mapping (PROTOCOL.md §5, get-outhash).

        Args:
            method: Its method.
            outhash: The outhash.
            asking: The taskhash that asks, for an upstream.
        """
        del asking
        return await self._store.equivalent(method, outhash)

    async def outhash(self, method: str, outhash: str, asking: str) -> Outhash | None:
        """Return the oldest row of an outhash, mapping or not; arguments as of `equivalent`."""
        del asking
        return await self._store.outhash(method, outhash)

    # Reports.

    def checked_unihash(self, value: object) -> str:
        """Return a reported unihash if it is one.

        Raises:
            InvokeError: It is something else.
        """
        if not isinstance(value, str) or not is_valid_unihash(value, least=self._unihash_digits):
            raise InvokeError("Invalid unihash")
        return value

    async def report(self, reports: Sequence[Report]) -> list[str]:
        """Store what builds produced, and return the unihash that holds for each (§8.1)."""
        return await self._store.report(reports)

    async def preview(self, report: Report) -> str:
        """Return what a report that may not be stored is answered (§8.2)."""
        equivalent = await self.equivalent(report.method, report.outhash, report.taskhash)
        return report.unihash if equivalent is None else equivalent.unihash

    async def report_equivalent(self, mapping: Mapping) -> str:
        """Insert a mapping unless there is one, and return the unihash that holds."""
        return (await self._store.add_mappings([mapping]))[0]

    def _is_usable(self) -> bool:
        """Tell whether the cache says what the database would say."""
        freshness = self._store.freshness()
        if freshness is _SAME:
            return True
        if freshness is Freshness.CHANGED:
            self.mappings_removed()
        return freshness is not Freshness.UNSURE
