"""Batches larger than what may be in flight, and broken in the middle."""

import asyncio
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
import uvloop

import hashserv
from hashserv.client.batch import PIECE_LINES, WINDOW_LINES
from tests.client.conftest import READ_AHEAD, Connect
from tests.client.hashes import METHOD
from tests.proxies import CuttingProxy
from tests.servers import ServerProcess

MANY = 300_000
KNOWN = range(0, 350, 7)


def taskhash(number: int) -> str:
    return f"{number:064x}"


def unihash(number: int) -> str | None:
    """The unihash of some taskhashes; the others have none."""
    return f"{number:064x}" if number in KNOWN else None


@pytest.fixture
def filled(server: ServerProcess) -> ServerProcess:
    with hashserv.create_client(server.address) as client:
        for number in KNOWN:
            client.report_unihash_equiv(taskhash(number), METHOD, taskhash(number))
    return server


def test_many_keys_from_a_generator(connect: Connect, filled: ServerProcess) -> None:
    client = connect(filled.address)
    taken = 0

    def keys() -> Iterator[tuple[str, str]]:
        nonlocal taken
        for number in range(MANY):
            taken += 1
            yield METHOD, taskhash(number)

    for number, found in enumerate(client.get_unihash_stream(keys())):
        assert found == unihash(number)
        assert taken - number <= WINDOW_LINES + READ_AHEAD
    assert client.get_unihash_batch(keys()) == [unihash(number) for number in range(MANY)]
    existences = client.unihash_exists_batch(taskhash(number) for number in range(MANY))
    assert existences == [unihash(number) is not None for number in range(MANY)]


def test_many_keys_on_uvloop(filled: ServerProcess) -> None:
    async def look_up() -> list[str | None]:
        async with await hashserv.create_async_client(filled.address) as client:
            return await client.get_unihash_batch((METHOD, taskhash(n)) for n in range(MANY))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(look_up()) == [unihash(number) for number in range(MANY)]


def test_other_tasks_have_their_turn_during_a_batch(filled: ServerProcess) -> None:
    async def look_up() -> tuple[int, int]:
        turns = 0

        async def count() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with await hashserv.create_async_client(filled.address) as client:
            counting = asyncio.create_task(count())
            found = await client.get_unihash_batch((METHOD, taskhash(n)) for n in range(MANY))
            counting.cancel()
        return turns, len(found)

    turns, found = asyncio.run(look_up())
    assert found == MANY
    assert turns > MANY / PIECE_LINES


@pytest.mark.parametrize("size", [1, PIECE_LINES - 1, PIECE_LINES, PIECE_LINES + 1, WINDOW_LINES])
@pytest.mark.parametrize("over", [0, 1])
def test_sizes_around_the_bounds(client: Any, size: int, over: int) -> None:
    keys = [(METHOD, taskhash(number)) for number in range(size + over)]
    assert client.get_unihash_batch(keys) == [None] * (size + over)


@pytest.mark.parametrize(
    "cuts",
    [
        [0],  # before the mode
        [5],  # in the first reply
        [6],  # after it
        [70, 71, 72],  # in a unihash
        [4000, 5000, 6001],
        [6, 6, 6, 10_000, 6, 6, 6],  # three failures in a row, twice
        [5000] * 7,  # more than three, but with progress in between
    ],
)
def test_a_broken_batch_is_resumed(
    connect: Connect,
    filled: ServerProcess,
    proxy: Callable[..., CuttingProxy],
    cuts: list[int],
) -> None:
    cutting = proxy(filled.address, cuts)
    client = connect(cutting.address)
    keys = ((METHOD, taskhash(number)) for number in range(40_000))
    expected = [unihash(number) for number in range(40_000)]
    assert client.get_unihash_batch(keys) == expected
    assert cutting.connections == len(cuts) + 1


def test_only_the_unanswered_is_asked_again(
    connect: Connect, filled: ServerProcess, proxy: Callable[..., CuttingProxy]
) -> None:
    client = connect(proxy(filled.address, [10_000, 10_000]).address)
    client.reset_stats()
    assert client.get_unihash_batch((METHOD, taskhash(n)) for n in range(100_000)) == [
        unihash(number) for number in range(100_000)
    ]
    assert client.get_stats()["requests"]["num"] <= 100_000 + 2 * WINDOW_LINES + 20


def test_a_batch_fails_when_there_is_no_progress(
    connect: Connect, filled: ServerProcess, proxy: Callable[..., CuttingProxy]
) -> None:
    cutting = proxy(filled.address, [6] * 4)
    client = connect(cutting.address)
    with pytest.raises(ConnectionError):
        client.get_unihash_batch([(METHOD, taskhash(0))])
    assert cutting.connections == 4
    assert client.get_unihash(METHOD, taskhash(0)) == unihash(0), "the next call starts anew"


