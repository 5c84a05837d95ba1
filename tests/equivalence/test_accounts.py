"""Users: log-ins, bounds on them, and what changes for connections that last (PROTOCOL.md §7)."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from hashserv.equivalence import accounts as accounts_module
from hashserv.equivalence import tokens
from hashserv.equivalence.accounts import FAILURE_SECONDS, Accounts
from hashserv.errors import InvokeError, StoreError
from hashserv.model import StoredUser, User
from hashserv.store.sqlite import SqliteStore
from hashserv.store.users import TransactionalUsers

ALL_FIVE = ["@all", "@db-admin", "@read", "@report", "@user-admin"]
ONE_ROUND = (
    "sha256:8a988cb77df73c96:2dcf330b4b5d80523a6796d61fd7a86792fe97804e8fbe5d46ecc47413f83ecb"
)
"""What the reference stores for the password ``correct horse battery``."""

Scenario = Callable[[SqliteStore], Awaitable[None]]


def run(directory: Path, scenario: Scenario) -> None:
    async def with_store() -> None:
        store = SqliteStore(str(directory / "hashserv.db"), durable=False)
        try:
            await scenario(store)
        finally:
            await store.close()

    asyncio.run(with_store())


async def refused(waiting: Awaitable[object]) -> str:
    with pytest.raises(InvokeError) as caught:
        await waiting
    return str(caught.value)


def test_a_user_logs_in_with_the_token_it_was_given(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        user, token = await accounts.create("anna", ["@report", "@none", "@read", "@read"])
        assert user == User("anna", ["@read", "@report"])
        account, shown = await accounts.log_in("anna", token, peer="p")
        assert account.permissions == {"@read", "@report"}
        assert shown == user
        assert await accounts.find("anna") == user
        await accounts.close()

    run(tmp_path, scenario)


def test_all_is_shown_as_all_five_but_at_the_login(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        user, token = await accounts.create("anna", ["@all"])
        assert user == User("anna", ALL_FIVE)
        assert await accounts.all() == [user]
        _, shown = await accounts.log_in("anna", token, peer="p")
        assert shown == User("anna", ["@all"])
        await accounts.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize("token", ["x", "A" * 64])
@pytest.mark.parametrize("held", [None, "password", "token"])
def test_every_failure_reads_alike_and_takes_alike(
    token: str, held: str | None, tmp_path: Path
) -> None:
    stored = {"password": tokens.stored_form("secret"), "token": tokens.stored_form("B" * 64)}

    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        if held is not None:
            await store.users.add(StoredUser("anna", stored[held], ["@all"]))
        loop = asyncio.get_running_loop()
        start = loop.time()
        failed = accounts.log_in("anna", token, peer="p")
        assert await refused(failed) == "Unable to authenticate as anna"
        assert loop.time() - start >= FAILURE_SECONDS - 0.01
        await accounts.close()

    run(tmp_path, scenario)


def test_a_peer_that_fails_too_often_has_to_wait_but_others_need_not(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users, failed_logins=3)
        _, token = await accounts.create("anna", [])
        failures = [refused(accounts.log_in("anna", "wrong", peer="p")) for _ in range(3)]
        assert set(await asyncio.gather(*failures)) == {"Unable to authenticate as anna"}
        assert "Too many failed logins" in await refused(accounts.log_in("anna", token, peer="p"))
        await accounts.log_in("anna", token, peer="q")
        await accounts.close()

    run(tmp_path, scenario)


def test_guesses_at_a_password_that_come_at_once_are_counted_one_by_one(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users, failed_logins=3)
        await accounts.ensure_administrator("admin", "secret")
        guesses = [*["wrong"] * 10, "secret"]
        answers = await asyncio.gather(
            *(refused(accounts.log_in("admin", guess, peer="p")) for guess in guesses)
        )
        assert sum("Unable" in answer for answer in answers) == 3
        assert "Too many failed" in answers[-1]
        await accounts.close()

    run(tmp_path, scenario)


def test_so_many_passwords_wait_to_be_verified_and_no_more(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users, failed_logins=1000)
        await accounts.ensure_administrator("admin", "secret")
        tries = [accounts.log_in("admin", "secret", peer="p") for _ in range(70)]
        outcomes = await asyncio.gather(*tries, return_exceptions=True)
        refusals = [str(outcome) for outcome in outcomes if isinstance(outcome, InvokeError)]
        assert len(refusals) == 70 - 64
        assert all("Too many logins" in text for text in refusals)
        await accounts.close()

    run(tmp_path, scenario)


def test_a_password_of_the_reference_is_stored_better_at_the_next_login(tmp_path: Path) -> None:
    password = "correct horse battery"

    async def scenario(store: SqliteStore) -> None:
        await store.users.add(StoredUser("root", ONE_ROUND, ["@all"]))
        reading = Accounts(store.users, writable=False)
        await reading.log_in("root", password, peer="p")
        assert await store.users.find("root") == StoredUser("root", ONE_ROUND, ["@all"])
        accounts = Accounts(store.users)
        for _ in range(2):
            await accounts.log_in("root", password, peer="p")
            stored = await store.users.find("root")
            assert stored is not None
            assert tokens.is_slow(stored.token)
        assert "Unable" in await refused(accounts.log_in("root", "wrong", peer="p"))
        await reading.close()
        await accounts.close()

    run(tmp_path, scenario)


def test_the_administrator_is_made_or_made_one_again(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        await accounts.ensure_administrator("root", "secret")
        assert await accounts.find("root") == User("root", ALL_FIVE)
        before = await store.users.find("root")
        await accounts.ensure_administrator("root", "secret")
        assert await store.users.find("root") == before  # its hash is not made again
        await accounts.set_permissions("root", ["@read"])
        await accounts.ensure_administrator("root", "other")
        assert await accounts.find("root") == User("root", ALL_FIVE)
        await accounts.log_in("root", "other", peer="p")
        assert "Unable" in await refused(accounts.log_in("root", "secret", peer="p"))
        await store.users.set_token("root", ONE_ROUND)
        await accounts.ensure_administrator("root", "correct horse battery")
        after = await store.users.find("root")
        assert after is not None
        assert tokens.is_slow(after.token)
        await accounts.close()

    run(tmp_path, scenario)


def test_changes_count_at_once_for_connections_that_last(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        _, token = await accounts.create("anna", ["@read"])
        account, _ = await accounts.log_in("anna", token, peer="p")
        assert (await accounts.become("anna")) is account
        await accounts.set_permissions("anna", ["@db-admin"])
        assert account.permissions == {"@db-admin"}
        await accounts.delete("anna")
        assert account.permissions == frozenset()
        await accounts.create("anna", ["@all"])
        assert account.permissions == frozenset()  # that is another anna
        assert (await accounts.become("anna")).permissions == {"@all"}
        await accounts.close()

    run(tmp_path, scenario)


async def happens(condition: Callable[[], bool]) -> None:
    for _ in range(3000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen in time")


def test_changes_through_another_server_count_soon(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        store_there = SqliteStore(str(tmp_path / "hashserv.db"), durable=False)
        there = Accounts(store_there.users)
        _, token = await there.create("anna", ["@read"])
        _, other = await there.create("bert", ["@read"])
        anna, _ = await accounts.log_in("anna", token, peer="p")
        bert, _ = await accounts.log_in("bert", other, peer="p")
        await there.set_permissions("anna", ["@db-admin"])
        await happens(lambda: anna.permissions == {"@db-admin"})
        await there.refresh_token("anna")
        await there.set_permissions("bert", [])
        await happens(lambda: not bert.permissions)
        assert anna.permissions == {"@db-admin"}, "with another token it goes on"
        await there.delete("anna")
        await happens(lambda: anna.deleted)
        assert anna.permissions == frozenset()
        await there.create("anna", ["@all"])
        assert (await accounts.become("anna")) is not anna
        assert not bert.deleted
        await there.close()
        await store_there.close()
        await accounts.close()

    run(tmp_path, scenario)


class Watched(TransactionalUsers):
    """A table that counts who asks what, and may fail."""

    asked = 0
    read = 0
    fails = False

    def changed(self) -> bool:
        self.asked += 1
        return super().changed()

    async def all(self) -> list[StoredUser]:
        self.read += 1
        if self.fails:
            raise StoreError("it can't be read")
        return await super().all()


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accounts_module, "REFRESH_SECONDS", 0)


@pytest.mark.usefixtures("no_pauses")
def test_users_are_read_again_only_when_something_changed(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario(store: SqliteStore) -> None:
        users = store.users
        users.__class__ = Watched
        assert isinstance(users, Watched)
        accounts = Accounts(users)
        _, token = await accounts.create("anna", ["@read"])
        assert users.asked == 0, "nobody is logged in"
        anna, _ = await accounts.log_in("anna", token, peer="p")
        await happens(lambda: users.asked > 10)
        assert users.read == 1
        users.fails = True
        await store.users.set_permissions("anna", [])
        await happens(lambda: users.read > 10)
        assert anna.permissions == {"@read"}
        users.fails = False
        await happens(lambda: not anna.permissions)
        assert caplog.text.count("Changes of users can't be read, trying again") == 1
        await accounts.close()

    run(tmp_path, scenario)


@pytest.mark.usefixtures("no_pauses")
def test_what_was_read_before_a_change_does_not_undo_it(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        reading, go_on = asyncio.Event(), asyncio.Event()

        class Slow(TransactionalUsers):
            """A table in a database that is far away."""

            async def all(self) -> list[StoredUser]:
                found = await super().all()
                reading.set()
                await go_on.wait()
                return found

        store.users.__class__ = Slow
        accounts = Accounts(store.users)
        _, token = await accounts.create("anna", ["@read"])
        anna, _ = await accounts.log_in("anna", token, peer="p")
        await reading.wait()
        await accounts.set_permissions("anna", ["@all"])
        go_on.set()
        for _ in range(10):
            await asyncio.sleep(0)
            assert anna.permissions == {"@all"}
        await accounts.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize("change", ["permissions", "delete", "token"])
def test_a_login_under_way_undoes_no_change(change: str, tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        await accounts.ensure_administrator("root", "secret")
        other = tokens.stored_form("other")  # now: it takes as long as the hash of the login
        logging_in = asyncio.ensure_future(accounts.log_in("root", "secret", peer="p"))
        await asyncio.sleep(0)  # it has begun, and waits for its hash
        match change:
            case "permissions":
                await accounts.set_permissions("root", ["@read"])
                account, _ = await logging_in
                assert account.permissions == {"@read"}
            case "delete":
                await accounts.delete("root")
                assert "Unable" in await refused(logging_in)
            case _:
                await store.users.set_token("root", other)
                assert "Unable" in await refused(logging_in)
        await accounts.close()

    run(tmp_path, scenario)


def test_whether_a_name_exists_does_not_show_while_others_wait(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users, failed_logins=1000)
        await accounts.ensure_administrator("root", "secret")
        await accounts.create("ci", [])
        waiting = [
            asyncio.ensure_future(refused(accounts.log_in("root", "wrong", peer="p")))
            for _ in range(64)
        ]
        await asyncio.sleep(0)
        probes = [
            refused(accounts.log_in(name, "x", peer="q")) for name in ("ci", "nobody", "root")
        ]
        assert len(set(await asyncio.gather(*probes))) == 1
        await asyncio.gather(*waiting)
        await accounts.close()

    run(tmp_path, scenario)


def test_a_refreshed_token_replaces_the_old(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        _, first = await accounts.create("anna", [])
        second = await accounts.refresh_token("anna")
        assert second != first
        await accounts.log_in("anna", second, peer="p")
        assert "Unable" in await refused(accounts.log_in("anna", first, peer="p"))
        await accounts.close()

    run(tmp_path, scenario)


def test_new_tokens_wait_for_their_turn_but_not_for_ever(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users, new_tokens=0.15)  # turns now, in 6.7 s, not in 13.3
        await accounts.create("anna", [])
        waiting = asyncio.ensure_future(accounts.create("bert", []))
        await asyncio.sleep(0)
        assert "Too many new tokens" in await refused(accounts.refresh_token("anna"))
        assert not waiting.done()
        waiting.cancel()
        await accounts.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    ("permissions", "text"),
    [
        ("@read", "Unexpected type for permissions"),
        (None, "Unexpected type for permissions"),
        ({"@read": 1}, "Unexpected type for permissions"),
        (["@read", 1], "Unexpected type for permissions"),
        (["@x", "@read", "@a"], "Unknown permissions @a, @x"),
        ([""], "Unknown permissions "),
    ],
)
def test_permissions_that_are_none_change_nothing(
    permissions: object, text: str, tmp_path: Path
) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        await accounts.create("anna", ["@read"])
        assert await refused(accounts.set_permissions("anna", permissions)) == text
        assert await refused(accounts.create("bert", permissions)) == text
        assert await accounts.all() == [User("anna", ["@read"])]
        await accounts.close()

    run(tmp_path, scenario)


@pytest.mark.parametrize(
    "username",
    ["", " ", "a b", "a\tb", "a\n", "\x1b[31m", "a\u200bb", "a\u2028b", "\xa0", "x" * 256],
)
def test_a_name_that_would_be_misread_is_refused(username: str, tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        assert "username" in await refused(accounts.create(username, []))
        assert await accounts.all() == []
        await accounts.close()

    run(tmp_path, scenario)


def test_who_is_not_there_is_named(tmp_path: Path) -> None:
    async def scenario(store: SqliteStore) -> None:
        accounts = Accounts(store.users)
        missing = "No user named 'anna' exists"
        assert await accounts.find("anna") is None
        assert await refused(accounts.set_permissions("anna", [])) == missing
        assert await refused(accounts.refresh_token("anna")) == missing
        assert await refused(accounts.delete("anna")) == missing
        assert await refused(accounts.become("anna")) == "User anna doesn't exist"
        await accounts.create("anna", [])
        assert await refused(accounts.create("anna", [])) == "Cannot create new user 'anna'"
        await accounts.close()

    run(tmp_path, scenario)
