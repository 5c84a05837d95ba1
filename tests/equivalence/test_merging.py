"""Merging against a model: dictionaries, in which what is there first stays."""

import asyncio
from collections import defaultdict
from contextlib import AsyncExitStack
from typing import NamedTuple
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from hashserv.equivalence import merging, whole_tables
from hashserv.equivalence.merging import Conflict, Database, UserConflict
from hashserv.model import MarkedMapping, Outhash, StoredUser
from hashserv.store.base import Store
from hashserv.store.unchanged import open_aside
from tests.equivalence.soak import cases

Key = tuple[str, str]

methods = st.sampled_from(["m", "n"])
keys = st.tuples(methods, st.sampled_from(["t1", "t2", "t3", "t4", "t5"]))
unihashes = st.sampled_from(["u1", "u2", "u3"])
outputs = st.tuples(keys, st.sampled_from(["o1", "o2", "o3"]))
details = st.sampled_from(["zlib", "", None])
names = st.sampled_from(["anna", "ben", "ci"])
users = st.tuples(st.sampled_from(["token-1", "token-2"]), st.sampled_from([["@read"], []]))
marks = st.sampled_from([None, "a", "b"])


class Held(NamedTuple):
    """What a database holds, in the order in which it was inserted."""

    mappings: dict[Key, tuple[str, str]]
    """Unihash and mark of each."""

    outhashes: dict[tuple[Key, str], str | None]
    """The recipe of each."""

    users: dict[str, tuple[str, list[str]]]
    mark: str | None


databases = st.builds(
    Held,
    st.dictionaries(keys, st.tuples(unihashes, st.sampled_from(["", "a", "old"]))),
    st.dictionaries(outputs, details),
    st.dictionaries(names, users),
    marks,
)


async def fill(store: Store, held: Held) -> None:
    await store.insert_mappings(
        [MarkedMapping(0, *key, *value) for key, value in held.mappings.items()]
    )
    await store.insert_outhashes(
        [
            Outhash(0, *key, outhash, "2026-01-01", None, recipe, None, None, None, None)
            for (key, outhash), recipe in held.outhashes.items()
        ]
    )
    for name, (token, permissions) in held.users.items():
        await store.users.add(StoredUser(name, token, permissions))
    if held.mark is not None:
        await store.mark(held.mark, [])


async def read(store: Store) -> Held:
    return Held(
        {
            (row.method, row.taskhash): (row.unihash, row.gc_mark)
            for row in await store.mappings_after(0, 1000)
        },
        {
            ((row.method, row.taskhash), row.outhash): row.PN
            for row in await store.outhashes_after(0, 1000)
        },
        {user.username: (user.token, user.permissions) for user in await store.users.all()},
        (await store.collection()).mark,
    )


def in_order(held: Held) -> tuple[object, ...]:
    return tuple(list(each.items()) if isinstance(each, dict) else each for each in held)


def split(held: Held) -> int:
    """Count outputs whose tasks have more than one unihash."""
    found = defaultdict(set)
    for key, outhash in held.outhashes:
        if key in held.mappings:
            found[key[0], outhash].add(held.mappings[key][0])
    return sum(len(each) > 1 for each in found.values())


def merged(all_held: list[Held]) -> tuple[Held, list[Conflict], list[UserConflict]]:
    """Merge the model's databases, called 0, 1, …, into the first."""
    target = all_held[0]
    result = Held(dict(target.mappings), dict(target.outhashes), dict(target.users), target.mark)
    of_mappings = dict.fromkeys(target.mappings, "0")
    of_users = dict.fromkeys(target.users, "0")
    conflicts = []
    user_conflicts = []
    for number, source in enumerate(map(str, range(1, len(all_held))), 1):
        for key, (unihash, _) in all_held[number].mappings.items():
            kept, _ = result.mappings.setdefault(key, (unihash, target.mark or ""))
            of = of_mappings.setdefault(key, source)
            if kept != unihash:
                conflicts.append(Conflict(*key, kept, of, unihash, source))
        for output, recipe in all_held[number].outhashes.items():
            result.outhashes.setdefault(output, recipe)
        for name, user in all_held[number].users.items():
            kept_user = result.users.setdefault(name, user)
            of = of_users.setdefault(name, source)
            if kept_user != user:
                user_conflicts.append(UserConflict(name, of, source))
    return result, conflicts, user_conflicts


@cases(50)
@given(st.lists(databases, min_size=1, max_size=4), st.integers(1, 4))
def test_a_merge_does_what_the_model_does(all_held: list[Held], batch: int) -> None:
    expected, conflicts, user_conflicts = merged(all_held)
    target_held = all_held[0]

    async def scenario() -> None:
        async with AsyncExitStack() as opened:
            target, *sources = [
                Database(str(number), await opened.enter_async_context(open_aside(None)))
                for number in range(len(all_held))
            ]
            for database, held in zip([target, *sources], all_held, strict=True):
                await fill(database.store, held)
            told: list[Conflict] = []
            done: list[int] = []
            outcome = await merging.merge(target, sources, told.append, done.append)
            assert in_order(await read(target.store)) == in_order(expected)
            assert told == conflicts
            assert outcome == (
                len(expected.mappings) - len(target_held.mappings),
                len(expected.outhashes) - len(target_held.outhashes),
                len(expected.users) - len(target_held.users),
                len(conflicts),
                user_conflicts,
                [(str(n), held.mark) for n, held in enumerate(all_held) if n and held.mark],
                target_held.mark,
                split(target_held),
                split(expected),
            )
            assert sum(done) == await merging.total(sources)
            for source, held in zip(sources, all_held[1:], strict=True):
                assert in_order(await read(source.store)) == in_order(held)

            again = await merging.merge(target, sources, told.append, done.append)
            assert again[:4] == (0, 0, 0, len(conflicts))
            assert again.split_before == again.split_after == outcome.split_after
            assert in_order(await read(target.store)) == in_order(expected)

    with mock.patch.object(whole_tables, "BATCH_ROWS", batch):
        asyncio.run(scenario())
