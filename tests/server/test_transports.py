"""Where a server can listen, and where not."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from hashserv.address import UnixAddress
from hashserv.transport.unix import connect_unix
from tests.conftest import StartServer
from tests.peers import Peer
from tests.servers import ServerProcess


def start_fails(directory: Path, *arguments: str, code: int = 1) -> str:
    """Start a server that can't start, and return what it says."""
    ended = subprocess.run(
        [sys.executable, "-m", "hashserv.cli.bitbake_hashserv", *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == code
    if code == 1:
        assert ended.stderr.startswith("ERROR: ")
        assert ended.stderr.count("\n") == 1
    return ended.stderr


@pytest.mark.parametrize("bind", ["127.0.0.1:0", "[::1]:0", ":0", "localhost:0"])
def test_tcp(start_server: StartServer, bind: str) -> None:
    server = start_server(bind=bind)
    assert not server.address.endswith(":0")
    with Peer(server.address.replace("[::]", "[::1]").replace("0.0.0.0", "127.0.0.1")) as peer:
        assert peer.ask("ping") == {"alive": True}
        assert peer.socket.getpeername()[1] > 0


def test_all_addresses_means_both_families(start_server: StartServer) -> None:
    server = start_server(bind=":0")
    port = server.address.rpartition(":")[2]
    for host in ("127.0.0.1", "[::1]"):
        with Peer(f"{host}:{port}") as peer:
            assert peer.ask("ping") == {"alive": True}


def test_two_servers_share_a_port(start_server: StartServer) -> None:
    first = start_server("--reuseport", bind="127.0.0.1:0")
    second = start_server("--reuseport", bind=first.address)
    assert first.address == second.address
    first.stop()
    with Peer(second.address) as peer:
        assert peer.ask("ping") == {"alive": True}


def test_a_port_that_is_taken(start_server: StartServer, tmp_path: Path) -> None:
    server = start_server(bind="127.0.0.1:0")
    assert "Address already in use" in start_fails(tmp_path, "--bind", server.address)
    assert list(tmp_path.iterdir()) == []


def test_a_long_path(start_server: StartServer, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 100) / ("e" * 100)
    directory.mkdir(parents=True)
    server = start_server(bind=f"unix://{directory}/hashserve.sock")
    with connect_unix(f"{directory}/hashserve.sock", timeout=10) as connection:
        connection.sendall(b'OEHASHEQUIV 1.1\n\n{"ping": {}}\n')
        assert connection.recv(100) == b'{"alive":true}\n'
    assert server.stop() == 0
    assert not (directory / "hashserve.sock").exists()


def test_a_stale_socket_file_is_replaced(start_server: StartServer, server: ServerProcess) -> None:
    server.kill()
    path = UnixAddress(server.address.removeprefix("unix://")).path
    assert Path(path).is_socket()
    again = start_server(bind=server.address)
    with Peer(again.address) as peer:
        assert peer.ask("ping") == {"alive": True}


def test_a_live_socket_file_is_refused(server: ServerProcess, tmp_path: Path) -> None:
    assert "is listening there already" in start_fails(tmp_path, "--bind", server.address)
    assert list(tmp_path.iterdir()) == []
    with Peer(server.address) as peer:
        assert peer.ask("ping") == {"alive": True}


def test_only_one_of_many_takes_a_stale_socket_file(short_tmp: Path) -> None:
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(short_tmp / "stale.sock"))
    command = [
        *(sys.executable, "-m", "hashserv.cli.main", "serve"),
        *("--bind", f"unix://{short_tmp}/stale.sock", "--database"),
    ]
    servers = [
        subprocess.Popen(
            [*command, str(short_tmp / f"{number}.db")],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(4)
    ]
    outcomes = []
    for server in servers:
        assert server.stdout is not None
        outcomes.append(server.stdout.readline().startswith("Serving on"))
    assert sorted(outcomes) == [False, False, False, True]
    for server in servers:
        server.terminate()
        server.communicate()


def test_a_file_that_is_no_socket_stays(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_text("data")
    assert "is no socket" in start_fails(tmp_path, "--bind", f"unix://{precious}")
    assert precious.read_text() == "data"


@pytest.mark.parametrize(
    ("bind", "words", "code"),
    [
        ("unix://", "names no socket file", 2),
        ("unix://./no/such/directory/x.sock", "No such file or directory", 1),
        ("nonsense", "is no address", 2),
        ("localhost:99999", "is no address", 2),
        ("no-such-host.invalid:0", "Can't listen on", 1),
        ("ws://no-such-host.invalid:0", "Can't listen on", 1),
        ("unix://" + "n" * 200, "is too long", 1),
    ],
)
def test_addresses_that_can_not_be(tmp_path: Path, bind: str, words: str, code: int) -> None:
    assert words in start_fails(tmp_path, "--bind", bind, code=code)


def test_a_relative_path_is_relative_to_where_it_started(short_tmp: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-m", "hashserv.cli.main", "serve"],
        cwd=short_tmp,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert server.stdout is not None
    assert server.stdout.readline().split()[2] == f"unix://{short_tmp}/hashserve.sock"
    assert (short_tmp / "hashserv.db").exists()
    server.terminate()
    server.communicate()
    assert server.returncode == 0
    assert sorted(path.name for path in short_tmp.iterdir()) == ["hashserv.db"]
