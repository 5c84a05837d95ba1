"""A proxy between a client and a server, which cuts connections where a test wants it."""

import contextlib
import socket
import threading
from collections.abc import Iterable

from hashserv.address import TcpAddress, UnixAddress, WebSocketAddress, parse_address

_PIECE = 4096
"""Bytes forwarded at once: small, so that a cut hits the middle of a conversation."""


class CuttingProxy:
    """Forward TCP connections to a server, and cut the first ones.

    Args:
        server: The server's address.
        cuts: For each of the first connections, after how many bytes of the server's it is cut;
            `None` never. Later ones are forwarded for as long as they last.
    """

    def __init__(self, server: str, cuts: Iterable[int | None] = ()) -> None:
        self._server = server
        self._cuts = iter(cuts)
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._closing = False
        self.connections = 0
        self.address = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._spawn(self._accept)

    def close(self) -> None:
        self._closing = True
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        for end in list(self._open):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listening.close()
        for end in self._open:
            end.close()

    def _spawn(self, target: object, *arguments: object) -> None:
        assert callable(target)
        thread = threading.Thread(target=target, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listening.accept()
            except OSError:
                return
            self._open.add(client)
            if self._closing:
                return
            self.connections += 1
            server = self._connect()
            self._open.add(server)
            self._spawn(_pump, client, server, None)
            self._spawn(_pump, server, client, next(self._cuts, None))

    def _connect(self) -> socket.socket:
        match parse_address(self._server):
            case UnixAddress(path):
                server = socket.socket(socket.AF_UNIX)
                server.connect(path)
                return server
            case TcpAddress(host, port) | WebSocketAddress(host=host, port=port):
                return socket.create_connection((host, port))
            case address:
                raise AssertionError(address)


def _pump(source: socket.socket, sink: socket.socket, limit: int | None) -> None:
    """Forward bytes until either end closes or the limit is reached; then end both."""
    with contextlib.suppress(OSError):
        while limit is None or limit > 0:
            data = source.recv(_PIECE if limit is None else min(_PIECE, limit))
            if not data:
                break
            sink.sendall(data)
            if limit is not None:
                limit -= len(data)
    for end in (source, sink):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
