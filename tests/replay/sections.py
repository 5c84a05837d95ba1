"""What the reference answered from the database fixtures, as steps that can be played.

`README.md` beside the databases describes the files. A section is one conversation on one
connection, on a fresh copy of the database.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from tests.replay.peer import HELLO
from tests.replay.recording import Close, Open, Reply, Send, Step

CONNECTION = 1


class Section(NamedTuple):
    """A section with what it says of itself."""

    name: str
    steps: list[Step]


def read_sections(path: Path) -> list[Section]:
    """Read the sections that are conversations of one anonymous client."""
    expected = json.loads(path.read_text(encoding="utf-8"))
    return [
        Section(section["name"], list(_steps(section["steps"])))
        for section in expected["sections"]
        if "steps" in section
    ]


def _steps(records: list[dict[str, Any]]) -> Iterator[Step]:
    yield Open(CONNECTION)
    yield Send(CONNECTION, HELLO)
    number = 0
    for record in records:
        if "send" in record:
            yield _send(record["send"])
            if record["reply"] == {"__closed__": True}:
                yield Close(CONNECTION, by_server=True)
                return
            replies = [json.dumps(record["reply"])]
        else:
            yield _send({record["stream"]: None})
            yield Send(CONNECTION, "".join(f"{line}\n" for line in record["lines"]).encode())
            yield Send(CONNECTION, b"END\n")
            replies = ['"ok"', *record["replies"], "ok"]
        for reply in replies:
            number += 1
            yield Reply(CONNECTION, number, reply)
    yield Close(CONNECTION, by_server=False)


def _send(message: object) -> Send:
    return Send(CONNECTION, json.dumps(message).encode() + b"\n")
