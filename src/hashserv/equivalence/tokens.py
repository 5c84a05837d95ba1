"""What users prove themselves by: random tokens, and passwords that people chose (PROTOCOL.md §7).

The database never holds either, but what they are verified by. Of a random token that is
``sha256:SALT:HEX``, as in the reference: 384 random bits can't be guessed, so a fast digest will
do. Of anything else it is an Argon2 hash, which takes some 20 milliseconds and 19 MiB a try.
"""

import base64
import functools
import hashlib
import hmac
import re
import secrets
from typing import Final

import argon2

_TOKEN_BYTES: Final = 48
_SALT_BYTES: Final = 8
_RANDOM: Final = re.compile(r"[A-Za-z0-9._]{64}")

_ARGON2: Final = "$argon2"
_HASHER: Final = argon2.PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
"""With OWASP's least parameters (2023): a login may not hurt builds on a small machine."""

_DIGESTS: Final = frozenset({"sha256", "sha384", "sha512"})


def new_token() -> str:
    """Return a random token: 64 characters of base64, with ``._`` for ``+/``."""
    return base64.b64encode(secrets.token_bytes(_TOKEN_BYTES), altchars=b"._").decode()


def stored_form(token: str) -> str:
    """Return what a token or a password is verified by. Slow for a password."""
    if not is_random(token):
        return _HASHER.hash(token)
    salt = secrets.token_hex(_SALT_BYTES)
    return f"sha256:{salt}:{_digest('sha256', salt, token)}"


def verifies_fast(stored: str, token: str) -> bool:
    """Tell whether a token is the right one; never where a password is stored."""
    algorithm, _, rest = stored.partition(":")
    salt, _, digest = rest.partition(":")
    if algorithm not in _DIGESTS or not digest:
        return False
    # In bytes: compare_digest takes no text that is not ASCII.
    return hmac.compare_digest(_digest(algorithm, salt, token).encode(), digest.encode())


def verifies_slowly(stored: str, token: str) -> bool:
    """Tell whether a token or a password is the right one; all cost what a password costs."""
    try:
        _HASHER.verify(stored if is_slow(stored) else _nobodys(), token)
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError):
        return verifies_fast(stored, token)
    return True


@functools.cache
def _nobodys() -> str:
    """Return what verifies nothing, and costs what a password costs."""
    return _HASHER.hash(secrets.token_hex())


def is_random(token: str) -> bool:
    """Tell whether a token is one that a server made, by its form."""
    return _RANDOM.fullmatch(token) is not None


def is_slow(stored: str) -> bool:
    """Tell whether it is a password that is verified, which belongs into a thread."""
    return stored.startswith(_ARGON2)


def needs_upgrade(stored: str, token: str) -> bool:
    """Tell whether a password is stored as only a token should be, or with other parameters."""
    if is_slow(stored):
        return _HASHER.check_needs_rehash(stored)
    return not is_random(token)


def _digest(algorithm: str, salt: str, token: str) -> str:
    return hashlib.new(algorithm, f"{salt}{token}".encode()).hexdigest()
