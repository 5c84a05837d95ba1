"""What every engine does with users."""

from hashserv.model import StoredUser
from hashserv.store.base import Store
from tests.contract.conftest import Run

ANNA = StoredUser("anna", "sha256:salt:digest", ["@read", "@report"])
ZOE = StoredUser("Zoë", "$argon2id$v=19$m=1,t=1,p=1$c2FsdA$aGFzaA", [])


def test_users_are_found_by_their_names(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.users.all() == []
        assert await store.users.find("anna") is None
        assert await store.users.add(ZOE)
        assert await store.users.add(ANNA)
        assert await store.users.find("anna") == ANNA
        assert await store.users.find("Anna") is None
        assert await store.users.find("Zoë") == ZOE
        assert await store.users.all() == [ZOE, ANNA]
        assert (await store.usage())["users"] == 2

    run(scenario)


def test_a_name_is_taken_once(run: Run) -> None:
    async def scenario(store: Store) -> None:
        assert await store.users.add(ANNA)
        assert not await store.users.add(ANNA._replace(token="other", permissions=["@all"]))
        assert await store.users.all() == [ANNA]

    run(scenario)


def test_permissions_are_replaced(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.users.add(ANNA)
        await store.users.add(ZOE)
        assert await store.users.set_permissions("anna", ["@all"])
        assert await store.users.all() == [ANNA._replace(permissions=["@all"]), ZOE]
        assert await store.users.set_permissions("anna", [])
        assert await store.users.all() == [ANNA._replace(permissions=[]), ZOE]
        assert not await store.users.set_permissions("nobody", [])

    run(scenario)


def test_a_token_is_replaced_unless_it_is_another_by_now(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.users.add(ANNA)
        assert await store.users.set_token("anna", "second")
        assert await store.users.set_token("anna", "third", instead_of="second")
        assert not await store.users.set_token("anna", "fourth", instead_of="second")
        assert not await store.users.set_token("nobody", "fourth")
        assert await store.users.all() == [ANNA._replace(token="third")]

    run(scenario)


def test_a_removed_user_is_gone_and_its_name_free(run: Run) -> None:
    async def scenario(store: Store) -> None:
        await store.users.add(ANNA)
        await store.users.add(ZOE)
        assert await store.users.remove("anna")
        assert not await store.users.remove("anna")
        assert await store.users.all() == [ZOE]
        assert await store.users.add(ANNA)
        assert await store.users.all() == [ZOE, ANNA]

    run(scenario)
