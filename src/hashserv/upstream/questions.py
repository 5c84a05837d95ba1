"""The kinds of questions to an upstream: how each is put, and what may be answered (§5, §6)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Final, Generic, TypeVar

import msgspec

from hashserv.client.batch import END, encode_existences, encode_lookups
from hashserv.errors import ProtocolError
from hashserv.model import Equivalent, MappingKey, Outhash, is_valid_unihash
from hashserv.upstream.connection import GET_STREAM, UpstreamConnection

Key = TypeVar("Key")
Answer = TypeVar("Answer")
_Item = TypeVar("_Item")

MOST_LINES: Final = 8192
"""Questions in a batch of lines: about 1 MB, and some ms of work on the answers."""

MOST_MESSAGES: Final = 256
"""Questions in a batch of messages, whose answers are a row each."""

_PIECE: Final = 512
"""Lines that are encoded at once; others get their turn in between."""

_WORD: Final = re.compile(r"[^\s\0\ud800-\udfff]{1,1024}")
"""What can be asked about: opaque text without white space (PROTOCOL.md §1), of a length that is
far from the 64 KiB at which the reference gives up on a line."""

OuthashKey = tuple[str, str, str]
"""Method, outhash, and the taskhash that it is asked for."""


class Kind(ABC, Generic[Key, Answer]):
    """A kind of questions."""

    name: str
    most: int
    """How many may be in a batch."""

    every_server: bool = False
    """Whether servers of any age know such questions."""

    @abstractmethod
    def can_ask(self, key: Key) -> bool:
        """Tell whether a question can be put at all."""

    @abstractmethod
    async def ask(self, connection: UpstreamConnection, keys: Sequence[Key]) -> list[Answer]:
        """Ask, and return the answers; raises as `UpstreamConnection`'s methods do."""


class Lookups(Kind[MappingKey, str | None]):
    """What unihash each method and taskhash has.

    Args:
        unihash_digits: How many digits a unihash has at least.
    """

    name = GET_STREAM
    most = MOST_LINES
    every_server = True

    def __init__(self, unihash_digits: int) -> None:
        self._unihash_digits = unihash_digits

    def can_ask(self, key: MappingKey) -> bool:
        return _are_words(*key)

    async def ask(
        self, connection: UpstreamConnection, keys: Sequence[MappingKey]
    ) -> list[str | None]:
        pieces = (encode_lookups([*piece]) for piece in _pieces(keys))
        replies = await connection.ask_lines(self.name, pieces, len(keys))
        for reply in replies:
            if reply and not is_valid_unihash(reply, least=self._unihash_digits):
                raise ProtocolError(f"a wrong unihash, '{reply}'")
        return [reply or None for reply in replies]


class Existences(Kind[str, bool]):
    """Whether any mapping has a unihash."""

    name = "exists-stream"
    most = MOST_LINES

    def can_ask(self, key: str) -> bool:
        return _are_words(key) and key != END

    async def ask(self, connection: UpstreamConnection, keys: Sequence[str]) -> list[bool]:
        pieces = (encode_existences([*piece]) for piece in _pieces(keys))
        replies = await connection.ask_lines(self.name, pieces, len(keys))
        for reply in replies:
            if reply not in ("true", "false"):
                raise ProtocolError(f"'{reply}' is neither true nor false")
        return [reply == "true" for reply in replies]


class Tasks(Kind[MappingKey, Equivalent | None]):
    """What is known of each method and taskhash: the oldest outhash row with its mapping.

    Args:
        unihash_digits: How many digits a unihash has at least.
    """

    name = "get"
    most = MOST_MESSAGES
    every_server = True

    def __init__(self, unihash_digits: int) -> None:
        self._unihash_digits = unihash_digits

    def can_ask(self, key: MappingKey) -> bool:
        return _are_words(*key)

    async def ask(
        self, connection: UpstreamConnection, keys: Sequence[MappingKey]
    ) -> list[Equivalent | None]:
        arguments = [{"method": key.method, "taskhash": key.taskhash, "all": True} for key in keys]
        replies = await connection.ask_messages(self.name, arguments)
        found = [_equivalent(reply, self._unihash_digits) for reply in replies]
        for key, each in zip(keys, found, strict=True):
            if each is not None and (each.outhash.method, each.outhash.taskhash) != key:
                raise ProtocolError(f"the row of another taskhash, '{each.outhash.taskhash}'")
        return found


