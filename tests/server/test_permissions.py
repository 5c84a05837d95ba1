"""Every command for every kind of client, against a table written from PROTOCOL.md §5 and §7."""

from itertools import chain, combinations
from typing import Any, Final, NamedTuple

import pytest

from hashserv.wire.commands import COMMANDS
from tests.conftest import StartServer
from tests.peers import METHOD, Peer, digest

ADMINISTRATOR: Final = ("root", "the administrator's")
ANONYMOUS: Final = ("@read", "@report", "@db-admin")
SINGLE: Final = ("", "@read", "@report", "@db-admin", "@user-admin", "@all")
"""What the users have, each one permission or none."""


class Rule(NamedTuple):
    """What PROTOCOL.md says of a command."""

    needs: str
    read_only: bool
    oneself: bool = False


RULES: Final = {
    "ping": Rule("", True),
    "get": Rule("@read", True),
    "get-outhash": Rule("@read", True),
    "get-stream": Rule("@read", True),
    "exists-stream": Rule("@read", True),
    "snapshot-stream": Rule("@read", True),
    "report": Rule("@read", True),
    "report-equiv": Rule("@read @report", False),
    "get-stats": Rule("@read", True),
    "reset-stats": Rule("@db-admin", False),
    "backfill-wait": Rule("@read", False),
    "remove": Rule("@db-admin", False),
    "gc-mark": Rule("@db-admin", False),
    "gc-mark-stream": Rule("@db-admin", False),
    "gc-status": Rule("@db-admin", False),
    "gc-sweep": Rule("@db-admin", False),
    "clean-unused": Rule("@db-admin", False),
    "get-db-usage": Rule("@db-admin", True),
    "get-db-query-columns": Rule("@db-admin", True),
    "auth": Rule("", True),
    "get-user": Rule("@user-admin", True, oneself=True),
    "get-all-users": Rule("@user-admin", True),
    "become-user": Rule("@user-admin", True),
    "new-user": Rule("@user-admin", False),
    "set-user-perms": Rule("@user-admin", False),
    "refresh-token": Rule("@user-admin", False, oneself=True),
    "delete-user": Rule("@user-admin", False, oneself=True),
}

TASK: Final = {"method": METHOD, "taskhash": digest(1)}
ARGUMENTS: Final[dict[str, Any]] = {
    "get": TASK,
    "get-outhash": {**TASK, "outhash": digest(2)},
    "snapshot-stream": {"after": 0, "key": ""},
    "report": {**TASK, "outhash": digest(2), "unihash": digest(3)},
    "report-equiv": {**TASK, "unihash": digest(3)},
    "remove": {"where": {"PN": "nothing"}},
    "gc-mark": {"mark": "m", "where": {"unihash": "none"}},
    "gc-sweep": {"mark": "not this"},
    "clean-unused": {"max_age_seconds": 1e9},
    "auth": dict(zip(("username", "token"), ADMINISTRATOR, strict=True)),
    "become-user": {"username": "other"},
    "new-user": {"username": "other", "permissions": []},
    "set-user-perms": {"username": "other", "permissions": []},
    "get-user": {"username": "other"},
    "refresh-token": {"username": "other"},
    "delete-user": {"username": "missing"},
}

DENIED: Final = ("is not allowed to access", "This server is read-only")


def anonymous_sets() -> list[tuple[str, ...]]:
    return list(chain.from_iterable(combinations(ANONYMOUS, size) for size in range(4)))


def allowed(peer: Peer, command: str, arguments: Any) -> bool:
    """Tell whether a server carries a command out, or tries to."""
    reply = peer.ask(command, arguments)
    error = reply.get("invoke-error", {}) if isinstance(reply, dict) else {}
    return not any(words in error.get("message", "") for words in DENIED)


