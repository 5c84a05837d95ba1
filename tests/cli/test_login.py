"""``bitbake-hashclient``: whom it logs in as."""

from pathlib import Path

import pytest

from hashserv.cli.login import Login
from tests.cli.test_bitbake_hashclient import run
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD, start_guarded
from tests.proxies import CuttingProxy
from tests.servers import ServerProcess

ADMIN_LINES = f"Username:    {ADMIN}\nPermissions: @all @db-admin @read @report @user-admin\n"


@pytest.fixture
def server(start_server: StartServer, short_tmp: Path) -> ServerProcess:
    return start_guarded(start_server, short_tmp)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home directory without a ``.netrc``."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write_netrc(home: Path, text: str, *, mode: int = 0o600) -> None:
    path = home / ".netrc"
    path.write_text(text)
    path.chmod(mode)


def entry(address: str, *, login: str = ADMIN, password: str = PASSWORD) -> str:
    return f'machine {address} login {login} password "{password}"\n'


def assert_nobody(server: ServerProcess, *arguments: str) -> str:
    """Check that it is anonymous then, and return what stands on stderr."""
    ended = run(server, *arguments, "get-user", code=1)
    assert ended.stdout.startswith("ERROR: Anonymous user is not allowed")
    return ended.stderr


@pytest.mark.parametrize("flags", [["--login", "--password"], ["-l", "-p"]])
def test_flags(server: ServerProcess, flags: list[str]) -> None:
    login, password = flags
    ended = run(server, login, ADMIN, password, PASSWORD, "get-user")
    assert (ended.stdout, ended.stderr) == (ADMIN_LINES, "")


def test_a_password_file(server: ServerProcess, short_tmp: Path) -> None:
    file = short_tmp / "password"
    for text in (PASSWORD, PASSWORD + "\n", PASSWORD + "\r\nand more\n"):
        file.write_bytes(text.encode())
        ended = run(server, "-l", ADMIN, "--password-file", str(file), "get-user")
        assert ended.stdout == ADMIN_LINES


def test_a_password_on_standard_input(server: ServerProcess) -> None:
    login = ["-l", ADMIN, "--password-file", "-"]
    assert run(server, *login, "get-user", stdin=PASSWORD + "\n").stdout == ADMIN_LINES
    # What follows is the command's.
    lines = f"{PASSWORD}\nunihash 0\nunihash 1\n"
    ended = run(server, *login, "gc-mark-stream", "m", stdin=lines)
    assert ended.stdout == "New hashes marked: 0\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory"),
        (b"", "no password in its first line"),
        (b"\nsecret\n", "no password in its first line"),
        (b"\xff\xfe\n", "it is no text"),
    ],
)
def test_a_password_file_that_is_none(
    server: ServerProcess, short_tmp: Path, content: bytes | None, words: str
) -> None:
    file = short_tmp / "token"
    if content is not None:
        file.write_bytes(content)
    ended = run(server, "-l", ADMIN, "--password-file", str(file), "ping", code=1)
    assert ended.stdout == ""
    assert ended.stderr.startswith("ERROR: ")
    assert str(file) in ended.stderr
    assert words in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["-l", ADMIN], ["--password-file", "--password", "~/.netrc"]),
        (["-p", "secret"], ["--login"]),
        (["--password-file", "-"], ["--login"]),
        (["-l", ADMIN, "-p", "secret", "--password-file", "-"], ["not allowed with"]),
    ],
)
def test_half_a_login_is_wrong_usage(
    server: ServerProcess, arguments: list[str], words: list[str]
) -> None:
    ended = run(server, *arguments, "ping", code=2)
    assert "usage:" in ended.stderr
    assert all(word in ended.stderr for word in words)
    assert "secret" not in ended.stderr
    assert ended.stdout == ""


def test_the_help_warns_of_passwords_in_arguments(server: ServerProcess) -> None:
    text = " ".join(run(server, "--help").stdout.split())
    assert "list of processes" in text
    assert "so that --password-file or ~/.netrc is better" in text


def test_a_wrong_password_is_tried_once(server: ServerProcess) -> None:
    proxy = CuttingProxy(server.address)
    ended = run(proxy.address, "-l", ADMIN, "-p", "wrong", "ping", code=1)
    assert ended.stdout == f"ERROR: Unable to authenticate as {ADMIN}\n"
    assert ended.stderr == ""
    assert proxy.connections == 1
    proxy.close()


