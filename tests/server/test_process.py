"""`hashserv.create_server`, and the server that it makes: real processes, as scripts start them."""

import asyncio
import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from multiprocessing.context import ForkProcess
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvloop

import hashserv
from hashserv.errors import (
    AddressError,
    DatabaseUnreachable,
    NotADatabase,
    SettingsError,
    StoreError,
)
from hashserv.server import ALL_PERMISSIONS
from hashserv.server.children import blocked
from hashserv.server.process import HashServer
from tests.conftest import StartServer
from tests.servers import START_SECONDS, wait_for

METHOD = "TestMethod"
TASKHASH, OUTHASH, UNIHASH = "1" * 64, "2" * 64, "3" * 64
TCP = "127.0.0.1:0"

Create = Callable[..., HashServer]


@pytest.fixture
def create(short_tmp: Path) -> Iterator[Create]:
    """Create servers, on a database of the test's, and end them with the test."""
    created: list[HashServer] = []

    def create_one(addr: str = TCP, dbname: str | None = None, **options: Any) -> HashServer:
        server = hashserv.create_server(addr, dbname or str(short_tmp / "h.db"), **options)
        created.append(server)
        return server

    yield create_one
    for server in created:
        if server.process is not None and server.process.is_alive():
            assert end(server.process) == 0


def end(process: ForkProcess) -> int | None:
    """End a server as BitBake does, and return its exit code."""
    process.terminate()
    process.join(START_SECONDS)
    return process.exitcode


def report(server: HashServer) -> str | None:
    """Report something to a server, and return what it then knows of it."""
    with hashserv.create_client(server.address) as client:
        client.report_unihash(TASKHASH, METHOD, OUTHASH, UNIHASH)
        return client.get_unihash(METHOD, TASKHASH)


def ended(pid: int) -> bool:
    """Whether a process that is nobody's child here has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in "ZX"


def open_files() -> int:
    """Count the files that this process holds open."""
    return len(list(Path("/proc/self/fd").iterdir()))


# Starting and ending


def test_as_bitbake_does_it(short_tmp: Path) -> None:
    socket_file, database = short_tmp / "hashserve.sock", short_tmp / "cache" / "hashserv.db"
    database.parent.mkdir()
    server = hashserv.create_server(f"unix://{short_tmp}/hashserve.sock", str(database), sync=False)
    server.serve_as_process(log_level=logging.WARNING)
    assert server.process is not None
    assert socket_file.is_socket()
    assert report(server) == UNIHASH
    server.process.terminate()
    server.process.join()
    assert server.process.exitcode == 0
    assert not socket_file.exists()
    assert database.is_file()


def test_port_0_becomes_the_real_one(create: Create) -> None:
    server = create("127.0.0.1:0")
    process = server.serve_as_process()
    assert process is server.process
    assert process.is_alive()
    host, _, port = server.address.rpartition(":")
    assert (host, port != "0") == ("127.0.0.1", True)
    assert server.logger is logging.getLogger("hashserv")
    assert report(server) == UNIHASH


@pytest.mark.parametrize("path", ["h.sock", "./h.sock", f"{'d' * 120}/h.sock"])
def test_a_relative_or_long_unix_path(
    path: str, create: Create, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_tmp)
    Path(path).parent.mkdir(exist_ok=True)
    server = create(f"unix://{path}", "h.db")
    process = server.serve_as_process()
    assert server.address == f"unix://{path}"
    assert report(server) == UNIHASH
    assert end(process) == 0
    assert not Path(path).exists()


def test_an_absolute_unix_path_of_more_than_108_bytes(create: Create, tmp_path: Path) -> None:
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    server = create(f"unix://{directory}/h.sock")
    process = server.serve_as_process()
    assert report(server) == UNIHASH
    assert end(process) == 0
    assert not list(directory.iterdir())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_each_of_its_signals_ends_it(number: signal.Signals, create: Create) -> None:
    process = create().serve_as_process()
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join(START_SECONDS)
    assert process.exitcode == 0


def test_it_can_be_started_again(create: Create, short_tmp: Path) -> None:
    server = create(f"unix://{short_tmp}/h.sock")
    process = server.serve_as_process()
    assert report(server) == UNIHASH
    assert end(process) == 0
    server.serve_as_process()
    with hashserv.create_client(server.address) as client:
        assert client.get_unihash(METHOD, TASKHASH) == UNIHASH


def test_two_at_once(create: Create, short_tmp: Path) -> None:
    first, second = create(dbname=str(short_tmp / "1")), create(dbname=str(short_tmp / "2"))
    first_process, _ = first.serve_as_process(), second.serve_as_process()
    assert first.address != second.address
    assert report(first) == UNIHASH
    with hashserv.create_client(second.address) as client:
        assert client.get_unihash(METHOD, TASKHASH) is None
    # The second one holds nothing that keeps the first from ending.
    assert end(first_process) == 0
    assert report(second) == UNIHASH


def children_of_this() -> set[str]:
    """Return the processes that this one has started and not buried, tests' servers among them."""
    tasks = Path("/proc/self/task").glob("*/children")
    return {child for task in tasks for child in task.read_text().split()}