def test_marks_of_a_broken_stream(
    connect: Connect, filled: ServerProcess, proxy: Callable[..., CuttingProxy]
) -> None:
    client = connect(proxy(filled.address, [100, 2000]).address)
    rows = [f"unihash {taskhash(number)}" for number in range(7000)]
    client.gc_mark_stream("m", rows)
    assert client.gc_status() == {"keep": len(KNOWN), "remove": 0, "mark": "m"}


def test_other_calls_in_the_middle_of_a_stream(connect: Connect, filled: ServerProcess) -> None:
    client = connect(filled.address)
    found = []
    for answer in client.get_unihash_stream((METHOD, taskhash(n)) for n in range(20_000)):
        found.append(answer)
        if len(found) % 5000 == 1:
            assert client.ping() == {"alive": True}
            assert client.unihash_exists(taskhash(7)) is True
    assert found == [unihash(number) for number in range(20_000)]


def test_a_stream_that_is_left_early(connect: Connect, filled: ServerProcess) -> None:
    client = connect(filled.address)
    answers = client.get_unihash_stream((METHOD, taskhash(n)) for n in range(20_000))
    assert next(iter(answers)) == unihash(0)
    assert client.get_unihash(METHOD, taskhash(7)) == unihash(7)
    assert client.ping() == {"alive": True}


def test_an_error_of_the_keys_is_the_callers(connect: Connect, filled: ServerProcess) -> None:
    client = connect(filled.address)

    def keys() -> Iterator[tuple[str, str]]:
        for number in range(1000):
            yield METHOD, taskhash(number)
        raise OSError("the caller's own")

    with pytest.raises(OSError, match="the caller's own"):
        client.get_unihash_batch(keys())
    assert client.get_unihash(METHOD, taskhash(7)) == unihash(7)


def test_a_refused_line_is_told_and_not_repeated(connect: Connect, filled: ServerProcess) -> None:
    client = connect(filled.address)
    rows = [f"unihash {taskhash(number)}" for number in range(20_000)]
    rows[3] = "colour blue"
    with pytest.raises(hashserv.InvokeError, match="colour"):
        client.gc_mark_stream("m", rows)
    assert client.ping() == {"alive": True}


def test_a_cancelled_call_leaves_no_reply_behind(filled: ServerProcess) -> None:
    async def cancel_and_go_on() -> None:
        async with await hashserv.create_async_client(filled.address) as client:
            await client.ping()
            for turns in range(1, 6):
                call = asyncio.create_task(client.get_unihash(METHOD, taskhash(7)))
                for _ in range(turns):
                    await asyncio.sleep(0)
                call.cancel()
                await asyncio.wait([call])
                assert await client.get_unihash(METHOD, taskhash(14)) == unihash(14)
                assert await client.ping() == {"alive": True}

    asyncio.run(cancel_and_go_on())


def test_an_async_stream_that_is_left_early(filled: ServerProcess) -> None:
    async def leave() -> None:
        async with await hashserv.create_async_client(filled.address) as client:
            answers: AsyncIterator[str | None] = client.get_unihash_stream(
                (METHOD, taskhash(n)) for n in range(20_000)
            )
            async for answer in answers:
                assert answer == unihash(0)
                break
            assert await client.ping() == {"alive": True}

    asyncio.run(leave())


def test_a_server_that_stops_reading_is_read_from(connect: Connect) -> None:
    """A server that reads nothing more until its replies are taken: both would wait forever."""
    listening = socket.create_server(("127.0.0.1", 0))
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    failures: list[Exception] = []

    def serve() -> None:
        try:
            connection, _ = listening.accept()
            with connection, connection.makefile("rwb") as stream:
                while stream.readline() != b"\n":
                    pass
                assert stream.readline() == b'{"get-stream":null}\n'
                stream.write(b'"ok"\n')
                stream.flush()
                while line := stream.readline():
                    if line == b"END\n":
                        break
                    stream.write(line.split()[0] * 200 + b"\n")  # more back than forth
                    stream.flush()
        except (AssertionError, OSError) as error:
            failures.append(error)

    serving = threading.Thread(target=serve)
    serving.start()
    host, port = listening.getsockname()
    client = connect(f"{host}:{port}")
    long = "x" * 100
    found = client.get_unihash_batch((long, str(number)) for number in range(10_000))
    assert found == [long * 200] * 10_000
    client.disconnect()
    serving.join()
    listening.close()
    assert failures == []
