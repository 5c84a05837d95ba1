"""Asking an upstream over a few connections that all callers share."""

import asyncio
import logging
import ssl
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from hashserv.address import Address
from hashserv.equivalence.upstream import UNANSWERED, Unanswered, UpstreamSummary
from hashserv.upstream.breaker import Breaker, State
from hashserv.upstream.connection import Login, UpstreamConnection
from hashserv.upstream.failures import BROKEN, Cause, explain
from hashserv.upstream.pace import Pace
from hashserv.upstream.questions import Answer, Key, Kind
from hashserv.upstream.waiting import Batch, Group, Waiting, collect

logger = logging.getLogger("hashserv.upstream")

DEFAULT_TIMEOUT: Final = 5.0
"""Seconds that a question may take, waiting for its turn included: far below the 30 s after which
BitBake's clients lose patience (PROTOCOL.md §10)."""

MOST_CONNECTIONS: Final = 4
"""Batches under way at once. Each may hold thousands of questions, so more only split them."""

MOST_WAITING: Final = 200_000
"""Questions that may wait or be under way; more are not asked."""

MOST_IDLE_SECONDS: Final = 60.0
"""How long a connection may be idle and be used again: routers and firewalls forget idle ones
without telling, and what is sent then is never answered."""

PROBE_SECONDS: Final = 2.0
"""How long a probe of an upstream that is not asked may take."""

UNKNOWN_KIND_SECONDS: Final = 5.0
"""For how long a kind of questions is not asked to which the upstream only ever closes the
connection, as servers do that are too old to know it."""

_LATENCY_WEIGHT: Final = 0.2
"""How much the last batch counts in the mean."""


