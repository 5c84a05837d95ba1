"""The arguments of a server: flags and environment in, settings out."""

import argparse
import re
from collections.abc import Mapping
from dataclasses import fields

from hashserv.cli.login import netrc_login
from hashserv.cli.secret_files import first_line
from hashserv.errors import SettingsError
from hashserv.model import DEFAULT_ANON_PERMS
from hashserv.server.settings import Limits, Settings
from hashserv.store.opening import database_file, is_url

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
    "max_snapshots": "copies of all mappings that are sent to other servers at once; 0 for none",
    "cache_bytes": "memory for answers to look-ups, in bytes",
    "page_cache_bytes": "memory for pages of the database, in bytes",
    "failed_logins": "failed logins of a peer within a minute",
    "new_tokens": "tokens made in a second, for the whole server",
    "log_bytes": "database log that a burst of reports may leave to be copied later, in bytes",
}


def add_arguments(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    """Add the arguments of a server; environment variables give other defaults."""
    # Empty variables are as if unset: files for containers have many of them.
    environment = {name: value for name, value in environment.items() if value}

    def default(name: str, otherwise: str) -> str:
        return environment.get(_ENVIRONMENT + name, otherwise)

    parser.add_argument(
        *("-b", "--bind"),
        metavar="ADDR",
        action="append",
        help="address to listen on: unix://PATH, HOST:PORT, [IPV6]:PORT, :PORT, ws://HOST:PORT, "
        "or with a certificate wss://HOST:PORT, tls://HOST:PORT; may be repeated "
        f"({default('BIND', *Settings.bind)}; environment: HASHSERVER_BIND)",
    )
    parser.set_defaults(default_bind=default("BIND", *Settings.bind))
    parser.add_argument(
        *("-d", "--database"),
        metavar="DATABASE",
        default=default("DB", Settings.database),
        help="SQLite file, created if missing, or URL of an SQL server: "
        "postgresql+asyncpg://USER@HOST/NAME, postgresql+psycopg://, mysql+aiomysql://, "
        "mysql+asyncmy:// (%(default)s; environment: HASHSERVER_DB)",
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
    _add_upstream(parser, environment)
    _add_database(parser, environment)
    _add_administrator(parser, environment)
    _add_network(parser, environment)
    parser.add_argument(
        "--audit-log",
        metavar="FILE",
        default=environment.get(_ENVIRONMENT + "AUDIT_LOG"),
        help="append logins and account changes to this file, which may be rotated (stderr; "
        "environment: HASHSERVER_AUDIT_LOG)",
    )
    parser.add_argument(
        "--reuseport",
        action="store_true",
        help="let other servers listen on the same TCP port (SO_REUSEPORT)",
    )
    parser.add_argument(
        "--workers",
        metavar="N",
        type=int,
        default=default("WORKERS", str(Settings.workers)),
        help="processes that serve clients (%(default)s; environment: HASHSERVER_WORKERS)",
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
            metavar="SECONDS" if field.name.endswith("timeout") else "N",
            type=float if field.type is float else int,
            default=field.default,
            help=f"{_LIMIT_HELP[field.name]} (%(default)s)",
        )


def _add_upstream(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    upstream = parser.add_argument_group("upstream")
    upstream.add_argument(
        *("-u", "--upstream"),
        metavar="ADDR",
        default=environment.get(_ENVIRONMENT + "UPSTREAM"),
        help="server to ask for what this one does not know (environment: HASHSERVER_UPSTREAM)",
    )
    upstream.add_argument(
        "--upstream-username",
        metavar="NAME",
        default=environment.get(_ENVIRONMENT + "UPSTREAM_USERNAME"),
        help="who to log in there as; by default as ~/.netrc says for the address "
        "(environment: HASHSERVER_UPSTREAM_USERNAME)",
    )
    upstream.add_argument(
        "--upstream-token-file",
        metavar="FILE",
        default=environment.get(_ENVIRONMENT + "UPSTREAM_TOKEN_FILE"),
        help="file whose first line is the user's token "
        "(environment: HASHSERVER_UPSTREAM_TOKEN_FILE, or HASHSERVER_UPSTREAM_TOKEN for the token)",
    )
    upstream.set_defaults(upstream_token=environment.get(_ENVIRONMENT + "UPSTREAM_TOKEN"))
    upstream.add_argument(
        "--upstream-timeout",
        metavar="SECONDS",
        type=float,
        default=Settings.upstream_timeout,
        help="seconds that questions there may take (%(default)s)",
    )
    upstream.add_argument(
        "--upstream-negative-ttl",
        metavar="SECONDS",
        type=float,
        default=Settings.upstream_negative_ttl,
        help="seconds for which it is remembered what it does not know (%(default)s)",
    )
    upstream.add_argument(
        "--upstream-snapshot",
        metavar="FILE",
        default=environment.get(_ENVIRONMENT + "UPSTREAM_SNAPSHOT"),
        help="copy all its mappings into this file at the start, and follow what is new there "
        "(environment: HASHSERVER_UPSTREAM_SNAPSHOT)",
    )


def add_database_login(
    parser: argparse.ArgumentParser, environment: Mapping[str, str]
) -> argparse._ArgumentGroup:
    """Add the flags of a database's login; environment variables give other defaults."""
    login = parser.add_argument_group("SQL server", "for databases that are named by a URL")
    login.add_argument(
        "--db-username",
        metavar="NAME",
        default=environment.get(_ENVIRONMENT + "DB_USERNAME"),
        help="who to log in as (environment: HASHSERVER_DB_USERNAME)",
    )
    add_password(login, "db", environment)
    return login


def _add_database(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    group = add_database_login(parser, environment)
    group.add_argument(
        "--database-replica",
        metavar="URL",
        default=environment.get(_ENVIRONMENT + "DB_REPLICA"),
        help="a read replica of it, which is asked for mappings first "
        "(environment: HASHSERVER_DB_REPLICA)",
    )
    group.add_argument(
        "--database-pool",
        metavar="N",
        type=int,
        default=Settings.database_pool,
        help="connections to it, at most (%(default)s)",
    )
    group.add_argument(
        "--database-timeout",
        metavar="SECONDS",
        type=float,
        default=Settings.database_timeout,
        help="how long requests wait for it while it can't be reached (%(default)s)",
    )


def add_password(
    group: argparse._ArgumentGroup, prefix: str, environment: Mapping[str, str]
) -> None:
    """Add a password's flags, of which only the variable and the file are safe."""
    variable = f"{_ENVIRONMENT}{prefix.upper()}_PASSWORD"
    group.add_argument(
        f"--{prefix}-password",
        metavar="PASSWORD",
        help="the password; others on this machine see it in the list of processes, so rather "
        f"use the next, or the environment: {variable}",
    )
    group.add_argument(
        f"--{prefix}-password-file",
        metavar="FILE",
        default=environment.get(f"{variable}_FILE"),
        help=f"file whose first line is the password (environment: {variable}_FILE)",
    )
    group.set_defaults(**{f"{prefix}_environment_password": environment.get(variable)})


def _add_administrator(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    administrator = parser.add_argument_group(
        "administrator", "a user that is created with all permissions, or given them again"
    )
    administrator.add_argument(
        "--admin-user",
        metavar="NAME",
        default=environment.get(_ENVIRONMENT + "ADMIN_USER"),
        help="the name (environment: HASHSERVER_ADMIN_USER)",
    )
    add_password(administrator, "admin", environment)


def _add_network(parser: argparse.ArgumentParser, environment: Mapping[str, str]) -> None:
    network = parser.add_argument_group("TLS and WebSocket")
    for flag, variable, text in (
        ("--tls-cert", "TLS_CERT", "certificate chain, PEM; read again on SIGHUP"),
        ("--tls-key", "TLS_KEY", "key of the certificate, PEM, if it is not in the same file"),
        ("--tls-client-ca", "TLS_CLIENT_CA", "authorities that clients' certificates must be of"),
    ):
        network.add_argument(
            flag,
            metavar="FILE",
            default=environment.get(_ENVIRONMENT + variable),
            help=f"{text} (environment: {_ENVIRONMENT}{variable})",
        )
    network.add_argument(
        "--trusted-proxy",
        metavar="ADDR",
        action="append",
        default=[],
        help="address or network of a proxy whose X-Forwarded-For is believed; may be repeated",
    )
    network.add_argument(
        "--compression",
        action="store_true",
        help="compress WebSocket messages for clients that offer it",
    )


def settings_of(arguments: argparse.Namespace) -> Settings:
    """Return the settings that arguments make.

    Raises:
        AddressError: An address can't be understood.
        SettingsError: They contradict each other or are out of range.
    """
    username, token = _upstream_login(arguments)
    return Settings(
        bind=tuple(arguments.bind or [arguments.default_bind]),
        database=database_file(arguments.database),
        **_database_login(arguments),
        database_replica=arguments.database_replica,
        database_pool=arguments.database_pool,
        database_timeout=arguments.database_timeout,
        durable=not arguments.no_sync,
        read_only=arguments.read_only,
        upstream=arguments.upstream,
        upstream_username=username,
        upstream_token=token,
        upstream_timeout=arguments.upstream_timeout,
        upstream_negative_ttl=arguments.upstream_negative_ttl,
        upstream_snapshot=arguments.upstream_snapshot,
        anon_perms=tuple(filter(None, re.split(r"[,\s]+", arguments.anon_perms))),
        admin_username=arguments.admin_user,
        admin_password=password_of(arguments, "admin"),
        tls_certificate=arguments.tls_cert,
        tls_key=arguments.tls_key,
        tls_client_ca=arguments.tls_client_ca,
        trusted_proxies=tuple(arguments.trusted_proxy),
        compression=arguments.compression,
        reuseport=arguments.reuseport,
        workers=arguments.workers,
        unihash_digits=arguments.unihash_digits,
        limits=Limits(**{field.name: getattr(arguments, field.name) for field in fields(Limits)}),
    )


def _database_login(arguments: argparse.Namespace) -> dict[str, str | None]:
    """Return the login for a database that wants one; for a file, none is even read.

    Raises:
        SettingsError: The password's file can't be read, or the password is given twice.
    """
    if not is_url(database_file(arguments.database)):
        return {}
    return {"db_username": arguments.db_username, "db_password": password_of(arguments, "db")}


def _upstream_login(arguments: argparse.Namespace) -> tuple[str | None, str | None]:
    """Return who to log in at the upstream as: as given, or as ``~/.netrc`` says.

    Raises:
        SettingsError: The token's file can't be read.
    """
    token: str | None = arguments.upstream_token
    if arguments.upstream_token_file is not None:
        token = first_line(arguments.upstream_token_file)
    if arguments.upstream is None or arguments.upstream_username is not None or token is not None:
        return arguments.upstream_username, token
    return netrc_login(arguments.upstream)


def password_of(arguments: argparse.Namespace, prefix: str) -> str | None:
    """Return a password: as given, of its file, or of the environment.

    Args:
        arguments: What `add_password` added, parsed.
        prefix: Of the flags.

    Raises:
        SettingsError: The file can't be read, or both are given.
    """
    given: str | None = getattr(arguments, f"{prefix}_password")
    file: str | None = getattr(arguments, f"{prefix}_password_file")
    if file is None:
        fallback: str | None = getattr(arguments, f"{prefix}_environment_password")
        return fallback if given is None else given
    if given is not None:
        raise SettingsError(f"--{prefix}-password and --{prefix}-password-file exclude each other")
    return first_line(file)
