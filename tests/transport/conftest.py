"""Fixtures for the ends of connections."""

import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hashserv.address import Address
from tests.certificates import Certificates
from tests.transport.loops import LOOPS, SECONDS
from tests.transport.streams import Blocking, Open, Plain


@pytest.fixture(params=["sync", "async"])
def open_stream(request: pytest.FixtureRequest) -> Iterator[Open]:
    """Open client streams of each kind, which end with the test."""
    made: list[Any] = []

    def make(
        address: Address, context: ssl.SSLContext | None = None, limit: float | None = SECONDS
    ) -> Any:
        stream = (Plain if request.param == "sync" else Blocking)(address, context, limit)
        made.append(stream)
        return stream

    yield make
    for stream in made:
        stream.dispose()


@pytest.fixture(params=list(LOOPS))
def loop(request: pytest.FixtureRequest) -> str:
    """The kind of event loop that a server runs in."""
    kind: str = request.param
    return kind


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    """An authority, and what it issues."""
    return Certificates(tmp_path)


@pytest.fixture
def others(tmp_path: Path) -> Certificates:
    """Another authority."""
    return Certificates(tmp_path, "other")
