"""A server as scripts and BitBake start it: in their process, or in a child (INTERFACES.md §1)."""

import asyncio
import contextlib
import logging
import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from typing import Any, Final, NamedTuple

from hashserv.errors import ServerError
from hashserv.server import app
from hashserv.server.children import (
    Failure,
    blocked,
    drop_handlers,
    end_with,
    failure_of,
    handled_signals,
)
from hashserv.server.settings import Settings

_LOOK_SECONDS: Final = 0.5
"""How often to look whether a child that says nothing still lives. Its end shows at once, unless
other code forked in the moment it started: that process then holds copies of its pipes."""

_starting: Final = threading.Lock()
"""Held while a child is forked, so that it has no copies of another child's pipes."""


class HashServer:
    """A server that can be started; `hashserv.create_server` makes one.

    Attributes:
        address: Where clients find it: as it was given, and the real one once it serves.
        process: The child that `serve_as_process` started last.
        logger: The parent of everything that the server logs to.

    Args:
        settings: What it is told, with one address to listen on.
    """

    def __init__(self, settings: Settings) -> None:
        (self.address,) = settings.bind
        self.process: ForkProcess | None = None
        self.logger = logging.getLogger("hashserv")
        self._settings = settings

    def serve_forever(self) -> None:
        """Serve in this process until SIGTERM, SIGINT or SIGQUIT, then restore their handlers.

        Raises:
            AddressError: The address can't be listened on.
            RuntimeError: This is not the main thread, where alone signals can be handled, or an
                event loop runs in it. `serve_as_process` works in both.
            SettingsError: The database's engine is not supported.
            StoreError: The database can't be used.
        """
        _check_signals_can_be_handled()
        with _restored_signals():
            app.run(self._settings, self._serves)

    def serve_as_process(
        self,
        prefunc: Callable[..., object] | None = None,
        args: tuple[Any, ...] = (),
        log_level: int | str | None = None,
    ) -> ForkProcess:
        """Serve in a child process, and return it once clients are served.

        The child ends at ``process.terminate()``, with the exit code 0, and with this process:
        at its normal exit, and also when it is killed, so that no forgotten server keeps the
        address. It is forked: it has this process's memory, threads excepted, and its open files.

        Args:
            prefunc: Called first in the child, with this server and `args`.
            args: See `prefunc`.
            log_level: The least serious messages that the child logs, such as
                ``logging.WARNING`` or its name.

        Raises:
            AddressError: The address can't be listened on.
            ServerError: The child ended without saying why.
            SettingsError: The database's engine is not supported.
            StoreError: The database can't be used.
            Exception: What `prefunc` raised.
        """
        context = multiprocessing.get_context("fork")
        signals = handled_signals()
        reader, writer = context.Pipe(duplex=False)
        process = context.Process(
            target=self._run,
            args=(signals, reader, writer, prefunc, args, log_level),
            name="hashserv",
            daemon=True,
        )
        try:
            # Until the child has put aside the handlers of this process, signals have to wait.
            with _starting, blocked(signals):
                process.start()
            writer.close()
            address = _answer(process, reader)
        except BaseException:
            if process.pid is not None:  # else it could not even be started
                process.terminate()
                process.join()
                with contextlib.suppress(ValueError):  # SIGCHLD is ignored: nobody knows it ended
                    process.close()
            raise
        finally:
            reader.close()
            writer.close()
        self.address, self.process = address, process
        return process

    def _run(
        self,
        signals: Collection[int],
        reader: Connection,
        writer: Connection,
        prefunc: Callable[..., object] | None,
        args: tuple[Any, ...],
        log_level: int | str | None,
    ) -> None:
        """Be the child."""
        _starting.release()  # here it is a copy, held by nobody
        reader.close()
        drop_handlers(signals)

        def ready(addresses: list[str]) -> None:
            self._serves(addresses)
            parent = multiprocessing.parent_process()
            if parent is not None:
                end_with(parent.sentinel)
            writer.send(_Serving(self.address))
            writer.close()

        try:
            if log_level is not None:
                self.logger.setLevel(log_level.upper() if isinstance(log_level, str) else log_level)
            if prefunc is not None:
                prefunc(self, *args)
            app.run(self._settings, ready)
        except Exception as error:
            if writer.closed:  # it had been serving: nobody waits for this any more
                raise
            with contextlib.suppress(BrokenPipeError):  # the parent is gone
                writer.send(failure_of(error))
            sys.exit(1)

    def _serves(self, addresses: list[str]) -> None:
        (self.address,) = addresses


class _Serving(NamedTuple):
    """What a child says that serves clients."""

    address: str


def _answer(process: ForkProcess, reader: Connection) -> str:
    """Wait until a child serves, and return its address.

    Raises:
        ServerError: It ended without saying why, or the reason can't be sent as it is.
        Exception: Why it can't serve.
    """
    while not wait([reader, process.sentinel], _LOOK_SECONDS) and process.is_alive():
        pass
    said: _Serving | Failure | None = None
    with contextlib.suppress(EOFError):
        said = reader.recv() if reader.poll() else None
    match said:
        case _Serving(address):
            return address
        case Failure() as failure:
            raise failure.error
    process.join()
    raise ServerError(
        f"The server process ended before it served clients, with exit code {process.exitcode}"
    )


@contextlib.contextmanager
def _restored_signals() -> Iterator[None]:
    """Put back the handlers of what ends a server, which an event loop sets to the default."""
    handlers = {number: signal.getsignal(number) for number in app.SIGNALS}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in handlers.items():
            if handler is not None:  # else it was not set from Python, and can't be
                signal.signal(number, handler)


def _check_signals_can_be_handled() -> None:
    """Raise RuntimeError where `HashServer.serve_forever` can't work."""
    if threading.current_thread() is not threading.main_thread():
        raise RuntimeError(
            "serve_forever needs the main thread, where signals are handled: use serve_as_process"
        )
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise RuntimeError("serve_forever can't run inside an event loop: use serve_as_process")
