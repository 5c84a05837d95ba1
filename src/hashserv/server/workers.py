"""Several processes that serve one address: started together, replaced when they die.

The parent binds the addresses, brings the database up to date and forks. It has no event loop and
no threads, so that it can fork again whenever a worker dies.
"""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Final

from hashserv.equivalence.statistics import Counts
from hashserv.errors import ServerError
from hashserv.server import app
from hashserv.server.children import Failure, blocked, drop_handlers, end_with, failure_of
from hashserv.server.composition import (
    Inheritance,
    certificate,
    listen_on,
    prepare_database,
    warn_of_strangers,
)
from hashserv.server.settings import Settings
from hashserv.store.opening import put_log_away
from hashserv.transport.listen import Listener

logger = logging.getLogger("hashserv.server")

QUICK_SECONDS: Final = 5.0
"""A worker that dies so soon after its start may well do so again."""

QUICK_DEATHS: Final = 3
"""So many such deaths in a row, and the worker is not started again at once."""

FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 30.0
"""How long it then has to wait, in seconds; each time twice as long."""

STOP_SECONDS: Final = 30.0
"""What workers have beyond the shutdown time-out to close the database, before they are killed."""


def run(settings: Settings, ready: app.Ready = lambda _: None) -> None:
    """Run a server of several workers until a signal ends it.

    SIGHUP has all of them read their certificate again.

    Args:
        settings: What it is told.
        ready: Called with the real addresses once all workers serve clients.

    Raises:
        SettingsError: The certificate can't be used.
        AddressError: An address can't be listened on.
        StoreError: The database can't be used.
        ServerError: A worker ended before it served for the first time, without saying why.
    """
    certificate(settings)  # what is wrong with it is said once
    with contextlib.ExitStack() as stack:
        # Addresses first: a second server by mistake must not touch the first one's database.
        listeners = [
            stack.enter_context(contextlib.closing(listen_on(text, settings)))
            for text in settings.bind
        ]
        warn_of_strangers(settings, listeners)
        asyncio.run(prepare_database(settings))
        try:
            Supervisor(settings, listeners).run(ready)
        finally:
            put_log_away(settings.database)


@dataclass
class Worker:
    """One of the places for a process that serves."""

    number: int
    """Which; who takes the place of a process that died goes on with its statistics."""

    process: ForkProcess | None = None
    said: Connection | None = None
    """Where a process that starts says whether it serves."""

    serving: bool = False
    started: float = 0.0
    """When the process was started; times are those of `time.monotonic`."""

    due: float = 0.0
    """When the next is to be started."""

    quick_deaths: int = 0

    def died(self, now: float, *, least: float = 0.0) -> float:
        """Take note that the process has ended; return how many seconds its place stays empty.

        Args:
            now: When.
            least: How many seconds it stays empty at least.
        """
        self.process = self.said = None
        self.serving = False
        self.quick_deaths = self.quick_deaths + 1 if now - self.started < QUICK_SECONDS else 0
        doublings = self.quick_deaths - QUICK_DEATHS
        pause = min(FIRST_PAUSE * 2**doublings, LONGEST_PAUSE) if doublings >= 0 else least
        self.due = now + pause
        return pause


