"""Several processes on one file: no taskhash is ever answered two unihashes, and all agree."""

import json
import random
import time

from tests import peers as wire
from tests.conftest import StartServer
from tests.crash.test_kill import (
    METHOD,
    Acknowledged,
    Client,
    Peer,
    check_database,
)
from tests.equivalence.soak import TIMES
from tests.servers import ServerProcess
from tests.workers import peers

WORKERS = 4
CLIENTS = 64
SECONDS = 6 * TIMES
TASKHASHES = [f"taskhash-{number}" for number in range(200)]
OUTHASHES = [f"outhash-{number}" for number in range(50)]


def report_for_a_while(address: str, seed: int, acknowledged: Acknowledged) -> None:
    """Report in random order, in lock-step or a few at once."""
    chance = random.Random(seed)
    peer = Peer(address)
    end = time.monotonic() + SECONDS
    while time.monotonic() < end:
        reports = [
            {
                "method": METHOD,
                "taskhash": chance.choice(TASKHASHES),
                "outhash": chance.choice(OUTHASHES),
                "unihash": f"{chance.getrandbits(256):064x}",
            }
            for _ in range(chance.choice([1, 1, 4]))
        ]
        replies = peer.ask([json.dumps({"report": report}).encode() for report in reports])
        assert len(replies) == len(reports)
        for report, reply in zip(reports, replies, strict=True):
            answer = json.loads(reply)
            assert answer["taskhash"] == report["taskhash"]
            acknowledged.add(report["taskhash"], report["outhash"], answer["unihash"])
    peer.close()


def let_report(servers: list[ServerProcess]) -> Acknowledged:
    """Have clients report to servers, as many to each, and check that no answer ever changed."""
    acknowledged = Acknowledged()
    clients = []
    for seed in range(CLIENTS):
        address = servers[seed % len(servers)].address
        clients.append(
            Client(lambda a=address, seed=seed: report_for_a_while(a, seed, acknowledged))  # type: ignore[misc]
        )
    for client in clients:
        client.start()
    for client in clients:
        client.finish()
    assert acknowledged.changed == []
    assert acknowledged.unihashes.keys() == set(TASKHASHES)
    return acknowledged


def check_answers(peer: wire.Peer, acknowledged: Acknowledged) -> None:
    """Ask for all mappings that were promised."""
    with peer:
        peer.stream("get-stream")
        for taskhash, unihash in acknowledged.unihashes.items():
            peer.send(f"{METHOD} {taskhash}\n".encode())
            assert peer.line() == unihash.encode()


def test_workers_agree(start_server: StartServer) -> None:
    server = start_server("--workers", str(WORKERS))
    acknowledged = let_report([server])
    with wire.Peer(server.address) as peer:
        assert peer.ask("get-stats")["requests"]["num"] == acknowledged.count
    for peer in peers(server):
        check_answers(peer, acknowledged)
    check_database(server.database, acknowledged)
    assert acknowledged.changed == []
    assert "ERROR" not in server.log_text()


def test_servers_on_one_file_agree(start_server: StartServer) -> None:
    one = start_server()
    two = start_server(database=one.database)
    acknowledged = let_report([one, two])
    for server in (one, two):
        check_answers(wire.Peer(server.address), acknowledged)
        assert "ERROR" not in server.log_text()
    check_database(one.database, acknowledged)
    assert acknowledged.changed == []
