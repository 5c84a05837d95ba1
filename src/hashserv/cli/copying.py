"""``hashserv copy``: one database into another one, of any engine."""

import argparse
import sys
import time
from collections.abc import Mapping
from dataclasses import replace

from hashserv.cli import databases
from hashserv.cli.progress import bar
from hashserv.equivalence import copying
from hashserv.errors import SettingsError, StoreError
from hashserv.store.base import Store
from hashserv.store.opening import Options, open_store
from hashserv.store.unchanged import is_readable, open_unchanged


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add the arguments of the command; environment variables give other defaults."""
    parser.add_argument(
        "source", metavar="SOURCE", help="the database to read, which stays as it is"
    )
    parser.add_argument(
        "target",
        metavar="TARGET",
        help="the database to fill: a new or empty one, or what an interrupted copy has left",
    )
    databases.add_logins(parser, environment)


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Copy, compare, and return the exit code: 0, 1 for a failure, 2 for wrong usage."""
    return databases.run(parser, lambda: _run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    if databases.are_same(arguments.source, arguments.target):
        raise SettingsError("SOURCE and TARGET are the same database: name two")
    of_source, of_target = databases.options_of(arguments)
    async with open_unchanged(arguments.source, of_source) as source:
        await _check_era(arguments.target)
        # What a loss of power undoes of the last batches, the same command copies again.
        target = await open_store(arguments.target, replace(of_target, durable=False))
        try:
            return await _copy(arguments, source, target)
        finally:
            await target.close()


async def _check_era(target: str) -> None:
    """Refuse a target with rows of another era, which opening it would change.

    Raises:
        StoreError: It has some.
    """
    if not databases.is_file(target) or is_readable(target):
        return
    async with open_unchanged(target, Options()) as before:
        if any((await before.usage()).values()):
            raise StoreError(
                f"{target} holds rows of an older server, so it is no part of a copy: name an "
                "empty database as the target, or use: hashserv merge"
            )


async def _copy(arguments: argparse.Namespace, source: Store, target: Store) -> int:
    content = await copying.content(source)
    start = time.monotonic()
    with bar("Copying", unit="rows", total=content.total) as progress:
        inserted = await copying.copy(source, target, content, progress)
    seconds = time.monotonic() - start
    counts = {**content.rows, copying.USERS: len(content.users)}
    for what, count in counts.items():
        print(f"{what:14}{count:>12}, {inserted[what]} of them copied now")
    rows = sum(inserted.values())
    print(f"{rows} rows copied in {seconds:.1f} s, {rows / max(seconds, 0.001):.0f} a second")
    if content.mark is not None:
        print(f"A garbage collection is under way: {content.mark}")
    with bar("Comparing", unit="rows", total=content.total) as progress:
        difference = await copying.difference(source, target, content, progress)
    if difference is not None:
        print(
            f"ERROR: The two are not equal. They differ in {difference}. If a server changes "
            "one of them meanwhile, stop it; then copy again, to a new target",
            file=sys.stderr,
        )
        return 1
    names = map(databases.named, (arguments.target, arguments.source))
    print("{} is equal to {}, row by row".format(*names))
    later = sum((await copying.content(source)).rows.values()) - content.total
    if later > 0:
        print(f"{later} rows were added to the source meanwhile: copy again to add them, too")
    return 0
