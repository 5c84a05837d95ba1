"""What the commands that work on databases, not on a server, have in common."""

import argparse
import asyncio
import logging
import re
import sys
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any

from hashserv.cli.server_arguments import add_database_login, add_password, password_of
from hashserv.errors import SettingsError, StoreError
from hashserv.store.opening import Options, is_url

_VARIABLE = "HASHSERVER_SOURCE_USERNAME"


def add_logins(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add the flags of the databases' logins; environment variables give other defaults."""
    environment = {name: value for name, value in environment.items() if value}
    add_database_login(parser, environment)
    source = parser.add_argument_group(
        "login of a source", "where it is not the same; by default the login above is"
    )
    source.add_argument(
        "--source-username",
        metavar="NAME",
        default=environment.get(_VARIABLE),
        help=f"the name (environment: {_VARIABLE})",
    )
    add_password(source, "source", environment)


def options_of(arguments: argparse.Namespace) -> tuple[Options, Options]:
    """Return how to open sources, and how to open the target.

    Raises:
        SettingsError: A password's file can't be read, or a password is given twice.
    """
    target = Options(username=arguments.db_username, password=password_of(arguments, "db"))
    source = Options(username=arguments.source_username, password=password_of(arguments, "source"))
    own_login = source.username is not None or source.password is not None
    return source if own_login else target, target


def named(database: str) -> str:
    """Return a database's name as it may be shown: a URL without its password."""
    return re.sub(r"(://[^/@]*?):[^/]*@", r"\1@", database) if is_url(database) else database


def is_file(database: str) -> bool:
    """Tell whether a database is a file that exists."""
    return not is_url(database) and Path(database).exists()


def are_same(one: str, other: str) -> bool:
    """Tell whether two names are those of one database, as far as names tell."""
    if is_url(one) or is_url(other):
        return one == other
    try:
        return Path(one).samefile(other)
    except OSError:  # one of them does not exist
        return Path(one).resolve() == Path(other).resolve()


def run(parser: argparse.ArgumentParser, work: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a command's work in an event loop and return its exit code.

    Args:
        parser: Knows the command's name.
        work: What to do; it returns the exit code.
    """
    logging.basicConfig(level="WARNING", format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        return asyncio.run(work())
    except SettingsError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    except StoreError as error:
        print(f"ERROR: {error}", file=sys.stderr)
    except KeyboardInterrupt:
        print("Interrupted: the same command goes on where this one stopped", file=sys.stderr)
    return 1
