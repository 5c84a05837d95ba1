"""Looking up and reporting where an upstream server may know what the own store does not (§8)."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict
from typing import TypeVar

from hashserv.equivalence.backfill import Backfill
from hashserv.equivalence.cache import joined
from hashserv.equivalence.mapping import DEFAULT_CACHE_BYTES, FALSE, TRUE, Equivalences
from hashserv.equivalence.misses import DEFAULT_TTL, Misses
from hashserv.equivalence.reports import ReportsUnderWay
from hashserv.equivalence.upstream import UNANSWERED, Unanswered, Upstream
from hashserv.model import UNIHASH_DIGITS, Equivalent, Mapping, MappingKey, Outhash, Report
from hashserv.store.base import Store

_Key = TypeVar("_Key")


class DownstreamEquivalences(Equivalences):
    """The mappings of a store, and those of an upstream that the store does not have.

    What the upstream knows is answered at once and stored in the background; what it does not
    know is remembered for a while. Where it gives no answer, the store's own is the answer.

    Args:
        store: As of `Equivalences`.
        upstream: Who is asked for what the store does not know.
        cache_bytes: As of `Equivalences`.
        unihash_digits: As of `Equivalences`.
        negative_ttl: For how many seconds it is remembered what the upstream does not know.
    """

    def __init__(
        self,
        store: Store,
        upstream: Upstream,
        *,
        cache_bytes: int = DEFAULT_CACHE_BYTES,
        unihash_digits: int = UNIHASH_DIGITS,
        negative_ttl: float = DEFAULT_TTL,
    ) -> None:
        super().__init__(store, cache_bytes=cache_bytes, unihash_digits=unihash_digits)
        self._upstream = upstream
        upstream.listener = self
        self._backfill = Backfill(store)
        self._reports = ReportsUnderWay()
        self._missing_lookups = Misses(negative_ttl)
        self._missing_existences = Misses(negative_ttl)

    def upstream_summary(self) -> dict[str, object]:
        return {**asdict(self._upstream.summary()), "backfilled": self._backfill.stored}

    async def backfill_wait(self) -> int:
        return await self._backfill.wait()

    async def close(self) -> None:
        await self._backfill.close()
        await self._upstream.close()

    # What the upstream tells (`AnswerListener`).

    def looked_up(self, keys: Sequence[MappingKey], unihashes: Sequence[str | None]) -> None:
        """Remember what the upstream does not know, and have the rest stored."""
        hits: list[Mapping] = []
        for key, unihash in zip(keys, unihashes, strict=True):
            if unihash is None:
                self._missing_lookups.add(_question(key))
            else:
                hits.append(Mapping(*key, unihash))
        self._backfill.add(hits)

    def existed(self, unihashes: Sequence[str], exist: Sequence[bool]) -> None:
        """Remember which unihashes the upstream does not have."""
        for unihash, exists in zip(unihashes, exist, strict=True):
            if not exists:
                self._missing_existences.add(unihash.encode())

    # Questions in batches. The own cache says "nothing" also of what the upstream may know.

    def lookup_reply(self, data: bytes) -> bytes | None:
        reply = super().lookup_reply(data)
        if reply is not None and (reply.startswith(b"\n") or b"\n\n" in reply):
            return joined(self.known_lookups(data[:-1].split(b"\n")))
        return reply

    def existence_reply(self, data: bytes) -> bytes | None:
        reply = super().existence_reply(data)
        if reply is not None and FALSE in reply:
            return joined(self.known_existences(data[:-1].split(b"\n")))
        return reply

    def known_lookups(self, questions: list[bytes]) -> list[bytes | None]:
        answers = super().known_lookups(questions)
        if not (self._upstream.available or self._upstream.has_copies):
            return answers
        return self._doubted(answers, questions, b"", self._missing_lookups)

    def known_existences(self, questions: list[bytes]) -> list[bytes | None]:
        answers = super().known_existences(questions)
        if not self._upstream.available:
            return answers
        return self._doubted(answers, questions, FALSE, self._missing_existences)

    def _doubted(
        self,
        answers: list[bytes | None],
        questions: list[bytes],
        nothing: bytes,
        missing: Misses,
    ) -> list[bytes | None]:
        if nothing in answers:
            for at, answer in enumerate(answers):
                if answer == nothing and questions[at] not in missing:
                    answers[at] = None
        return answers

    async def lookup(self, keys: Sequence[MappingKey]) -> list[bytes]:
        ended = self._reports.ended
        answers = await super().lookup(keys)
        if b"" in answers and self._upstream.has_copies:
            places = [at for at, answer in enumerate(answers) if not answer]
            found = self._copied([keys[at] for at in places])
            held: dict[MappingKey, bytes] = {}
            hits = [keys[at] for at, unihash in zip(places, found, strict=True) if unihash]
            if hits and (ended != self._reports.ended or self._reports.of_any(hits)):
                held = await self._after_reports(hits)
            for at, unihash in zip(places, found, strict=True):
                if unihash is not None:
                    answers[at] = held.get(keys[at]) or unihash.encode()
        return answers

    def _copied(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return what is known of the upstream's mappings in advance, and have it stored."""
        unihashes = self._upstream.copied(keys)
        hits: list[Mapping] = []
        for key, unihash in zip(keys, unihashes, strict=True):
            if unihash is not None:
                hits.append(Mapping(*key, unihash))
                self._missing_lookups.discard(_question(key))
        self._backfill.add(hits)
        return unihashes

    def further_lookups(
        self, keys: Sequence[MappingKey], answers: list[bytes]
    ) -> Awaitable[list[bytes]] | None:
        return self._further(keys, answers, b"", _question, self._missing_lookups, self._look_up)

    def further_existences(
        self, unihashes: Sequence[str], answers: list[bytes]
    ) -> Awaitable[list[bytes]] | None:
        missing = self._missing_existences
        return self._further(unihashes, answers, FALSE, str.encode, missing, self._ask_existence)

    def _further(
        self,
        keys: Sequence[_Key],
        answers: list[bytes],
        nothing: bytes,
        question: Callable[[_Key], bytes],
        missing: Misses,
        ask: Callable[[list[_Key]], Awaitable[list[bytes | Unanswered]]],
    ) -> Awaitable[list[bytes]] | None:
        """Return what asks the upstream for the answers that are nothing, if that makes sense."""
        if nothing not in answers or not self._upstream.available:
            return None
        places = [
            at
            for at, answer in enumerate(answers)
            if answer == nothing and question(keys[at]) not in missing
        ]
        if not places:
            return None

        async def further() -> list[bytes]:
            found = await ask([keys[at] for at in places])
            for at, answer in zip(places, found, strict=True):
                if answer is not UNANSWERED:
                    answers[at] = answer
            return answers

        return further()

    async def _look_up(self, keys: list[MappingKey]) -> list[bytes | Unanswered]:
        # What others asked meanwhile is known by now, or on its way to the store.
        waiting = {key: self._backfill.get(key) for key in keys}
        asked = [
            key
            for key in keys
            if waiting[key] is None and _question(key) not in self._missing_lookups
        ]
        found = dict(zip(asked, await self._upstream.lookup(asked), strict=True))
        hits = [key for key in keys if isinstance(found.get(key, ""), str)]
        held = await self._after_reports(hits) if hits else {}
        answers: list[bytes | Unanswered] = []
        for key in keys:
            unihash = waiting[key] or self._backfill.get(key) or found.get(key)
            if held.get(key):
                answers.append(held[key])
            elif unihash is UNANSWERED:
                answers.append(UNANSWERED)
            else:
                answers.append(unihash.encode() if unihash else b"")
        return answers

    async def _after_reports(self, keys: Sequence[MappingKey]) -> dict[MappingKey, bytes]:
        """Return what the store holds: if a build reported a task meanwhile, that counts.

        What else is known of the keys must be in the backfill already: then a report that comes
        from now on counts less, and who reported is answered the same as who asked.
        """
        await self._reports.wait(keys)
        return dict(zip(keys, await super().lookup(keys), strict=True))

    async def _ask_existence(self, unihashes: list[str]) -> list[bytes | Unanswered]:
        asked = [each for each in unihashes if each.encode() not in self._missing_existences]
        found = dict(zip(asked, await self._upstream.exist(asked), strict=True))
        return [
            exists
            if (exists := found.get(each, False)) is UNANSWERED
            else TRUE
            if exists
            else FALSE
            for each in unihashes
        ]

    # Single questions: what the upstream knows is stored before it is answered.

    async def get(self, key: MappingKey) -> str | None:
        unihash = await super().get(key)
        if unihash is not None:
            return unihash
        (copied,) = self._upstream.copied([key])
        if copied is not None:
            return await super().report_equivalent(Mapping(*key, copied))
        if not self._asks_for(key):
            return None
        (found,) = await self._upstream.lookup([key])
        if not isinstance(found, str):
            return await super().get(key)
        return await super().report_equivalent(Mapping(*key, found))

    async def task(self, key: MappingKey) -> Equivalent | None:
        task = await super().task(key)
        if task is not None or not self._asks_for(key):
            return task
        found = await self._upstream.task(key)
        if found is None:
            self._missing_lookups.add(_question(key))
        elif isinstance(found, Equivalent):
            await self._store.copy([found])
        return await super().task(key)

    async def equivalent(self, method: str, outhash: str, asking: str) -> Equivalent | None:
        equivalent = await super().equivalent(method, outhash, asking)
        if equivalent is not None or not self._upstream.available:
            return equivalent
        (found,) = await self._upstream.equivalents([(method, outhash, asking)])
        if isinstance(found, Equivalent):
            await self._store.copy([found])
        return await super().equivalent(method, outhash, asking)

    async def outhash(self, method: str, outhash: str, asking: str) -> Outhash | None:
        row = await super().outhash(method, outhash, asking)
        if row is not None or not self._upstream.available:
            return row
        found = await self._upstream.outhash((method, outhash, asking))
        if isinstance(found, Outhash):
            await self._store.copy([found])
        return await super().outhash(method, outhash, asking)

    def _asks_for(self, key: MappingKey) -> bool:
        return self._upstream.available and _question(key) not in self._missing_lookups

    # Reports.

    async def report(self, reports: Sequence[Report]) -> list[str]:
        unknown = [at for at in await self._without_class(reports) if self._upstream.available]
        if unknown:
            reports = list(reports)
            outputs = [
                (report.method, report.outhash, report.taskhash)
                for report in (reports[at] for at in unknown)
            ]
            for at, found in zip(unknown, await self._upstream.equivalents(outputs), strict=True):
                if isinstance(found, Equivalent):
                    reports[at] = reports[at]._replace(known_as=found.unihash)
        keys = [report.key for report in reports]
        await self._backfill.wait_for(keys)  # they were answered already: that must hold
        return await self._reports.store(keys, super().report(reports))

    async def report_equivalent(self, mapping: Mapping) -> str:
        keys = [MappingKey(mapping.method, mapping.taskhash)]
        await self._backfill.wait_for(keys)
        return await self._reports.store(keys, super().report_equivalent(mapping))

    async def _without_class(self, reports: Sequence[Report]) -> list[int]:
        """Return which reports have neither a mapping yet nor an equivalent in the own store."""
        held = await self._store.lookup([report.key for report in reports])
        return [
            at
            for at, report in enumerate(reports)
            if held[at] is None
            and await self._store.equivalent(report.method, report.outhash) is None
        ]


def _question(key: MappingKey) -> bytes:
    """Return a key as it travels."""
    return f"{key.method} {key.taskhash}".encode()
