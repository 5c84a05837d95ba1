"""From command to rule: one short function for each command (PROTOCOL.md §5).

Commands that change over to a stream mode, and reports, which come in groups, are the session's;
those about users are in `hashserv.server.account_handlers`.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any, Final

from hashserv import model
from hashserv.equivalence.accounts import Account, Accounts
from hashserv.equivalence.collection import Collection
from hashserv.equivalence.login_limits import Failures
from hashserv.equivalence.mapping import Equivalences
from hashserv.equivalence.statistics import Statistics
from hashserv.server.access import Access
from hashserv.server.snapshot_feed import SnapshotFeeds
from hashserv.store.base import Store
from hashserv.wire import commands
from hashserv.wire.commands import Command
from hashserv.wire.handshake import Greeting
from hashserv.wire.server import encode_server_headers

MOST_REFUSALS: Final = 100
"""Refused account commands of a peer that go into the audit log within a minute: anybody can make
them."""


@dataclass(frozen=True)
class Services:
    """What sessions share."""

    equivalences: Equivalences
    collection: Collection
    statistics: Statistics
    store: Store
    accounts: Accounts
    access: Access
    snapshots: SnapshotFeeds
    server_id: str = ""
    """Another one each time a server starts, by which it recognizes itself as its upstream."""
    unfinished: set[asyncio.Task[object]] = field(default_factory=set)
    """Account commands whose peer may be gone, and which are carried out all the same."""
    refusals: Failures = field(default_factory=partial(Failures, MOST_REFUSALS))
    """Account commands that were refused, which are written down up to a number for each peer."""

    def headers(self, greeting: Greeting) -> bytes:
        """Return what the server sends after a greeting."""
        return encode_server_headers(greeting, self.server_id, self.snapshots.extensions)


Handler = Callable[[Services, Any], Awaitable[object]]


async def _ping(_services: Services, _command: Command) -> object:
    return {"alive": True}


async def _get(services: Services, command: commands.Get) -> object:
    key = model.MappingKey(command.method, command.taskhash)
    if command.all:
        return _joined(await services.equivalences.task(key))
    unihash = await services.equivalences.get(key)
    return None if unihash is None else _mapping(*key, unihash)


async def _get_outhash(services: Services, command: commands.GetOuthash) -> object:
    asked = (command.method, command.outhash, command.taskhash)
    if command.with_unihash:
        return _joined(await services.equivalences.equivalent(*asked))
    row = await services.equivalences.outhash(*asked)
    return None if row is None else row._asdict()


async def _report_equiv(services: Services, command: commands.ReportEquiv) -> object:
    unihash = services.equivalences.checked_unihash(command.unihash)
    mapping = model.Mapping(command.method, command.taskhash, unihash)
    held = await services.equivalences.report_equivalent(mapping)
    return _mapping(mapping.method, mapping.taskhash, held)


async def _get_stats(services: Services, _command: Command) -> object:
    stats: dict[str, object] = {"requests": asdict(services.statistics.summary())}
    upstream = services.equivalences.upstream_summary()
    return stats if upstream is None else {**stats, "upstream": upstream}


async def _reset_stats(services: Services, _command: Command) -> object:
    return {"requests": asdict(services.statistics.reset())}


async def _backfill_wait(services: Services, _command: Command) -> object:
    return {"tasks": await services.equivalences.backfill_wait()}


async def _remove(services: Services, command: commands.Remove) -> object:
    return {"count": await services.collection.remove(command.where)}


async def _gc_mark(services: Services, command: commands.GcMark) -> object:
    (count,) = await services.collection.mark(command.mark, [command.where])
    return {"count": count}


async def _gc_status(services: Services, _command: Command) -> object:
    return (await services.collection.status())._asdict()


async def _gc_sweep(services: Services, command: commands.GcSweep) -> object:
    return {"count": await services.collection.sweep(command.mark)}


async def _clean_unused(services: Services, command: commands.CleanUnused) -> object:
    return {"count": await services.collection.clean_unused(command.max_age_seconds)}


async def _get_db_usage(services: Services, _command: Command) -> object:
    usage = await services.store.usage()
    return {"usage": {table: {"rows": rows} for table, rows in usage.items()}}


async def _get_db_query_columns(services: Services, _command: Command) -> object:
    return {"columns": services.collection.query_columns()}


HANDLERS: Final[dict[type[Command], Handler]] = {
    commands.Ping: _ping,
    commands.Get: _get,
    commands.GetOuthash: _get_outhash,
    commands.ReportEquiv: _report_equiv,
    commands.GetStats: _get_stats,
    commands.ResetStats: _reset_stats,
    commands.BackfillWait: _backfill_wait,
    commands.Remove: _remove,
    commands.GcMark: _gc_mark,
    commands.GcStatus: _gc_status,
    commands.GcSweep: _gc_sweep,
    commands.CleanUnused: _clean_unused,
    commands.GetDbUsage: _get_db_usage,
    commands.GetDbQueryColumns: _get_db_query_columns,
}


async def report(
    services: Services, account: Account | None, reports: list[model.Report]
) -> list[dict[str, str]]:
    """Store a group of reports, or only answer them where they may not be (PROTOCOL.md §8.2)."""
    if services.access.may_store(account):
        unihashes = await services.equivalences.report(reports)
    else:
        unihashes = [await services.equivalences.preview(report) for report in reports]
    return [
        _mapping(report.method, report.taskhash, unihash)
        for report, unihash in zip(reports, unihashes, strict=True)
    ]


def checked_report(
    services: Services, account: Account | None, command: commands.Report
) -> model.Report:
    """Return a report request as a report; its owner is whoever is logged in (PROTOCOL.md §7).

    Raises:
        InvokeError: Its unihash is none.
    """
    unihash = services.equivalences.checked_unihash(command.unihash)
    return model.Report(
        command.method,
        command.taskhash,
        command.outhash,
        unihash,
        command.owner if account is None else account.username,
        command.PN,
        command.PV,
        command.PR,
        command.task,
        command.outhash_siginfo,
    )


def _mapping(method: str, taskhash: str, unihash: str) -> dict[str, str]:
    return {"taskhash": taskhash, "method": method, "unihash": unihash}


def _joined(found: model.Equivalent | None) -> object:
    if found is None:
        return None
    return {**found.outhash._asdict(), "unihash": found.unihash, "gc_mark": found.gc_mark}