def test_the_table_has_every_command() -> None:
    assert RULES.keys() == COMMANDS.keys()


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("granted", anonymous_sets(), ids=lambda granted: ",".join(granted) or "-")
def test_anonymous_clients(
    granted: tuple[str, ...], read_only: bool, start_server: StartServer
) -> None:
    database = start_server("--anon-perms", "@none", "--admin-user", "other", *password()).database
    flags = ["--read-only"] if read_only else []
    anonymous = ",".join(granted) or "@none"
    server = start_server(*flags, "--anon-perms", anonymous, database=database)
    expected = {
        name: set(rule.needs.split()) <= set(granted) and (rule.read_only or not read_only)
        for name, rule in RULES.items()
    }
    found = {}
    for name in RULES:
        with Peer(server.address) as peer:
            found[name] = allowed(peer, name, ARGUMENTS.get(name))
    assert found == expected


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("permission", SINGLE)
def test_users(permission: str, read_only: bool, start_server: StartServer) -> None:
    writable = start_server(
        *("--anon-perms", "@none", "--admin-user", ADMINISTRATOR[0], *password()),
        *("--new-tokens", "1000"),
    )
    tokens = {}
    with Peer(writable.address) as peer:
        assert peer.ask("auth", ARGUMENTS["auth"])["result"]
        granted = [permission] if permission else []
        assert "token" in peer.ask("new-user", {"username": "other", "permissions": []})
        for name in RULES:
            user = {"username": f"for-{name}", "permissions": granted}
            tokens[name] = peer.ask("new-user", user)["token"]
    server = writable
    if read_only:
        writable.stop()
        server = start_server("--read-only", "--anon-perms", "@none", database=writable.database)

    def attempt(name: str, arguments: Any) -> bool:
        with Peer(server.address) as peer:
            login = {"username": f"for-{name}", "token": tokens[name]}
            assert peer.ask("auth", login)["result"]
            return allowed(peer, name, arguments)

    possible = {name: rule.read_only or not read_only for name, rule in RULES.items()}
    has = {
        name: permission == "@all" or set(rule.needs.split()) <= {permission}
        for name, rule in RULES.items()
    }
    found = {name: attempt(name, ARGUMENTS.get(name)) for name in RULES}
    assert found == {name: has[name] and possible[name] for name in RULES}
    own = {name: attempt(name, {}) for name, rule in RULES.items() if rule.oneself}
    assert own == {name: possible[name] for name in own}


def test_a_users_and_the_anonymous_permissions_are_not_added_up(start_server: StartServer) -> None:
    server = start_server("--anon-perms", "@read", "--admin-user", ADMINISTRATOR[0], *password())
    with Peer(server.address) as peer:
        assert peer.ask("auth", ARGUMENTS["auth"])["result"]
        user = peer.ask("new-user", {"username": "reporter", "permissions": ["@report"]})
    with Peer(server.address) as peer:
        assert peer.ask("auth", {"username": "reporter", "token": user["token"]})["result"]
        assert peer.ask("report", ARGUMENTS["report"])["unihash"] == digest(3)
        assert peer.lookup(digest(1)) == digest(3)  # stored: each permission counts for itself
        assert not allowed(peer, "report-equiv", ARGUMENTS["report-equiv"])  # it needs both


@pytest.mark.parametrize(
    ("permissions", "stored"),
    [(["@read"], False), (["@read", "@report"], True), (["@all"], True)],
)
def test_a_report_is_stored_with_the_permission_and_answered_without(
    permissions: list[str], stored: bool, start_server: StartServer
) -> None:
    server = start_server("--anon-perms", "@none", "--admin-user", ADMINISTRATOR[0], *password())
    with Peer(server.address) as peer:
        assert peer.ask("auth", ARGUMENTS["auth"])["result"]
        user = peer.ask("new-user", {"username": "builder", "permissions": permissions})
    with Peer(server.address) as peer:
        assert peer.ask("auth", {"username": "builder", "token": user["token"]})["result"]
        report = {**ARGUMENTS["report"], "owner": "somebody else"}
        assert peer.ask("report", report)["unihash"] == digest(3)
        task = peer.ask("get", {**TASK, "all": True})
        assert (task and task["owner"]) == ("builder" if stored else None)


def password() -> tuple[str, str]:
    return "--admin-password", ADMINISTRATOR[1]
