"""The arguments of a server, and running one: common to both commands that do."""

import argparse
import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields

from hashserv.errors import HashservError, SettingsError
from hashserv.model import DEFAULT_ANON_PERMS
from hashserv.server.settings import Limits, Settings

_ENVIRONMENT = "HASHSERVER_"
LOG_LEVELS = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

_LIMIT_HELP = {
    "max_line": "longest line of a client, in bytes",
    "max_message": "longest message of a client, in bytes",
    "handshake_timeout": "seconds that a client may take for its handshake",
    "message_timeout": "seconds that a client may pause within a line or message",
    "write_timeout": "seconds that a client may leave replies unread",
    "write_buffer": "bytes of unread replies before a client is not listened to",
    "shutdown_timeout": "seconds for requests under way when the server stops",
    "backlog": "connections that may wait to be accepted",
    "max_connections": "connections at once; further ones are refused",
    "cache_bytes": "memory for answers to look-ups, in bytes",
    "page_cache_bytes": "memory for pages of the database, in bytes",
    "log_bytes": "database log that a burst of reports may leave to be copied later, in bytes",
}


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add the arguments of a server; environment variables give other defaults."""

    def default(name: str, otherwise: str) -> str:
        return environment.get(_ENVIRONMENT + name) or otherwise

    parser.add_argument(
        *("-b", "--bind"),
        metavar="ADDR",
        default=default("BIND", Settings.bind),
        help="address to listen on: unix://PATH, HOST:PORT, [IPV6]:PORT or :PORT "
        "(%(default)s; environment: HASHSERVER_BIND)",
    )
    parser.add_argument(
        *("-d", "--database"),
        metavar="PATH",
        default=default("DB", Settings.database),
        help="SQLite file, created if missing (%(default)s; environment: HASHSERVER_DB)",
    )
    parser.add_argument(
        *("-l", "--log"),
        metavar="LEVEL",
        type=str.upper,
        choices=LOG_LEVELS,
        default=default("LOG_LEVEL", "WARNING").upper(),
        help=f"least serious messages to log: {', '.join(LOG_LEVELS)} "
        "(%(default)s; environment: HASHSERVER_LOG_LEVEL)",
    )
    parser.add_argument(
        *("-r", "--read-only"),
        action="store_true",
        default=environment.get(_ENVIRONMENT + "READ_ONLY") == "1",
        help="let nobody change anything (environment: HASHSERVER_READ_ONLY=1)",
    )
    parser.add_argument(
        "--anon-perms",
        metavar="PERM[,PERM...]",
        default=environment.get(_ENVIRONMENT + "ANON_PERMS", ",".join(DEFAULT_ANON_PERMS)),
        help="what clients without a login may do: any of @read, @report, @db-admin, or @none "
        "(%(default)s; environment: HASHSERVER_ANON_PERMS)",
    )
    parser.add_argument(
        "--reuseport",
        action="store_true",
        help="let other servers listen on the same TCP port (SO_REUSEPORT)",
    )
    parser.add_argument(
        "--no-sync",
        action="store_true",
        help="faster, but a loss of power may undo what was acknowledged (a crash never does)",
    )
    parser.add_argument(
        "--unihash-digits",
        metavar="N",
        type=int,
        default=Settings.unihash_digits,
        help="least hex digits of a reported unihash, at most 64; servers before 2026 did not "
        "check (%(default)s)",
    )
    limits = parser.add_argument_group("limits")
    for field in fields(Limits):
        limits.add_argument(
            f"--{field.name.replace('_', '-')}",
            metavar="SECONDS" if field.type is float else "N",
            type=float if field.type is float else int,
            default=field.default,
            help=f"{_LIMIT_HELP[field.name]} (%(default)s)",
        )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that arguments make.

    Raises:
        SettingsError: They contradict each other or are out of range.
    """
    return Settings(
        bind=arguments.bind,
        database=arguments.database,
        durable=not arguments.no_sync,
        read_only=arguments.read_only,
        anon_perms=tuple(filter(None, re.split(r"[,\s]+", arguments.anon_perms))),
        reuseport=arguments.reuseport,
        unihash_digits=arguments.unihash_digits,
        limits=Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)}),
    )


def run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    ready: Callable[[str], None] = lambda _: None,
) -> int:
    """Run a server until a signal ends it, and return the exit code.

    Args:
        parser: Tells of wrong usage, and exits with 2.
        arguments: What `add_arguments` added, parsed.
        ready: Called with the real address once clients are served.
    """
    from hashserv.server import app  # late: --help needs none of it

    logging.basicConfig(
        level=arguments.log, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr
    )
    try:
        settings = settings_of(arguments)
    except SettingsError as error:
        parser.error(str(error))
    try:
        app.run(settings, ready)
    except HashservError as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0
