"""Many clients that report and look up at once, and what they were told."""

import json
import random
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from tests.peers import METHOD, Peer

MOST_TOGETHER = 8
"""Reports that a client sends at once."""

_FAR_SECONDS = 120.0


@dataclass
class Told:
    """What servers have answered, over all clients."""

    unihashes: dict[str, str] = field(default_factory=dict)
    """The unihash of each taskhash."""

    rows: set[tuple[str, str]] = field(default_factory=set)
    """Taskhash and outhash of each report that was acknowledged."""

    changed: list[tuple[str, str, str]] = field(default_factory=list)
    """Taskhashes that were answered two unihashes."""

    count: int = 0

    def __post_init__(self) -> None:
        self.lock = threading.Condition()

    def hold(self, taskhash: str, unihash: str) -> None:
        """Take note of an answer; it must be what it was before. To be called with the lock."""
        before = self.unihashes.setdefault(taskhash, unihash)
        if before != unihash:
            self.changed.append((taskhash, before, unihash))

    def acknowledge(self, taskhash: str, outhash: str, unihash: str) -> None:
        with self.lock:
            self.rows.add((taskhash, outhash))
            self.hold(taskhash, unihash)
            self.count += 1
            self.lock.notify_all()

    def await_more(self, number: int, seconds: float = _FAR_SECONDS) -> None:
        """Wait until so many more reports are acknowledged."""
        with self.lock:
            end = self.count + number
            assert self.lock.wait_for(lambda: self.count >= end, seconds), "reports hang"


class Load:
    """Clients that report some hashes in random order, and look them up, until it is closed.

    Args:
        addresses: The servers, which clients choose from in turn.
        told: Where answers go.
        clients: How many.
        taskhashes: Few enough that clients report the same at once.
        outhashes: Fewer, so that taskhashes share them.
    """

    def __init__(
        self,
        addresses: Sequence[str],
        told: Told,
        *,
        clients: int,
        taskhashes: Sequence[str],
        outhashes: Sequence[str],
    ) -> None:
        self._told = told
        self._taskhashes = taskhashes
        self._outhashes = outhashes
        self._ending = threading.Event()
        self._errors: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._run, args=(addresses[number % len(addresses)], number))
            for number in range(clients)
        ]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """End the clients; raises what they met with."""
        self._ending.set()
        for thread in self._threads:
            thread.join()
        if self._errors:
            raise self._errors[0]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, address: str, seed: int) -> None:
        try:
            with Peer(address) as peer:
                peer.socket.settimeout(_FAR_SECONDS)
                chance = random.Random(seed)
                while not self._ending.is_set():
                    self._report(peer, chance)
                    self._look_up(peer, chance)
        except BaseException as error:  # noqa: BLE001 - raised again by who closes
            self._errors.append(error)

    def _report(self, peer: Peer, chance: random.Random) -> None:
        reports = [
            {
                "method": METHOD,
                "taskhash": chance.choice(self._taskhashes),
                "outhash": chance.choice(self._outhashes),
                "unihash": f"{chance.getrandbits(256):064x}",
            }
            for _ in range(chance.choice([1, 1, 1, MOST_TOGETHER]))
        ]
        peer.send(b"".join(json.dumps({"report": each}).encode() + b"\n" for each in reports))
        for report, line in zip(reports, peer.lines(len(reports)), strict=True):
            assert line is not None, "closed without an answer"
            answer = json.loads(line)
            assert "unihash" in answer, answer
            self._told.acknowledge(report["taskhash"], report["outhash"], answer["unihash"])

    def _look_up(self, peer: Peer, chance: random.Random) -> None:
        taskhashes = chance.sample(self._taskhashes, 4)
        for taskhash, unihash in zip(taskhashes, look_up(peer, taskhashes), strict=True):
            if unihash:
                with self._told.lock:
                    self._told.hold(taskhash, unihash)


def look_up(peer: Peer, taskhashes: Sequence[str]) -> list[str]:
    """Return the unihash of each taskhash, empty where there is none."""
    peer.stream("get-stream")
    peer.send("".join(f"{METHOD} {taskhash}\n" for taskhash in taskhashes).encode() + b"END\n")
    *answers, end = peer.lines(len(taskhashes) + 1)
    assert end == b"ok", end
    return [(answer or b"").decode() for answer in answers]
