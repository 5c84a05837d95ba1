"""The stream modes: request lines in, reply lines out (PROTOCOL.md §6)."""

from collections.abc import Awaitable, Callable, Sequence
from itertools import groupby
from typing import TypeVar

import msgspec

from hashserv import model
from hashserv.equivalence.collection import check_condition
from hashserv.errors import InvokeError, ProtocolError, StoreError
from hashserv.server.handlers import Services
from hashserv.wire import commands, requests
from hashserv.wire.commands import Command

LineError = InvokeError | ProtocolError | StoreError

Answered = tuple[bytes | Awaitable[bytes], LineError | None]
"""Reply lines, or what waits for them, and what is wrong with the line after the last of them."""

_Decoded = TypeVar("_Decoded")


KnownReply = Callable[[bytes], bytes | None]
"""Returns the lines that answer whole lines, if all are at hand; does not wait."""


def known_reply(services: Services, mode: type[Command]) -> KnownReply | None:
    """Return what answers the lines of a mode out of the cache, if anything does."""
    if mode is commands.GetStream:
        return services.equivalences.lookup_reply
    if mode is commands.ExistsStream:
        return services.equivalences.existence_reply
    return None


async def answer_lines(services: Services, mode: type[Command], lines: list[bytes]) -> Answered:
    """Answer lines of a mode, up to the first that can't be.

    What an upstream may know better is waited for by the caller, who knows what else there is to
    do meanwhile.

    Raises:
        ProtocolError: It is a mode in which a peer has nothing to say.
    """
    if mode is commands.GetStream:
        return await _lookups(services, lines)
    if mode is commands.ExistsStream:
        return await _existences(services, lines)
    if mode is commands.SnapshotStream:
        raise ProtocolError("a line in snapshot-stream, where there is nothing to ask")
    return await _marks(services, lines)


async def _lookups(services: Services, lines: list[bytes]) -> Answered:
    answers = services.equivalences.known_lookups(lines)
    unknown = [at for at, answer in enumerate(answers) if answer is None]
    keys, error = _decoded(requests.decode_lookup, [lines[at] for at in unknown])
    if error is not None:
        del answers[unknown[len(keys)] :]
    mapping_keys = [model.MappingKey(*key) for key in keys]
    found = await services.equivalences.lookup(mapping_keys)
    further = services.equivalences.further_lookups(mapping_keys, found)
    return _merged(answers, found) if further is None else _merged_later(answers, further), error


async def _existences(services: Services, lines: list[bytes]) -> Answered:
    answers = services.equivalences.known_existences(lines)
    unknown = [at for at, answer in enumerate(answers) if answer is None]
    unihashes, error = _decoded(requests.decode_existence, [lines[at] for at in unknown])
    if error is not None:
        del answers[unknown[len(unihashes)] :]
    found = await services.equivalences.exist(unihashes)
    further = services.equivalences.further_existences(unihashes, found)
    return _merged(answers, found) if further is None else _merged_later(answers, further), error


async def _marks(services: Services, lines: list[bytes]) -> Answered:
    failure: LineError | None
    marks, failure = _decoded(_decode_mark, lines)
    counts: list[int] = []
    try:
        for mark, run in groupby(marks, key=lambda line: line.mark):
            counts += await services.collection.mark(mark, [line.where for line in run])
    except StoreError as error:  # those before it are marked
        failure = error
    replies = [msgspec.json.encode({"count": count}) for count in counts]
    return b"\n".join([*replies, b""]), failure


def _decode_mark(line: bytes) -> commands.GcMark:
    mark = requests.decode_mark_line(line)
    check_condition(mark.where)
    return mark


def _decoded(
    decode: Callable[[bytes], _Decoded], lines: Sequence[bytes]
) -> tuple[list[_Decoded], InvokeError | ProtocolError | None]:
    """Decode lines up to the first that can't be, and return its error with what came before."""
    decoded: list[_Decoded] = []
    try:
        for line in lines:
            decoded.append(decode(line))  # noqa: PERF401 - those before an error are kept
    except (InvokeError, ProtocolError) as error:
        return decoded, error
    return decoded, None


def _merged(answers: list[bytes | None], found: Sequence[bytes]) -> bytes:
    """Return reply lines: the answers, with what was found in the gaps."""
    gaps = iter(found)
    lines = [next(gaps) if answer is None else answer for answer in answers]
    return b"\n".join([*lines, b""])


async def _merged_later(answers: list[bytes | None], found: Awaitable[Sequence[bytes]]) -> bytes:
    return _merged(answers, await found)
