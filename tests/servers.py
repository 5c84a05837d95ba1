"""Real server processes for tests."""

import os
import resource
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

START_SECONDS = 30.0 * float(os.environ.get("HASHSERV_TEST_PATIENCE", "1"))


class ServerProcess:
    """A ``hashserv serve`` process; it serves when the constructor returns.

    `log` is the file that holds what it wrote to stderr.
    """

    def __init__(
        self,
        directory: Path,
        *arguments: str,
        bind: str | None = None,
        database: Path | str | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.database = Path(database or directory / "hashserv.db")
        self.log = directory / "server.log"
        self._command = [
            *(sys.executable, "-m", "hashserv.cli.main", "serve"),
            *("--bind", bind or f"unix://{directory}/hashserve.sock"),
            *("--database", str(database or self.database)),
            *("--log", "INFO"),
            *arguments,
        ]
        self._environment = {**os.environ, **(environment or {})}
        self.start()

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdout=subprocess.PIPE,
                stderr=log,
                env=self._environment,
            )
        assert self.process.stdout is not None
        readable, _, _ = select.select([self.process.stdout], [], [], START_SECONDS)
        line = self.process.stdout.readline().decode() if readable else ""
        if not line.startswith("Serving on "):
            self.kill()
            raise AssertionError(f"the server did not start: {line!r}\n{self.log.read_text()}")
        self.address = line.split()[2]

    def stop(self) -> int:
        """End it as an administrator would, and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self._reap()

    def kill(self) -> None:
        """End it as a power loss of the process would."""
        if self.process.poll() is None:
            self.process.kill()
        self._reap()

    def log_text(self) -> str:
        return self.log.read_text()

    def resident_bytes(self) -> int:
        """Return how much memory the process holds."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize()

    def _reap(self) -> int:
        code = self.process.wait(START_SECONDS)
        if self.process.stdout is not None:
            self.process.stdout.close()
        return code


def wait_for(condition: Callable[[], object], *, seconds: float = START_SECONDS) -> None:
    """Wait until a callable says yes; for what can't be waited for otherwise."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError("it did not happen in time")
        time.sleep(0.005)
