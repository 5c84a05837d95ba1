"""A bounded cache of answers, for batches of questions: compiled where it could be, else Python."""

import os
from typing import Final, Protocol

try:
    from hashserv.equivalence._answers import CompiledAnswers
except ImportError:  # there was no C compiler when this package was installed
    CompiledAnswers = None  # type: ignore[assignment,misc]  # and mypy does not look at it

PURE_PYTHON: Final = "HASHSERV_PURE_PYTHON"
"""An environment variable: if it is set and not empty, nothing compiled is used."""

MOST_REPLY: Final = 1024 * 1024
"""Bytes that are answered in one go; a question may be much shorter than its answer."""

ENTRY_BYTES: Final = 220
"""What an entry in Python takes beside its text: two bytes objects' heads and their share of the
table, measured with CPython 3.11 at the table's usual fill."""


class AnswerCache(Protocol):
    """Answers by question, both as the bytes that travel, within a bound of memory.

    There are two generations. What is asked for moves into the young one; when that is full, it
    becomes the old one, and what nobody asked for meanwhile is forgotten with the former old
    one. So a hit in the young generation, which is nearly every one, is a plain look-up.
    """

    def reply(self, data: bytes) -> bytes | None:
        """Return the lines that answer lines, or `None` where not all of them are known.

        Nor are they returned where they have more than `MOST_REPLY` bytes: then the caller asks for
        the answers to some questions at a time.

        Args:
            data: Whole lines, each a question.
        """

    def answers(self, questions: list[bytes]) -> list[bytes | None]:
        """Return the answer to each question, or `None` where it is not known."""

    def put(self, question: bytes, answer: bytes) -> None:
        """Remember an answer, in the place of any other to the same question."""

    def clear(self) -> None:
        """Forget everything."""

    @property
    def size(self) -> int:
        """How much memory is used, about."""

    def __len__(self) -> int:
        """How many answers are remembered, about: some may count in both generations."""


class PythonAnswers(AnswerCache):
    """The cache in Python; see `AnswerCache`.

    Args:
        max_bytes: How much memory to use at most, about; 0 remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._half = max_bytes // 2
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._size = 0
        self._old_size = 0

    def reply(self, data: bytes) -> bytes | None:
        reply = joined(self.answers(data[:-1].split(b"\n")))
        return reply if reply is None or len(reply) <= MOST_REPLY else None

    def answers(self, questions: list[bytes]) -> list[bytes | None]:
        answers = list(map(self._young.get, questions))
        if None in answers and self._old:
            for at, answer in enumerate(answers):
                if answer is None:
                    answers[at] = self._promoted(questions[at])
        return answers

    def put(self, question: bytes, answer: bytes) -> None:
        if not self._half:
            return
        former = self._young.get(question)
        if former is None:
            size = len(question) + len(answer) + ENTRY_BYTES
        else:
            size = len(answer) - len(former)
        self._size += size
        if self._size > self._half:
            self._old, self._young = self._young, {}
            self._old_size = self._size - size
            self._size = len(question) + len(answer) + ENTRY_BYTES
        self._young[question] = answer
        self._old.pop(question, None)

    def clear(self) -> None:
        self._young = {}
        self._old = {}
        self._size = self._old_size = 0

    @property
    def size(self) -> int:
        return self._size + self._old_size

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def _promoted(self, question: bytes) -> bytes | None:
        answer = self._old.get(question)
        if answer is not None:
            self.put(question, answer)
        return answer


def joined(answers: list[bytes | None]) -> bytes | None:
    """Return answers as lines, or `None` where one is not known."""
    if None in answers:
        return None
    return b"\n".join([*answers, b""])  # type: ignore[list-item]  # as was just seen


def new_cache(max_bytes: int) -> AnswerCache:
    """Return an empty cache, a compiled one where there is such.

    Args:
        max_bytes: How much memory to use at most, about; 0 remembers nothing.
    """
    if not is_compiled():
        return PythonAnswers(max_bytes)
    return CompiledAnswers(max_bytes, os.urandom(16))


def is_compiled() -> bool:
    """Tell whether caches are compiled ones."""
    return CompiledAnswers is not None and not os.environ.get(PURE_PYTHON)
