"""Progress on a terminal, and none in a pipe."""

from collections.abc import Iterable, Iterator
from typing import TypeVar

_Item = TypeVar("_Item")


def counted(items: Iterable[_Item], *, unit: str, total: int | None = None) -> Iterator[_Item]:
    """Pass items on, and show on stderr how many there were, if that is a terminal."""
    from tqdm import tqdm  # late: most commands need no bar

    # disable=None: tqdm looks itself whether stderr is a terminal
    with tqdm(items, total=total, unit=f" {unit}", disable=None, leave=False) as bar:
        yield from bar
