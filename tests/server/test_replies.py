"""Replies keep the order of requests, whatever is found first."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.server.replies import MOST_LINES, Replies


@given(kinds=st.lists(st.booleans(), max_size=8), data=st.data())
def test_any_order_of_finding(kinds: list[bool], data: st.DataObject) -> None:
    later = [number for number, kind in enumerate(kinds) if kind]
    order = data.draw(st.permutations(later))

    async def check() -> None:
        written: list[bytes] = []
        replies = Replies(written.append)
        found: dict[int, asyncio.Future[bytes]] = {}
        for number, kind in enumerate(kinds):
            if kind:
                found[number] = asyncio.get_running_loop().create_future()
                replies.send_later(found[number], 1)
            else:
                replies.send(b"%d\n" % number)
        expected = b"".join(b"%d\n" % number for number in range(len(kinds)))
        for number in order:
            found[number].set_result(b"%d\n" % number)
            await asyncio.sleep(0)
            assert expected.startswith(b"".join(written))
        await replies.settled()
        assert b"".join(written) == expected
        assert not replies.waiting

    asyncio.run(check())


def test_what_stands_behind_a_reply_is_sent_with_it() -> None:
    async def check() -> None:
        written: list[bytes] = []
        replies = Replies(written.append)
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        replies.send(b"a\n")
        replies.send_later(found, 1)
        replies.send(b"c\n")
        assert written == [b"a\n"]
        found.set_result(b"b\n")
        await replies.settled()
        assert written == [b"a\n", b"b\nc\n"]

    asyncio.run(check())


def test_a_bound_of_lines() -> None:
    async def check() -> None:
        replies = Replies(lambda _: None)
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        states = []
        for lines in (MOST_LINES - 1, 1):
            replies.send_later(found, lines)
            states.append(replies.full)
        found.set_result(b"")
        await replies.settled()
        assert [*states, replies.full] == [False, True, False]

    asyncio.run(check())


def test_what_is_known_counts_while_it_waits_behind_what_is_not() -> None:
    async def check() -> None:
        replies = Replies(lambda _: None)
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        replies.send_later(found, 1)
        replies.send(b"\n" * (MOST_LINES - 1))
        states = [replies.full]
        found.set_result(b"\n")
        await replies.settled()
        assert [*states, replies.full] == [True, False]

    asyncio.run(check())


def test_a_failure_is_raised_where_it_is_waited_for() -> None:
    async def check() -> None:
        replies = Replies(lambda _: None)
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        replies.send_later(found, 1)
        found.set_exception(ValueError("no"))
        with pytest.raises(ValueError, match="no"):
            async with asyncio.timeout(10):
                await replies.settled()

    asyncio.run(check())


def test_nothing_is_waited_for_when_the_peer_is_gone() -> None:
    async def check() -> None:
        replies = Replies(lambda _: None)
        found: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        replies.send_later(found, 1)
        replies.drop()
        await asyncio.sleep(0)
        assert found.cancelled()
        assert not replies.waiting

    asyncio.run(check())
