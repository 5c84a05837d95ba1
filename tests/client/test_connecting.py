"""Connecting, and what happens when a connection breaks."""

import asyncio
import contextlib
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hashserv
import hashserv.client
from tests.client.conftest import Connect
from tests.client.hashes import METHOD, hashed
from tests.conftest import StartServer
from tests.proxies import CuttingProxy
from tests.servers import ServerProcess


@contextlib.contextmanager
def answering(*replies: bytes) -> Iterator[str]:
    """A server that sends one of these after each handshake, whatever is asked, and closes."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        for reply in replies:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as received:
                while received.readline() not in (b"\n", b""):
                    pass
                received.readline()
                connection.sendall(reply)

    serving = threading.Thread(target=serve)
    serving.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    with contextlib.suppress(OSError):
        listening.shutdown(socket.SHUT_RDWR)
    serving.join()
    listening.close()


def test_a_restarted_server(client: Any, server: ServerProcess) -> None:
    client.report_unihash(hashed("t"), METHOD, hashed("o"), hashed("u"))
    calls: list[tuple[Callable[[], Any], Any]] = [
        (client.ping, {"alive": True}),
        (lambda: client.get_unihash(METHOD, hashed("t")), hashed("u")),
        (lambda: client.unihash_exists(hashed("u")), True),
        (lambda: client.gc_mark_stream("m", [f"unihash {hashed('u')}"]), {"count": 1}),
    ]
    for call, answer in calls:
        server.stop()
        server.start()
        assert call() == answer


def test_repeats_that_are_used_up(
    client: Any, server: ServerProcess, caplog: pytest.LogCaptureFixture
) -> None:
    client.ping()
    server.stop()
    with caplog.at_level(logging.WARNING, "hashserv.client"), pytest.raises(ConnectionError):
        client.ping()
    assert [record.name for record in caplog.records] == ["hashserv.client"] * 4
    with pytest.raises(ConnectionError):
        client.get_unihash_batch([(METHOD, hashed("t"))])
    server.start()
    assert client.ping() == {"alive": True}


def test_a_missing_socket_is_told_at_once(short_tmp: Path) -> None:
    with pytest.raises(FileNotFoundError):
        hashserv.create_client(f"unix://{short_tmp}/none.sock")
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(f"{short_tmp}/stale.sock")
    with pytest.raises(ConnectionRefusedError):
        hashserv.create_client(f"unix://{short_tmp}/stale.sock")


def test_others_connect_on_first_use(short_tmp: Path, start_server: StartServer) -> None:
    address = f"unix://{short_tmp}/hashserve.sock"

    async def early() -> dict[str, Any]:
        async with await hashserv.create_async_client(address) as client:
            start_server(bind=address)
            return await client.ping()

    assert asyncio.run(early()) == {"alive": True}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
    with hashserv.create_client(closed) as client, pytest.raises(ConnectionError):
        client.ping()


def test_the_path_may_be_long_and_relative(
    start_server: StartServer,
    short_tmp: Path,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    directory = short_tmp / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    server = start_server(bind=f"unix://{directory}/hashserve.sock")
    assert connect(server.address).ping() == {"alive": True}
    monkeypatch.chdir(directory)
    client = connect("unix://hashserve.sock")
    assert client.ping() == {"alive": True}
    os.chdir(short_tmp)
    client.disconnect()
    assert client.ping() == {"alive": True}, "the path means what it did"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", ""])
def test_ways_to_name_a_host(start_server: StartServer, connect: Connect, host: str) -> None:
    server = start_server(bind="[::1]:0" if host == "[::1]" else "127.0.0.1:0")
    port = server.address.rpartition(":")[2]
    assert connect(f"{host}:{port}").ping() == {"alive": True}


def test_disconnect_and_close(client: Any, server: ServerProcess) -> None:
    assert client.ping() == {"alive": True}
    client.disconnect()
    client.disconnect()
    assert client.ping() == {"alive": True}
    assert server.stop() == 0


def test_a_client_without_an_address() -> None:
    with hashserv.client.Client("alice", "secret") as client:
        assert (client.username, client.password) == ("alice", "secret")
        with pytest.raises(hashserv.ClientError):
            client.ping()


def test_connecting_to_another_server(client: Any, start_server: StartServer) -> None:
    client.report_unihash(hashed("t"), METHOD, hashed("o"), hashed("u"))
    client.connect_unix(start_server().address.removeprefix("unix://"))
    assert client.get_unihash(METHOD, hashed("t")) is None
    host, _, port = start_server(bind="127.0.0.1:0").address.rpartition(":")
    client.connect_tcp(host, int(port))
    assert client.get_unihash(METHOD, hashed("t")) is None


def test_a_refusal_is_not_repeated(
    start_server: StartServer, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_server("--anon-perms", "@none")
    client = connect(server.address)
    for _ in range(2):
        with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
            client.get_unihash_batch((METHOD, hashed(number)) for number in range(3000))
        with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
            client.report_unihash(hashed("t"), METHOD, hashed("o"), hashed("u"))
    assert client.ping() == {"alive": True}
    assert "Error talking to server" not in caplog.text, "nothing was broken"


def test_a_refusal_of_a_request_too_large_to_be_read(
    start_server: StartServer, connect: Connect
) -> None:
    server = start_server("--max-message", "300000")
    client = connect(server.address)
    client.max_chunk = 32768
    extra = {"outhash_siginfo": "x" * 3_000_000}
    with pytest.raises((hashserv.InvokeError, ConnectionError)):
        client.report_unihash(hashed("t"), METHOD, hashed("o"), hashed("u"), extra)
    assert client.ping() == {"alive": True}


@pytest.mark.parametrize("reply", [b"{nonsense}\n", b"\xff\n", b'{"ali', b"", b'{"chunk-stream": '])
def test_replies_that_make_no_sense(connect: Connect, reply: bytes) -> None:
    with answering(*[reply] * 3, b'{"alive": true}\n') as address:
        assert connect(address).ping() == {"alive": True}
    with answering(*[reply] * 4) as address, pytest.raises(ConnectionError):
        connect(address).ping()


@pytest.mark.parametrize("reply", [b"null\n", b'"no"\n', b"ok\n"])
def test_a_mode_that_is_not_entered(connect: Connect, reply: bytes) -> None:
    with answering(*[reply] * 4) as address, pytest.raises(ConnectionError):
        connect(address).get_unihash(METHOD, hashed("t"))


def test_a_reply_that_does_not_come(connect: Connect) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        client = connect(f"127.0.0.1:{silent.getsockname()[1]}")
        client.timeout = 0.01
        with pytest.raises(ConnectionError, match="Timed out waiting for data"):
            client.ping()
        with pytest.raises(ConnectionError, match="Timed out waiting for data"):
            client.get_unihash(METHOD, hashed("t"))


@pytest.mark.parametrize("limit", [-1, None])
def test_no_limit(client: Any, limit: float | None) -> None:
    client.timeout = limit
    assert client.ping() == {"alive": True}


def test_a_connection_cut_in_the_middle_of_a_message(
    connect: Connect, server: ServerProcess
) -> None:
    siginfo = "x" * 200_000
    proxy = CuttingProxy(server.address, [50_000, 100_000, 0])
    client = connect(proxy.address)
    client.report_unihash(
        hashed("t"), METHOD, hashed("o"), hashed("u"), {"outhash_siginfo": siginfo}
    )
    assert client.get_taskhash(METHOD, hashed("t"), True)["outhash_siginfo"] == siginfo
    proxy.close()


def test_importing_the_package_is_light() -> None:
    program = (
        "import sys, hashserv; print([n for n in sys.modules if 'asyncio' in n or '.client' in n])"
    )
    done = subprocess.run(
        [sys.executable, "-I", "-c", "import sys; sys.modules['bb'] = None\n" + program],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
