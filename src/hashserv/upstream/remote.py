"""An upstream that is another server, near or far (PROTOCOL.md §8)."""

import ssl
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from hashserv.address import Address, TlsAddress, WebSocketAddress
from hashserv.equivalence.upstream import Unanswered, Upstream, UpstreamSummary
from hashserv.model import UNIHASH_DIGITS, Equivalent, MappingKey, Outhash
from hashserv.transport.tls import client_context
from hashserv.upstream.connection import Login, UpstreamConnection
from hashserv.upstream.pool import DEFAULT_TIMEOUT, Pool
from hashserv.upstream.questions import (
    Equivalents,
    Existences,
    Lookups,
    Outhashes,
    OuthashKey,
    Tasks,
)
from hashserv.upstream.snapshot import FollowedSnapshot
from hashserv.upstream.snapshot_file import SnapshotFile
from hashserv.wire.framing import DEFAULT_MAX_LINE


class RemoteUpstream(Upstream):
    """A server that is asked over the network; made in a running event loop, connects when asked.

    Args:
        address: The server's.
        timeout: Seconds that a question may take, all in all.
        own_id: The own server's ``server-id``, by which it recognizes itself; empty for none.
        unihash_digits: How many digits a unihash has at least; what has less is nonsense.
        username: Who to log in as; empty or `None` for nobody.
        token: That user's token.
        tls: How to do TLS; `None` for what the environment says now.
        snapshot: The file for a copy of all its mappings, which is made and followed from now on.

    Raises:
        AddressError: What the environment says of TLS can't be used.
        StoreError: The file of the snapshot can't be used.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        own_id: str = "",
        unihash_digits: int = UNIHASH_DIGITS,
        username: str | None = None,
        token: str | None = None,
        tls: ssl.SSLContext | None = None,
        snapshot: str | None = None,
    ) -> None:
        if tls is None and _speaks_tls(address):
            tls = client_context()  # once: reading the system's authorities takes long
        login = Login(username, token or "") if username else None
        self._pool = Pool(address, timeout=timeout, own_id=own_id, login=login, tls=tls)
        self._snapshot: FollowedSnapshot | None = None
        if snapshot is not None:
            self._snapshot = FollowedSnapshot(
                SnapshotFile(snapshot, str(address)),
                str(address),
                partial(
                    UpstreamConnection.open,
                    address,
                    own_id=own_id,
                    login=login,
                    tls=tls,
                    most_reply=DEFAULT_MAX_LINE,
                ),
                secret=token,
            )
        self._lookups = self._pool.kind(Lookups(unihash_digits), self._looked_up)
        self._existences = self._pool.kind(Existences(), self._existed)
        self._tasks = self._pool.kind(Tasks(unihash_digits))
        self._equivalents = self._pool.kind(Equivalents(unihash_digits))
        self._outhashes = self._pool.kind(Outhashes())

    @property
    def available(self) -> bool:
        return self._pool.available

    @property
    def has_copies(self) -> bool:
        return self._snapshot is not None and self._snapshot.has_mappings

    def copied(self, keys: Sequence[MappingKey]) -> list[str | None]:
        if self._snapshot is None:
            return super().copied(keys)
        return self._snapshot.lookup(keys)

    async def lookup(self, keys: Sequence[MappingKey]) -> list[str | Unanswered | None]:
        return await self._pool.ask(self._lookups, keys)

    async def exist(self, unihashes: Sequence[str]) -> list[bool | Unanswered]:
        return await self._pool.ask(self._existences, unihashes)

    async def task(self, key: MappingKey) -> Equivalent | Unanswered | None:
        (found,) = await self._pool.ask(self._tasks, [key])
        return found

    async def equivalents(self, keys: Sequence[OuthashKey]) -> list[Equivalent | Unanswered | None]:
        return await self._pool.ask(self._equivalents, keys)

    async def outhash(self, key: OuthashKey) -> Outhash | Unanswered | None:
        (found,) = await self._pool.ask(self._outhashes, [key])
        return found

    def summary(self) -> UpstreamSummary:
        summary = self._pool.summary()
        if self._snapshot is None:
            return summary
        return replace(summary, snapshot=self._snapshot.summary())

    async def close(self) -> None:
        if self._snapshot is not None:
            await self._snapshot.close()
        await self._pool.close()

    def _looked_up(self, keys: Sequence[MappingKey], unihashes: Sequence[str | None]) -> None:
        self.listener.looked_up(keys, unihashes)

    def _existed(self, unihashes: Sequence[str], exist: Sequence[bool]) -> None:
        self.listener.existed(unihashes, exist)


def _speaks_tls(address: Address) -> bool:
    return isinstance(address, TlsAddress) or (
        isinstance(address, WebSocketAddress) and address.secure
    )
