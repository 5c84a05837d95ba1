"""Servers in an event loop of a thread of their own, of each kind of loop."""

import asyncio
import socket
import ssl
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self, cast

import uvloop

LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}

SECONDS = 30.0
"""How long anything may take before a test fails."""


class Echo(asyncio.Protocol):
    """Sends every line back, as a session would: it closes its transport itself.

    `heard` is what came, `calls` what happened, `error` what the connection was lost by.
    """

    def __init__(self, *, answers: bool = True) -> None:
        self.heard = b""
        self.calls: list[str] = []
        self.error: Exception | None = None
        self.answers = answers
        self.lost = threading.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one only in manner
        self.calls.append("made")

    def data_received(self, data: bytes) -> None:
        self.heard += data
        self.calls.append("data")
        if self.answers:
            self.transport.write(data)

    def eof_received(self) -> bool:
        self.calls.append("eof")
        self.transport.close()
        return self.transport.get_extra_info("ssl_object") is None

    def connection_lost(self, exc: Exception | None) -> None:
        self.calls.append("lost")
        self.error = exc
        self.lost.set()


class Serving:
    """A server on a free TCP port, in a thread; unhandled errors of its loop fail the test.

    Args:
        make: Makes what speaks lines for a connection.
        loop: Which of `LOOPS` it runs in.
        tls: With what it does TLS.
        wrap: Makes what stands between that and the transport.
    """

    def __init__(
        self,
        make: Callable[[], Echo] = Echo,
        loop: str = "asyncio",
        tls: ssl.SSLContext | None = None,
        wrap: Callable[[Echo], asyncio.BaseProtocol] = lambda echo: echo,
    ) -> None:
        self.loop = LOOPS[loop]()
        self.errors: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _, context: self.errors.append(context))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listening.getsockname()[1]
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()
        self._made: list[Echo] = []

        def accept() -> asyncio.BaseProtocol:
            echo = make()
            self._made.append(echo)
            return wrap(echo)

        self._server = self.run(self.loop.create_server(accept, sock=self._listening, ssl=tls))

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine in the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(SECONDS)

    def call(self, function: Callable[..., Any], *arguments: object) -> Any:
        """Call a function in the loop and return its result."""

        async def calling() -> Any:
            return function(*arguments)

        return self.run(calling())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.run(self._finish())
        for echo in self._made:
            assert not echo.calls or echo.lost.wait(SECONDS)
            assert echo.calls.count("lost") == len(echo.calls[:1])
        self.call(lambda: None)  # what the end of a connection leaves for the next turn
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()
        assert self.errors == []

    async def _finish(self) -> None:
        self._server.close()
        if handshakes := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(handshakes, timeout=SECONDS)
        for echo in self._made:
            if echo.calls:
                echo.transport.abort()
