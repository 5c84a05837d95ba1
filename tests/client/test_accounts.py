"""Users, and who a client is: on its first connection and on those that follow."""

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import hashserv
from hashserv.client import AsyncClient, Client
from hashserv.client.batch import PIECE_LINES
from hashserv.errors import AddressError
from tests.certificates import Certificates
from tests.client.conftest import Connect
from tests.client.hashes import METHOD, hashed
from tests.conftest import StartServer
from tests.logins import ADMIN, EVERYTHING, PASSWORD, start_guarded
from tests.proxies import CuttingProxy
from tests.servers import ServerProcess

Login = Callable[..., Any]


@pytest.fixture
def server(start_server: StartServer, short_tmp: Path) -> ServerProcess:
    return start_guarded(start_server, short_tmp)


@pytest.fixture
def proxy(server: ServerProcess) -> Iterator[Callable[..., CuttingProxy]]:
    """Make proxies before the server; `proxy(*cuts)`. They end with the test."""
    made: list[CuttingProxy] = []

    def make(*cuts: int | None) -> CuttingProxy:
        made.append(CuttingProxy(server.address, cuts))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def log_in(connect: Connect, server: ServerProcess) -> Login:
    """Make clients of each kind that log in, by default as the administrator."""

    def make(
        username: str = ADMIN, password: str | None = PASSWORD, *, address: str | None = None
    ) -> Any:
        client = connect(address or server.address)
        client.username, client.password = username, password
        return client

    return make


@pytest.fixture
def admin(log_in: Login) -> Any:
    return log_in()


def restart(server: ServerProcess) -> None:
    """Break all connections."""
    server.stop()
    server.start()


def test_users(admin: Any) -> None:
    made = admin.new_user("alice", ["@report", "@none", "@read"])
    token = made.pop("token")
    assert len(token) == 64
    alice = {"username": "alice", "permissions": ["@read", "@report"]}
    assert made == alice
    assert admin.get_user("alice") == alice
    assert admin.get_user("nobody") is None
    assert admin.get_user() == {"username": ADMIN, "permissions": EVERYTHING}
    assert admin.get_all_users() == [{"username": ADMIN, "permissions": EVERYTHING}, alice]
    alice["permissions"] = ["@db-admin"]
    assert admin.set_user_perms("alice", {"@db-admin"}) == alice
    assert admin.get_user("alice") == alice
    refreshed = admin.refresh_token("alice")
    assert refreshed["username"] == "alice"
    assert refreshed["token"] != token
    assert admin.delete_user("alice") == {"username": "alice"}
    assert admin.get_user("alice") is None


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda client: client.new_user(ADMIN, []), "Cannot create new user 'admin'"),
        (lambda client: client.set_user_perms("ghost", []), "No user named 'ghost' exists"),
        (lambda client: client.refresh_token("ghost"), "No user named 'ghost' exists"),
        (lambda client: client.delete_user("ghost"), "No user named 'ghost' exists"),
        (lambda client: client.become_user("ghost"), "User ghost doesn't exist"),
        (lambda client: client.new_user("alice", ["@b", "@a"]), "Unknown permissions @a, @b"),
        (lambda client: client.new_user("alice", "@read"), "Unexpected type for permissions"),
    ],
)
def test_what_the_server_refuses(admin: Any, call: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(hashserv.InvokeError, match=words):
        call(admin)
    assert admin.get_user()["username"] == ADMIN, "it is still who it was"


@contextlib.contextmanager
def answering(*replies: object) -> Iterator[tuple[str, list[str]]]:
    """A server that gives these replies; and the requests that it got, as they came."""
    listening = socket.create_server(("127.0.0.1", 0))
    requests: list[str] = []

    def serve() -> None:
        connection, _ = listening.accept()
        with connection, connection.makefile("rw", newline="\n") as stream:
            while stream.readline().strip():
                pass  # the handshake
            for reply in replies:
                requests.append(stream.readline())
                stream.write(json.dumps(reply) + "\n")
                stream.flush()

    serving = threading.Thread(target=serve)
    serving.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}", requests
    serving.join()
    listening.close()


