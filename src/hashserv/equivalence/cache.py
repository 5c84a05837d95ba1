"""A bounded cache of answers, for batches of questions."""

from typing import Final

ENTRY_BYTES: Final = 220
"""What an entry takes beside its text: two bytes objects' heads and their share of the table,
measured with CPython 3.11 at the table's usual fill."""


class AnswerCache:
    """Answers by question, both as the bytes that travel, within a bound of memory.

    There are two generations. What is asked for moves into the young one; when that is full, it
    becomes the old one, and what nobody asked for meanwhile is forgotten with the former old
    one. So a hit in the young generation, which is nearly every one, is a plain dictionary look-up.

    Args:
        max_bytes: How much memory to use at most, about; 0 remembers nothing.
    """

    def __init__(self, max_bytes: int) -> None:
        self._half = max_bytes // 2
        self._young: dict[bytes, bytes] = {}
        self._old: dict[bytes, bytes] = {}
        self._size = 0

    def answers(self, questions: list[bytes]) -> list[bytes | None]:
        """Return the answer to each question, or `None` where it is not known."""
        answers = list(map(self._young.get, questions))
        if None in answers and self._old:
            for at, answer in enumerate(answers):
                if answer is None:
                    answers[at] = self._promoted(questions[at])
        return answers

    def put(self, question: bytes, answer: bytes) -> None:
        """Remember an answer, in the place of any other to the same question."""
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
            self._size = len(question) + len(answer) + ENTRY_BYTES
        self._young[question] = answer
        self._old.pop(question, None)

    def clear(self) -> None:
        """Forget everything."""
        self._young = {}
        self._old = {}
        self._size = 0

    def __len__(self) -> int:
        """How many answers are remembered."""
        return len(self._young) + len(self._old)

    def _promoted(self, question: bytes) -> bytes | None:
        answer = self._old.get(question)
        if answer is not None:
            self.put(question, answer)
        return answer
