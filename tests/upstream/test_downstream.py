"""A server that asks another: what its clients see (PROTOCOL.md §8, §9)."""

import json
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

import hashserv
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD
from tests.peers import METHOD, Peer, digest
from tests.servers import START_SECONDS, ServerProcess, wait_for
from tests.upstream.asking import KNOWN, fill, unihash
from tests.upstream.conftest import MakeProxy
from tests.upstream.faults import FAULTS, NO_FAULT, Fault, FaultyProxy

StartDownstream = Callable[..., ServerProcess]

UNKNOWN = range(KNOWN, KNOWN + 500)


@pytest.fixture
def filled(far_server: ServerProcess) -> ServerProcess:
    """A far server that knows something."""
    fill(far_server.address)
    return far_server


@pytest.fixture
def near(start_server: StartServer, filled: ServerProcess, proxy: FaultyProxy) -> ServerProcess:
    """A server in front of it, which asks it through a proxy."""
    del filled
    return start_server("--upstream", proxy.address, "--upstream-timeout", str(START_SECONDS))


def look_up(server: ServerProcess, numbers: range) -> list[str | None]:
    with hashserv.create_client(server.address) as client:
        return client.get_unihash_batch((METHOD, digest(number)) for number in numbers)


def upstream_stats(server: ServerProcess) -> dict[str, Any]:
    with Peer(server.address) as peer:
        stats: dict[str, Any] = peer.ask("get-stats")["upstream"]
    return stats


def test_what_the_upstream_knows_is_answered_and_kept(
    near: ServerProcess, start_server: StartServer
) -> None:
    expected = [unihash(number) for number in range(KNOWN)]
    assert look_up(near, range(KNOWN)) == expected
    with Peer(near.address) as peer:
        assert peer.ask("backfill-wait")["tasks"] in range(KNOWN + 1)
    assert upstream_stats(near)["backfilled"] == KNOWN
    near.kill()  # what backfill-wait has confirmed is there
    alone = start_server(database=near.database)
    assert look_up(alone, range(KNOWN)) == expected


def test_answers_keep_their_order_whoever_gives_them(near: ServerProcess) -> None:
    with hashserv.create_client(near.address) as client:
        for number in range(0, KNOWN, 3):
            own = digest(2 * 10**9 + number)
            client.report_unihash_equiv(digest(number), METHOD, own)
        numbers = [number for pair in zip(range(KNOWN), UNKNOWN, strict=False) for number in pair]
        answers = client.get_unihash_batch((METHOD, digest(number)) for number in numbers)
    for number, answer in zip(numbers, answers, strict=True):
        if number >= KNOWN:
            assert answer is None
        else:
            assert answer == (unihash(number) if number % 3 else digest(2 * 10**9 + number))


def test_what_the_upstream_does_not_know_is_asked_once(
    near: ServerProcess, proxy: FaultyProxy
) -> None:
    for _ in range(3):
        assert look_up(near, UNKNOWN) == [None] * len(UNKNOWN)
    assert proxy.questions() == len(UNKNOWN)
    with hashserv.create_client(near.address) as client:
        assert client.get_taskhash(METHOD, digest(UNKNOWN[0])) is None
        client.report_unihash_equiv(digest(UNKNOWN[0]), METHOD, digest(5))
    assert look_up(near, UNKNOWN)[:2] == [digest(5), None]
    assert proxy.questions() == len(UNKNOWN)


def test_misses_are_forgotten_after_a_while(
    start_server: StartServer, filled: ServerProcess, proxy: FaultyProxy
) -> None:
    near = start_server("--upstream", proxy.address, "--upstream-negative-ttl", "0.2")
    assert look_up(near, UNKNOWN[:1]) == [None]
    with Peer(filled.address) as peer:
        peer.report(digest(UNKNOWN[0]), digest(1), digest(2))
    wait_for(lambda: look_up(near, UNKNOWN[:1]) == [digest(2)])


def test_many_clients_with_the_same_questions_ask_once(
    near: ServerProcess, proxy: FaultyProxy
) -> None:
    proxy.set(Fault(latency=0.05))
    with ThreadPoolExecutor(20) as clients:
        answers = list(clients.map(lambda _: look_up(near, UNKNOWN), range(20)))
    assert answers == [[None] * len(UNKNOWN)] * 20
    assert proxy.questions() <= len(UNKNOWN)