def test_many_starts_leave_nothing(create: Create, short_tmp: Path) -> None:
    def start_and_end() -> None:
        server = create(f"unix://{short_tmp}/h.sock")
        process = server.serve_as_process()
        assert end(process) == 0
        process.close()
        server.process = None
        with pytest.raises(ZeroDivisionError):
            create().serve_as_process(lambda _: 1 // 0)

    start_and_end()  # what is opened once stays open
    before = open_files()
    children = children_of_this()
    for _ in range(20):
        start_and_end()
    assert open_files() == before
    assert not multiprocessing.active_children()
    assert children_of_this() == children


# prefunc and log_level


def test_prefunc_runs_first_in_the_child(create: Create, short_tmp: Path) -> None:
    def prefunc(server: HashServer, directory: Path, text: str) -> None:
        (directory / "said").write_text(f"{text} {os.getpid()} {server is given}")

    given = create()
    process = given.serve_as_process(prefunc=prefunc, args=(short_tmp, "from"))
    assert (short_tmp / "said").read_text() == f"from {process.pid} True"


@pytest.mark.parametrize("level", [logging.INFO, "INFO", "info"])
def test_log_level(level: int | str, create: Create, short_tmp: Path) -> None:
    def log_to_file(server: HashServer) -> None:
        server.logger.addHandler(logging.FileHandler(short_tmp / "log"))

    before = logging.getLogger("hashserv").level
    process = create().serve_as_process(log_to_file, log_level=level)
    assert end(process) == 0
    assert "Stopping" in (short_tmp / "log").read_text()
    process = create().serve_as_process(log_to_file, log_level=logging.ERROR)
    assert end(process) == 0
    assert (short_tmp / "log").read_text().count("Stopping") == 1
    assert logging.getLogger("hashserv").level == before


def test_an_unknown_log_level(create: Create) -> None:
    with pytest.raises(ValueError, match="LOUD"):
        create().serve_as_process(log_level="loud")


# A child that can't serve


def test_an_address_in_use(create: Create, short_tmp: Path) -> None:
    addr = f"unix://{short_tmp}/h.sock"
    create(addr).serve_as_process()
    second = create(addr)
    with pytest.raises(AddressError, match="listening there already"):
        second.serve_as_process()
    assert second.process is None


def test_a_database_that_is_none(create: Create, short_tmp: Path) -> None:
    (short_tmp / "text").write_text("no database " * 1000)
    with pytest.raises(NotADatabase, match="text"):
        create(dbname=str(short_tmp / "text")).serve_as_process()
    with pytest.raises(StoreError, match="is a directory"):
        create(dbname=str(short_tmp)).serve_as_process()
    assert not multiprocessing.active_children()


def test_a_database_engine_that_is_not_supported(create: Create) -> None:
    with pytest.raises(SettingsError, match="There is no engine for oracle"):
        create(dbname="oracle+oracledb://host/name", db_username="u").serve_as_process()


def test_a_database_server_that_can_not_be_reached(create: Create) -> None:
    url = "postgresql+asyncpg://no-such-host.invalid/name"
    with pytest.raises(DatabaseUnreachable, match=r"u:\*\*\*@no-such-host"):
        create(dbname=url, db_username="u", db_password="secret").serve_as_process()


def test_an_exception_of_prefunc(create: Create) -> None:
    def prefunc(_: HashServer) -> None:
        raise KeyError("some", 1)

    with pytest.raises(KeyError) as caught:
        create().serve_as_process(prefunc)
    assert caught.value.args == ("some", 1)
    assert "in prefunc" in caught.value.__notes__[0]  # where it came from


class TwoError(Exception):
    """An exception that can be pickled, but not unpickled."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one} and {two}")


def test_an_exception_that_cannot_be_sent(create: Create) -> None:
    class LocalError(Exception):
        pass

    def prefunc(_: HashServer, error: Exception) -> None:
        raise error

    with pytest.raises(hashserv.ServerError, match="LocalError: some text"):
        create().serve_as_process(prefunc, (LocalError("some text"),))
    with pytest.raises(hashserv.ServerError, match="TwoError: a and b"):
        create().serve_as_process(prefunc, (TwoError("a", "b"),))


def test_a_large_exception(create: Create) -> None:
    def prefunc(_: HashServer) -> None:
        raise ValueError("x" * 2**20)

    with pytest.raises(ValueError, match="x" * 1000):
        create().serve_as_process(prefunc)


def test_a_child_that_dies_without_a_word(create: Create) -> None:
    with pytest.raises(hashserv.ServerError, match="before it served clients, with exit code 7"):
        create().serve_as_process(lambda _: os._exit(7))
    with pytest.raises(hashserv.ServerError, match="with exit code 3"):
        create().serve_as_process(lambda _: sys.exit(3))
    with pytest.raises(hashserv.ServerError, match="with exit code -9"):
        create().serve_as_process(lambda _: os.kill(os.getpid(), signal.SIGKILL))
    assert not multiprocessing.active_children()


def test_a_dead_child_whose_pipes_others_hold(create: Create, short_tmp: Path) -> None:
    """A process that another thread forks at the wrong moment has a copy of every pipe."""
    os.mkfifo(short_tmp / "end")

    def prefunc(_: HashServer) -> None:
        if os.fork() == 0:
            (short_tmp / "end").read_bytes()
            os._exit(0)
        os._exit(7)

    with pytest.raises(hashserv.ServerError, match="with exit code 7"):
        create().serve_as_process(prefunc)
    (short_tmp / "end").write_bytes(b"")


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_signal_before_it_serves(number: signal.Signals, create: Create) -> None:
    with pytest.raises(hashserv.ServerError, match=f"with exit code -{number.value}"):
        create().serve_as_process(lambda _: os.kill(os.getpid(), number))


def test_terminate_while_prefunc_waits(create: Create, short_tmp: Path) -> None:
    os.mkfifo(short_tmp / "pid")
    stopped: list[int] = []

    def prefunc(_: HashServer) -> None:
        (short_tmp / "pid").write_text(str(os.getpid()))
        threading.Event().wait()

    def stop() -> None:
        stopped.append(int((short_tmp / "pid").read_text()))
        os.kill(stopped[0], signal.SIGTERM)

    server = create()
    stopping = threading.Thread(target=stop, daemon=True)
    stopping.start()
    with pytest.raises(hashserv.ServerError, match="with exit code -15"):
        server.serve_as_process(prefunc)
    stopping.join()
    assert ended(*stopped)


@contextlib.contextmanager
def handled(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle signals as a script may that starts servers."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP]
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
        assert [signal.getsignal(number) for number in numbers] == [handler] * len(numbers)
        assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & set(numbers)
    finally:
        for number, old in before.items():
            signal.signal(number, old)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP])
def test_handlers_of_the_parent_do_not_run_in_the_child(
    number: signal.Signals, create: Create, short_tmp: Path
) -> None:
    ran: list[int] = []

    def handler(number: int, _: FrameType | None) -> None:
        ran.append(number)
        (short_tmp / f"ran-{os.getpid()}").touch()

    def prefunc(_: HashServer) -> None:
        os.kill(os.getpid(), number)

    with handled(handler):
        with pytest.raises(hashserv.ServerError, match=f"with exit code -{number.value}"):
            create().serve_as_process(prefunc)
        assert end(create().serve_as_process()) == 0
        assert not ran
        os.kill(os.getpid(), number)  # and in the parent they do
        assert ran == [number]
    assert [path.name for path in short_tmp.glob("ran-*")] == [f"ran-{os.getpid()}"]


def test_an_interrupted_start_leaves_no_child(create: Create, short_tmp: Path) -> None:
    def prefunc(_: HashServer, parent: int) -> None:
        (short_tmp / "pid").write_text(str(os.getpid()))
        os.kill(parent, signal.SIGINT)
        threading.Event().wait()

    with pytest.raises(KeyboardInterrupt):
        create().serve_as_process(prefunc, (os.getpid(),))
    assert ended(int((short_tmp / "pid").read_text()))
    assert not multiprocessing.active_children()


def test_a_signal_that_another_thread_receives_waits_too() -> None:
    """Its handler would run in the main thread, between a fork and taking note of the child."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    ran: list[str] = []

    begun = threading.Event()

    def receive() -> None:
        begun.wait()
        for number in numbers:
            signal.pthread_kill(threading.get_ident(), number)

    with handled(lambda number, _: ran.append(signal.Signals(number).name)):
        other = threading.Thread(target=receive)
        other.start()
        with blocked(numbers):
            begun.set()
            other.join()
            ran.append("the end")
        assert ran[0] == "the end"
        assert sorted(ran[1:]) == ["SIGINT", "SIGTERM"]


# Whatever the parent is doing


def test_a_parent_that_ignores_its_children(create: Create) -> None:
    """The system then keeps no exit codes."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        server = create()
        process = server.serve_as_process()
        assert report(server) == UNIHASH
        process.terminate()
        process.join()
        assert not Path(f"/proc/{process.pid}").exists()
        server.process = None
        with pytest.raises(ZeroDivisionError):
            create().serve_as_process(lambda _: 1 // 0)
        with pytest.raises(hashserv.ServerError, match="before it served clients"):
            create().serve_as_process(lambda _: os._exit(7))
    finally:
        signal.signal(signal.SIGCHLD, before)


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_from_within_a_running_loop(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], create: Create
) -> None:
    received: list[int] = []

    async def start_and_use() -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, received.append, signal.SIGTERM)
        ticking = loop.create_task(tick())
        server = create()
        process = server.serve_as_process()
        async with await hashserv.create_async_client(server.address) as client:
            assert await client.ping() == {"alive": True}
        process.terminate()
        await asyncio.to_thread(process.join)
        assert process.exitcode == 0
        await ticking
        assert await asyncio.to_thread(lambda: "the loop still hears of threads")
        assert not received  # the child's signal woke the child's loop alone
        assert loop.remove_signal_handler(signal.SIGTERM)

    async def tick() -> None:
        for _ in range(10):
            await asyncio.sleep(0.001)

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(start_and_use())


def test_from_many_threads_at_once(create: Create, short_tmp: Path) -> None:
    servers = [create(dbname=str(short_tmp / str(number))) for number in range(6)]
    threads = [threading.Thread(target=server.serve_as_process, daemon=True) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(START_SECONDS)
    assert [report(server) for server in servers] == [UNIHASH] * 6
    assert [end(server.process) for server in servers if server.process] == [0] * 6


def test_a_parent_that_holds_connections(create: Create, short_tmp: Path) -> None:
    """The second server, which has copies of them, does not keep the first one's clients."""
    first = create()
    process = first.serve_as_process()
    host, _, port = first.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        create(dbname=str(short_tmp / "2")).serve_as_process()
        assert end(process) == 0
        connection.settimeout(START_SECONDS)
        assert connection.recv(1) == b""


PARENT = """
import hashserv, os, signal, sys
server = hashserv.create_server("unix://h.sock", "h.db")
process = server.serve_as_process()
print(process.pid, flush=True)
"""


@pytest.mark.parametrize(
    "parent_ends", ["", "sys.exit(3)", "raise ValueError", "os._exit(0)", "os.kill(os.getpid(), 9)"]
)
def test_it_ends_with_its_parent(parent_ends: str, short_tmp: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", PARENT + parent_ends],
        cwd=short_tmp,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=START_SECONDS,
    )
    pid = int(done.stdout)
    wait_for(lambda: ended(pid))
    assert not (short_tmp / "h.sock").exists()


# What create_server takes


def test_sync_and_read_only(create: Create) -> None:
    fast = create(sync=False)
    process = fast.serve_as_process()
    assert report(fast) == UNIHASH
    assert end(process) == 0
    reading = create(read_only=True)
    reading.serve_as_process()
    with hashserv.create_client(reading.address) as client:
        assert client.get_unihash(METHOD, TASKHASH) == UNIHASH
        client.report_unihash("9" * 64, METHOD, "8" * 64, "7" * 64)
        assert client.get_unihash(METHOD, "9" * 64) is None
        with pytest.raises(hashserv.InvokeError, match="read-only"):
            client.remove({"method": METHOD})


def test_anonymous_permissions(create: Create) -> None:
    server = create(anon_perms=iter(["@read"]))
    server.serve_as_process()
    with hashserv.create_client(server.address) as client:
        assert client.get_unihash(METHOD, TASKHASH) is None
        with pytest.raises(hashserv.InvokeError, match="@db-admin"):
            client.remove({"method": METHOD})
    default = create(anon_perms=None)
    default.serve_as_process()
    with hashserv.create_client(default.address) as client:
        assert client.remove({"method": METHOD}) == {"count": 0}


def test_an_administrator(create: Create) -> None:
    server = create(admin_username="admin", admin_password="some words")
    server.serve_as_process()
    with hashserv.create_client(server.address, "admin", "some words") as client:
        assert client.get_user() == {"username": "admin", "permissions": sorted(ALL_PERMISSIONS)}


@pytest.mark.parametrize(
    "name", ["sqlite:///h.db", "sqlite+aiosqlite:///h.db?timeout=5", "sqlite+aiosqlite:///{}/h.db"]
)
def test_a_database_url_of_a_file(
    name: str, create: Create, short_tmp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(short_tmp)
    server = create(dbname=name.format(short_tmp), db_username="ignored", db_password="ignored")
    server.serve_as_process()
    assert report(server) == UNIHASH
    assert (short_tmp / "h.db").is_file()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"anon_perms": ["@read", "@write"]}, "Unknown permissions @write"),
        ({"anon_perms": "@read"}, "Unknown permissions"),
        ({"anon_perms": ["@user-admin"]}, "@user-admin can't be given to anonymous"),
        ({"anon_perms": ALL_PERMISSIONS}, "can't be given to anonymous"),
        ({"read_only": True, "upstream": "host:8686"}, "read-only server can't have an upstream"),
        ({"admin_username": "admin"}, "password"),
        ({"admin_password": "secret"}, "admin"),
        ({"dbname": "sqlite:///:memory:"}, "name a file"),
        ({"dbname": "sqlite:///"}, "name a file"),
        ({"dbname": ":memory:"}, "name a file"),
    ],
)
def test_what_contradicts_itself_is_refused_at_once(arguments: Any, says: str) -> None:
    with pytest.raises(SettingsError, match=says):
        hashserv.create_server(**{"addr": TCP, "dbname": "h.db", **arguments})


