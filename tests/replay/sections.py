"""What the reference answered from the database fixtures, as steps that can be played.

`README.md` beside the databases describes the files. A section is one conversation, on one
connection or several one after the other, on a fresh copy of the database.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.replay.peer import HELLO
from tests.replay.recording import Close, Open, Reply, Send, Step


class Section(NamedTuple):
    """A section with what it says of itself."""

    name: str
    server_arguments: list[str]
    steps: list[Step]


def read_sections(path: Path) -> list[Section]:
    """Read the sections of a file."""
    expected = json.loads(path.read_text(encoding="utf-8"))
    return [
        Section(section["name"], section["server_args"], list(_connections(section)))
        for section in expected["sections"]
    ]


def _connections(section: dict[str, Any]) -> Iterator[Step]:
    for number, connection in enumerate(section.get("connections", [section]), 1):
        yield from _steps(number, connection["steps"])


def _steps(connection: int, records: list[dict[str, Any]]) -> Iterator[Step]:
    yield Open(connection)
    yield Send(connection, HELLO)
    number = 0
    for record in records:
        if "send" in record:
            yield _send(connection, record["send"])
            if record["reply"] == {"__closed__": True}:
                yield Close(connection, by_server=True)
                return
            replies = [json.dumps(record["reply"])]
        else:
            yield _send(connection, {record["stream"]: None})
            yield Send(connection, "".join(f"{line}\n" for line in record["lines"]).encode())
            yield Send(connection, b"END\n")
            replies = ['"ok"', *record["replies"], "ok"]
        for reply in replies:
            number += 1
            yield Reply(connection, number, reply)
    yield Close(connection, by_server=False)


def _send(connection: int, message: object) -> Send:
    return Send(connection, json.dumps(message).encode() + b"\n")
