"""Accounts over the wire: what the tables of permissions and the recordings do not show."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from hashserv.server.handlers import MOST_REFUSALS
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.logins import ADMIN, EVERYTHING, PASSWORD, start_guarded
from tests.peers import HELLO, METHOD, Peer, dial, digest
from tests.servers import ServerProcess, wait_for

FAILED = {"invoke-error": {"message": "Unable to authenticate as anna"}}


def log_in(server: ServerProcess, username: str = ADMIN, token: str = PASSWORD) -> Peer:
    peer = Peer(server.address)
    reply = peer.ask("auth", {"username": username, "token": token})
    assert reply["result"] is True
    assert reply["username"] == username
    return peer


def new_user(server: ServerProcess, username: str, *permissions: str) -> str:
    with log_in(server) as admin:
        arguments = {"username": username, "permissions": permissions}
        token: str = admin.ask("new-user", arguments)["token"]
    return token


def audited(server: ServerProcess) -> list[dict[str, Any]]:
    return [json.loads(line) for line in server.log_text().splitlines() if line.startswith("{")]


@pytest.fixture
def guarded(start_server: StartServer, tmp_path: Path) -> ServerProcess:
    """A server where nobody may do anything without a login."""
    return start_guarded(start_server, tmp_path)


def test_a_connection_in_use_loses_what_its_user_may_not_do_any_more(
    guarded: ServerProcess,
) -> None:
    token = new_user(guarded, "anna", "@read")
    task = {"method": METHOD, "taskhash": digest(1)}
    with log_in(guarded) as admin, log_in(guarded, "anna", token) as anna:
        assert anna.ask("get", task) is None
        assert anna.ask("get", task) is None
        assert admin.ask("set-user-perms", {"username": "anna", "permissions": []})
        assert "not allowed" in anna.ask("get", task)["invoke-error"]["message"]
    with log_in(guarded) as admin, log_in(guarded, "anna", token) as anna:
        assert admin.ask("delete-user", {"username": "anna"}) == {"username": "anna"}
        assert "not allowed" in anna.ask("get-user", {})["invoke-error"]["message"]


@pytest.mark.parametrize("command", ["get-user", "refresh-token", "delete-user"])
def test_a_new_user_is_not_the_deleted_one_of_the_same_name(
    guarded: ServerProcess, command: str
) -> None:
    token = new_user(guarded, "anna", "@read")
    with log_in(guarded) as admin, log_in(guarded, "anna", token) as anna:
        admin.ask("delete-user", {"username": "anna"})
        assert "token" in admin.ask("new-user", {"username": "anna", "permissions": ["@all"]})
        assert "not allowed" in anna.ask(command, {})["invoke-error"]["message"]


def test_who_became_another_stays_that_only_with_the_right_to(guarded: ServerProcess) -> None:
    token = new_user(guarded, "desk", "@user-admin")
    with log_in(guarded) as admin, log_in(guarded, "desk", token) as desk:
        assert desk.ask("become-user", {"username": ADMIN})["permissions"] == EVERYTHING
        assert desk.ask("get-db-usage")["usage"]
        admin.ask("set-user-perms", {"username": "desk", "permissions": ["@read"]})
        assert "desk is not allowed" in desk.ask("get-db-usage")["invoke-error"]["message"]


def test_a_token_is_of_no_use_once_it_is_refreshed(guarded: ServerProcess) -> None:
    token = new_user(guarded, "anna", "@read")
    with log_in(guarded, "anna", token) as anna:
        second = anna.ask("refresh-token")["invoke-error"]["message"]
        assert "Invalid arguments" in second  # null are no arguments
    with log_in(guarded, "anna", token) as anna:
        second = anna.ask("refresh-token", {})["token"]
        assert anna.ask("get-user", {})["username"] == "anna"  # it stays logged in
    with Peer(guarded.address) as peer:
        assert peer.ask("auth", {"username": "anna", "token": token}) == FAILED
        assert peer.closed()
    log_in(guarded, "anna", second).close()


def test_the_owner_is_who_is_logged_in(guarded: ServerProcess) -> None:
    token = new_user(guarded, "anna", "@read", "@report")
    hashes = {"method": METHOD, "taskhash": digest(1), "outhash": digest(2), "unihash": digest(3)}
    reports = [{**hashes, "outhash": digest(4 + at), "owner": "mallory"} for at in range(3)]
    with log_in(guarded, "anna", token) as anna:
        anna.send(b"".join(json.dumps({"report": each}).encode() + b"\n" for each in reports))
        assert None not in anna.lines(3)
        task = {"method": METHOD, "taskhash": digest(1)}
        for at in range(3):
            found = anna.ask("get-outhash", {**task, "outhash": digest(4 + at)})
            assert found["owner"] == "anna"


def test_who_becomes_another_is_that_user_and_only_that(guarded: ServerProcess) -> None:
    new_user(guarded, "anna", "@read", "@user-admin")
    new_user(guarded, "bert", "@read")
    with log_in(guarded) as peer:
        assert peer.ask("become-user", {"username": "anna"})["username"] == "anna"
        assert peer.ask("become-user", {"username": "bert"})["permissions"] == ["@read"]
        assert peer.ask("get-user", {}) == {"username": "bert", "permissions": ["@read"]}
        assert (
            "bert is not allowed"
            in peer.ask("become-user", {"username": ADMIN})["invoke-error"]["message"]
        )


def test_a_name_that_would_be_misread_is_refused(guarded: ServerProcess) -> None:
    with log_in(guarded) as admin:
        reply = admin.ask("new-user", {"username": "a b\x1b", "permissions": []})
        assert "white space or control characters" in reply["invoke-error"]["message"]
    with log_in(guarded) as admin:
        assert [user["username"] for user in admin.ask("get-all-users")["users"]] == [ADMIN]


def test_a_peer_that_fails_too_often_is_told_to_wait(start_server: StartServer) -> None:
    server = start_server("--failed-logins", "2", bind="127.0.0.1:0")
    for _ in range(2):
        with Peer(server.address) as peer:
            assert peer.ask("auth", {"username": "anna", "token": "x"}) == FAILED
    with Peer(server.address) as peer:
        reply = peer.ask("auth", {"username": "anna", "token": "x"})
        assert "Too many failed logins" in reply["invoke-error"]["message"]


def test_logins_and_changes_are_written_down_and_no_secret_is(guarded: ServerProcess) -> None:
    token = new_user(guarded, "anna", "@read")
    with log_in(guarded) as admin:
        admin.ask("become-user", {"username": "anna"})
        second = admin.ask("refresh-token", {})["token"]
        admin.ask("set-user-perms", {"username": "anna", "permissions": ["@all"]})
    with Peer(guarded.address) as peer:
        assert peer.ask("auth", {"username": "anna\n{", "token": "hunter2"})
    wait_for(lambda: len(audited(guarded)) >= 7)
    lines = audited(guarded)
    expected = [
        (ADMIN, ADMIN, "auth", ADMIN, None, "ok"),
        (ADMIN, ADMIN, "new-user", "anna", ["@read"], "ok"),
        (ADMIN, ADMIN, "auth", ADMIN, None, "ok"),
        (ADMIN, "anna", "become-user", "anna", None, "ok"),
        (ADMIN, "anna", "refresh-token", None, None, "ok"),
        (
            *(ADMIN, "anna", "set-user-perms", "anna", ["@all"]),
            "anna is not allowed to access permissions(s) @user-admin",
        ),
        (None, None, "auth", "anna\n{", None, "Unable to authenticate as anna\n{"),
    ]
    keys = ("who", "as", "what", "user", "permissions", "outcome")
    assert [tuple(line[key] for key in keys) for line in lines] == expected
    assert all(line["peer"].startswith("unix client of uid ") for line in lines)
    text = guarded.log_text()
    assert not [secret for secret in (token, second, "hunter2", PASSWORD) if secret in text]


def test_a_change_whose_peer_is_gone_is_made_and_written_down(guarded: ServerProcess) -> None:
    with log_in(guarded) as admin:
        request = {"new-user": {"username": "anna", "permissions": []}}
        admin.send(json.dumps(request).encode() + b"\n")
    wait_for(lambda: [line for line in audited(guarded) if line["what"] == "new-user"])
    assert audited(guarded)[-1]["outcome"] == "ok"
    with log_in(guarded) as admin:
        assert admin.ask("get-user", {"username": "anna"}) is not None


@pytest.mark.parametrize("bind", ["unix", "tls"])
def test_a_failure_whose_peer_is_gone_is_written_down_once(
    bind: str, start_server: StartServer, certificates: Certificates
) -> None:
    flags, tls = [], None
    if bind == "tls":
        flags, tls = ["--tls-cert", certificates.server()], certificates.context()
    server = start_server(*flags, bind="tls://localhost:0" if tls else None)
    request = {"auth": {"username": "anna\n2026 WARNING forged", "token": "x"}}
    data = b"OEHASHEQUIV 1.1\n\n" + json.dumps(request).encode() + b"\n"
    connection = dial(server.address.removeprefix("tls://"))
    if tls is not None:
        connection = tls.wrap_socket(connection, server_hostname="localhost")
    with connection:
        connection.sendall(data)
    wait_for(lambda: audited(server))
    assert server.stop() == 0
    (line,) = audited(server)
    assert line["outcome"].startswith("Unable to authenticate")
    assert line["peer"].startswith("127.0.0.1:" if tls else "unix client of uid")
    others = [text for text in server.log_text().splitlines() if not text.startswith("{")]
    assert not [text for text in others if text.startswith("2026 WARNING") or "Task" in text]


def test_refusals_of_a_peer_are_written_down_up_to_a_number(server: ServerProcess) -> None:
    for _ in range(MOST_REFUSALS + 10):
        ask_as_nobody(server)
    assert len(audited(server)) == MOST_REFUSALS
    huge = {"username": "\N{GRINNING FACE}" * 1000, "permissions": ["\N{GRINNING FACE}" * 99] * 99}
    with Peer(server.address) as peer:
        assert "not allowed" in peer.ask("new-user", huge)["invoke-error"]["message"]
    assert max(map(len, server.log_text().splitlines())) < 4096


def test_a_login_at_the_wrong_time_shows_no_token(server: ServerProcess) -> None:
    login = b'{"auth": {"username": "anna", "token": "hunter2"}}\n'
    for before in (b"", HELLO + b'{"get-stream": null}\n', HELLO + b'{"gc-mark-stream": null}\n'):
        with Peer(server.address, hello=before) as peer:
            peer.send(login)
            while peer.line() is not None:
                pass
    wait_for(lambda: server.log_text().count("closed: ") + server.log_text().count("refused: ") > 2)
    assert "hunter2" not in server.log_text()


def test_the_audit_has_a_file_that_may_be_rotated(
    start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "audit.log"
    server = start_server("--audit-log", str(file))
    ask_as_nobody(server)
    file.rename(tmp_path / "audit.log.1")
    ask_as_nobody(server)
    for path in (tmp_path / "audit.log.1", file):
        (line,) = path.read_text().splitlines()
        assert json.loads(line)["what"] == "refresh-token"
    assert not audited(server)


def test_an_audit_that_can_not_be_written_locks_nobody_out(
    start_server: StartServer, tmp_path: Path
) -> None:
    directory = tmp_path / "logs"
    directory.mkdir()
    server = start_server("--audit-log", str(directory / "audit.log"))
    directory.rename(tmp_path / "gone")
    ask_as_nobody(server)
    (line,) = [line for line in server.log_text().splitlines() if "No audit log" in line]
    assert '"what": "refresh-token"' in line


def ask_as_nobody(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        reply = peer.ask("refresh-token", {})
        assert "Anonymous user is not allowed" in reply["invoke-error"]["message"]


@pytest.mark.parametrize("way", ["flag", "environment", "file", "file by environment"])
def test_the_administrator_is_given_in_any_way(
    way: str, start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\nanother line\n")
    flags = {
        "flag": ["--admin-user", ADMIN, "--admin-password", PASSWORD],
        "file": ["--admin-user", ADMIN, "--admin-password-file", str(file)],
    }
    environment = {
        "environment": {"HASHSERVER_ADMIN_USER": ADMIN, "HASHSERVER_ADMIN_PASSWORD": PASSWORD},
        "file by environment": {
            "HASHSERVER_ADMIN_USER": ADMIN,
            "HASHSERVER_ADMIN_PASSWORD_FILE": str(file),
        },
    }
    server = start_server(*flags.get(way, []), environment=environment.get(way))
    with log_in(server) as admin:
        assert admin.ask("get-user", {}) == {"username": ADMIN, "permissions": EVERYTHING}
    with closing(sqlite3.connect(server.database)) as database:
        (stored,) = database.execute("SELECT token FROM users").fetchone()
    assert stored.startswith("$argon2id$")


def test_a_read_only_server_can_be_logged_in_to_and_changes_nobody(
    start_server: StartServer, tmp_path: Path
) -> None:
    writable = start_guarded(start_server, tmp_path)
    token = new_user(writable, "anna", "@all")
    writable.stop()
    server = start_server("--read-only", "--anon-perms", "@none", database=writable.database)
    with log_in(server, "anna", token) as anna:
        assert anna.ask("get-user", {})["permissions"] == EVERYTHING
        assert "read-only" in anna.ask("refresh-token", {})["invoke-error"]["message"]


@pytest.mark.parametrize(
    ("bind", "flags", "warned"),
    [
        ("0.0.0.0:0", [], True),
        ("[::]:0", [], True),
        ("ws://0.0.0.0:0", [], True),
        ("127.0.0.1:0", [], False),
        ("[::1]:0", [], False),
        ("0.0.0.0:0", ["--read-only"], False),
        ("0.0.0.0:0", ["--anon-perms", "@read,@report"], False),
    ],
)
def test_a_server_that_strangers_may_empty_says_so_loudly(
    bind: str, flags: list[str], warned: bool, start_server: StartServer
) -> None:
    database = start_server().database
    server = start_server(*flags, bind=bind, database=database)
    warnings = [line for line in server.log_text().splitlines() if "WARNING" in line]
    assert any("--anon-perms @read,@report" in line for line in warnings) == warned
