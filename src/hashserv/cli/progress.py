"""Progress on a terminal, and none in a pipe."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

_Item = TypeVar("_Item")


def counted(items: Iterable[_Item], *, unit: str, total: int | None = None) -> Iterator[_Item]:
    """Pass items on, and show on stderr how many there were, if that is a terminal."""
    from tqdm import tqdm  # late: most commands need no bar

    # disable=None: tqdm looks itself whether stderr is a terminal
    with tqdm(items, total=total, unit=f" {unit}", disable=None, leave=False) as bar:
        yield from bar


@contextmanager
def bar(text: str, *, unit: str, total: int | None) -> Iterator[Callable[[int], object]]:
    """Show how far a long work is, on stderr if that is a terminal; yield what to tell it to."""
    from tqdm import tqdm  # late, as above

    with tqdm(desc=text, total=total, unit=f" {unit}", disable=None, leave=False) as shown:
        yield shown.update
