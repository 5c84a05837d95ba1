"""``stress`` and ``ping``: how fast a server answers, as the reference's command prints it."""

import hashlib
import statistics
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from queue import SimpleQueue
from time import perf_counter
from typing import Final

from hashserv.cli.login import Login
from hashserv.cli.progress import counted
from hashserv.client import Client

METHOD: Final = "stress.test.method"


@dataclass(frozen=True)
class Load:
    """What `stress` puts on a server; keys are sha256 of a seed and a number."""

    address: str
    login: Login
    clients: int
    requests: int
    report: bool
    taskhash_seed: str
    outhash_seed: str

    def taskhash(self, number: int) -> str:
        """Return the taskhash with a number."""
        return _digest(self.taskhash_seed, number)

    def outhash(self, number: int) -> str:
        """Return the outhash with a number."""
        return _digest(self.outhash_seed, number)


@dataclass
class Measured:
    """What came of it; times are in seconds."""

    elapsed: float = 0.0
    times: list[float] = field(default_factory=list)
    found: int = 0
    missed: int = 0


def stress(load: Load) -> Measured:
    """Put a load on a server, with a thread and a connection for each client.

    Raises:
        ConnectionError: A client lost its server; the others are stopped too.
        InvokeError: The server refused a request.
    """
    answers: SimpleQueue[tuple[float, bool] | None] = SimpleQueue()
    stopped = threading.Event()

    def run_client() -> None:
        try:
            with load.login.connect(load.address) as client:
                for number in range(load.requests):
                    if stopped.is_set():
                        return
                    answers.put(_ask(load, client, number))
        finally:
            answers.put(None)

    measured = Measured()
    start = perf_counter()
    with ThreadPoolExecutor(load.clients) as threads:
        running = [threads.submit(run_client) for _ in range(load.clients)]
        try:
            total = load.clients * load.requests
            for seconds, hit in counted(
                _until_all_end(answers, load.clients), unit="requests", total=total
            ):
                measured.times.append(seconds)
                measured.found += hit
                measured.missed += not hit
        finally:
            stopped.set()
    measured.elapsed = perf_counter() - start
    for client in running:
        client.result()
    return measured


def print_stress(load: Load, measured: Measured) -> None:
    """Print what a stress test measured, a line each."""
    times = measured.times
    for label, value in (
        ("Number of clients", str(load.clients)),
        ("Requests per client", str(load.requests)),
        ("Number of requests", str(len(times))),
        ("Total elapsed time", f"{measured.elapsed:.3f}s"),
        ("Total request rate", f"{len(times) / measured.elapsed:.2f} req/s"),
        ("Average request time", _milliseconds(statistics.mean(times))),
        ("Median request time", _milliseconds(statistics.median(times))),
        ("Request time std dev", _milliseconds(_deviation(times))),
        ("Maximum request time", _milliseconds(max(times))),
        ("Minimum request time", _milliseconds(min(times))),
        ("Hashes found", str(measured.found)),
        ("Hashes missed", str(measured.missed)),
    ):
        print(f"{label}: {value}")


def print_pings(client: Client, count: int, *, quiet: bool) -> None:
    """Ping a server and print how long that took, a line each unless `quiet`, and a summary."""
    times = []
    for number in range(1, count + 1):
        start = perf_counter()
        client.ping()
        times.append(perf_counter() - start)
        if not quiet:
            print(f"Ping {number}: {_milliseconds(times[-1])}")
    print(f"Number of pings: {count}")
    print(f"Average time is: {_milliseconds(statistics.mean(times))}")
    print(f"Median time is: {_milliseconds(statistics.median(times))}")
    print(f"Std dev is: {_milliseconds(_deviation(times))}")
    print(f"Min time is: {_milliseconds(min(times))}")
    print(f"Max time is: {_milliseconds(max(times))}")


def _ask(load: Load, client: Client, number: int) -> tuple[float, bool]:
    taskhash = load.taskhash(number)
    start = perf_counter()
    unihash = client.get_unihash(METHOD, taskhash)
    seconds = perf_counter() - start
    if unihash is None and load.report:
        client.report_unihash(taskhash, METHOD, load.outhash(number), taskhash)
    return seconds, unihash is not None


def _until_all_end(
    answers: "SimpleQueue[tuple[float, bool] | None]", clients: int
) -> Iterator[tuple[float, bool]]:
    while clients:
        answer = answers.get()
        if answer is None:
            clients -= 1
        else:
            yield answer


def _digest(seed: str, number: int) -> str:
    return hashlib.sha256(f"{seed}{number}".encode()).hexdigest()


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.3f}ms"


def _deviation(times: list[float]) -> float:
    return statistics.stdev(times) if len(times) > 1 else 0.0
