"""A server process, from its start to its end."""

import signal
import socket
from pathlib import Path

from tests.conftest import StartServer
from tests.servers import ServerProcess


def test_answers_and_ends_with_zero(server: ServerProcess) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(server.address.removeprefix("unix://"))
        connection.sendall(b'OEHASHEQUIV 1.1\n\n{"ping": {}}\n')
        assert connection.recv(100) == b'{"alive":true}\n'
    socket_file = Path(server.address.removeprefix("unix://"))
    assert socket_file.is_socket()
    assert server.stop() == 0
    assert not socket_file.exists()


def test_interrupt_ends_it_too(start_server: StartServer) -> None:
    server = start_server(bind="localhost:0")
    server.process.send_signal(signal.SIGINT)
    assert server.stop() == 0
