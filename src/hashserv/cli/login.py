"""Who a command logs in as: flags, a file with the password, ``~/.netrc`` (INTERFACES.md §3)."""

import argparse
import netrc
import sys
from dataclasses import dataclass, field

from hashserv import create_client
from hashserv.cli.secret_files import first_line
from hashserv.client import Client


@dataclass(frozen=True)
class Login:
    """Who to be on a server.

    Args:
        username: Who to log in as; `None` for nobody.
        password: That user's token.
        become: The user to act as then, or `None`.
    """

    username: str | None = None
    password: str | None = field(default=None, repr=False)
    become: str | None = None

    def connect(self, address: str) -> Client:
        """Return a client that acts as this user. The caller closes it.

        Raises:
            InvokeError: The server refused to let it become another.
            ConnectionError: There is no server.
        """
        client = create_client(address, self.username, self.password)
        try:
            if self.become is not None:
                client.become_user(self.become)
        except BaseException:
            client.close()
            raise
        return client


def add_login(parser: argparse.ArgumentParser) -> None:
    """Add the flags that `login_of` reads."""
    parser.add_argument(
        *("-l", "--login"),
        metavar="USER",
        help="log in as this user; by default as ~/.netrc says for the address",
    )
    password = parser.add_mutually_exclusive_group()
    password.add_argument(
        *("-p", "--password"),
        help="the user's token; other users of this machine can see it in the list of processes, "
        "so that --password-file or ~/.netrc is better",
    )
    password.add_argument(
        "--password-file",
        metavar="FILE",
        help="the token is the first line of this file; '-' is standard input",
    )
    parser.add_argument(
        *("-b", "--become"), metavar="USER", help="act as this user, once logged in"
    )
    parser.add_argument(
        *("-n", "--no-netrc"), action="store_true", help="do not look for a login in ~/.netrc"
    )


def check_login(parser: argparse.ArgumentParser, parsed: argparse.Namespace) -> None:
    """Exit with a usage error where the flags are half a login."""
    given = parsed.password is not None or parsed.password_file is not None
    if parsed.login is not None and not given:
        parser.error(
            "--login needs the user's token: give --password-file or --password, or leave --login "
            f"out and write 'machine {parsed.address} login {parsed.login} password TOKEN' to "
            "~/.netrc"
        )
    if parsed.login is None and given:
        parser.error("a password needs the user that it belongs to: give --login")


def login_of(parsed: argparse.Namespace) -> Login:
    """Return the login that the flags give, or ``~/.netrc``, or nobody's.

    Raises:
        SettingsError: The file with the password can't be read.
    """
    if parsed.login is not None:
        password = parsed.password
        if parsed.password_file is not None:
            password = first_line(parsed.password_file)
        return Login(parsed.login, password, parsed.become)
    if parsed.no_netrc:
        return Login(become=parsed.become)
    username, password = netrc_login(parsed.address)
    return Login(username, password, parsed.become)


def netrc_login(address: str) -> tuple[str | None, str | None]:
    """Return the login and password that ``~/.netrc`` has for an address, if it does.

    What is wrong with the file is told on standard error.
    """
    try:
        found = netrc.netrc().authenticators(address)
    except FileNotFoundError:
        return None, None
    except netrc.NetrcParseError as error:
        # What is wrong there may be a part of a password, which Python's words would show.
        reason = "not understood" if "token" in error.msg else error.msg
        return _warn(f"near line {error.lineno}: {reason}" if error.lineno else reason)
    except OSError as error:
        return _warn(f"can't read {error.filename}: {error.strerror}")
    except UnicodeDecodeError:
        return _warn("it is no text")
    if found is None or not found[0]:
        return None, None
    username, _, password = found
    if not password:
        return _warn(f"it has no password for {username} at {address}")
    return username, password


def _warn(reason: str) -> tuple[None, None]:
    print(f"WARNING: No login is taken from ~/.netrc: {reason}", file=sys.stderr)
    return None, None
