"""Builds of 32 clients with an upstream that fails in the middle of them; ``make soak`` runs it.

What is waited for is printed, not asserted: ``make soak ARGS="tests/upstream/test_builds.py -s"``.
"""

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

import pytest

import hashserv
from tests.conftest import StartServer
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for
from tests.upstream.asking import KNOWN, fill, unihash
from tests.upstream.faults import FAULTS, NO_FAULT, Fault, FaultyProxy

_Result = TypeVar("_Result")

CLIENTS = 32
LOCAL = range(5 * 10**8, 5 * 10**8 + 200)
"""Tasks that the server itself knows."""

BEFORE_SECONDS = 3
FAULT_SECONDS = 8
AFTER_SECONDS = 20

ALL = {**FAULTS, "latency of 3 s": Fault(latency=3.0), "4 kB a second": Fault(bandwidth=4000)}


@dataclass
class Builds:
    """What the clients of a server saw."""

    server: ServerProcess
    over: threading.Event = field(default_factory=threading.Event)
    waits: list[float] = field(default_factory=list)
    """Seconds for each batch of look-ups, and each report."""

    local_waits: list[float] = field(default_factory=list)
    """Seconds for each look-up of what the server itself knows."""

    wrong: list[object] = field(default_factory=list)
    """Answers that are not right, and exceptions."""

    def build(self, client: int) -> None:
        """Look up what the upstream knows and what nobody knows, and report, again and again."""
        random = Random(client)
        try:
            with hashserv.create_client(self.server.address) as connection:
                first = 3 * 10**8 + 10**5 * client
                while not self.over.is_set():
                    known = [random.randrange(KNOWN) for _ in range(50)]
                    keys = [(METHOD, digest(n)) for n in (*known, *range(first, first + 100))]
                    answers = self._timed(self.waits, connection.get_unihash_batch, keys)
                    expected = [{None, unihash(number)} for number in known] + [{None}] * 100
                    if not all(a in e for a, e in zip(answers, expected, strict=True)):
                        self.wrong.append(answers)
                    task = digest(first)
                    told = self._timed(
                        self.waits, connection.report_unihash, task, METHOD, task, task
                    )
                    if told["unihash"] != task:
                        self.wrong.append(told)
                    first += 100
        except Exception as error:  # noqa: BLE001 - whatever it is, there should be none
            self.wrong.append(error)

    def look_up(self) -> None:
        """Look up what the server itself knows, one after the other."""
        try:
            with hashserv.create_client(self.server.address) as connection:
                while not self.over.wait(0.01):
                    number = LOCAL[len(self.local_waits) % len(LOCAL)]
                    found = self._timed(
                        self.local_waits, connection.get_unihash, METHOD, digest(number)
                    )
                    if found != digest(number):
                        self.wrong.append(found)
        except Exception as error:  # noqa: BLE001
            self.wrong.append(error)

    @staticmethod
    def _timed(waits: list[float], call: Callable[..., _Result], *arguments: object) -> _Result:
        start = time.monotonic()
        result = call(*arguments)
        waits.append(time.monotonic() - start)
        return result


@pytest.mark.skipif(not os.environ.get("HASHSERV_SOAK"), reason="takes minutes: make soak")
@pytest.mark.parametrize("fault", ALL)
def test_a_fault_in_the_middle_of_builds(
    fault: str, start_server: StartServer, far_server: ServerProcess, proxy: FaultyProxy
) -> None:
    fill(far_server.address)
    near = start_server("--upstream", proxy.address, bind="127.0.0.1:0")
    with hashserv.create_client(near.address) as client:
        for number in LOCAL:
            client.report_unihash_equiv(digest(number), METHOD, digest(number))
    builds = Builds(near)
    threads = [threading.Thread(target=builds.build, args=(n,)) for n in range(CLIENTS)]
    threads.append(threading.Thread(target=builds.look_up))
    for thread in threads:
        thread.start()
    try:
        builds.over.wait(BEFORE_SECONDS)
        proxy.set(ALL[fault])
        builds.over.wait(FAULT_SECONDS)
        proxy.set(NO_FAULT)
        start = time.monotonic()
        before = state_and_misses(near)[1]
        wait_for(lambda: is_back(near, before), seconds=AFTER_SECONDS)
        back = time.monotonic() - start
    finally:
        builds.over.set()
        for thread in threads:
            thread.join()
    assert not builds.wrong, builds.wrong[:3]
    local = sorted(builds.local_waits)
    print(
        f"\n{fault:28} slowest reply {max(builds.waits):.2f} s, local p99 "
        f"{local[round(0.99 * (len(local) - 1))] * 1e3:.1f} ms, back after {back:.2f} s, "
        f"{len(builds.waits)} batches and reports"
    )


def is_back(server: ServerProcess, misses: int) -> bool:
    state, now = state_and_misses(server)
    return state == "closed" and now > misses


def state_and_misses(server: ServerProcess) -> tuple[str, int]:
    with Peer(server.address) as peer:
        upstream = peer.ask("get-stats")["upstream"]
    return upstream["state"], upstream["misses"]
