"""BitBake's RPC client, `bb.asyncrpc`, against our server."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import bb.asyncrpc
import pytest

import hashserv
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.servers import ServerProcess

METHOD = "TestMethod"
TASKHASH, OUTHASH, UNIHASH = "1" * 64, "2" * 64, "3" * 64


def test_the_exceptions_are_the_same() -> None:
    assert hashserv.InvokeError is bb.asyncrpc.InvokeError
    assert hashserv.ClientError is bb.asyncrpc.ClientError
    assert hashserv.ServerError is bb.asyncrpc.ServerError
    assert hashserv.ConnectionClosedError is bb.asyncrpc.ConnectionClosedError


def converse(
    server: ServerProcess, conversation: Callable[[Any], Awaitable[None]], **options: Any
) -> None:
    """Hold a conversation over a client of BitBake's."""

    async def run() -> None:
        client = bb.asyncrpc.AsyncClient(
            "OEHASHEQUIV", "1.1", logging.getLogger("bitbake"), **options
        )
        async with client:
            if server.address.startswith("unix://"):
                await client.connect_unix(server.address.removeprefix("unix://"))
            elif "://" in server.address:
                await client.connect_websocket(server.address)
            else:
                host, _, port = server.address.rpartition(":")
                await client.connect_tcp(host, int(port))
            await client.connect()
            writer = getattr(client.socket, "writer", None)
            await conversation(client)
        if writer is not None:
            # BitBake closes without waiting; a loop that ends then leaves an open transport.
            await writer.wait_closed()

    asyncio.run(run())


@pytest.fixture(params=["unix", "tcp", "ws", "wss"])
def any_server(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
) -> ServerProcess:
    """A server with an empty database, over each transport that BitBake's client has."""
    if request.param == "wss":  # as BitBake is told of an authority of one's own
        monkeypatch.setenv("SSL_CERT_FILE", certificates.authority)
        return start_server("--tls-cert", certificates.server(), bind="wss://localhost:0/ws")
    binds = {"unix": None, "tcp": "127.0.0.1:0", "ws": "ws://127.0.0.1:0/any/path"}
    return start_server(bind=binds[request.param])


def report(**extra: str) -> dict[str, Any]:
    mapping = {"taskhash": TASKHASH, "method": METHOD, "outhash": OUTHASH, "unihash": UNIHASH}
    return {"report": {**extra, **mapping}}


def test_messages(any_server: ServerProcess) -> None:
    async def conversation(client: Any) -> None:
        assert await client.ping() == {"alive": True}
        mapping = {"taskhash": TASKHASH, "method": METHOD, "unihash": UNIHASH}
        assert await client.invoke(report(PN="zlib")) == mapping
        get = {"taskhash": TASKHASH, "method": METHOD, "all": False}
        assert await client.invoke({"get": get}) == mapping
        found = await client.invoke({"get": {**get, "all": True}})
        assert found.items() >= {**mapping, "outhash": OUTHASH, "PN": "zlib"}.items()
        assert await client.invoke({"get": {**get, "taskhash": "4" * 64}}) is None

    converse(any_server, conversation)


def test_streams(any_server: ServerProcess) -> None:
    async def conversation(client: Any) -> None:
        await client.invoke(report())
        assert await client.invoke({"get-stream": None}) == "ok"
        for _ in range(3):  # one line at a time
            await client.socket.send(f"{METHOD} {TASKHASH}")
            assert await client.socket.recv() == UNIHASH
        for number in range(1000):  # many at once
            await client.socket.send(f"{METHOD} {number}")
        assert [await client.socket.recv() for _ in range(1000)] == [""] * 1000
        await client.socket.send("END")
        assert await client.socket.recv() == "ok"
        assert await client.invoke({"exists-stream": None}) == "ok"
        await client.socket.send(UNIHASH)
        assert await client.socket.recv() == "true"
        await client.socket.send("END")
        assert await client.socket.recv() == "ok"
        assert await client.ping() == {"alive": True}

    converse(any_server, conversation)


@pytest.mark.parametrize("siginfo", ["x" * 200_000, "日本語 😀\n" * 40_000, " " * 100_000 + "end"])
def test_chunks_both_ways(any_server: ServerProcess, siginfo: str) -> None:
    async def conversation(client: Any) -> None:
        assert await client.invoke(report(outhash_siginfo=siginfo))
        get = {"taskhash": TASKHASH, "method": METHOD, "all": True}
        found = await client.invoke({"get": get})
        assert found["outhash"] == OUTHASH
        assert found["outhash_siginfo"] == siginfo

    converse(any_server, conversation)


def test_headers_of_the_server(any_server: ServerProcess) -> None:
    async def conversation(client: Any) -> None:
        assert await client.get_header("anything", "default") == "default"
        assert await client.ping() == {"alive": True}

    converse(any_server, conversation, server_headers=True, headers={"x-from": "bitbake"})


def test_errors(any_server: ServerProcess) -> None:
    async def conversation(client: Any) -> None:
        with pytest.raises(hashserv.InvokeError, match="not the current mark"):
            await client.invoke({"gc-sweep": {"mark": "none"}})
        await client.disconnect()

    converse(any_server, conversation)