class Equivalents(Kind[OuthashKey, Equivalent | None]):
    """The oldest row of a method and outhash that has a mapping.

    Args:
        unihash_digits: How many digits a unihash has at least.
    """

    name = "get-outhash"
    most = MOST_MESSAGES

    def __init__(self, unihash_digits: int) -> None:
        self._unihash_digits = unihash_digits

    def can_ask(self, key: OuthashKey) -> bool:
        return _are_words(*key)

    async def ask(
        self, connection: UpstreamConnection, keys: Sequence[OuthashKey]
    ) -> list[Equivalent | None]:
        replies = await connection.ask_messages(self.name, _outhash_arguments(keys))
        found = [_equivalent(reply, self._unihash_digits) for reply in replies]
        for key, each in zip(keys, found, strict=True):
            _check_outhash(key, each and each.outhash)
        return found


class Outhashes(Kind[OuthashKey, Outhash | None]):
    """The oldest row of a method and outhash, whether it has a mapping or not."""

    name = "get-outhash"
    most = MOST_MESSAGES

    def can_ask(self, key: OuthashKey) -> bool:
        return _are_words(*key)

    async def ask(
        self, connection: UpstreamConnection, keys: Sequence[OuthashKey]
    ) -> list[Outhash | None]:
        arguments = [{**each, "with_unihash": False} for each in _outhash_arguments(keys)]
        replies = await connection.ask_messages(self.name, arguments)
        found = [None if reply is None else _outhash(_row(reply)) for reply in replies]
        for key, each in zip(keys, found, strict=True):
            _check_outhash(key, each)
        return found


class _Row(msgspec.Struct):
    """The columns of a reply that is a row (PROTOCOL.md §8.4); others are ignored."""

    method: str
    taskhash: str
    outhash: str
    id: int = 0
    created: str | None = None
    owner: str | None = None
    PN: str | None = None
    PV: str | None = None
    PR: str | None = None
    task: str | None = None
    outhash_siginfo: str | None = None
    unihash: str | None = None
    gc_mark: str | None = None


def _row(reply: object) -> _Row:
    try:
        row = msgspec.convert(reply, _Row)
    except msgspec.ValidationError as error:
        raise ProtocolError(f"what is no row of an outhash: {error}") from None
    if not _are_words(row.method, row.taskhash, row.outhash):
        raise ProtocolError("a row whose method or hashes are none")
    return row


def _outhash(row: _Row) -> Outhash:
    return Outhash(
        row.id,
        row.method,
        row.taskhash,
        row.outhash,
        row.created,
        row.owner,
        row.PN,
        row.PV,
        row.PR,
        row.task,
        row.outhash_siginfo,
    )


def _equivalent(reply: object, unihash_digits: int) -> Equivalent | None:
    if reply is None:
        return None
    row = _row(reply)
    if row.unihash is None or not is_valid_unihash(row.unihash, least=unihash_digits):
        raise ProtocolError(f"a wrong unihash, '{row.unihash}'")
    return Equivalent(_outhash(row), row.unihash, row.gc_mark or "")


def _outhash_arguments(keys: Sequence[OuthashKey]) -> list[dict[str, object]]:
    return [
        {"method": method, "outhash": outhash, "taskhash": taskhash}
        for method, outhash, taskhash in keys
    ]


def _check_outhash(key: OuthashKey, found: Outhash | None) -> None:
    if found is not None and (found.method, found.outhash) != key[:2]:
        raise ProtocolError(f"the row of another outhash, '{found.outhash}'")


def _are_words(*texts: str) -> bool:
    return all(map(_WORD.fullmatch, texts))


def _pieces(keys: Sequence[_Item]) -> Iterator[Sequence[_Item]]:
    for start in range(0, len(keys), _PIECE):
        yield keys[start : start + _PIECE]
