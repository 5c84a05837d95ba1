"""``bitbake-hashclient`` and the users of a server (INTERFACES.md §3)."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_bitbake_hashclient import run
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD, start_guarded
from tests.servers import ServerProcess

TOKEN = r"Token:       ([A-Za-z0-9._]{64})\n"
ALL = "@all @db-admin @read @report @user-admin"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def server(start_server: StartServer, short_tmp: Path) -> ServerProcess:
    return start_guarded(start_server, short_tmp)


@pytest.fixture
def run_as(server: ServerProcess, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """Run a command as a user; `run_as(username, token, *arguments)`."""
    monkeypatch.setenv("HOME", str(tmp_path))

    def run_it(
        username: str, token: str, *arguments: str, code: int = 0
    ) -> subprocess.CompletedProcess[str]:
        login = ["--login", username, "--password-file", "-"]
        return run(server, *login, *arguments, stdin=token + "\n", code=code)

    return run_it


@pytest.fixture
def admin(run_as: Run) -> Run:
    """Run a command as the administrator."""

    def run_it(*arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        return run_as(ADMIN, PASSWORD, *arguments, code=code)

    return run_it


def token_in(ended: subprocess.CompletedProcess[str], rest: str) -> str:
    """Check the lines about a user, and return the token that ends them."""
    match = re.fullmatch(re.escape(rest) + TOKEN, ended.stdout)
    assert match is not None, ended.stdout
    assert ended.stderr == ""
    return match[1]


def test_new_user(admin: Run, run_as: Run) -> None:
    ended = admin("new-user", "-u", "alice", "@report", "@read")
    token = token_in(ended, "Username:    alice\nPermissions: @read @report\n")
    ended = run_as("alice", token, "get-user")
    assert ended.stdout == "Username:    alice\nPermissions: @read @report\n"
    ended = admin("new-user", "--username", "alice", "@read", code=1)
    assert ended.stdout == "ERROR: Cannot create new user 'alice'\n"
    ended = admin("new-user", "-u", "bob", "@typo", code=1)
    assert ended.stdout == "ERROR: Unknown permissions @typo\n"


def test_a_user_without_permissions(admin: Run) -> None:
    token_in(admin("new-user", "-u", "alice"), "Username:    alice\nPermissions:\n")
    assert admin("get-user", "-u", "alice").stdout == "Username:    alice\nPermissions:\n"


def test_set_user_perms(admin: Run) -> None:
    admin("new-user", "-u", "alice", "@read")
    ended = admin("set-user-perms", "-u", "alice", "@all")
    assert ended.stdout == f"Username:    alice\nPermissions: {ALL}\n"
    ended = admin("set-user-perms", "-u", "alice")
    assert ended.stdout == "Username:    alice\nPermissions:\n"
    ended = admin("set-user-perms", "-u", "ghost", "@read", code=1)
    assert ended.stdout == "ERROR: No user named 'ghost' exists\n"


def test_refresh_token(admin: Run, run_as: Run) -> None:
    old = token_in(
        admin("new-user", "-u", "alice", "@read"), "Username:    alice\nPermissions: @read\n"
    )
    new = token_in(run_as("alice", old, "refresh-token"), "Username:    alice\n")
    ended = run_as("alice", old, "get-user", code=1)
    assert ended.stdout == "ERROR: Unable to authenticate as alice\n"
    newest = token_in(admin("refresh-token", "-u", "alice"), "Username:    alice\n")
    assert len({old, new, newest}) == 3
    assert run_as("alice", newest, "get-user").stdout.startswith("Username:    alice\n")
    ended = admin("refresh-token", "-u", "ghost", code=1)
    assert ended.stdout == "ERROR: No user named 'ghost' exists\n"


def test_get_user(admin: Run, server: ServerProcess) -> None:
    lines = f"Username:    {ADMIN}\nPermissions: {ALL}\n"
    assert admin("get-user").stdout == lines
    assert admin("get-user", "-u", ADMIN).stdout == lines
    ended = admin("get-user", "-u", "ghost", code=1)
    assert (ended.stdout, ended.stderr) == ("", "ERROR: No user named 'ghost' exists\n")
    ended = run(server, "get-user", code=1)
    assert ended.stdout.startswith("ERROR: Anonymous user is not allowed to access")


def test_get_all_users(admin: Run) -> None:
    assert admin("get-all-users").stdout == f"Username | Permissions\nadmin    | {ALL}\n"
    long = "a-name-that-is-longer-than-the-header"
    admin("new-user", "-u", long, "@report", "@read")
    admin("new-user", "-u", "bob")
    width = len(long)
    assert admin("get-all-users").stdout.splitlines() == [
        f"{'Username':{width}} | Permissions",
        f"{'admin':{width}} | {ALL}",
        f"{long} | @read @report",
        f"{'bob':{width}} |",
    ]


def test_delete_user(admin: Run, run_as: Run) -> None:
    tokens = {
        name: admin("new-user", "-u", name, "@read").stdout.split()[-1] for name in ("alice", "bob")
    }
    assert admin("delete-user", "-u", "alice").stdout == "Username:    alice\n"
    assert run_as("bob", tokens["bob"], "delete-user").stdout == "Username:    bob\n"
    assert admin("get-all-users").stdout == f"Username | Permissions\nadmin    | {ALL}\n"
    ended = admin("delete-user", "-u", "alice", code=1)
    assert ended.stdout == "ERROR: No user named 'alice' exists\n"
    ended = run_as("bob", tokens["bob"], "ping", code=1)
    assert ended.stdout == "ERROR: Unable to authenticate as bob\n"


@pytest.mark.parametrize("arguments", [["new-user", "@read"], ["set-user-perms", "@read"]])
def test_a_name_that_is_needed(admin: Run, arguments: list[str]) -> None:
    assert "-u/--username" in admin(*arguments, code=2).stderr


def test_tokens_go_nowhere_but_to_standard_output(admin: Run, server: ServerProcess) -> None:
    ended = admin("--log", "DEBUG", "new-user", "-u", "alice", "@read")
    token = token_in(ended, "Username:    alice\nPermissions: @read\n")
    assert token not in server.log_text()
    assert PASSWORD not in server.log_text()