def test_an_address_that_is_none_is_refused_at_once() -> None:
    with pytest.raises(AddressError, match="nonsense"):
        hashserv.create_server("nonsense", "h.db")
    with pytest.raises(AddressError, match="nonsense"):
        hashserv.create_server(TCP, "h.db", upstream="nonsense")


def test_what_an_upstream_knows(create: Create, start_server: StartServer) -> None:
    far = start_server()
    with hashserv.create_client(far.address) as client:
        client.report_unihash_equiv("1" * 64, "method", "2" * 64)
    server = create(upstream=far.address)
    server.serve_as_process()
    with hashserv.create_client(server.address) as client:
        assert client.get_unihash("method", "1" * 64) == "2" * 64


def test_an_empty_upstream_is_none(create: Create) -> None:
    server = create(upstream="")
    server.serve_as_process()
    assert report(server) == UNIHASH


# serve_forever


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_serve_forever(number: signal.Signals, short_tmp: Path) -> None:
    """It serves until the signal, then the script goes on with its own handlers."""
    script = """
        import gc, hashserv, signal, sys

        numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT]
        collected = gc.get_threshold()
        for handled in numbers:
            signal.signal(handled, lambda number, _: print("handled", number))
        handlers = [signal.getsignal(number) for number in numbers]
        reading, writing = __import__("socket").socketpair()
        writing.setblocking(False)
        signal.set_wakeup_fd(writing.fileno())

        server = hashserv.create_server("unix://h.sock", "h.db")
        server.logger.setLevel("INFO")
        handler = hashserv.server.process.logging.StreamHandler(sys.stdout)
        server.logger.addHandler(handler)
        server.serve_forever()
        assert handlers == [signal.getsignal(number) for number in numbers]
        assert signal.set_wakeup_fd(-1) == writing.fileno()
        assert (gc.get_threshold(), gc.get_freeze_count()) == (collected, 0)
        gc.freeze()
        with hashserv.server.app._spared_garbage_collection():
            assert gc.get_threshold() != collected
        assert gc.get_threshold() == collected
        assert gc.get_freeze_count() > 0
        print(server.address, server.process)
        signal.raise_signal(signal.SIGTERM)
    """
    with subprocess.Popen(
        [sys.executable, "-u", "-c", textwrap.dedent(script)],
        cwd=short_tmp,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "Serving on unix://h.sock\n"
        with hashserv.create_client(f"unix://{short_tmp}/h.sock") as client:
            assert client.ping() == {"alive": True}
        process.send_signal(number)
        assert process.stdout.read() == "Stopping\nunix://h.sock None\nhandled 15\n"
        assert process.wait(START_SECONDS) == 0
    assert not (short_tmp / "h.sock").exists()


def test_serve_forever_says_where_it_cannot(create: Create) -> None:
    server = create()
    raised: list[BaseException] = []

    def serve() -> None:
        try:
            server.serve_forever()
        except RuntimeError as error:
            raised.append(error)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    thread.join(START_SECONDS)
    assert "main thread" in str(raised[0])

    async def serve_in_a_loop() -> None:
        server.serve_forever()

    with pytest.raises(RuntimeError, match="inside an event loop"):
        asyncio.run(serve_in_a_loop())
