"""A peer that speaks the wire by hand, for what no client would send."""

import json
import socket
from types import TracebackType
from typing import Any, Self

from tests.servers import START_SECONDS

METHOD = "oe.sstatesig.OEOuthashBasic"
HELLO = b"OEHASHEQUIV 1.1\n\n"


def dial(address: str) -> socket.socket:
    """Connect to a server's address."""
    if address.startswith("unix://"):
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(START_SECONDS)
        connection.connect(address.removeprefix("unix://"))
        return connection
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), START_SECONDS)


def digest(number: int) -> str:
    """Return a hash, another for each number."""
    return f"{number:064x}"


class Peer:
    """A connection to a server, line by line."""

    def __init__(self, address: str, *, hello: bytes = HELLO) -> None:
        self.socket = dial(address)
        self._received = b""
        try:
            self.send(hello)
        except ConnectionError:
            self.close()
            raise

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def line(self) -> bytes | None:
        """Return the next line without its end, or `None` where the server closed."""
        while b"\n" not in self._received:
            try:
                data = self.socket.recv(65536)
            except ConnectionResetError:
                data = b""
            if not data:
                return None
            self._received += data
        line, _, self._received = self._received.partition(b"\n")
        return line

    def lines(self, count: int) -> list[bytes | None]:
        return [self.line() for _ in range(count)]

    def ask(self, command: str, arguments: object = None) -> Any:
        """Send a request and return its reply, or `None` where the server closed."""
        self.send(json.dumps({command: arguments}).encode() + b"\n")
        line = self.line()
        return None if line is None else json.loads(line)

    def refusal(self, data: bytes) -> str:
        """Send what is refused, check that the server then closes, and return its words."""
        self.send(data)
        line = self.line()
        assert line is not None, "closed without an answer"
        message: str = json.loads(line)["invoke-error"]["message"]
        assert self.closed()
        return message

    def closed(self) -> bool:
        """Tell whether the server closes without another word."""
        return self.line() is None

    def stream(self, command: str) -> None:
        assert self.ask(command) == "ok"

    def report(self, taskhash: str, outhash: str, unihash: str, **extra: str) -> str:
        hashes = {"taskhash": taskhash, "outhash": outhash, "unihash": unihash}
        arguments = {"method": METHOD, **hashes, **extra}
        reply: str = self.ask("report", arguments)["unihash"]
        return reply

    def lookup(self, taskhash: str) -> str | None:
        """Return the unihash of a taskhash; leaves the connection in message mode."""
        self.stream("get-stream")
        self.send(f"{METHOD} {taskhash}\nEND\n".encode())
        answer, end = self.lines(2)
        assert end == b"ok"
        assert answer is not None
        return answer.decode() or None

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