def test_requests_are_those_of_the_reference(log_in: Login) -> None:
    user = {"username": "bob", "permissions": [], "token": "t"}
    with answering({"result": True, **user}, *[user] * 10, {"users": [user]}) as (address, got):
        client = log_in("alice", "secret", address=address)
        client.get_user()
        client.get_user("bob")
        client.refresh_token()
        client.refresh_token("bob")
        client.set_user_perms("bob", ["@read"])
        client.new_user("bob", ("@read", "@report"))
        client.become_user("carol")
        client.auth("dave", "token")
        client.delete_user("erin")
        client.delete_user("frank")
        assert client.get_all_users() == [user]
    assert [json.loads(request) for request in got] == [
        {"auth": {"username": "alice", "token": "secret"}},
        {"get-user": {}},
        {"get-user": {"username": "bob"}},
        {"refresh-token": {}},
        {"refresh-token": {"username": "bob"}},
        {"set-user-perms": {"username": "bob", "permissions": ["@read"]}},
        {"new-user": {"username": "bob", "permissions": ["@read", "@report"]}},
        {"become-user": {"username": "carol"}},
        {"auth": {"username": "dave", "token": "token"}},
        {"delete-user": {"username": "erin"}},
        {"delete-user": {"username": "frank"}},
        {"get-all-users": {}},
    ]


def test_delete_without_a_name_asks_for_oneself(connect: Connect) -> None:
    with answering({"username": "bob"}) as (address, got):
        connect(address).delete_user()
    assert json.loads(got[0]) == {"delete-user": {}}


# Logging in.


def test_a_login_comes_before_the_first_call(server: ServerProcess) -> None:
    with hashserv.create_client(server.address, ADMIN, PASSWORD) as client:
        assert client.get_unihash(METHOD, hashed("t")) is None
        assert client.get_user() == {"username": ADMIN, "permissions": EVERYTHING}

    async def ask() -> Any:
        async with await hashserv.create_async_client(server.address, ADMIN, PASSWORD) as client:
            assert await client.unihash_exists(hashed("u")) is False
            return await client.get_user()

    assert asyncio.run(ask()) == {"username": ADMIN, "permissions": EVERYTHING}


def test_one_login_for_a_connection(log_in: Login) -> None:
    user = {"result": True, "username": "alice", "permissions": []}
    with answering(user, *[{"alive": True}] * 3) as (address, got):
        client = log_in("alice", "secret", address=address)
        for _ in range(3):
            assert client.ping() == {"alive": True}
    assert [request[:7] for request in got] == ['{"auth"', *['{"ping"'] * 3]


def test_a_wrong_token_is_tried_once(log_in: Login, proxy: Callable[..., CuttingProxy]) -> None:
    before = proxy()
    client = log_in(password="wrong", address=before.address)
    with pytest.raises(hashserv.InvokeError, match="Unable to authenticate as admin"):
        client.get_unihash_batch([(METHOD, hashed("t"))])
    assert before.connections == 1
    with pytest.raises(hashserv.InvokeError, match="Unable to authenticate as admin"):
        client.ping()
    assert before.connections == 2
    client.password = PASSWORD
    assert client.get_user()["username"] == ADMIN


def test_a_login_without_a_password(log_in: Login) -> None:
    with pytest.raises(hashserv.ClientError, match=r"'admin' has no password: give the token"):
        log_in(password=None).ping()


@pytest.mark.parametrize("username", [None, ""])
def test_a_password_without_a_login_is_nobody_s(log_in: Login, username: Any) -> None:
    client = log_in(username)
    assert client.ping() == {"alive": True}
    with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
        client.get_user()


def test_auth_counts_for_later_connections(client: Any, server: ServerProcess) -> None:
    with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
        client.get_unihash(METHOD, hashed("t"))
    user = {"username": ADMIN, "permissions": ["@all"]}
    assert client.auth(ADMIN, PASSWORD) == {"result": True, **user}
    assert (client.username, client.password) == (ADMIN, PASSWORD)
    assert client.get_unihash(METHOD, hashed("t")) is None
    restart(server)
    assert client.get_unihash(METHOD, hashed("t")) is None
    client.disconnect()
    assert client.get_user()["username"] == ADMIN


def test_an_auth_that_fails_changes_nothing(client: Any) -> None:
    with pytest.raises(hashserv.InvokeError, match="Unable to authenticate as admin"):
        client.auth(ADMIN, "wrong")
    assert (client.username, client.password) == (None, None)
    assert client.ping() == {"alive": True}
    client.auth(ADMIN, PASSWORD)
    with pytest.raises(hashserv.InvokeError, match="Unable to authenticate as ghost"):
        client.auth("ghost", "wrong")
    assert (client.username, client.password) == (ADMIN, PASSWORD)
    assert client.get_user()["username"] == ADMIN


