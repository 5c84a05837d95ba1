"""The servers that are measured, each a process of its own on a TCP port of the loopback."""

import contextlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final, Self

from bench.generators import Generators, Load, Outcome

_HOST: Final = "127.0.0.1"
_PATIENCE_SECONDS: Final = 60.0


class Server:
    """A server process, which ends with the ``with`` block.

    Args:
        command: What to start.
        log: The file for what it says on stderr.
        program: The generator that speaks its protocol.
    """

    hello: ClassVar[bytes]
    ping_request: ClassVar[bytes]
    ping_reply: ClassVar[bytes]

    port = 0

    def __init__(self, command: list[str], *, log: Path, program: Path) -> None:
        self._program = program
        with log.open("ab") as file:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file)

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"{_HOST}:{self.port}"

    def under(self, load: Load) -> Outcome:
        """Put it under load and return what the generator saw."""
        return Generators.run(self._program, self.address, load)

    def connect(self) -> socket.socket:
        """Return a new connection, on which requests may follow."""
        connection = socket.create_connection((_HOST, self.port), _PATIENCE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(self.hello)
        return connection

    def ping(self, connection: socket.socket) -> bool:
        """Ask whether it is alive, and tell whether it says so."""
        connection.sendall(self.ping_request)
        reply = b""
        while not reply.endswith(b"\n"):
            piece = connection.recv(256)
            if not piece:
                return False
            reply += piece
        return self.ping_reply in reply

    def stop(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(_PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class Hashserv(Server):
    """Ours, as a user starts it: durable.

    Args:
        database: Its SQLite file, created if missing.
        cache_bytes: Its memory for answers.
        generators: The generators.
        binds: Where it listens; `under`, `connect` and `ping` use the first, which is a TCP port.
        more: More arguments.
        url: The database to use in the place of the file, beside which its log goes.

    Raises:
        RuntimeError: It does not start; its log tells why.
    """

    hello = b"OEHASHEQUIV 1.1\n\n"
    ping_request = b'{"ping": {}}\n'
    ping_reply = b"true"

    def __init__(
        self,
        database: Path,
        *,
        cache_bytes: int,
        generators: Generators,
        binds: Sequence[str] = (f"{_HOST}:0",),
        more: Sequence[str] = (),
        url: str | None = None,
    ) -> None:
        log = database.with_suffix(".log")
        command = [
            *(sys.executable, "-m", "hashserv.cli.main", "serve"),
            *("--database", url or str(database), "--cache-bytes", str(cache_bytes)),
            *(argument for bind in binds for argument in ("--bind", bind)),
            *more,
        ]
        super().__init__(command, log=log, program=generators.loadgen)
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _PATIENCE_SECONDS)
        line = self._process.stdout.readline().decode() if readable else ""
        if not line.startswith("Serving on "):
            self.stop()
            raise RuntimeError(f"the server did not start: {log.read_text()}")
        self.addresses = [line.split()[2]]
        for _ in binds[1:]:
            line = self._process.stdout.readline().decode()
            self.addresses.append(line.removeprefix("Also on ").strip())
        self.port = int(self.addresses[0].rpartition(":")[2])


class Redis(Server):
    """Redis, in memory alone or with every write synced.

    Args:
        program: The redis-server program.
        directory: Where it keeps its files.
        durable: Whether a write that was acknowledged survives a loss of power.
        generators: The generators.

    Raises:
        RuntimeError: It does not start.
    """

    hello = b""
    ping_request = b"PING\r\n"
    ping_reply = b"+PONG"

    def __init__(
        self, program: str, directory: Path, *, durable: bool, generators: Generators
    ) -> None:
        directory.mkdir()
        self.port = _free_port()
        command = [
            *(program, "--bind", _HOST, "--port", str(self.port), "--dir", str(directory)),
            *("--logfile", "redis.log", "--save", ""),
            *("--appendonly", "yes" if durable else "no", "--appendfsync", "always"),
            *("--auto-aof-rewrite-percentage", "0"),  # no rewriting while it is measured
        ]
        super().__init__(command, log=directory / "stderr.log", program=generators.redisload)
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self._answers():
            if time.monotonic() > end or self._process.poll() is not None:
                self.stop()
                raise RuntimeError(f"redis-server did not start; see {directory}")
            time.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), self.connect() as connection:
            return self.ping(connection)
        return False


def _free_port() -> int:
    with socket.create_server((_HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
    return port
