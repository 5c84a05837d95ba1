"""The blocking client is what the generator makes of the other."""

import inspect
from pathlib import Path

import pytest

from hashserv.client import AsyncClient, Client
from tools.generate_sync import CLIENT, MODULES, generate


@pytest.mark.parametrize(("source", "made"), MODULES.items())
def test_it_is_up_to_date(source: str, made: str) -> None:
    assert (CLIENT / made).read_text() == generate(CLIENT / source), "run `make generate`"


def test_it_blocks_throughout() -> None:
    for made in MODULES.values():
        text = Path(CLIENT / made).read_text()
        assert "await" not in text
        assert "async" not in text.replace("async_client", "")


def test_both_have_the_same_methods() -> None:
    for name, method in inspect.getmembers(Client, inspect.isfunction):
        if not name.startswith("_"):
            other = getattr(AsyncClient, name)
            assert list(inspect.signature(other).parameters) == list(
                inspect.signature(method).parameters
            )
            assert inspect.iscoroutinefunction(other) or inspect.isasyncgenfunction(other)
            assert not inspect.iscoroutinefunction(method)