def test_auth_does_not_need_the_login_before(log_in: Login) -> None:
    client = log_in("ghost", "wrong")
    client.auth(ADMIN, PASSWORD)
    assert client.get_user()["username"] == ADMIN


def test_a_token_that_is_refreshed(log_in: Login, admin: Any, server: ServerProcess) -> None:
    old = admin.new_user("alice", ["@read"])["token"]
    alice = log_in("alice", old)
    new = alice.refresh_token()["token"]
    assert alice.password == new != old
    restart(server)
    assert alice.get_user()["username"] == "alice"
    with pytest.raises(hashserv.InvokeError, match="Unable to authenticate as alice"):
        log_in("alice", old).ping()


def test_the_token_of_another_is_not_the_own(admin: Any) -> None:
    admin.new_user("alice", ["@user-admin"])
    admin.refresh_token("alice")
    admin.become_user("alice")
    admin.refresh_token()
    assert admin.password == PASSWORD
    token = admin.refresh_token(ADMIN)["token"]  # the login's, of another's hand
    assert admin.password == token
    admin.disconnect()
    assert admin.get_user()["username"] == "alice"


# Being another.


def test_becoming_another(admin: Any, server: ServerProcess) -> None:
    admin.new_user("alice", ["@report", "@read"])
    alice = {"username": "alice", "permissions": ["@read", "@report"]}
    assert admin.become_user("alice") == alice
    for break_it in (lambda: None, lambda: restart(server), admin.disconnect):
        break_it()
        assert admin.get_user() == alice
        with pytest.raises(hashserv.InvokeError, match="alice is not allowed"):
            admin.get_all_users()  # which ends the connection, too
    admin.report_unihash(hashed("t"), METHOD, hashed("o"), hashed("u"), {"owner": "mallory"})
    assert admin.get_taskhash(METHOD, hashed("t"), True)["owner"] == "alice"


def test_auth_ends_being_another(admin: Any, server: ServerProcess) -> None:
    token = admin.new_user("alice", ["@read"])["token"]
    admin.new_user("bob", ["@read"])
    admin.become_user("bob")
    admin.auth("alice", token)
    assert admin.get_user()["username"] == "alice"
    restart(server)
    assert admin.get_user()["username"] == "alice"


def test_a_user_that_is_gone_is_not_become(log_in: Login, admin: Any) -> None:
    admin.new_user("alice", ["@read"])
    other = log_in()
    other.become_user("alice")
    admin.delete_user("alice")
    other.disconnect()
    with pytest.raises(hashserv.InvokeError, match="User alice doesn't exist"):
        other.ping()  # rather than with the rights of the administrator
    other.auth(ADMIN, PASSWORD)
    assert other.get_user()["username"] == ADMIN


def test_deleting_whom_one_has_become(admin: Any) -> None:
    for name in ("alice", "bob"):
        admin.new_user(name, ["@user-admin"])
    admin.become_user("alice")
    assert admin.delete_user("bob") == {"username": "bob"}
    assert admin.get_user()["username"] == "alice"
    assert admin.delete_user() == {"username": "alice"}
    assert admin.get_user()["username"] == ADMIN


def test_deleting_oneself(log_in: Login, admin: Any) -> None:
    alice = log_in("alice", admin.new_user("alice", ["@read"])["token"])
    assert alice.delete_user() == {"username": "alice"}
    assert (alice.username, alice.password) == (None, None)
    assert alice.ping() == {"alive": True}
    with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
        alice.get_unihash(METHOD, hashed("t"))


def test_deleting_the_login_as_another(log_in: Login, admin: Any) -> None:
    token = admin.new_user("alice", ["@user-admin"])["token"]
    admin.new_user("bob", ["@user-admin"])
    client = log_in("alice", token)
    client.become_user("bob")
    assert client.delete_user("alice") == {"username": "alice"}
    assert client.username is None
    with pytest.raises(hashserv.InvokeError, match="Anonymous user is not allowed"):
        client.get_user()


# Connections that break.


@pytest.mark.parametrize("cuts", [[0], [5], [20, 0, 40]])
def test_a_login_that_is_cut_is_repeated(
    log_in: Login, proxy: Callable[..., CuttingProxy], cuts: list[int]
) -> None:
    before = proxy(*cuts)
    client = log_in(address=before.address)
    assert client.get_user()["username"] == ADMIN
    assert before.connections == len(cuts) + 1


