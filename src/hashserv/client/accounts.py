"""What a client sends about users, itself among them (PROTOCOL.md §5, §7). No I/O."""

from collections.abc import Iterator

from hashserv.errors import ClientError


def introduction(
    username: str | None, password: str | None, became: str | None
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the requests, as command and arguments, that tell a server who a client is.

    Args:
        username: Who it logs in as; empty or `None` for nobody.
        password: That user's token.
        became: The user that it acts as instead, or `None`.

    Raises:
        ClientError: There is a login without a password.
    """
    if username:
        if password is None:
            raise ClientError(
                f"The login '{username}' has no password: give the token that new_user or "
                "refresh_token returned"
            )
        yield "auth", {"username": username, "token": password}
    if became is not None:
        yield "become-user", {"username": became}


def about(username: str | None) -> dict[str, str]:
    """Return the arguments of a request about a user, or with `None` about whoever asks."""
    return {} if username is None else {"username": username}
