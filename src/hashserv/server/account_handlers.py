"""From account command to rule, with the audit of each (PROTOCOL.md §5, §7)."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final

from hashserv.model import User
from hashserv.server import audit
from hashserv.server.handlers import Services
from hashserv.server.peer import Peer
from hashserv.wire import commands
from hashserv.wire.commands import AccountCommand, OwnAccountCommand

Handler = Callable[[Services, Peer, Any], Awaitable[object]]


async def answer(services: Services, peer: Peer, command: AccountCommand) -> object:
    """Carry an account command out, and write it down.

    It is done whole although the peer goes away meanwhile: else a change could go unrecorded, or
    be stored and not count for connections that there are.

    Raises:
        InvokeError: The peer may not, or it can't be done.
        StoreError: The database can't do it.
    """
    task = asyncio.get_running_loop().create_task(_carry_out(services, peer, command))
    services.unfinished.add(task)
    task.add_done_callback(partial(_finish, services))
    return await asyncio.shield(task)


def _finish(services: Services, task: asyncio.Task[object]) -> None:
    services.unfinished.discard(task)
    if not task.cancelled():
        task.exception()  # asyncio would log it where nobody waits any more; the audit has it


async def _carry_out(services: Services, peer: Peer, command: AccountCommand) -> object:
    try:
        services.access.check(command, peer)
        reply = await ACCOUNT_HANDLERS[type(command)](services, peer, command)
    except BaseException as error:
        if not services.refusals.wait(peer.origin):
            audit.record(peer, command, str(error) or "interrupted")
        services.refusals.add(peer.origin)
        raise
    audit.record(peer, command, audit.ALLOWED)
    return reply


async def _auth(services: Services, peer: Peer, command: commands.Auth) -> object:
    account, user = await services.accounts.log_in(
        command.username, command.token, peer=peer.origin
    )
    peer.login = peer.account = account
    return {"result": True, **user._asdict()}


async def _become_user(services: Services, peer: Peer, command: commands.BecomeUser) -> object:
    peer.account = await services.accounts.become(command.username)
    return await _find(services, command.username)


async def _get_user(services: Services, peer: Peer, command: commands.GetUser) -> object:
    return await _find(services, _subject(peer, command))


async def _get_all_users(services: Services, _peer: Peer, _command: commands.GetAllUsers) -> object:
    return {"users": [user._asdict() for user in await services.accounts.all()]}


async def _new_user(services: Services, _peer: Peer, command: commands.NewUser) -> object:
    user, token = await services.accounts.create(command.username, command.permissions_given)
    return {**user._asdict(), "token": token}


async def _set_user_perms(
    services: Services, _peer: Peer, command: commands.SetUserPerms
) -> object:
    user = await services.accounts.set_permissions(command.username, command.permissions_given)
    return user._asdict()


async def _refresh_token(services: Services, peer: Peer, command: commands.RefreshToken) -> object:
    username = _subject(peer, command)
    return {"username": username, "token": await services.accounts.refresh_token(username)}


async def _delete_user(services: Services, peer: Peer, command: commands.DeleteUser) -> object:
    username = _subject(peer, command)
    await services.accounts.delete(username)
    return {"username": username}


ACCOUNT_HANDLERS: Final[dict[type[AccountCommand], Handler]] = {
    commands.Auth: _auth,
    commands.BecomeUser: _become_user,
    commands.GetUser: _get_user,
    commands.GetAllUsers: _get_all_users,
    commands.NewUser: _new_user,
    commands.SetUserPerms: _set_user_perms,
    commands.RefreshToken: _refresh_token,
    commands.DeleteUser: _delete_user,
}


def _subject(peer: Peer, command: OwnAccountCommand) -> str:
    """Return whom a command is about: whoever gives it, by default."""
    if command.username is not None:
        return command.username
    if peer.account is None:
        raise RuntimeError("nobody may ask about itself without a login")
    return peer.account.username


async def _find(services: Services, username: str) -> dict[str, Any] | None:
    user: User | None = await services.accounts.find(username)
    return None if user is None else user._asdict()
