"""One event loop and one empty database for thousands of generated cases."""

import asyncio
import shutil
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from hashserv.store import sqlite_file


class Files:
    """Empty databases: copies of one that was made once, each in the place of the last."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._empty = directory / "empty.db"
        self._count = count()
        sqlite_file.prepare(str(self._empty), writable=True)

    def fresh(self) -> Path:
        for old in self._directory.glob("case-*"):
            old.unlink()
        file = self._directory / f"case-{next(self._count)}.db"
        shutil.copy(self._empty, file)
        return file


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    return Files(tmp_path_factory.mktemp("cases"))


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner
