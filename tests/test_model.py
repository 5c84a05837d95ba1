"""The records, and what a unihash is."""

import pytest

from hashserv.model import (
    ALL_PERMISSIONS,
    DEFAULT_ANON_PERMS,
    MappingKey,
    Report,
    User,
    is_valid_unihash,
)


@pytest.mark.parametrize(
    ("value", "valid"),
    [
        ("0" * 64, True),
        ("0123456789abcdef" * 4, True),
        ("A" * 64, False),
        ("g" * 64, False),
        ("a" * 63, False),
        ("a" * 65, False),
        ("a" * 64 + "\n", False),
        ("a" * 63 + "\n", False),
        (" " + "a" * 63, False),
        ("٣" * 64, False),
        ("", False),
        (None, False),
        (b"a" * 64, False),
        (["a"] * 64, False),
        (int("1" * 64), False),
    ],
)
def test_a_unihash_is_64_hex_digits(value: object, valid: bool) -> None:
    assert is_valid_unihash(value) is valid


def test_shorter_unihashes_are_admitted_on_request() -> None:
    assert is_valid_unihash("a" * 40, least=40)
    assert is_valid_unihash("a" * 64, least=1)
    assert not is_valid_unihash("a" * 39, least=40)
    assert not is_valid_unihash("a" * 65, least=1)
    assert not is_valid_unihash("", least=1)


def test_a_report_knows_its_mapping() -> None:
    assert Report("m", "t", "o", "u").key == MappingKey("m", "t")


def test_permissions_are_those_of_the_protocol() -> None:
    assert {"@read", "@report", "@db-admin", "@user-admin", "@all"} == ALL_PERMISSIONS
    assert set(DEFAULT_ANON_PERMS) == {"@read", "@report", "@db-admin"}


def test_a_user_is_two_fields() -> None:
    username, permissions = User("a", ["@read"])
    assert (username, permissions) == ("a", ["@read"])