def test_existence_is_asked_upstream(near: ServerProcess, proxy: FaultyProxy) -> None:
    with hashserv.create_client(near.address) as client:
        known = [unihash(number) for number in range(3)]
        for _ in range(2):
            asked = [*known, digest(1), digest(2)]
            assert client.unihash_exists_batch(asked) == [True] * 3 + [False] * 2
    assert bytes(proxy.asked).count(digest(2).encode()) == 1


def test_single_questions_store_the_answer_first(
    near: ServerProcess, start_server: StartServer
) -> None:
    with hashserv.create_client(near.address) as client:
        assert client.get_taskhash(METHOD, digest(1)) == {
            "method": METHOD,
            "taskhash": digest(1),
            "unihash": unihash(1),
        }
        whole = client.get_taskhash(METHOD, digest(2), all_properties=True)
        assert whole is not None
        assert whole["outhash"] == digest(10**6 + 2)
        same = client.get_outhash(METHOD, digest(10**6 + 3), digest(99))
        assert same is not None
        assert (same["taskhash"], same["unihash"]) == (digest(3), unihash(3))
        bare = client.get_outhash(METHOD, digest(10**6 + 4), digest(99), with_unihash=False)
        assert bare is not None
        assert bare["taskhash"] == digest(4)
        for all_properties in (False, True):
            assert client.get_taskhash(METHOD, digest(9999), all_properties) is None
        assert client.get_outhash(METHOD, digest(9999), digest(1)) is None
    near.kill()
    alone = start_server(database=near.database)
    assert look_up(alone, range(1, 5)) == [unihash(1), unihash(2), unihash(3), None]
    with hashserv.create_client(alone.address) as client:
        kept = client.get_taskhash(METHOD, digest(2), all_properties=True)
        assert kept is not None
        assert {**kept, "id": 0} == {**whole, "id": 0}


def test_a_report_takes_the_unihash_that_the_upstream_has_for_its_output(
    near: ServerProcess,
) -> None:
    with Peer(near.address) as peer:
        task = 10**4
        assert peer.report(digest(task), digest(10**6 + 7), digest(1)) == unihash(7)
        assert peer.report(digest(task + 1), digest(10**6 + 7), digest(2)) == unihash(7)
        assert peer.report(digest(task + 2), digest(2), digest(3)) == digest(3)
        assert peer.lookup(digest(task)) == unihash(7)
    assert look_up(near, range(task, task + 3)) == [unihash(7), unihash(7), digest(3)]


@pytest.mark.usefixtures("filled")
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_hurts_no_client_and_is_over_when_it_ends(
    fault: str, start_server: StartServer, proxy: FaultyProxy
) -> None:
    near = start_server("--upstream", proxy.address, "--upstream-timeout", "2")
    ended = threading.Event()

    def build(worker: int) -> int:
        """Look up and report, as long as the fault lasts; no reply may be missing or wrong."""
        rounds = 0
        with hashserv.create_client(near.address) as client:
            client.timeout = 10.0
            while not ended.is_set():
                base = 10**5 * (worker + 1) + 100 * rounds
                asked = [*range(100), *range(base, base + 100)]
                answers = client.get_unihash_batch((METHOD, digest(each)) for each in asked)
                assert len(answers) == len(asked)
                for number, answer in zip(asked, answers, strict=True):
                    assert answer in ({None, unihash(number)} if number < KNOWN else {None})
                report = client.report_unihash(digest(base), METHOD, digest(base), digest(base))
                assert report["unihash"] == digest(base)
                rounds += 1
        return rounds

    with ThreadPoolExecutor(4) as workers:
        building = [workers.submit(build, worker) for worker in range(4)]
        try:
            wait_for(lambda: upstream_stats(near)["misses"] > 300)
            proxy.set(FAULTS[fault])
            before = proxy.connections
            # A line that breaks now and then is mended each time, and the circuit may stay closed.
            wait_for(
                lambda: upstream_stats(near)["state"] == "open" or proxy.connections > before + 20
            )
            proxy.set(NO_FAULT)
            wait_for(lambda: upstream_stats(near)["state"] == "closed")
        finally:
            ended.set()
        assert all(each.result() for each in building)
    assert "closed after an error of the server's own" not in near.log_text()
    assert look_up(near, range(KNOWN)) == [unihash(number) for number in range(KNOWN)]


def test_a_server_starts_without_its_upstream(
    start_server: StartServer, filled: ServerProcess, faulty_proxy: MakeProxy
) -> None:
    line = faulty_proxy(filled.address, Fault(refuse=True))
    near = start_server("--upstream", line.address)
    assert look_up(near, range(5)) == [None] * 5
    line.set(NO_FAULT)
    wait_for(lambda: look_up(near, range(5)) == [unihash(number) for number in range(5)])


