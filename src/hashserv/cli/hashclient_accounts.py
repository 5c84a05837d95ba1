"""The commands of ``bitbake-hashclient`` about users (INTERFACES.md §3).

Tokens go to standard output and nowhere else.
"""

import argparse
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from hashserv.client import Client
from hashserv.errors import ClientError

if TYPE_CHECKING:
    from hashserv.cli.bitbake_hashclient import AddCommand


def add_accounts(add: "AddCommand") -> None:
    """Add the commands, with `add`, which takes a name, what to run, and a text."""
    command = add("new-user", _new_user, "add a user, and show the token to log in with")
    _add_username(command, needed=True)
    _add_permissions(command)

    command = add("set-user-perms", _set_user_perms, "give a user other permissions")
    _add_username(command, needed=True)
    _add_permissions(command)

    command = add(
        "refresh-token", _refresh_token, "make and show a new token; the old one is void at once"
    )
    _add_username(command)

    command = add("get-user", _get_user, "show a user's permissions")
    _add_username(command)

    add("get-all-users", _get_all_users, "show all users and their permissions")

    command = add("delete-user", _delete_user, "delete a user")
    _add_username(command)


def _new_user(arguments: argparse.Namespace, client: Client) -> None:
    _print_user(client.new_user(arguments.username, arguments.permissions))


def _set_user_perms(arguments: argparse.Namespace, client: Client) -> None:
    _print_user(client.set_user_perms(arguments.username, arguments.permissions))


def _refresh_token(arguments: argparse.Namespace, client: Client) -> None:
    _print_user(client.refresh_token(arguments.username))


def _get_user(arguments: argparse.Namespace, client: Client) -> None:
    user = client.get_user(arguments.username)
    if user is None:
        raise ClientError(f"No user named '{arguments.username}' exists")
    _print_user(user)


def _get_all_users(_arguments: argparse.Namespace, client: Client) -> None:
    users = client.get_all_users()
    width = max(len(name) for name in ("Username", *(user["username"] for user in users)))
    print(f"{'Username':{width}} | Permissions")
    for user in users:
        print(f"{user['username']:{width}} | {' '.join(user['permissions'])}".rstrip())


def _delete_user(arguments: argparse.Namespace, client: Client) -> None:
    _print_user(client.delete_user(arguments.username))


def _add_username(command: argparse.ArgumentParser, *, needed: bool = False) -> None:
    command.add_argument(
        *("-u", "--username"),
        required=needed,
        metavar="USER",
        help="the user" if needed else "the user; by default who is logged in",
    )


def _add_permissions(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "permissions",
        nargs="*",
        metavar="PERM",
        help="@read, @report, @db-admin, @user-admin, @all; none at all takes every right away",
    )


def _print_user(user: Mapping[str, Any]) -> None:
    print(f"Username:    {user['username']}")
    if "permissions" in user:
        print(f"Permissions: {' '.join(user['permissions'])}".rstrip())
    if "token" in user:
        print(f"Token:       {user['token']}")
