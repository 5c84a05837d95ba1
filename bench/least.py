"""What uvloop alone manages in lock-step: ``python -m bench.least``.

The least server that a Python program can be, a dictionary and one write, takes turns with ours and
Redis. It is what look-ups in lock-step could reach at most: with one line in each read, nearly all
of the time goes into the kernel and the event loop.
"""

import argparse
import asyncio
import multiprocessing
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Final, cast

import uvloop
from tqdm import tqdm

from bench import loading, machine
from bench.generators import METHOD, Generators, Load, Outcome
from bench.servers import Hashserv, Redis

_KEYS: Final = 100_000
_CACHE_BYTES: Final = 256 << 20
_LOADS: Final = {
    clients: Load(mode="get", requests=requests, clients=clients, keys=_KEYS)
    for clients, requests in ((1, 60_000), (100, 300_000))
}


class _Least(asyncio.Protocol):
    """Answers lines out of a dictionary, one a read."""

    def __init__(self, answers: dict[bytes, bytes]) -> None:
        self._answers = answers
        self._greeting = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        answer = self._answers.get(data)
        if answer is not None:
            self._transport.write(answer)
            return
        self._greeting += data
        if self._greeting.endswith(b'{"get-stream": null}\n'):
            self._transport.write(b'"ok"\n')


def _serve(answers: dict[bytes, bytes], started: Connection) -> None:
    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Least(answers), "127.0.0.1", 0)
        started.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    uvloop.run(serve())


@contextmanager
def _least(generators: Generators) -> Iterator[str]:
    """Run the least server and yield its address."""
    answers = {
        f"{METHOD} {taskhash}\n".encode(): f"{unihash}\n".encode()
        for taskhash, _, unihash in generators.rows(_KEYS)
    }
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=_serve, args=(answers, theirs))
    process.start()
    theirs.close()  # so that its end is noticed
    try:
        yield f"127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


def measure(rounds: int, directory: Path) -> Iterator[tuple[int, str, float, list[float]]]:
    """Yield clients, whose, look-ups a second, and their ratios to Redis' in each round.

    Args:
        rounds: How many.
        directory: Where databases go.

    Raises:
        RuntimeError: A reply was wrong, or there is no redis-server.
    """
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("there is no redis-server: install it (apt-get install redis-server)")
    generators = Generators(directory)
    loading.fill_database(directory / "hashserv.db", _KEYS)
    with (
        _least(generators) as least,
        Redis(program, directory / "redis", durable=False, generators=generators) as redis,
        Hashserv(
            directory / "hashserv.db", cache_bytes=_CACHE_BYTES, generators=generators
        ) as hashserv,
    ):
        loading.fill_redis(redis, _KEYS)
        loading.warm(hashserv, generators.rows(_KEYS))
        servers: dict[str, Callable[[Load], Outcome]] = {
            "redis": redis.under,
            "least": partial(generators.run, generators.loadgen, least),
            "hashserv": hashserv.under,
        }
        for clients, load in _LOADS.items():
            rates: dict[str, list[float]] = {name: [] for name in servers}
            for _ in tqdm(range(rounds), f"{clients} clients", leave=False, disable=None):
                for name, under in servers.items():
                    rates[name].append(_rate(under(load)))
            for name, each in rates.items():
                ratios = [a / b for a, b in zip(each, rates["redis"], strict=True)]
                yield clients, name, median(each), ratios


def _rate(outcome: Outcome) -> float:
    if outcome.wrong:
        raise RuntimeError(f"{outcome.wrong} wrong replies")
    return outcome.per_second


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m bench.least", description=__doc__)
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    machine.raise_file_limit()
    with tempfile.TemporaryDirectory() as directory:
        try:
            for clients, name, rate, ratios in measure(rounds, Path(directory)):
                print(
                    f"{clients:3} clients  {name:8}  {rate:9,.0f}/s  "
                    f"{median(ratios):.2f} x Redis ({min(ratios):.2f}-{max(ratios):.2f})",
                    flush=True,
                )
        except RuntimeError as error:
            print(f"ERROR: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
