"""A long line to a server, on this machine: ``python -m bench.delay SERVER``.

It prints where it listens; then, for each line on its standard input, how many questions about
tasks it has carried so far. It ends with its input.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from typing import Final, Self

import uvloop

from bench.generators import METHOD

ROUND_TRIP_SECONDS: Final = 0.050

_HOST: Final = "127.0.0.1"
_PIECE: Final = 1 << 16
_STDIN: Final = 0


class LongLine:
    """The program as a process, which ends with the ``with`` block.

    `address` is where it listens.

    Args:
        server: The server at the far end, as HOST:PORT.
    """

    def __init__(self, server: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.delay", server],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.address = self._said()

    def questions(self) -> int:
        """Return how many questions about tasks went through it, in messages or in streams."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return int(self._said())

    def _said(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the line to the server broke")
        return line.strip()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()


class _Carrier:
    """Carries connections to a server and back, each way half a round trip late.

    Nothing is held back when a peer does not read, so it is for short conversations.
    """

    def __init__(self, server: str) -> None:
        self._host, _, self._port = server.rpartition(":")
        self._questions = 0
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        listening = await asyncio.start_server(self._accept, _HOST, 0)
        print(f"{_HOST}:{listening.sockets[0].getsockname()[1]}", flush=True)
        self._loop.add_reader(_STDIN, self._tell)
        await self._ended.wait()
        self._loop.remove_reader(_STDIN)
        listening.close()  # whoever is still connected is not waited for

    def _tell(self) -> None:
        asked = os.read(_STDIN, _PIECE)
        if not asked:
            self._ended.set()
        for _ in range(asked.count(b"\n")):
            print(self._questions, flush=True)

    async def _accept(self, from_near: asyncio.StreamReader, to_near: asyncio.StreamWriter) -> None:
        await asyncio.sleep(ROUND_TRIP_SECONDS)  # as TCP's own handshake would take
        from_far, to_far = await asyncio.open_connection(self._host, self._port)
        await asyncio.gather(
            self._carry(from_near, to_far, counting=True),
            self._carry(from_far, to_near, counting=False),
        )

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, counting: bool
    ) -> None:
        rest = b""
        with contextlib.suppress(OSError):  # a reset ends it like a farewell
            while data := await source.read(_PIECE):
                # uvloop's timers of one delay go off in the order in which they were set.
                self._loop.call_later(ROUND_TRIP_SECONDS / 2, sink.write, data)
                if counting:
                    *lines, rest = (rest + data).split(b"\n")
                    self._questions += sum(METHOD.encode() in line for line in lines)
        self._loop.call_later(ROUND_TRIP_SECONDS / 2, sink.close)


async def _run(server: str) -> None:
    await _Carrier(server).run()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(sys.argv[1]))
