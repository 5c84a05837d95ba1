"""The load generators: C programs, so that they cost less than what they measure, and clients."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

_SOURCES: Final = Path(__file__).parent
_ROW: Final = 3 * 65  # TASKHASH OUTHASH UNIHASH, each with what separates it
_ROWS: Final = 1000  # that are read at once

METHOD: Final = "oe.sstatesig.OEOuthashBasic"


@dataclass(frozen=True, kw_only=True)
class Load:
    """What clients do.

    Args:
        mode: get, exists, report or ping; for Redis get or set.
        requests: How many, all clients together.
        clients: How many connections.
        depth: Requests in flight on each; 1 is lock-step.
        unknown: Percent of look-ups of what the server does not have.
        keys: Keys are taken from this range.
        offset: Where the range begins.
        websocket: Whether each line is a frame; not for Redis.
    """

    mode: str
    requests: int
    clients: int = 1
    depth: int = 1
    unknown: int = 0
    keys: int = 1
    offset: int = 0
    websocket: bool = False

    def arguments(self, address: str) -> list[str]:
        """Return the arguments, which both generators take but for ``-w``."""
        numbers = {
            "-c": self.clients,
            "-d": self.depth,
            "-n": self.requests,
            "-x": self.unknown,
            "-k": self.keys,
            "-o": self.offset,
        }
        pairs = [text for flag, number in numbers.items() for text in (flag, str(number))]
        return ["-a", address, "-m", self.mode, *pairs, *(["-w"] if self.websocket else [])]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a generator saw: requests a second, and how many replies were wrong."""

    per_second: float
    wrong: int


class Generators:
    """The compiled programs.

    Args:
        directory: Where to put them.

    Raises:
        subprocess.CalledProcessError: The C compiler does not like them.
    """

    def __init__(self, directory: Path) -> None:
        self.loadgen, self.redisload, self._rows = (
            self._compiled(name, directory) for name in ("loadgen", "redisload", "rows")
        )

    def rows(self, count: int) -> Iterator[tuple[str, str, str]]:
        """Yield taskhash, outhash and unihash of the first keys."""
        with subprocess.Popen([self._rows, str(count)], stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            while piece := process.stdout.read(_ROWS * _ROW):
                hashes = piece.decode().split()
                yield from zip(hashes[0::3], hashes[1::3], hashes[2::3], strict=True)

    @staticmethod
    def run(program: Path, address: str, load: Load) -> Outcome:
        """Run a generator to its end.

        Raises:
            RuntimeError: It could not; wrong replies are no reason, they are counted.
        """
        done = subprocess.run(
            [program, *load.arguments(address)], capture_output=True, text=True, check=False
        )
        if done.returncode not in (0, 1) or not done.stdout:
            raise RuntimeError(f"{program.name} gave up: {done.stderr.strip()}")
        return outcome_of(done.stdout)

    @staticmethod
    def _compiled(name: str, directory: Path) -> Path:
        source, program = _SOURCES / f"{name}.c", directory / name
        subprocess.run(["cc", "-O2", "-o", program, source], check=True)
        return program


def outcome_in_process(
    module: str, task: object, environment: Mapping[str, str] | None = None
) -> Outcome:
    """Have a Python program do a task, in a process of its own.

    Args:
        module: The program, which reads the task as JSON and prints as the generators do.
        task: A dataclass.
        environment: What its environment has beside ours.

    Raises:
        subprocess.CalledProcessError: It can't; it told why on stderr.
    """
    done = subprocess.run(
        [sys.executable, "-m", module],
        input=msgspec.json.encode(task),
        env={**os.environ, **(environment or {})},
        stdout=subprocess.PIPE,
        check=True,
    )
    return outcome_of(done.stdout.decode())


def outcome_of(line: str) -> Outcome:
    """Read the line of JSON that a generator prints."""
    said = json.loads(line)
    return Outcome(per_second=said["per_second"], wrong=said["wrong"])
