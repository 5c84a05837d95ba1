"""Questions to a good upstream: in batches, in order, each once."""

import asyncio

import pytest

from hashserv.equivalence.upstream import UNANSWERED
from hashserv.model import MappingKey
from hashserv.upstream import pool
from tests.conftest import StartServer
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess
from tests.upstream.asking import KNOWN, answers, asking, fill, keys, run, unihash, until
from tests.upstream.faults import Fault, FaultyProxy


@pytest.fixture(params=["unix", "tcp", "ws"])
def filled_server(request: pytest.FixtureRequest, start_server: StartServer) -> ServerProcess:
    """A server with `KNOWN` tasks, over each transport."""
    plain = start_server()
    fill(plain.address)
    binds = {"tcp": "127.0.0.1:0", "ws": "ws://127.0.0.1:0"}
    if request.param == "unix":
        return plain
    plain.stop()
    return start_server(bind=binds[request.param], database=plain.database)


def test_lookups_in_order(filled_server: ServerProcess) -> None:
    asked = [number for start in range(0, KNOWN, 7) for number in (start, KNOWN + start)]
    asked += range(KNOWN + 20_000, KNOWN + 32_000)  # more than one batch
    asked += asked[:100]

    async def test() -> None:
        async with asking(filled_server.address) as upstream:
            assert await upstream.lookup(keys(*asked)) == answers(*asked)
            summary = upstream.summary()
            assert summary.state == "closed"
            assert summary.in_flight == 0
            assert summary.errors == 0
            assert summary.hits == sum(number < KNOWN for number in asked[:-100])
            assert summary.misses == len(asked) - 100 - summary.hits
            assert summary.latency > 0

    run(test())


def test_existences_in_order(filled_server: ServerProcess) -> None:
    async def test() -> None:
        async with asking(filled_server.address) as upstream:
            asked = [unihash(3), digest(5), unihash(4), unihash(3)]
            assert await upstream.exist(asked) == [True, False, True, True]
            assert await upstream.exist([]) == []

    run(test())


def test_rows(filled_server: ServerProcess) -> None:
    async def test() -> None:
        async with asking(filled_server.address) as upstream:
            (key, unknown) = keys(3, KNOWN)
            task = await upstream.task(key)
            assert task is not None
            assert task is not UNANSWERED
            assert task.unihash == unihash(3)
            assert task.outhash.taskhash == key.taskhash
            assert await upstream.task(unknown) is None
            outhash = task.outhash.outhash
            other = digest(77)
            many = [(METHOD, digest(10**6 + number), other) for number in range(600)]
            found = await upstream.equivalents([*many, (METHOD, other, other)])
            assert found.pop() is None
            assert found[3] == task
            assert [getattr(each, "unihash", None) for each in found] == answers(*range(600))
            assert await upstream.outhash((METHOD, outhash, other)) == task.outhash
            assert await upstream.outhash((METHOD, other, other)) is None

    run(test())


def test_a_row_with_columns_and_without_a_mapping(far_server: ServerProcess) -> None:
    with Peer(far_server.address) as peer:
        peer.report(digest(1), digest(2), digest(3), PN="quilt", outhash_siginfo="x" * 100_000)
        assert peer.ask("remove", {"where": {"unihash": digest(3)}})["count"] == 1

    async def test() -> None:
        async with asking(far_server.address) as upstream:
            key = (METHOD, digest(2), digest(1))
            row = await upstream.outhash(key)
            assert row is not None
            assert row is not UNANSWERED
            assert (row.PN, row.PV, row.outhash_siginfo) == ("quilt", None, "x" * 100_000)
            assert await upstream.equivalents([key]) == [None]

    run(test())


def test_what_is_asked_together_goes_together(proxy: FaultyProxy) -> None:
    """Questions of many callers make few batches."""
    proxy.set(Fault(latency=0.02))

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            await asyncio.gather(*(upstream.lookup(keys(number)) for number in range(500)))

    run(test())
    assert proxy.questions() == 500
    assert proxy.asked.count(b"get-stream") <= 2 * pool.MOST_CONNECTIONS


