"""Tokens and passwords, and what they are verified by."""

import re

import pytest

from hashserv.equivalence import tokens

RECORDED = {  # from a database that the reference wrote: what a token is verified by
    "9P7dREgUmGtDmYnSxubobeB.WGkQ.JxFDDQcpy_9YY72uUoyNj92.eqNDKuQn9lG": (
        "sha256:93922574bc18102d:b01a6e7e6b3d408f025753296f5cbe1583698e77bd4834f4340a171c3de94cf4"
    ),
    "correct horse battery": (
        "sha256:8a988cb77df73c96:2dcf330b4b5d80523a6796d61fd7a86792fe97804e8fbe5d46ecc47413f83ecb"
    ),
}


def test_a_new_token_has_the_form_of_the_references_and_is_another_each_time() -> None:
    made = {tokens.new_token() for _ in range(100)}
    assert len(made) == 100
    assert all(re.fullmatch(r"[A-Za-z0-9._]{64}", token) for token in made)
    assert all(map(tokens.is_random, made))


@pytest.mark.parametrize("token", RECORDED)
def test_what_the_reference_stored_verifies(token: str) -> None:
    stored = RECORDED[token]
    assert not tokens.is_slow(stored)
    for verifies in (tokens.verifies_fast, tokens.verifies_slowly):
        assert verifies(stored, token)
        assert not verifies(stored, token + "x")
        assert not verifies(stored, "")


def test_a_token_is_stored_in_the_references_form() -> None:
    token = tokens.new_token()
    stored = tokens.stored_form(token)
    assert re.fullmatch("sha256:[0-9a-f]{16}:[0-9a-f]{64}", stored)
    assert stored != tokens.stored_form(token)
    assert tokens.verifies_fast(stored, token)
    assert not tokens.verifies_fast(stored, tokens.new_token())
    assert not tokens.needs_upgrade(stored, token)


@pytest.mark.parametrize("password", ["adminpw", "", "pässwörter sind schwer", "x" * 64 + "y"])
def test_a_password_is_stored_by_argon2(password: str) -> None:
    stored = tokens.stored_form(password)
    assert stored.startswith("$argon2id$")
    assert tokens.is_slow(stored)
    assert tokens.verifies_slowly(stored, password)
    assert not tokens.verifies_slowly(stored, password + "x")
    assert not tokens.verifies_fast(stored, password)
    assert not tokens.needs_upgrade(stored, password)


def test_a_password_with_one_round_of_sha256_or_old_parameters_is_to_be_stored_anew() -> None:
    password = "correct horse battery"
    assert tokens.needs_upgrade(RECORDED[password], password)
    weak = "$argon2id$v=19$m=1024,t=1,p=1$c29tZXNhbHQ$q7rMVwkFJPB/pmxMCpSq1w"
    assert tokens.needs_upgrade(weak, password)


@pytest.mark.parametrize(
    "stored",
    [
        *("", ":", "::", "sha256", "sha256:", "sha256:salt", "sha256:salt:", "none:salt:00"),
        *("shake_128:salt:00", "$argon2", "$argon2id$v=19$m=1,t=1,p=1$x$y", "sha256:é:é"),
    ],
)
def test_what_is_no_stored_form_verifies_nothing(stored: str) -> None:
    for verifies in (tokens.verifies_fast, tokens.verifies_slowly):
        assert not verifies(stored, "")
        assert not verifies(stored, stored)
