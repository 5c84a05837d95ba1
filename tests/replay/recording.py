"""Recorded conversations: what clients and servers of the reference said to each other.

A recording is a file of JSON lines in the order in which a proxy saw them; `README.md` beside the
recordings describes it. `read` makes steps of it that can be played again.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, NamedTuple

from tests.replay.peer import MAX_PIECE

_TESTS: Final = Path(__file__).resolve().parents[1]

FOLDERS: Final = (_TESTS.parents[1] / "shared" / "fixtures", _TESTS / "data")
"""All recordings may lie beside the checkout; those of less than 100 KB are part of it."""

CHUNK_START: Final = '{"chunk-stream": null}'


class Open(NamedTuple):
    """A client connects."""

    connection: int


class Send(NamedTuple):
    """A client sends a line, or a piece of one."""

    connection: int
    data: bytes


class Reply(NamedTuple):
    """The server answers; the chunks of a long reply are put together."""

    connection: int
    number: int
    """The how-maniest reply on its connection, from 1."""

    text: str


class Close(NamedTuple):
    """A side closes the connection."""

    connection: int
    by_server: bool


Step = Open | Send | Reply | Close


def find(kind: str, name: str) -> Path | None:
    """Return where a fixture lies, or nothing if it is neither beside the checkout nor in it."""
    paths = (folder / kind / name for folder in FOLDERS)
    return next((path for path in paths if path.is_file()), None)


def read(path: Path, *, leg: str | None = None) -> list[Step]:
    """Read a recording, or one leg of it."""
    records = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return list(_steps([record for record in records if record.get("leg") == leg]))


def _steps(records: list[dict[str, Any]]) -> Iterator[Step]:
    replies: dict[int, int] = {}
    chunks: dict[int, list[str]] = {}
    for record in records:
        connection, by_server = record["conn"], record["from"] == "server"
        match record:
            case {"event": "open"}:
                yield Open(connection)
            case {"event": "close"}:
                yield Close(connection, by_server)
            case _ if not by_server:
                yield Send(connection, _data(record))
            case _:
                line = record["data"].removesuffix("\n")
                if connection in chunks and line:
                    chunks[connection].append(line)
                elif line == CHUNK_START:
                    chunks[connection] = []
                else:
                    number = replies[connection] = replies.get(connection, 0) + 1
                    text = "".join(chunks.pop(connection, [line]))
                    yield Reply(connection, number, text)


def _data(record: dict[str, Any]) -> bytes:
    if "data_hex" in record:
        return bytes.fromhex(record["data_hex"])
    text: str = record["data"]
    if "frame" in record:  # as a stream carries it; whoever sends it over a WebSocket knows
        pieces = [text[at : at + MAX_PIECE] for at in range(0, len(text), MAX_PIECE)] or [""]
        text = "\n".join([CHUNK_START, *pieces, ""] if len(pieces) > 1 else pieces) + "\n"
    return text.encode()
