"""The commands that run a server: flags, environment, exit codes (INTERFACES.md §2)."""

import argparse
import subprocess
import sys
from pathlib import Path

import pytest

from hashserv.cli.server_arguments import add_arguments, settings_of
from hashserv.errors import AddressError, SettingsError
from hashserv.server.settings import Limits, Settings
from tests.conftest import StartServer
from tests.peers import Peer, digest


def parsed(*arguments: str, **environment: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_arguments(parser, environment)
    return parser.parse_args(arguments)


def test_defaults_are_the_reference_s() -> None:
    settings = settings_of(parsed())
    assert settings == Settings()
    assert settings.bind == ("unix://./hashserve.sock",)
    assert settings.database == "./hashserv.db"
    assert settings.anon_perms == ("@read", "@report", "@db-admin")
    assert parsed().log == "WARNING"


def test_environment_gives_defaults_and_flags_win() -> None:
    environment = {
        "HASHSERVER_BIND": "localhost:8686",
        "HASHSERVER_DB": "/srv/hashserv.db",
        "HASHSERVER_LOG_LEVEL": "info",
        "HASHSERVER_READ_ONLY": "1",
        "HASHSERVER_ANON_PERMS": "@read @report",
    }
    settings = settings_of(parsed(**environment))
    assert settings.bind == ("localhost:8686",)
    assert settings.database == "/srv/hashserv.db"
    assert settings.read_only
    assert settings.anon_perms == ("@read", "@report")
    assert parsed(**environment).log == "INFO"
    assert settings_of(parsed("-b", ":1", "-b", ":2", **environment)).bind == (
        ":1",
        ":2",
    )
    assert not settings_of(parsed(HASHSERVER_READ_ONLY="0")).read_only


def test_an_upstream_is_given_by_flags_or_environment(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("secret\n")
    environment = {
        "HASHSERVER_UPSTREAM": "far:1",
        "HASHSERVER_UPSTREAM_USERNAME": "anna",
        "HASHSERVER_UPSTREAM_TOKEN_FILE": str(file),
        "HOME": str(tmp_path),
    }
    settings = settings_of(parsed(**environment))
    assert settings.upstream == "far:1"
    assert (settings.upstream_username, settings.upstream_token) == ("anna", "secret")
    assert "secret" not in repr(settings)
    flags = ["-u", "near:2", "--upstream-timeout", "1.5", "--upstream-negative-ttl", "0"]
    settings = settings_of(parsed(*flags, **environment))
    assert settings.upstream == "near:2"
    assert (settings.upstream_timeout, settings.upstream_negative_ttl) == (1.5, 0)


def test_empty_variables_are_as_if_unset() -> None:
    names = ("ADMIN_USER", "ADMIN_PASSWORD", "ADMIN_PASSWORD_FILE", "TLS_CERT", "AUDIT_LOG", "DB")
    parser = argparse.ArgumentParser()
    add_arguments(parser, {f"HASHSERVER_{name}": "" for name in names})
    assert settings_of(parser.parse_args([])) == Settings()


def test_a_database_login_is_taken_and_a_file_needs_none() -> None:
    environment = {"HASHSERVER_DB_USERNAME": "anna", "HASHSERVER_DB_PASSWORD": "x"}
    assert settings_of(parsed(**environment)) == Settings()
    flags = ["--db-username", "anna", "--db-password-file", "/no/file"]
    assert settings_of(parsed(*flags)) == Settings()
    url = "postgresql+asyncpg://host/name"
    settings = settings_of(parsed("--database", url, **environment))
    assert (settings.database, settings.db_username, settings.db_password) == (url, "anna", "x")
    assert "'x'" not in repr(settings)


def test_every_limit_has_a_flag() -> None:
    arguments = ["--max-line", "2048", "--max-message", "4096", "--handshake-timeout", "1.5"]
    arguments += [
        "--message-timeout",
        "8",
        "--max-connections",
        "9",
        "--write-timeout",
        "2",
        "--write-buffer",
        "3",
        "--shutdown-timeout",
        "4",
    ]
    arguments += ["--backlog", "5", "--cache-bytes", "6", "--log-bytes", "7000000"]
    arguments += ["--page-cache-bytes", "10", "--failed-logins", "11", "--new-tokens", "1.5"]
    assert settings_of(parsed(*arguments)).limits == Limits(
        max_line=2048,
        max_message=4096,
        handshake_timeout=1.5,
        message_timeout=8,
        max_connections=9,
        write_timeout=2,
        write_buffer=3,
        shutdown_timeout=4,
        backlog=5,
        cache_bytes=6,
        log_bytes=7_000_000,
        page_cache_bytes=10,
        failed_logins=11,
        new_tokens=1.5,
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--anon-perms", "@all"], "can't be given to anonymous clients"),
        (["--anon-perms", "@read,@user-admin"], "can't be given to anonymous clients"),
        (["--anon-perms", "@reed"], "Unknown permissions @reed"),
        (["--unihash-digits", "65"], "1 to 64 digits"),
        (["--max-line", "10"], "line limit"),
        (["--max-message", "1000"], "line limit"),
        (["--write-timeout", "0"], "larger than zero"),
        (["--cache-bytes", "-1"], "negative"),
        (["--log-bytes", "1000"], "write-ahead log"),
        (["--failed-logins", "0"], "failed logins"),
        (["--new-tokens", "0"], "new tokens"),
        (["--failed-logins", "99999999999999999999"], "failed logins"),
        (["--bind", "nonsense"], "is no address"),
        (["--upstream", "nonsense"], "is no address"),
        (["--upstream", ":1", "--bind", ":1"], "is this server itself"),
        (["--upstream", ":1", "--read-only"], "read-only server can't have an upstream"),
        (["--upstream", ":1", "--upstream-username", "x"], "both a name and a token"),
        (["--upstream", ":1", "--upstream-token-file", "/no/file"], "/no/file can't be read"),
        (["--upstream", ":1", "--upstream-timeout", "0"], "larger than zero"),
        (["--upstream", ":1", "--upstream-negative-ttl", "-1"], "time"),
        (["--bind", ":1", "--bind", "ws://:1"], "listened on already"),
        (["--bind", "unix://s", "--bind", "unix://s"], "listened on already"),
        (["--bind", "wss://:8686"], "needs a certificate: --tls-cert"),
        (["--bind", ":1", "--bind", "tls://:8686"], "tls://:8686 needs a certificate"),
        (["--tls-cert", "x"], "only for addresses that begin with wss:// or tls://"),
        (["--tls-client-ca", "x"], "only for addresses that begin with wss:// or tls://"),
        (["--trusted-proxy", "10.0.0.1/8"], "has host bits set"),
        (["--trusted-proxy", "proxy"], "an address or a network"),
        (["--admin-user", "root"], "both a name and a password"),
        (["--admin-password", "x"], "both a name and a password"),
        (["--admin-user", "root", "--admin-password", ""], "password is empty"),
        (["--admin-user", "ro ot", "--admin-password", "x"], "white space"),
        (["--admin-user", "ro\x1bot", "--admin-password", "x"], "control characters"),
        (["--admin-user", "root", "--admin-password-file", "/no/file"], "/no/file can't be read"),
        (["--admin-password", "x", "--admin-password-file", "y"], "exclude each other"),
    ],
)
def test_settings_that_can_not_be(arguments: list[str], words: str) -> None:
    with pytest.raises((AddressError, SettingsError), match=words):
        settings_of(parsed(*arguments))


def test_the_password_is_shown_nowhere() -> None:
    settings = settings_of(parsed("--admin-user", "root", "--admin-password", "hunter2"))
    assert settings.admin_password == "hunter2"
    assert "hunter2" not in repr(settings)
    environment = {"HASHSERVER_ADMIN_PASSWORD": "hunter2"}
    parser = argparse.ArgumentParser()
    add_arguments(parser, environment)
    assert "hunter2" not in parser.format_help()


@pytest.mark.parametrize("command", [["bitbake_hashserv"], ["main", "serve"]])
def test_wrong_usage_exits_with_two(tmp_path: Path, command: list[str]) -> None:
    for arguments in (
        ["--anon-perms", "@all"],
        ["--no-such-flag"],
        ["--log", "LOUD"],
        ["--bind", "wss://:0"],
        ["--audit-log", "no/such/directory/audit"],
        ["--admin-user", "root", "--admin-password-file", "no-such-file"],
    ):
        ended = subprocess.run(
            [sys.executable, "-m", f"hashserv.cli.{command[0]}", *command[1:], *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert ended.returncode == 2
        assert "error: " in ended.stderr
        assert "Traceback" not in ended.stderr
    assert list(tmp_path.iterdir()) == []


def test_anonymous_permissions(start_server: StartServer) -> None:
    server = start_server("--anon-perms", "@read")
    with Peer(server.address) as peer:  # it may report, but that is not stored
        assert peer.report(digest(1), digest(2), digest(3)) == digest(3)
        assert peer.lookup(digest(1)) is None
        report = {"method": "m", "taskhash": "t", "unihash": digest(3)}
        refusal = peer.ask("report-equiv", report)["invoke-error"]["message"]
        assert refusal == ("Anonymous user is not allowed to access permissions(s) @read, @report")
    server = start_server("--anon-perms", "@none")
    with Peer(server.address) as peer:
        assert peer.ask("ping") == {"alive": True}
        assert "@read" in peer.ask("get-stream")["invoke-error"]["message"]


def test_read_only(start_server: StartServer) -> None:
    server = start_server()
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(2), digest(3))
    server.stop()
    server = start_server("--read-only", database=server.database)
    with Peer(server.address) as peer:
        assert peer.report(digest(4), digest(2), digest(5)) == digest(3)
        assert peer.lookup(digest(4)) is None
        assert peer.lookup(digest(1)) == digest(3)
        assert "read-only" in peer.ask("gc-sweep", {"mark": "m"})["invoke-error"]["message"]