@pytest.mark.parametrize("way", ["flags", "environment", "netrc", "none", "wrong"])
def test_an_upstream_that_wants_a_login(way: str, start_server: StartServer, tmp_path: Any) -> None:
    far = start_server(
        *("--anon-perms", "@none", "--admin-user", ADMIN, "--admin-password", PASSWORD),
        bind="127.0.0.1:0",
    )
    with Peer(far.address) as peer:
        assert peer.ask("auth", {"username": ADMIN, "token": PASSWORD})["result"]
        peer.report(digest(1), digest(2), digest(3))
        token = peer.ask("new-user", {"username": "mirror", "permissions": ["@read"]})["token"]
    file = tmp_path / "token"
    file.write_text((token if way != "wrong" else "x") + "\n")
    flags, environment = [], {"HOME": str(tmp_path)}
    if way in ("flags", "wrong"):
        flags = ["--upstream-username", "mirror", "--upstream-token-file", str(file)]
    elif way == "environment":
        environment |= {
            "HASHSERVER_UPSTREAM_USERNAME": "mirror",
            "HASHSERVER_UPSTREAM_TOKEN": token,
        }
    elif way == "netrc":
        netrc = tmp_path / ".netrc"
        netrc.write_text(f"machine {far.address} login mirror password {token}\n")
        netrc.chmod(0o600)
    near = start_server("--upstream", far.address, *flags, environment=environment)
    knows = way not in ("none", "wrong")
    assert look_up(near, range(1, 2)) == [digest(3) if knows else None]
    assert token not in near.log_text()
    if not knows:
        words = "demands a login" if way == "none" else "refuses the login as 'mirror'"
        wait_for(lambda: words in near.log_text())


def test_an_upstream_that_is_the_server_itself(
    start_server: StartServer, faulty_proxy: MakeProxy
) -> None:
    first = start_server(bind="127.0.0.1:0")
    line = faulty_proxy(first.address)
    first.stop()
    near = start_server("--upstream", line.address, bind=first.address)
    assert look_up(near, range(3)) == [None] * 3
    wait_for(lambda: "it is this server itself" in near.log_text())
    with Peer(near.address) as peer:
        assert peer.report(digest(1), digest(2), digest(3)) == digest(3)


def test_requests_behind_those_that_wait_are_answered_in_order(
    near: ServerProcess, proxy: FaultyProxy
) -> None:
    proxy.set(Fault(latency=0.1))
    with Peer(near.address) as peer:
        peer.stream("get-stream")
        lines = [f"{METHOD} {digest(number)}" for number in (*UNKNOWN[:200], 1, 2)]
        rest = ["END", '{"ping": {}}', json.dumps({"get-stats": None})]
        peer.send("\n".join([*lines, *rest, ""]).encode())
        answers = peer.lines(len(lines) + 3)
    expected = [b""] * 200 + [unihash(1).encode(), unihash(2).encode(), b"ok", b'{"alive":true}']
    assert answers[:-1] == expected
    stats = json.loads(answers[-1] or b"{}")
    assert stats["upstream"]["state"] == "closed"
    assert stats["requests"]["num"] >= len(lines)


def test_known_lines_behind_an_unknown_one_do_not_pile_up(
    near: ServerProcess, proxy: FaultyProxy
) -> None:
    with Peer(near.address) as peer:
        peer.report(digest(10**7), digest(2), digest(3))
        proxy.set(Fault(stall_after=0))
        before = near.resident_bytes()
        peer.stream("get-stream")
        peer.send(f"{METHOD} {digest(9)}\n".encode())
        peer.socket.settimeout(1.0)
        known = f"{METHOD} {digest(10**7)}\n".encode() * 1_000_000
        with pytest.raises(TimeoutError):  # the server reads no more
            peer.socket.sendall(known)
        assert near.resident_bytes() - before < 50_000_000
        proxy.set(NO_FAULT)


def test_a_server_that_stops_answers_what_waits(near: ServerProcess, proxy: FaultyProxy) -> None:
    proxy.set(Fault(latency=0.3))
    with Peer(near.address) as peer:
        peer.stream("get-stream")
        peer.send(f"{METHOD} {digest(1)}\n".encode())
        wait_for(lambda: proxy.questions() == 1)
        near.process.terminate()
        assert peer.line() == unihash(1).encode()
        assert peer.closed()
    assert near.stop() == 0
