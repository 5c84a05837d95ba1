"""What the rules want of an upstream server (PROTOCOL.md §8): answers in batches, or none in time.

An upstream is far away, slow, or gone; nothing that happens to it is an error of whoever asks. So
no method here raises because of it: where it does not answer, the answer is `UNANSWERED`.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final, Protocol

from hashserv.model import Equivalent, MappingKey, Outhash


class Unanswered(Enum):
    """The type of `UNANSWERED`."""

    UNANSWERED = auto()


UNANSWERED: Final = Unanswered.UNANSWERED
"""There was no answer: too late, broken, or not asked because others had none. Remember nothing."""


@dataclass(frozen=True, kw_only=True)
class SnapshotSummary:
    """How a copy of an upstream's mappings does.

    Args:
        state: ``off`` (there is none), ``waiting`` (for the upstream), ``copying``, ``following``
            (all is here, and what is new there comes), or ``unsupported`` (by the upstream).
        mappings: How many were copied.
    """

    state: str
    mappings: int


NO_SNAPSHOT: Final = SnapshotSummary(state="off", mappings=0)
"""There is no copy."""


@dataclass(frozen=True, kw_only=True)
class UpstreamSummary:
    """How an upstream does; times are in seconds.

    Args:
        state: ``closed`` (it is asked), ``open`` (it is not) or ``half-open`` (a little).
        in_flight: Questions that wait for their answers.
        hits: Questions whose answer was something.
        misses: Questions whose answer was that it knows nothing.
        errors: Batches of questions that failed.
        latency: What the last batches took in the mean.
        snapshot: How the copy of its mappings does.
    """

    state: str
    in_flight: int
    hits: int
    misses: int
    errors: int
    latency: float
    snapshot: SnapshotSummary = NO_SNAPSHOT


class AnswerListener(Protocol):
    """Who is told, in the event loop, of answers before whoever asked has them.

    So what is remembered of an answer is remembered before the same can be asked again.
    """

    def looked_up(self, keys: Sequence[MappingKey], unihashes: Sequence[str | None]) -> None:
        """Take note of what look-ups were answered."""

    def existed(self, unihashes: Sequence[str], exist: Sequence[bool]) -> None:
        """Take note of which unihashes exist."""


class _Nobody:
    """Listens where nobody does."""

    def looked_up(self, keys: Sequence[MappingKey], unihashes: Sequence[str | None]) -> None:
        """Do nothing."""

    def existed(self, unihashes: Sequence[str], exist: Sequence[bool]) -> None:
        """Do nothing."""


class Upstream(ABC):
    """A server that is asked for what the own store does not know.

    Answers come in the order of the questions. A question that is under way already is not
    asked a second time.
    """

    listener: AnswerListener = _Nobody()
    """Who is told of answers; whoever remembers them puts itself here."""

    @property
    @abstractmethod
    def available(self) -> bool:
        """Whether asking makes sense now. Cheap; asked for each batch."""

    @property
    def has_copies(self) -> bool:
        """Whether `copied` may know anything. Cheap; asked for each batch."""
        return False

    def copied(self, keys: Sequence[MappingKey]) -> list[str | None]:
        """Return the unihash of each key, `None` where it was not copied in advance.

        Does not wait, and answers also while the upstream is gone.
        """
        return [None] * len(keys)

    @abstractmethod
    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | Unanswered | None]:
        """Return the unihash of each key, or `None` where it knows none."""

    @abstractmethod
    async def exist(self, unihashes: Sequence[str]) -> list[bool | Unanswered]:
        """Tell of each unihash whether any mapping there has it."""

    @abstractmethod
    async def task(self, key: MappingKey) -> Equivalent | Unanswered | None:
        """Return the oldest outhash row of a taskhash, with its mapping (get, all)."""

    @abstractmethod
    async def equivalents(
        self, keys: Sequence[tuple[str, str, str]]
    ) -> list[Equivalent | Unanswered | None]:
        """Return the oldest row with a mapping of each method, outhash and (asking) taskhash."""

    @abstractmethod
    async def outhash(self, key: tuple[str, str, str]) -> Outhash | Unanswered | None:
        """Return the oldest row of a method and outhash, whether it has a mapping or not."""

    @abstractmethod
    def summary(self) -> UpstreamSummary:
        """Return how it does."""

    @abstractmethod
    async def close(self) -> None:
        """Ask no more. Idempotent."""
