"""What a task produced, as a method that BitBake finds by name."""

from typing import Any, BinaryIO

OUTHASH = "5" * 64


def of_task(_path: str, sigfile: BinaryIO, task: str, _d: Any) -> str:
    """Write what the outhash is made of, and return it."""
    sigfile.write(f"do_{task}\n".encode() * 20_000)
    return OUTHASH