class Pool:
    """Asks questions of one upstream, in batches, and never for longer than a time-out.

    Args:
        address: The upstream's.
        timeout: Seconds that a question may take.
        own_id: How we would recognize ourselves.
        login: Who to log in as, if at all.
        tls: How to do TLS; `None` for what the environment says.
    """

    def __init__(
        self,
        address: Address,
        *,
        timeout: float = DEFAULT_TIMEOUT,
        own_id: str = "",
        login: Login | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._own_id = own_id
        self._login = login
        self._tls = tls
        self._breaker = Breaker(str(address))
        self._kinds: list[Waiting[Any, Any]] = []
        self._paces: dict[Waiting[Any, Any], Pace] = {}
        self._muted: dict[Waiting[Any, Any], float] = {}  # until when a kind is not asked
        self._idle: list[UpstreamConnection] = []
        self._dispatching = False
        self._closed = False
        self._batches: set[asyncio.Task[Any]] = set()
        self._probing: asyncio.Task[None] | None = None
        self._hits = self._misses = self._errors = 0
        self._latency: float | None = None

    def kind(
        self,
        kind: Kind[Key, Answer],
        told: Callable[[Sequence[Key], Sequence[Answer]], None] = lambda _keys, _answers: None,
    ) -> Waiting[Key, Answer]:
        """Have a kind of questions asked; what is returned is what `ask` takes.

        Args:
            kind: The kind.
            told: Called with questions and their answers, before those who asked have them.
        """
        waiting = Waiting(kind, told)
        self._kinds.append(waiting)
        self._paces[waiting] = Pace(kind.most, self._timeout)
        return waiting

    @property
    def available(self) -> bool:
        """Whether a question would be asked now."""
        return self._breaker.lets_through and not self._closed

    async def ask(
        self, waiting: Waiting[Key, Answer], keys: Sequence[Key]
    ) -> list[Answer | Unanswered]:
        """Return the answers to questions, in order, when all are there or the time is over."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._timeout
        if self._closed or not keys or self._muted.get(waiting, 0.0) > loop.time():
            return [UNANSWERED] * len(keys)
        groups = waiting.join(keys, deadline)
        new = [
            key for key in dict.fromkeys(keys) if key not in groups and waiting.kind.can_ask(key)
        ]
        if own := self._submit(waiting, new, deadline):
            groups.update(dict.fromkeys(own.keys, own))
        if pending := {group.over for group in groups.values()}:
            # Does not cancel them, whatever becomes of this call: others wait, too.
            await asyncio.wait(pending, timeout=deadline - loop.time())
        return collect(keys, groups.get)

    def summary(self) -> UpstreamSummary:
        """Return how the upstream does."""
        return UpstreamSummary(
            state=self._breaker.state.value,
            in_flight=sum(map(len, self._kinds)),
            hits=self._hits,
            misses=self._misses,
            errors=self._errors,
            latency=self._latency or 0.0,
        )

    async def close(self) -> None:
        """Ask no more; who waits gets no answer. Idempotent."""
        self._closed = True
        for waiting in self._kinds:
            waiting.give_up_waiting()
        tasks = {*self._batches, *filter(None, [self._probing])}
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._close_idle()

    # From questions to batches.

    def _submit(
        self, waiting: Waiting[Key, Answer], keys: list[Key], deadline: float
    ) -> Group[Key, Answer] | None:
        """Queue questions, as many as may be asked now."""
        room = MOST_WAITING - sum(map(len, self._kinds))
        admitted = keys[: self._breaker.admit(min(len(keys), max(room, 0)))]
        if not admitted:
            return None
        group = waiting.add(admitted, deadline)
        if self._breaker.state is State.HALF_OPEN:
            group.over.add_done_callback(lambda _: self._breaker.trial_is_over())
        if not self._dispatching:
            # At the end of this turn of the loop, so that what others ask meanwhile goes along.
            self._dispatching = True
            asyncio.get_running_loop().call_soon(self._dispatch)
        return group

    def _dispatch(self) -> None:
        """Give batches to the connections that are free; the longest wait comes first."""
        self._dispatching = False
        now = asyncio.get_running_loop().time()
        while len(self._batches) < MOST_CONNECTIONS and not self._closed:
            queued = [each for each in self._kinds if each.next_deadline is not None]
            if not queued:
                return
            waiting = min(queued, key=lambda each: each.next_deadline or now)
            batch = waiting.take(self._paces[waiting].size, now)
            if batch.keys:
                task = asyncio.get_running_loop().create_task(self._run(waiting, batch))
                self._batches.add(task)
                task.add_done_callback(partial(self._batch_is_over, waiting, batch))

    def _batch_is_over(
        self,
        waiting: Waiting[Key, Answer],
        batch: Batch[Key, Answer],
        task: asyncio.Task[Sequence[Answer]],
    ) -> None:
        self._batches.discard(task)
        # Here and not in the task, which may be cancelled before it begins.
        waiting.settle(batch, [] if task.cancelled() else task.result())
        self._dispatch()

    async def _run(
        self, waiting: Waiting[Key, Answer], batch: Batch[Key, Answer]
    ) -> Sequence[Answer]:
        """Ask a batch and return its answers, or none where that fails."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        answers: Sequence[Answer] = []
        try:
            async with asyncio.timeout(self._timeout):
                answers = await self._answers(waiting, batch.keys)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not hurt who asks
            self._failed(error)
        seconds = loop.time() - began
        self._count(answers, seconds)
        if answers or seconds >= self._timeout:
            self._paces[waiting].took(len(batch.keys), seconds)
        return answers

    async def _answers(
        self, waiting: Waiting[Key, Answer], keys: Sequence[Key]
    ) -> Sequence[Answer]:
        """Ask on as many connections as it takes, as long as the circuit stays closed."""
        kind = waiting.kind
        while True:
            connection, fresh = await self._connected()
            if connection is None:
                return []
            try:
                answers = await kind.ask(connection, keys)
            except BROKEN as error:
                await connection.close()
                if not fresh and not connection.heard:
                    await self._close_idle()  # the others are as old: the upstream was restarted
                elif fresh and not connection.heard and not kind.every_server:
                    self._mute(waiting)
                    self._breaker.succeeded()
                    return []
                elif self._failed(error):
                    return []
            except BaseException:
                await connection.close()
                raise
            else:
                self._muted.pop(waiting, None)
                self._breaker.succeeded()
                self._keep(connection)
                return answers

    async def _connected(self) -> tuple[UpstreamConnection | None, bool]:
        """Return a connection and whether it is new; none if the circuit has opened."""
        now = asyncio.get_running_loop().time()
        while self._idle:
            connection = self._idle.pop()
            if now - connection.last_used <= MOST_IDLE_SECONDS:
                return connection, False
            await connection.close()
        while True:
            try:
                return await self._open(), True
            except BROKEN as error:
                if self._failed(error):
                    return None, True

    async def _open(self) -> UpstreamConnection:
        return await UpstreamConnection.open(
            self._address, own_id=self._own_id, login=self._login, tls=self._tls
        )

    def _keep(self, connection: UpstreamConnection) -> None:
        connection.last_used = asyncio.get_running_loop().time()
        self._idle.append(connection)

    async def _close_idle(self) -> None:
        idle, self._idle = self._idle, []
        for connection in idle:
            await connection.close()

    def _mute(self, waiting: Waiting[Any, Any]) -> None:
        if waiting not in self._muted:
            logger.warning(
                "The upstream %s closes the connection on '%s': it may be too old to know it. "
                "It is asked the other questions",
                self._address,
                waiting.kind.name,
            )
        self._muted[waiting] = asyncio.get_running_loop().time() + UNKNOWN_KIND_SECONDS

    def _count(self, answers: Sequence[object], seconds: float) -> None:
        if not answers:
            self._errors += 1
            return
        hits = sum(1 for answer in answers if answer)
        self._hits += hits
        self._misses += len(answers) - hits
        if self._latency is None:
            self._latency = seconds
        self._latency += _LATENCY_WEIGHT * (seconds - self._latency)

    # What goes wrong.

    def _failed(self, error: Exception) -> bool:
        """Tell the breaker, and return whether it is open now."""
        is_open = self._breaker.failed(self._explain(error, self._timeout))
        if is_open and self._probing is None and not self._closed:
            self._probing = asyncio.get_running_loop().create_task(self._probe())
            # What else waits for this upstream waits in vain.
            for waiting in self._kinds:
                waiting.give_up_waiting()
            for task in self._batches - {asyncio.current_task()}:
                task.cancel()
        return is_open

    async def _probe(self) -> None:
        """Try to reach the upstream until that goes well."""
        try:
            await self._close_idle()
            while self._breaker.state is State.OPEN:
                await asyncio.sleep(self._breaker.pause)
                cause = await self._probed()
                self._breaker.probed(cause)
        finally:
            self._probing = None

    async def _probed(self) -> Cause | None:
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                self._keep(await self._open())
        except Exception as error:  # noqa: BLE001 - the next probe may do better
            return self._explain(error, PROBE_SECONDS)
        return None

    def _explain(self, error: Exception, timeout: float) -> Cause:
        secret = self._login.token if self._login else None
        return explain(error, timeout=timeout, secret=secret)