def test_repeats_of_a_login_are_used_up(log_in: Login, proxy: Callable[..., CuttingProxy]) -> None:
    before = proxy(*[5] * 4)
    with pytest.raises(ConnectionError):
        log_in(address=before.address).ping()
    assert before.connections == 4


@pytest.mark.parametrize("cuts", [[5000], [200, 40_000, 5000, 70_001]])
def test_a_batch_that_is_cut(
    log_in: Login, admin: Any, proxy: Callable[..., CuttingProxy], cuts: list[int]
) -> None:
    admin.new_user("alice", ["@read"])
    many = range(4 * PIECE_LINES)
    known = {number: hashed(number, "uni") for number in many if number % 7 == 0}
    for number, unihash in known.items():
        admin.report_unihash_equiv(hashed(number), METHOD, unihash)
    before = proxy(*cuts)
    client = log_in(address=before.address)
    client.become_user("alice")
    found = client.get_unihash_batch((METHOD, hashed(number)) for number in many)
    assert found == [known.get(number) for number in many]
    existences = client.unihash_exists_batch(hashed(number, "uni") for number in many)
    assert existences == [number in known for number in many]
    assert before.connections > 1
    assert client.get_user()["username"] == "alice"


def test_calls_between_the_replies_of_a_batch(log_in: Login, admin: Any) -> None:
    admin.new_user("alice", ["@read"])
    client = log_in()
    client.become_user("alice")
    many = 4 * PIECE_LINES
    unihashes = client.get_unihash_stream((METHOD, hashed(number)) for number in range(many))
    taken = 0
    for unihash in unihashes:
        assert unihash is None
        taken += 1
        if taken % 1000 == 0:
            assert client.get_user()["username"] == "alice"
    assert taken == many


# Where the server is.


@pytest.fixture(params=["tls", "wss", "ws"])
def distant(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    short_tmp: Path,
    certificates: Certificates,
) -> ServerProcess:
    """A server over each transport for a network that others listen to."""
    encrypted = request.param != "ws"
    arguments = ["--tls-cert", certificates.server()] if encrypted else []
    bind = f"{request.param}://127.0.0.1:0"
    return start_guarded(start_server, short_tmp, *arguments, bind=bind)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


def test_a_login_over_each_transport(distant: ServerProcess, certificates: Certificates) -> None:
    tls = certificates.context()
    with Client.open(distant.address, ADMIN, PASSWORD, tls=tls) as client:
        client.new_user("alice", ["@read"])
        client.become_user("alice")
        client.disconnect()
        assert client.get_unihash_batch((METHOD, hashed(n)) for n in range(3000)) == [None] * 3000
        assert client.get_user() == {"username": "alice", "permissions": ["@read"]}

    async def ask() -> Any:
        client = await AsyncClient.open(distant.address, ADMIN, PASSWORD, tls=tls)
        async with client:
            assert await client.get_unihash(METHOD, hashed("t")) is None
            return await client.get_user()

    assert asyncio.run(ask()) == {"username": ADMIN, "permissions": EVERYTHING}


def test_the_environment_says_whom_to_trust(
    distant: ServerProcess, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HASHSERV_TLS_CA", certificates.authority)
    with hashserv.create_client(distant.address, ADMIN, PASSWORD) as client:
        assert client.get_user() == {"username": ADMIN, "permissions": EVERYTHING}


@pytest.mark.parametrize("distant", ["tls", "wss"], indirect=True)
def test_a_server_that_is_not_trusted_gets_no_password(distant: ServerProcess) -> None:
    with (
        hashserv.create_client(distant.address, ADMIN, PASSWORD) as client,
        pytest.raises(ConnectionError, match="HASHSERV_TLS_CA"),
    ):
        client.ping()


@pytest.mark.parametrize("distant", ["ws", "wss"], indirect=True)
def test_connecting_to_a_websocket(distant: ServerProcess, certificates: Certificates) -> None:
    with Client(ADMIN, PASSWORD, tls=certificates.context()) as client:
        for _ in range(2):
            client.connect_websocket(distant.address)
            assert client.get_user() == {"username": ADMIN, "permissions": EVERYTHING}


@pytest.mark.parametrize("address", ["127.0.0.1:1", "unix://socket", "tls://127.0.0.1:1"])
def test_an_address_that_is_no_websocket(address: str) -> None:
    with (
        Client() as client,
        pytest.raises(AddressError, match=r"write ws://HOST:PORT or wss://HOST:PORT"),
    ):
        client.connect_websocket(address)
