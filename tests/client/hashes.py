"""Hashes that tell what they are."""

import hashlib

METHOD = "TestMethod"


def hashed(*words: object) -> str:
    """64 hex digits, the same for the same words."""
    return hashlib.sha256(" ".join(map(str, words)).encode()).hexdigest()
