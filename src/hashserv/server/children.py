"""Child processes that serve: what they put aside at first, say when they can't, and end with."""

import asyncio
import contextlib
import pickle
import signal
import threading
import traceback
from collections.abc import Collection, Iterator
from typing import NamedTuple

from hashserv.errors import HashservError, ServerError
from hashserv.server import app


class Failure(NamedTuple):
    """What a child says that can't serve: its exception, where it can be pickled, and in words."""

    pickled: bytes
    words: str

    @property
    def error(self) -> Exception:
        """The exception, or a `ServerError` with the words where it can't be had."""
        try:
            error = pickle.loads(self.pickled)  # noqa: S301 - our own child's
        except Exception:  # noqa: BLE001 - the exception's class may raise anything
            error = None
        return error if isinstance(error, Exception) else ServerError(self.words)


def failure_of(error: Exception) -> Failure:
    """Return what a child says of the exception because of which it can't serve."""
    if not isinstance(error, HashservError):  # whose messages say it all
        error.add_note("".join(traceback.format_exception(error)).rstrip())
    try:
        pickled = pickle.dumps(error)
    except Exception:  # noqa: BLE001 - whatever its classes do then
        pickled = b""
    return Failure(pickled, "".join(traceback.format_exception_only(error)).rstrip())


def end_with(gone: int) -> None:
    """End as at SIGTERM when the parent is gone.

    To be called in the running event loop.

    Args:
        gone: A file descriptor that becomes readable then, as a pipe does when nobody holds its
            other end any more.
    """
    loop = asyncio.get_running_loop()

    def end() -> None:
        loop.remove_reader(gone)
        signal.raise_signal(signal.SIGTERM)

    loop.add_reader(gone, end)


def handled_signals() -> frozenset[int]:
    """Return what ends a server, and the signals that code of this process would run for."""
    return frozenset(app.SIGNALS).union(
        number for number in signal.valid_signals() if callable(signal.getsignal(number))
    )


def drop_handlers(signals: Collection[int]) -> None:
    """Put aside, in a child, the handlers of its parent, and let through signals that waited."""
    signal.set_wakeup_fd(-1)  # else an event loop of the parent would hear of our signals
    for number in signals:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)


@contextlib.contextmanager
def blocked(signals: Collection[int]) -> Iterator[None]:
    """Let signals wait for the end of the context, those that another thread receives as well."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        with _deferred(signals):
            yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextlib.contextmanager
def _deferred(signals: Collection[int]) -> Iterator[None]:
    """Let handlers in Python wait: they run in the main thread whoever received the signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []
    handlers = {number: signal.getsignal(number) for number in signals}
    wakeup = signal.set_wakeup_fd(-1)
    try:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, lambda number, _: received.append(number))
        yield
    finally:
        for number, handler in handlers.items():
            if callable(handler):
                signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup)
        for number in received:  # now it waits until it is let through
            signal.raise_signal(number)
