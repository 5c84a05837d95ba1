"""TLS of a real server: what is wrong with its files, new ones while it serves, silent clients."""

import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hashserv import create_client
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.servers import ServerProcess, wait_for

ALIVE = {"alive": True}


@pytest.fixture
def others(tmp_path: Path) -> Certificates:
    """Another authority."""
    return Certificates(tmp_path, "others")


def port_of(server: ServerProcess) -> int:
    return int(server.address.split(":")[2].partition("/")[0])


WRONG: dict[str, tuple[Callable[[Certificates, Certificates], list[str]], str]] = {
    "no file": (lambda _, __: ["--tls-cert", "/no/file"], "can't be read: No such file"),
    "no certificate": (lambda _, __: ["--tls-cert", __file__], "holds no certificate"),
    "expired": (lambda ours, _: ["--tls-cert", ours.server(days=(-9, -1))], "has expired"),
    "not yet": (lambda ours, _: ["--tls-cert", ours.server(days=(1, 9))], "is not valid yet"),
    "another key": (
        lambda ours, others: ["--tls-cert", ours.apart()[0], "--tls-key", others.apart()[1]],
        "does not belong to the certificate",
    ),
    "no authority": (
        lambda ours, _: ["--tls-cert", ours.server(), "--tls-client-ca", "/no/ca"],
        "'/no/ca' can't be read",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_files_that_can_not_be_used_are_named_at_the_start(
    wrong: str, certificates: Certificates, others: Certificates, tmp_path: Path
) -> None:
    make, words = WRONG[wrong]
    command = [sys.executable, "-m", "hashserv.cli.bitbake_hashserv", "--bind", "wss://localhost:0"]
    ended = subprocess.run(
        [*command, *make(certificates, others)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert ended.stderr.startswith("ERROR: ")
    assert ended.stderr.count("\n") == 1
    assert words in ended.stderr
    assert not (tmp_path / "hashserv.db").exists(), "nothing half done"


@pytest.mark.parametrize("bind", ["wss://localhost:0", "tls://localhost:0"])
def test_a_new_certificate_counts_for_new_connections(
    bind: str,
    certificates: Certificates,
    others: Certificates,
    start_server: StartServer,
    tmp_path: Path,
) -> None:
    file = tmp_path / "server.pem"
    shutil.copy(certificates.server(), file)
    server = start_server("--tls-cert", str(file), bind=bind)
    with create_client(server.address, tls=certificates.context()) as before:
        assert before.ping() == ALIVE
        file.write_text("nonsense")
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "The certificate stays as it was" in server.log_text())
        with create_client(server.address, tls=certificates.context()) as meanwhile:
            assert meanwhile.ping() == ALIVE
        shutil.copy(others.server(), file)
        server.process.send_signal(signal.SIGHUP)
        wait_for(lambda: "The certificate was read again" in server.log_text())
        with create_client(server.address, tls=others.context()) as after:
            assert after.ping() == ALIVE
        connection = before._connection
        assert before.ping() == ALIVE
        assert before._connection is connection, "it was not dropped"


def test_silent_clients_take_no_others_place(
    certificates: Certificates, start_server: StartServer
) -> None:
    server = start_server(
        *("--tls-cert", certificates.server(), "--max-connections", "20"),
        bind="tls://localhost:0",
    )
    silent = [socket.create_connection(("localhost", port_of(server))) for _ in range(100)]
    with create_client(server.address, tls=certificates.context()) as client:
        assert client.ping() == ALIVE
    still_open = len(list(Path(f"/proc/{server.process.pid}/fd").iterdir()))
    assert still_open < 60
    for connection in silent:
        connection.close()


def test_a_client_needs_a_certificate_where_one_is_wanted(
    certificates: Certificates, others: Certificates, start_server: StartServer
) -> None:
    flags = ["--tls-cert", certificates.server(), "--tls-client-ca", others.authority]
    server = start_server(*flags, bind="wss://localhost:0")
    with create_client(server.address, tls=certificates.context(others.client())) as client:
        assert client.ping() == ALIVE
    for wrong in (None, certificates.client(), others.client(days=(-9, -1))):
        with (
            create_client(server.address, tls=certificates.context(wrong)) as client,
            pytest.raises(ConnectionError, match="HASHSERV_TLS_CERT"),
        ):
            client.ping()
