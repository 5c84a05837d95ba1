"""Requests in flight on one connection: asked, timed, and each reply checked."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Final

import msgspec

from hashserv.bench.link import Link
from hashserv.bench.questions import Batch, Questions
from hashserv.bench.tally import Tally, Wrong
from hashserv.bench.tasks import canonical
from hashserv.errors import ConnectionClosedError, InvokeError, ProtocolError
from hashserv.wire.client import STREAM_BEGUN, STREAM_END, STREAM_ENDED, check_reply
from hashserv.wire.framing import DEFAULT_MAX_LINE

_ENDED: Final = [STREAM_ENDED.encode()]
_BEGUN: Final = [msgspec.json.encode(STREAM_BEGUN)]
_BROKEN: Final = (OSError, ConnectionClosedError, ProtocolError, InvokeError)


class _Sent:
    """Requests that went out at one moment, and how many of them are answered."""

    __slots__ = ("answered", "at", "counts", "mode", "replies", "requests")

    def __init__(
        self,
        mode: str | None,
        requests: Sequence[bytes],
        replies: Sequence[bytes],
        *,
        counts: bool = True,
    ) -> None:
        self.mode = mode
        self.requests = requests
        self.replies = replies
        self.counts = counts
        self.answered = 0
        self.at = 0.0


class Pipeline:
    """Keeps a connection busy until its questions or its time are over.

    As many requests as were answered are sent at once. A latency is the time from handing a
    request to the transport until its reply is read. Changes of the stream mode go along as
    clients send them; they are checked, and not counted.

    Args:
        link: The connection; no other pipeline uses it meanwhile.
        questions: What to ask.
        tally: Takes what was measured.
        depth: How many requests are in flight at most.
        is_over: Tells whether to ask nothing more; what is in flight is still waited for.
    """

    def __init__(
        self,
        link: Link,
        questions: Questions,
        tally: Tally,
        *,
        depth: int,
        is_over: Callable[[], bool],
    ) -> None:
        self._link = link
        self._questions = questions
        self._tally = tally
        self._depth = depth
        self._is_over = is_over
        self._sent: deque[_Sent] = deque()
        self._in_flight = 0
        self._partial = b""
        self._last_progress = perf_counter()  # when the server was heard of, or first asked
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with the load, or has what broke it; an `InvokeError` has the server's words."""

    def start(self) -> None:
        """Ask the first requests."""
        self._last_progress = perf_counter()
        self._link.attach(self._read)
        try:
            self._ask(self._depth)
        except _BROKEN as error:
            self.fail(error)

    def fail(self, error: Exception) -> None:
        """End; replies that are still to come are missing."""
        if not self.done.done():
            self.stop()
            self._tally.missing += self._in_flight
            self.done.set_exception(error)

    def check_time(self, limit: float) -> None:
        """Fail if nothing was heard of the server for more than so many seconds."""
        if not self.done.done() and perf_counter() - self._last_progress > limit:
            self.fail(ConnectionError(f"Timed out waiting for a reply for {limit:.0f} s"))

    def stop(self) -> None:
        """End, whatever is in flight. Idempotent."""
        self._link.detach()
        if self.done.done():
            self.done.exception()  # somebody else's may have been told of

    def _read(self) -> None:
        now = perf_counter()
        try:
            self._take(now)
        except _BROKEN as error:
            self.fail(error)

    def _take(self, now: float) -> None:
        *lines, self._partial = (self._partial + self._link.take()).split(b"\n")
        if len(self._partial) > DEFAULT_MAX_LINE:
            raise ProtocolError(f"a reply is longer than {DEFAULT_MAX_LINE} bytes")
        if lines:
            self._last_progress = now
            self._check(lines, now)
            self._ask(self._depth - self._in_flight)

    def _ask(self, room: int) -> None:
        """Send what there is room for, or end when there is nothing more to do."""
        asked: list[_Sent] = []
        while room > 0 and not self._is_over():
            batch = self._questions.take(room)
            if batch is None:
                break
            asked += self._switches(batch)
            asked.append(_Sent(batch.mode, batch.requests, batch.replies))
            room -= len(batch.replies)
            self._in_flight += len(batch.replies)
        if asked:
            data = b"".join([request for sent in asked for request in sent.requests])
            now = perf_counter()
            for sent in asked:
                sent.at = now
            self._sent += asked
            self._link.put(data)
        elif not self._sent and not self.done.done():
            self.done.set_result(None)
            self.stop()

    def _switches(self, batch: Batch) -> list[_Sent]:
        """Return what changes the connection's mode to a batch's (PROTOCOL.md §6)."""
        link, switches = self._link, []
        if link.mode != batch.mode:
            if link.mode is not None:
                switches.append(_Sent(link.mode, (STREAM_END,), _ENDED, counts=False))
            if batch.mode is not None:
                begin = f'{{"{batch.mode}": null}}\n'.encode()
                switches.append(_Sent(None, (begin,), _BEGUN, counts=False))
            link.mode = batch.mode
        return switches

    def _check(self, lines: list[bytes], now: float) -> None:
        at = 0
        while at < len(lines):
            if not self._sent:
                self._tally.wrong += len(lines) - at
                raise ProtocolError("there are more replies than requests")
            sent = self._sent[0]
            count = min(len(sent.replies) - sent.answered, len(lines) - at)
            answered = lines[at : at + count]
            if answered != sent.replies[sent.answered : sent.answered + count]:
                self._compare(answered, sent)
            at += count
            if sent.counts:
                self._tally.answered(count, sent=sent.at, arrived=now)
                self._in_flight -= count
            sent.answered += count
            if sent.answered == len(sent.replies):
                self._sent.popleft()

    def _compare(self, lines: list[bytes], sent: _Sent) -> None:
        """Look at each of some replies, of which not all are to the letter as expected.

        Raises:
            InvokeError: The server refused a request.
            ProtocolError: The server did not change the mode.
        """
        normal = canonical if sent.mode is None else bytes.rstrip
        for at, line in enumerate(lines, sent.answered):
            answered, expected = normal(line), sent.replies[at]
            if answered == expected:
                continue
            if b"invoke-error" in answered:
                _check_refusal(answered)
            wrong = Wrong(sent.requests[at].rstrip(), answered, expected)
            if not sent.counts:
                raise ProtocolError(f"the mode does not change: {wrong}")
            self._tally.refuse(wrong)


def _check_refusal(line: bytes) -> None:
    """Raise the error that a line carries, if it does."""
    try:
        reply: object = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return
    check_reply(reply)