class Supervisor:
    """Starts workers, and others in their place when they die.

    Args:
        settings: Those of the whole server.
        listeners: Where the workers listen; who gave them closes them.
    """

    def __init__(self, settings: Settings, listeners: Sequence[Listener]) -> None:
        self._settings = settings
        self._listeners = listeners
        self._counts = Counts(settings.workers)
        self._server_id = Inheritance().server_id
        self._workers = [Worker(number) for number in range(settings.workers)]
        self._context = multiprocessing.get_context("fork")
        # The workers read from one end; nobody but this process has the other, so that they know
        # when it is gone, however it ended.
        self._gone, self._held = os.pipe()
        self._announced = False
        self._handled = [*app.SIGNALS]
        if settings.tls_certificate is not None:  # else it means that the terminal is gone
            self._handled.append(signal.SIGHUP)

    def run(self, ready: app.Ready) -> None:
        """Keep as many workers running as there should be, until a signal ends that.

        Args:
            ready: Called with the real addresses once all workers serve clients.

        Raises:
            Exception: Because of which a worker could not serve in the first place.
        """
        with self._signals() as signals:
            try:
                while self._go_on(signals):
                    if not self._announced and all(worker.serving for worker in self._workers):
                        self._announced = True
                        ready([str(listener.address) for listener in self._listeners])
            finally:
                self._stop()

    def _go_on(self, signals: socket.socket) -> bool:
        """Wait for something to happen and see to it; tell whether to go on."""
        now = time.monotonic()
        for worker in self._workers:
            if worker.process is None and worker.due <= now:
                self._start(worker, signals)
        pauses = [worker.due - now for worker in self._workers if worker.process is None]
        processes = [worker.process.sentinel for worker in self._workers if worker.process]
        starting = [worker.said for worker in self._workers if worker.said]
        happened = wait([signals, *processes, *starting], min(pauses, default=None))
        if signals in happened:  # before deaths, which the same signal may have caused
            for number in signals.recv(4096):
                if number in app.SIGNALS:
                    return False
                self._pass_on(number)
        for worker in self._workers:
            if worker.said is not None and worker.said in happened:
                self._hear(worker, worker.said)
            if worker.process is not None and worker.process.sentinel in happened:
                self._bury(worker, worker.process)
        return True

    def _start(self, worker: Worker, signals: socket.socket) -> None:
        worker.started = time.monotonic()
        try:
            worker.said, writer = self._context.Pipe(duplex=False)
            process = self._context.Process(
                target=self._serve, args=(worker, writer, signals), name=f"hashserv-{worker.number}"
            )
            with writer, blocked(self._handled):  # until the child has put aside our handlers
                process.start()
        except OSError as error:  # the system has no memory, processes or files left
            if not self._announced:
                raise ServerError(f"A worker can't be started: {error.strerror}") from error
            pause = worker.died(worker.started, least=FIRST_PAUSE)
            logger.error(  # noqa: TRY400 - it says what is wrong
                "A worker can't be started, trying again in %g s: %s", pause, error.strerror
            )
        else:
            worker.process = process

    def _serve(self, worker: Worker, writer: Connection, signals: socket.socket) -> None:
        """Be a worker."""
        drop_handlers(self._handled)
        os.close(self._held)
        signals.close()

        def ready(_: list[str]) -> None:
            end_with(self._gone)
            writer.send(None)
            writer.close()

        inheritance = Inheritance(
            # The files of sockets are not theirs to remove.
            [Listener(listener.sockets, listener.address) for listener in self._listeners],
            self._counts,
            worker.number,
            self._server_id,
        )
        try:
            app.run(self._settings.worker, ready, inheritance)
        except Exception as error:
            if writer.closed:  # it had been serving
                raise
            with contextlib.suppress(BrokenPipeError):  # the parent is gone
                writer.send(failure_of(error))
            sys.exit(1)

    def _hear(self, worker: Worker, said: Connection) -> None:
        """Take note of what a worker says that has just started."""
        failure: Failure | None = None
        with said, contextlib.suppress(EOFError):  # it died, which its end will show
            failure = said.recv()
            worker.serving = failure is None
        worker.said = None
        if failure is None:
            return
        if not self._announced:
            raise failure.error
        logger.error("A worker can't serve: %s", failure.words)

    def _bury(self, worker: Worker, process: ForkProcess) -> None:
        """Say that a process has ended, and leave its place to another."""
        process.join()
        how = _ending(process.exitcode)
        if not self._announced:
            raise ServerError(f"A worker {how} before it served clients: see the log")
        self._counts.connections[worker.number] = 0.0
        pause = worker.died(time.monotonic())
        logger.error("Worker %s %s; another starts in %g s", process.pid, how, pause)
        process.close()

    def _pass_on(self, number: int) -> None:
        for worker in self._workers:
            if worker.process is not None and worker.serving and worker.process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.process.pid, number)

    def _stop(self) -> None:
        """End all workers: in time, or else by force."""
        for listener in self._listeners:
            listener.close()
        processes = [worker.process for worker in self._workers if worker.process is not None]
        for process in processes:
            process.terminate()
        end = time.monotonic() + self._settings.limits.shutdown_timeout + STOP_SECONDS
        for process in processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                logger.error("Worker %s does not end, and is killed", process.pid)
                process.kill()
                process.join()
        os.close(self._gone)
        os.close(self._held)

    @contextlib.contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Give a socket that gets the number of each signal as a byte."""
        reader, writer = socket.socketpair()
        with reader, writer:
            writer.setblocking(False)  # noqa: FBT003
            before = {number: signal.signal(number, lambda *_: None) for number in self._handled}
            # Who started us may have ignored it: then the system would keep no exit codes.
            before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
            try:
                yield reader
            finally:
                signal.set_wakeup_fd(wakeup)
                for number, handler in before.items():
                    signal.signal(number, handler)


def _ending(code: int | None) -> str:
    """Say how a process ended."""
    if code is None or code >= 0:
        return f"ended with exit code {code}"
    return f"was ended by {signal.Signals(-code).name}"
