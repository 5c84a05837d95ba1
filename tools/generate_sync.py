"""Make the blocking client, and its WebSocket, of the asynchronous ones.

Run as ``python -m tools.generate_sync``; with ``--check`` it only tells whether that is needed.
"""

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "src" / "hashserv"
CLIENT = PACKAGE / "client"
TRANSPORT = PACKAGE / "transport"

MODULES = {
    CLIENT / "aio.py": CLIENT / "sync.py",
    CLIENT / "aio_caller.py": CLIENT / "sync_caller.py",
    CLIENT / "aio_connection.py": CLIENT / "sync_connection.py",
    TRANSPORT / "async_websocket.py": TRANSPORT / "sync_websocket.py",
}

HEADER = "# Made of {source} by tools/generate_sync.py: change it there, then `make generate`.\n"

REPLACEMENTS = [
    (r"\basync (def|for|with)\b", r"\1"),
    (r"\bawait ", ""),
    (r"\bAsyncIterator\b", "Iterator"),
    (r"\bAsync(Caller|Client|Connection)\b", r"\1"),
    (r"\bAsync(Stream|WebSocket)\b", r"Sync\1"),
    (r"\basync_(stream|websocket)\b", r"sync_\1"),
    (r"\baio_(caller|connection)\b", r"sync_\1"),
    (r"\b__a(enter|exit)__\b", r"__\1__"),
    (r"\bfor callers in an event loop\b", "for callers that block"),
    (r"\b(CONNECT_UNIX_AT_ONCE: Final\[bool\]) = False", r"\1 = True"),
]


def generate(source: Path) -> str:
    """Return the text of the blocking module that is made of an asynchronous one."""
    text = HEADER.format(source=source.name) + source.read_text()
    for pattern, replacement in REPLACEMENTS:
        text = re.sub(pattern, replacement, text)
    for command in (["check", "--quiet", "--select", "I", "--fix"], ["format"]):
        # Names and lines are shorter now, so imports sort and lines break in other places.
        text = subprocess.run(
            [sys.executable, "-m", "ruff", *command, "--stdin-filename", str(source), "-"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    return text


def main(arguments: list[str]) -> int:
    stale = 0
    for source, path in MODULES.items():
        text = generate(source)
        if path.exists() and path.read_text() == text:
            continue
        stale += 1
        if "--check" not in arguments:
            path.write_text(text)
            print(f"made {path}")
        else:
            print(f"{path} is out of date: run `make generate`", file=sys.stderr)
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
