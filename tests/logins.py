"""A server that lets nobody do anything without a login."""

from pathlib import Path

from tests.conftest import StartServer
from tests.servers import ServerProcess

ADMIN = "admin"
PASSWORD = "correct horse battery staple"

EVERYTHING = ["@all", "@db-admin", "@read", "@report", "@user-admin"]
"""The permissions of the administrator, as replies show them."""


def start_guarded(
    start_server: StartServer,
    directory: Path,
    *arguments: str,
    bind: str | None = None,
    database: str | None = None,
) -> ServerProcess:
    """Start a server with an administrator, whose password is then in `directory`/password."""
    file = directory / "password"
    file.write_text(PASSWORD + "\n")
    return start_server(
        *("--anon-perms", "@none"),
        *("--admin-user", ADMIN, "--admin-password-file", str(file)),
        *arguments,
        bind=bind,
        database=database,
    )