def test_the_same_questions_of_many_go_once(far_server: ServerProcess, proxy: FaultyProxy) -> None:
    fill(far_server.address)
    numbers = [*range(2 * KNOWN)]

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            asked = (upstream.lookup(keys(*numbers[at:], *numbers[:at])) for at in range(50))
            found = await asyncio.gather(*asked)
            for at, each in enumerate(found):
                assert each == answers(*numbers[at:], *numbers[:at])
            assert upstream.summary().hits == KNOWN

    run(test())
    assert proxy.questions() == len(numbers)


def test_a_caller_that_leaves_takes_nobody_along(proxy: FaultyProxy) -> None:
    proxy.set(Fault(stall_after=0))

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            first = asyncio.create_task(upstream.lookup(keys(1, 2)))
            second = asyncio.create_task(upstream.lookup(keys(2, 3)))
            await until(lambda: upstream.summary().in_flight == 3)
            first.cancel()
            await asyncio.wait([first])
            assert upstream.summary().in_flight == 3
            proxy.set(Fault())
            assert await second == [None, None]

    run(test())
    assert proxy.questions() == 3


def test_more_than_may_wait_is_not_asked(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "MOST_WAITING", 10)

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            found = await asyncio.gather(
                upstream.lookup(keys(*range(8))),
                upstream.lookup(keys(*range(5, 15))),
                upstream.lookup(keys(20)),
            )
            assert list(found) == [[None] * 8, [None] * 5 + [UNANSWERED] * 5, [UNANSWERED]]
            assert await upstream.lookup(keys(20)) == [None]

    run(test())


@pytest.mark.parametrize("taskhash", ["", "a b", "a\nb", "a\0b", "\ud800", "a" * 5000])
def test_what_can_not_be_asked_is_not(far_server: ServerProcess, taskhash: str) -> None:
    async def test() -> None:
        async with asking(far_server.address) as upstream:
            bad = MappingKey(METHOD, taskhash)
            assert await upstream.lookup([*keys(1), bad, *keys(2)]) == [None, UNANSWERED, None]
            assert await upstream.exist([taskhash, "END", digest(1)]) == [
                UNANSWERED,
                UNANSWERED,
                False,
            ]
            assert await upstream.task(bad) is UNANSWERED

    run(test())


def test_an_upstream_that_was_restarted(
    far_server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    fill(far_server.address)

    async def test() -> None:
        async with asking(far_server.address) as upstream:
            several = (upstream.lookup(keys(number)) for number in range(20))
            await asyncio.gather(*several)
            address = far_server.address
            far_server.stop()
            far_server._command[far_server._command.index("--bind") + 1] = address
            far_server.start()
            assert await upstream.lookup(keys(1, 2)) == answers(1, 2)
            assert upstream.summary().errors == 0

    run(test())
    assert not caplog.records


def test_a_connection_that_was_idle_for_long_is_not_used(
    proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A firewall may have forgotten it, and then nothing answers."""

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            await upstream.lookup(keys(1))
            await upstream.lookup(keys(2))
            assert proxy.connections == 1
            monkeypatch.setattr(pool, "MOST_IDLE_SECONDS", -1.0)
            assert await upstream.lookup(keys(3)) == [None]
            assert proxy.connections == 2

    run(test())


def test_nothing_is_asked_after_the_end(proxy: FaultyProxy) -> None:
    proxy.set(Fault(stall_after=0))

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            asked = asyncio.create_task(upstream.lookup(keys(1)))
            await until(lambda: upstream.summary().in_flight)
            await upstream.close()
            assert await asked == [UNANSWERED]
            assert not upstream.available
            assert await upstream.lookup(keys(2)) == [UNANSWERED]
            await upstream.close()

    run(test())
