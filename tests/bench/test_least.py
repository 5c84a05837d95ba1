"""The least server answers as the load generator wants it, and what is missing is named."""

from pathlib import Path

import pytest

from bench import least
from bench.generators import Generators, Load


def test_it_answers_look_ups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(least, "_KEYS", 100)
    generators = Generators(tmp_path)
    with least._least(generators) as address:
        for keys in (100, 50):
            load = Load(mode="get", requests=1000, clients=10, keys=keys)
            assert generators.run(generators.loadgen, address, load).wrong == 0


def test_a_missing_redis_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("shutil.which", lambda _: None)
    monkeypatch.setattr("sys.argv", ["least"])
    assert least.main() == 1
    assert capsys.readouterr().err.startswith("ERROR: there is no redis-server: install it")
