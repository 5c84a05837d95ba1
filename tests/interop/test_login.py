"""BitBake's clients and its signature generator, logging in."""

import asyncio
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bb
import bb.asyncrpc
import bb.data
import bb.siggen
import pytest

import hashserv
from tests.conftest import StartServer
from tests.logins import ADMIN, EVERYTHING, PASSWORD, start_guarded
from tests.servers import ServerProcess

METHOD = "TestMethod"
RECIPE = "/recipes/zlib.bb"


def digits(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture(params=["unix", "tcp"])
def server(
    request: pytest.FixtureRequest, start_server: StartServer, short_tmp: Path
) -> ServerProcess:
    bind = "127.0.0.1:0" if request.param == "tcp" else None
    return start_guarded(start_server, short_tmp, bind=bind)


@pytest.fixture
def admin(server: ServerProcess) -> Iterator[hashserv.client.Client]:
    with hashserv.create_client(server.address, ADMIN, PASSWORD) as made:
        yield made


# bb.asyncrpc


async def converse(server: ServerProcess, *requests: dict[str, Any]) -> list[Any]:
    """Return the replies to requests of a client of BitBake's."""
    client = bb.asyncrpc.AsyncClient("OEHASHEQUIV", "1.1", logging.getLogger("bitbake"))
    if server.address.startswith("unix://"):
        await client.connect_unix(server.address.removeprefix("unix://"))
    else:
        host, _, port = server.address.rpartition(":")
        await client.connect_tcp(host, int(port))
    await client.connect()
    writer = client.socket.writer
    try:
        return [await client.invoke(request) for request in requests]
    finally:
        await client.close()
        await writer.wait_closed()  # BitBake closes without waiting


def test_asyncrpc_logs_in(server: ServerProcess) -> None:
    user = {"username": ADMIN, "permissions": EVERYTHING}
    login = {"username": ADMIN, "token": PASSWORD}
    made, alice = {"username": "alice", "permissions": ["@read"]}, {"username": "alice"}
    replies = asyncio.run(
        converse(
            server,
            {"auth": login},
            {"get-user": {}},
            {"new-user": made},
            {"become-user": alice},
            {"get-user": {}},
            {"get-stream": None},
        )
    )
    assert replies[0] == {"result": True, "username": ADMIN, "permissions": ["@all"]}
    assert replies[1] == user
    token = replies[2].pop("token")
    assert replies[2:] == [made, made, made, "ok"]
    replies = asyncio.run(
        converse(server, {"auth": {**alice, "token": token}}, {"refresh-token": {}})
    )
    assert replies[1].keys() == {"username", "token"}
    assert replies[1]["token"] != token


def test_asyncrpc_is_refused(server: ServerProcess) -> None:
    login = {"username": ADMIN, "token": "wrong"}
    with pytest.raises(bb.asyncrpc.InvokeError, match="Unable to authenticate as admin"):
        asyncio.run(converse(server, {"auth": login}))
    with pytest.raises(bb.asyncrpc.InvokeError, match="Anonymous user is not allowed"):
        asyncio.run(converse(server, {"get-stream": None}))


# bb.siggen


class Generator(bb.siggen.SignatureGeneratorTestEquivHash):  # type: ignore[misc]
    """A generator that takes its login of the configuration, as OpenEmbedded's does."""

    def __init__(self, data: Any) -> None:
        super().__init__(data)
        self.method = METHOD
        self.username = data.getVar("BB_HASHSERVE_USERNAME")
        self.password = data.getVar("BB_HASHSERVE_PASSWORD")


def tid(number: int) -> str:
    return f"{RECIPE}:do_task{number}"


def generator(server: ServerProcess, directory: Path, username: str, password: str) -> Any:
    """Return a generator that knows twenty tasks."""
    d = bb.data.init()
    for name, value in {
        "BB_HASHSERVE": server.address,
        "BB_HASHSERVE_USERNAME": username,
        "BB_HASHSERVE_PASSWORD": password,
        "CACHE": str(directory),
        "PERSISTENT_DIR": str(directory),
    }.items():
        d.setVar(name, value)
    made = Generator(d)
    for number in range(20):
        made.taskhash[tid(number)] = digits(number)
        made.tidtopn[tid(number)] = "zlib"
    return made


def test_a_build_that_logs_in(
    server: ServerProcess,
    admin: hashserv.client.Client,
    short_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bb, "warn", pytest.fail)
    token = admin.new_user("builder", ["@read", "@report"])["token"]
    admin.report_unihash_equiv(digits(4), METHOD, digits(1004))
    build = generator(server, short_tmp, "builder", token)
    expected = {tid(n): digits(1004 if n == 4 else n) for n in range(20)}
    assert build.get_unihashes(expected) == expected
    assert build.unihashes_exist({"a": digits(1004), "b": digits(9)}) == {"a": True, "b": False}
    task, wanted = tid(2), digits(1004)
    assert build.report_unihash_equiv(task, digits(2), wanted, digits(2), None) is True
    assert admin.get_unihash(METHOD, digits(2)) == wanted
    build.exit()


def test_a_build_that_may_only_read(
    server: ServerProcess, admin: hashserv.client.Client, short_tmp: Path
) -> None:
    token = admin.new_user("reader", ["@read"])["token"]
    build = generator(server, short_tmp, "reader", token)
    assert build.get_unihash(tid(1)) == digits(1)
    with pytest.raises(hashserv.InvokeError, match="reader is not allowed"):
        build.report_unihash_equiv(tid(2), digits(2), digits(3), digits(2), None)
    build.exit()


@pytest.mark.parametrize(
    ("username", "password", "words"),
    [
        (ADMIN, "wrong", "Unable to authenticate as admin"),
        ("ghost", PASSWORD, "Unable to authenticate as ghost"),
        (ADMIN, "", "Anonymous user is not allowed"),
        ("", "", "Anonymous user is not allowed"),
    ],
)
def test_a_build_that_is_refused_stops(
    server: ServerProcess,
    short_tmp: Path,
    monkeypatch: pytest.MonkeyPatch,
    username: str,
    password: str,
    words: str,
) -> None:
    monkeypatch.setattr(bb, "warn", pytest.fail)
    build = generator(server, short_tmp, username, password)
    with pytest.raises(bb.asyncrpc.InvokeError, match=words):
        build.get_unihash(tid(1))
    build.exit()
