"""``hashserv merge``: what several databases hold into one of them."""

import argparse
import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from hashserv.cli import databases
from hashserv.cli.progress import bar
from hashserv.equivalence import copying, merging
from hashserv.equivalence.merging import Conflict, Database, Merged
from hashserv.errors import SettingsError
from hashserv.store.base import Store
from hashserv.store.opening import Options, is_url, open_store
from hashserv.store.sqlite_file import check_place
from hashserv.store.unchanged import open_aside, open_unchanged

STANDARD_OUTPUT: Final = "-"


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add the arguments of the command; environment variables give other defaults."""
    parser.add_argument(
        "target", metavar="TARGET", help="the database to add to, created if it is a missing file"
    )
    parser.add_argument(
        "sources",
        metavar="SOURCE",
        nargs="+",
        help="a database to read, which stays as it is; of two, the earlier counts first",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="change nothing, and print the same report"
    )
    parser.add_argument(
        "--report",
        metavar="FILE",
        help="write a line for each mapping that is left out to this file (-: standard output)",
    )
    databases.add_logins(parser, environment)


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Merge, say what came of it, and return the exit code: 0, 1 or 2 as for all commands."""
    return databases.run(parser, lambda: _run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    if any(databases.are_same(arguments.target, source) for source in arguments.sources):
        raise SettingsError("TARGET is one of the sources: name each database once")
    of_source, of_target = databases.options_of(arguments)
    async with AsyncExitStack() as opened:
        sources = [
            Database(
                databases.named(source),
                await opened.enter_async_context(open_unchanged(source, of_source)),
            )
            for source in arguments.sources
        ]
        tell = opened.enter_context(_conflict_lines(arguments.report))
        opening = _open_trial if arguments.dry_run else _open
        store = await opened.enter_async_context(opening(arguments.target, of_target))
        target = Database(databases.named(arguments.target), store)
        with bar("Merging", unit="rows", total=await merging.total(sources)) as progress:
            merged = await merging.merge(target, sources, tell, progress)
        _print(merged, arguments)
    return 0


@asynccontextmanager
async def _open(target: str, options: Options) -> AsyncIterator[Store]:
    store = await open_store(target, options)
    try:
        yield store
    finally:
        await store.close()


@asynccontextmanager
async def _open_trial(target: str, options: Options) -> AsyncIterator[Store]:
    """Open a copy of the target, so that a trial does what the merge itself would do."""
    if not is_url(target):
        check_place(target)
        async with open_aside(target if databases.is_file(target) else None) as store:
            yield store
        return
    async with open_unchanged(target, options) as original, open_aside(None) as store:
        content = await copying.content(original)
        with bar("Copying the target aside", unit="rows", total=content.total) as progress:
            await copying.copy(original, store, content, progress)
        yield store


@contextlib.contextmanager
def _conflict_lines(report: str | None) -> Iterator[Callable[[Conflict], object]]:
    """Yield what writes a conflict's line to where it was asked for.

    Raises:
        SettingsError: The file can't be written.
    """
    if report is None:
        yield lambda _: None
        return
    with contextlib.ExitStack() as opened:
        lines = sys.stdout
        if report != STANDARD_OUTPUT:
            try:
                lines = opened.enter_context(Path(report).open("w", encoding="utf-8"))
            except OSError as error:
                raise SettingsError(
                    f"The report {report} can't be written: {error.strerror}"
                ) from error
        print(*Conflict._fields, sep="\t", file=lines)
        yield lambda conflict: print(*conflict, sep="\t", file=lines)


def _print(merged: Merged, arguments: argparse.Namespace) -> None:
    """Print the summary; to stderr where standard output has the report."""
    lines = [
        f"Inserted {merged.mappings} mappings, {merged.outhashes} outhash rows, "
        f"{merged.users} users" + (" (a dry run: nothing was changed)" * arguments.dry_run),
        f"Left out {merged.conflicts} mappings whose taskhash has another unihash, which was held "
        "first and stays" + (": see --report" * (merged.conflicts > 0 and not arguments.report)),
    ]
    lines.append(
        f"Outputs whose tasks have more than one unihash: {merged.split_after} "
        f"(before: {merged.split_before})"
    )
    lines += [
        f"Left out the user {name} of {left}: {kept} has another of that name"
        for name, kept, left in merged.user_conflicts
    ]
    lines += [
        f"{source} has a garbage collection under way, which is not merged: {mark}"
        for source, mark in merged.marks
    ]
    if merged.mark is not None:
        lines.append(
            "A garbage collection of the target is under way, which keeps what was inserted: "
            f"{merged.mark}"
        )
    output = sys.stderr if arguments.report == STANDARD_OUTPUT else sys.stdout
    print(*lines, sep="\n", file=output)