@pytest.mark.parametrize(
    "arguments", [["-l", ADMIN, "-p", "secret\udcff", "ping"], ["get-user", "-u", "secret\udcff"]]
)
def test_an_argument_that_is_no_text(server: ServerProcess, arguments: list[str]) -> None:
    ended = run(server, *arguments, code=1)
    assert ended.stdout == ""
    assert ended.stderr == "ERROR: An argument or a reply is no utf-8 text\n"


# ~/.netrc


@pytest.mark.parametrize("bind", [None, "127.0.0.1:0", "ws://127.0.0.1:0"])
def test_netrc(start_server: StartServer, short_tmp: Path, home: Path, bind: str | None) -> None:
    server = start_guarded(start_server, short_tmp, bind=bind)
    write_netrc(home, entry("example.org:8686", login="bob") + entry(server.address))
    ended = run(server, "get-user")
    assert (ended.stdout, ended.stderr) == (ADMIN_LINES, "")
    assert assert_nobody(server, "--no-netrc") == ""
    assert assert_nobody(server, "-n") == ""


def test_netrc_gives_way_to_flags(server: ServerProcess, home: Path) -> None:
    write_netrc(home, entry(server.address, password="wrong"))
    assert run(server, "-l", ADMIN, "-p", PASSWORD, "get-user").stdout == ADMIN_LINES
    ended = run(server, "get-user", code=1)
    assert ended.stdout == f"ERROR: Unable to authenticate as {ADMIN}\n"


@pytest.mark.parametrize(
    "text", ["", entry("hashserv.example.org:8686"), "machine ADDRESS account a password secret\n"]
)
def test_netrc_without_a_login_for_the_server(server: ServerProcess, home: Path, text: str) -> None:
    write_netrc(home, text.replace("ADDRESS", server.address))
    assert assert_nobody(server) == ""


@pytest.mark.parametrize(
    ("text", "mode", "words"),
    [
        ("nonsense secret\n", 0o600, "near line 1: not understood"),
        ("machine ADDRESS login admin password a secret", 0o600, "near line 1: not understood"),
        ("machine ADDRESS login admin password secret\n", 0o644, "access permissions must"),
        ("machine ADDRESS login admin\n", 0o600, "it has no password for admin at ADDRESS"),
    ],
)
def test_a_broken_netrc_is_a_warning(
    server: ServerProcess, home: Path, text: str, mode: int, words: str
) -> None:
    write_netrc(home, text.replace("ADDRESS", server.address), mode=mode)
    warning = assert_nobody(server)
    assert warning.startswith("WARNING: No login is taken from ~/.netrc: ")
    assert words.replace("ADDRESS", server.address) in warning
    assert "secret" not in warning
    assert warning.count("\n") == 1
    ended = run(server, "ping", "-q", "-n", "1")
    assert ended.stdout.startswith("Number of pings: 1\n"), "the command goes on"
    assert ended.stderr == warning


def test_a_netrc_that_is_no_file(server: ServerProcess, home: Path) -> None:
    (home / ".netrc").mkdir()
    assert "~/.netrc: can't read" in assert_nobody(server)


# Being another.


@pytest.mark.parametrize("flag", ["-b", "--become"])
def test_become(server: ServerProcess, home: Path, flag: str) -> None:
    write_netrc(home, entry(server.address))
    run(server, "new-user", "-u", "alice", "@read")
    ended = run(server, flag, "alice", "get-user")
    assert ended.stdout == "Username:    alice\nPermissions: @read\n"
    ended = run(server, flag, "alice", "get-all-users", code=1)
    assert ended.stdout.startswith("ERROR: alice is not allowed to access")
    ended = run(server, flag, "ghost", "get-user", code=1)
    assert ended.stdout == "ERROR: User ghost doesn't exist\n"
    ended = run(server, "-n", flag, "alice", "get-user", code=1)
    assert ended.stdout.startswith("ERROR: Anonymous user is not allowed")


def test_clients_of_stress_log_in(server: ServerProcess, home: Path) -> None:
    stress = ["stress", "--clients", "3", "--requests", "5", "--report"]
    assert run(server, *stress, code=1).stdout.startswith("ERROR: Anonymous user is not allowed")
    write_netrc(home, entry(server.address))
    assert "Number of requests: 15\n" in run(server, *stress).stdout
    login = ["-l", ADMIN, "--password-file", "-"]  # which can be read only once
    ended = run(server, *login, *stress, stdin=PASSWORD + "\n")
    assert "Hashes found: 15\n" in ended.stdout
    run(server, "new-user", "-u", "alice")
    ended = run(server, "-b", "alice", *stress, code=1)
    assert ended.stdout.startswith("ERROR: alice is not allowed")


def test_a_login_is_printed_without_its_password() -> None:
    assert "secret" not in repr(Login("alice", "secret", "bob"))
