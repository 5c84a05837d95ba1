"""Several processes on one address: one server to its clients, and to its administrator."""

import os
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from hashserv import create_client
from hashserv.server.settings import Limits, Settings
from hashserv.server.workers import (
    FIRST_PAUSE,
    LONGEST_PAUSE,
    QUICK_DEATHS,
    QUICK_SECONDS,
    Worker,
)
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.engines import FreshDatabase
from tests.logins import ADMIN, PASSWORD, start_guarded
from tests.peers import METHOD, Peer, digest
from tests.servers import START_SECONDS, ServerProcess, wait_for
from tests.workers import gone, only, peer_of, peers, workers_of


@pytest.fixture
def workers_on_file(start_server: StartServer) -> ServerProcess:
    """A server of two workers on a file beside its socket."""
    return start_server("--workers", "2")


@pytest.fixture(params=["sqlite", "asyncpg"])
def workers(
    request: pytest.FixtureRequest, start_server: StartServer, fresh_database: FreshDatabase
) -> ServerProcess:
    """A server of two workers, on a file or on an SQL server."""
    return start_server("--workers", "2", database=fresh_database(request.param))


def num(peer: Peer, command: str = "get-stats") -> int:
    requests: int = peer.ask(command)["requests"]["num"]
    return requests


def replaced(server: ServerProcess, dead: int) -> int:
    """Wait until another process serves in the place of a dead one, and return it."""
    log = f"Worker {dead} "
    wait_for(lambda: log in server.log_text())
    before = server.log_text().index(log)
    wait_for(lambda: "Serving on" in server.log_text()[before:])
    return workers_of(server)[-1]


# One server


@pytest.mark.parametrize(
    ("bind", "flags"),
    [
        (None, []),
        ("localhost:0", []),
        ("127.0.0.1:0", ["--reuseport"]),
        ("ws://127.0.0.1:0", []),
    ],
)
def test_all_serve_one_address(
    bind: str | None, flags: list[str], start_server: StartServer
) -> None:
    server = start_server("--workers", "3", *flags, bind=bind)
    assert len(workers_of(server)) == 3
    with create_client(server.address) as client:
        assert client.ping() == {"alive": True}
    assert server.stop() == 0
    assert server.log_text().count("Serving on") == 3
    assert "ERROR" not in server.log_text()


def test_statistics_are_those_of_all(workers: ServerProcess) -> None:
    one, two = peers(workers)
    with one, two:
        num(one, "reset-stats")
        assert num(two) == 1, "the reset itself"
        one.report(digest(1), digest(2), digest(3))
        assert num(one) == 3
        assert num(two) == 4
        stats = two.ask("get-stats")["requests"]
        assert stats == {**stats, "num": 5}
        assert 0 < stats["max_time"] <= stats["total_time"]
        assert num(two, "reset-stats") == 6
        after = one.ask("get-stats")["requests"]
        assert after["num"] == 1
        assert after["max_time"] == after["total_time"], "of the reset alone"


def test_they_are_the_same_server_to_one_that_asks_who_they_are(workers: ServerProcess) -> None:
    found = set()
    for worker in workers_of(workers):
        with (
            only(workers, worker),
            Peer(workers.address, hello=b"OEHASHEQUIV 1.1\nneeds-headers: true\n\n") as peer,
        ):
            found.add(peer.line())
    (header,) = found
    assert header is not None
    assert header.startswith(b"server-id: ")


def test_a_sweep_by_one_empties_the_caches_of_all(workers: ServerProcess) -> None:
    one, two = peers(workers)
    with one, two:
        for number in (1, 2):
            one.report(digest(number), digest(10 + number), digest(20 + number))
            for peer in (one, two):
                assert peer.lookup(digest(number)) == digest(20 + number)
        kept = {"mark": "keep", "where": {"taskhash": digest(1), "method": METHOD}}
        assert one.ask("gc-mark", kept) == {"count": 1}
        assert two.ask("gc-status")["mark"] == "keep"
        assert two.ask("gc-sweep", {"mark": "keep"}) == {"count": 1}
        for peer in (one, two):
            wait_for(lambda: not peer.lookup(digest(2)))  # noqa: B023 - it is over before the next
            assert peer.lookup(digest(1)) == digest(21)


@pytest.fixture(params=["workers", "servers", "servers on PostgreSQL"])
def two_admins(
    request: pytest.FixtureRequest,
    start_server: StartServer,
    fresh_database: FreshDatabase,
    tmp_path: Path,
) -> Iterator[tuple[Peer, Peer]]:
    """Connections to two workers, or to two servers on one database."""
    if request.param == "workers":
        server = start_guarded(start_server, tmp_path, "--workers", "2")
        one, two = peers(server)
    else:
        database = fresh_database("sqlite" if request.param == "servers" else "asyncpg")
        server = start_guarded(start_server, tmp_path, database=database)
        other = start_server("--anon-perms", "@none", database=database)
        one, two = Peer(server.address), Peer(other.address)
    with one, two:
        for peer in (one, two):
            assert peer.ask("auth", {"username": ADMIN, "token": PASSWORD})["result"]
        yield one, two


def test_a_change_of_users_counts_for_all(two_admins: tuple[Peer, Peer]) -> None:
    one, two = two_admins
    helper = {"username": "helper", "permissions": ["@user-admin", "@read"]}
    one.ask("new-user", helper)
    two.ask("become-user", {"username": "helper"})
    assert len(two.ask("get-all-users")["users"]) == 2
    one.ask("set-user-perms", {"username": ADMIN, "permissions": ["@read", "@user-admin"]})
    one.ask("set-user-perms", {"username": "helper", "permissions": ["@report"]})
    wait_for(lambda: "helper is not allowed" in str(two.ask("get-all-users")))
    assert two.closed()


def test_a_user_that_is_deleted_is_logged_out_of_all(two_admins: tuple[Peer, Peer]) -> None:
    one, two = two_admins
    one.ask("new-user", {"username": "helper", "permissions": ["@all"]})
    two.ask("become-user", {"username": "helper"})
    one.ask("delete-user", {"username": "helper"})
    wait_for(lambda: "not allowed" in str(two.ask("get-user", {})))
    assert two.closed()


def test_bounds_are_shared_out() -> None:
    limits = Limits(max_connections=9, failed_logins=6, new_tokens=1, cache_bytes=100)
    whole = Settings(workers=4, limits=limits, admin_username="admin", admin_password="x")
    share = whole.worker
    assert (share.workers, share.admin_username, share.admin_password) == (1, None, None)
    assert share.limits.max_connections == 9, "they are counted together"
    assert share.limits.failed_logins == 1
    assert share.limits.new_tokens == 0.25
    assert share.limits.cache_bytes == 25
    assert share.limits.max_message == limits.max_message


def test_connections_are_counted_together(start_server: StartServer) -> None:
    server = start_server("--workers", "2", "--max-connections", "3")
    one, two = workers_of(server)
    kept = [peer_of(server, one) for _ in range(2)] + [peer_of(server, two)]
    with only(server, two), Peer(server.address) as refused:
        assert "Too many connections" in refused.refusal(b"")
    os.kill(one, signal.SIGKILL)
    replaced(server, one)
    kept += [peer_of(server, two) for _ in range(2)]
    with only(server, two), Peer(server.address) as refused:
        assert "Too many connections" in refused.refusal(b"")
    for peer in kept:
        peer.close()
    assert "there are 3. Raise --max-connections" in server.log_text()


# When one dies


def test_a_worker_that_is_killed_is_replaced(workers: ServerProcess) -> None:
    first, second = workers_of(workers)
    with peer_of(workers, first) as dying, peer_of(workers, second) as living:
        before = num(living)
        os.kill(first, signal.SIGKILL)
        assert dying.closed()
        third = replaced(workers, first)
        assert third not in (first, second)
        with peer_of(workers, third) as new:
            assert num(new) >= before, "the statistics go on"
            assert num(living) > num(new) - 2
    assert f"ERROR Worker {first} was ended by SIGKILL; another starts in 0 s" in workers.log_text()


def test_batches_go_on_while_workers_are_killed(start_server: StartServer) -> None:
    server = start_server("--workers", "2", bind="127.0.0.1:0")
    count = 60_000
    with create_client(server.address) as client:
        for number in range(0, count, 1000):
            client.report_unihash(digest(number), METHOD, digest(count), digest(count + 1))

        def keys() -> Iterator[tuple[str, str]]:
            for number in range(count):
                if number in (count // 3, count // 2):
                    for worker in workers_of(server):
                        os.kill(worker, signal.SIGKILL)
                yield METHOD, digest(number)

        found = client.get_unihash_batch(keys())
    assert found == [None if number % 1000 else digest(count + 1) for number in range(count)]
    assert "was ended by SIGKILL" in server.log_text()


def test_who_dies_again_and_again_has_to_wait_longer_each_time() -> None:
    worker, now = Worker(0), 1000.0
    pauses = []
    for _ in range(9):
        worker.started = now
        pauses.append(worker.died(now + QUICK_SECONDS / 2))
        now = worker.due
    assert pauses[: QUICK_DEATHS - 1] == [0.0] * (QUICK_DEATHS - 1)
    assert pauses[QUICK_DEATHS - 1 : QUICK_DEATHS + 2] == [FIRST_PAUSE * 2**n for n in range(3)]
    assert pauses[-1] == LONGEST_PAUSE
    worker.started = now
    assert worker.died(now + QUICK_SECONDS) == 0, "it had been well"


def test_a_worker_that_can_not_be_replaced_is_tried_again(workers_on_file: ServerProcess) -> None:
    first, second = workers_of(workers_on_file)
    with peer_of(workers_on_file, second) as living:
        aside = workers_on_file.database.with_name("aside")
        workers_on_file.database.rename(aside)
        workers_on_file.database.write_text(
            "this is no database, and none that could be made one\n" * 99
        )
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: "is not an SQLite database" in workers_on_file.log_text())
        assert living.ask("ping", {}) == {"alive": True}
        workers_on_file.database.unlink()
        aside.rename(workers_on_file.database)
        at = len(workers_on_file.log_text())
        wait_for(lambda: "Serving on" in workers_on_file.log_text()[at:])
    assert workers_on_file.stop() == 0


# Beginning and end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_nothing_is_left_of_it(workers_on_file: ServerProcess, number: signal.Signals) -> None:
    socket_file = Path(workers_on_file.address.removeprefix("unix://"))
    processes = workers_of(workers_on_file)
    one, two = peers(workers_on_file)
    with one, two:
        workers_on_file.process.send_signal(number)
        assert one.closed()
        assert two.closed()
    assert workers_on_file.process.wait(START_SECONDS) == 0
    assert all(map(gone, processes))
    assert not socket_file.exists()
    assert sorted(path.name for path in workers_on_file.database.parent.iterdir()) == [
        "hashserv.db",
        "server.log",
    ]


def test_the_log_is_put_away_also_where_no_worker_did_it(workers_on_file: ServerProcess) -> None:
    """Those that close the file at the same moment leave it to each other."""
    processes = workers_of(workers_on_file)
    with create_client(workers_on_file.address) as client:
        client.report_unihash(digest(1), METHOD, digest(2), digest(3), {})
    workers_on_file.process.send_signal(signal.SIGSTOP)
    for process in processes:
        os.kill(process, signal.SIGKILL)
    workers_on_file.process.send_signal(signal.SIGTERM)
    workers_on_file.process.send_signal(signal.SIGCONT)
    assert workers_on_file.process.wait(START_SECONDS) == 0
    assert sorted(path.name for path in workers_on_file.database.parent.iterdir()) == [
        "hashserv.db",
        "server.log",
    ]


def test_a_file_that_was_removed_is_not_made_again(workers_on_file: ServerProcess) -> None:
    for name in ("", "-wal", "-shm"):
        workers_on_file.database.with_name(f"hashserv.db{name}").unlink()
    assert workers_on_file.stop() == 0
    assert not workers_on_file.database.exists()


def test_workers_end_with_their_parent(workers: ServerProcess) -> None:
    processes = workers_of(workers)
    workers.kill()
    wait_for(lambda: all(map(gone, processes)))
    workers.start()  # on the same socket file and database
    with create_client(workers.address) as client:
        assert client.ping() == {"alive": True}


def test_one_that_does_not_end_is_killed(tmp_path: Path) -> None:
    done = run_patched(
        "workers.STOP_SECONDS = 0",
        *("--database", str(tmp_path / "db")),
        *("--shutdown-timeout", "0"),
        ready="os.kill(children()[0].pid, signal.SIGSTOP); os.kill(os.getpid(), signal.SIGTERM)",
    )
    assert done.returncode == 0, done.stderr
    assert "does not end, and is killed" in done.stderr


def run_patched(
    patch: str, *flags: str, ready: str = "", count: int = 2
) -> subprocess.CompletedProcess[str]:
    """Run a server in a script that changes something in it first."""
    script = """
        import os, signal, sys
        from multiprocessing import active_children as children
        from hashserv.cli import main, serving
        from hashserv.server import app, workers
        {patch}
        def ready(_):
            {ready}
        main._say_ready = ready
        sys.exit(main.main(["serve", "--workers", "{count}", *sys.argv[1:]]))
    """
    script = textwrap.dedent(script).format(patch=patch, ready=ready or "pass", count=count)
    return subprocess.run(
        [sys.executable, "-c", script, "--bind", "127.0.0.1:0", *flags],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
    )


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        ("app.run = lambda *_: 1 // 0", "ZeroDivisionError"),
        ("app.run = lambda *_: os._exit(7)", "ended with exit code 7 before it served clients"),
        ("app.run = lambda *_: signal.raise_signal(9)", "was ended by SIGKILL before it served"),
    ],
)
def test_a_worker_that_never_serves_fails_the_whole(patch: str, says: str, tmp_path: Path) -> None:
    done = run_patched(patch, "--database", str(tmp_path / "hashserv.db"))
    assert done.returncode == 1
    assert says in done.stderr


def test_a_worker_that_can_not_be_forked_is_tried_again(tmp_path: Path) -> None:
    """The first fork of a replacement fails; in the second the whole is ended."""
    patch = """
        fork = os.fork
        def no_fork():
            os.fork = ending_fork
            raise BlockingIOError(11, "no processes left")
        def ending_fork():
            os.kill(os.getpid(), signal.SIGTERM)
            return fork()
        workers.FIRST_PAUSE = 0.01
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)"""
    done = run_patched(
        textwrap.dedent(patch),
        *("--database", str(tmp_path / "db")),
        ready="os.fork = no_fork; os.kill(children()[0].pid, signal.SIGKILL)",
    )
    assert done.returncode == 0, done.stderr
    assert "was ended by SIGKILL" in done.stderr
    assert "can't be started, trying again in 0.01 s: no processes left" in done.stderr


def test_what_is_wrong_is_said_once(tmp_path: Path) -> None:
    (tmp_path / "db").write_text("this is no database" * 100)
    done = run_patched("", "--database", str(tmp_path / "db"))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "is not an SQLite database" in line


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (["--workers", "0"], "1 to 64 workers"),
        (["--workers", "-1"], "1 to 64 workers"),
        (["--workers", "65"], "1 to 64 workers"),
        (["--workers", "some"], "invalid int value"),
        (["--workers", "3", "--failed-logins", "2"], "room for one each"),
    ],
)
def test_numbers_that_make_no_sense(flags: list[str], says: str) -> None:
    command = [sys.executable, "-m", "hashserv.cli.main", "serve", *flags]
    done = subprocess.run(command, capture_output=True, text=True, timeout=START_SECONDS)
    assert done.returncode == 2
    assert says in done.stderr


def test_all_read_the_certificate_again(
    certificates: Certificates, start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "certificate.pem"
    shutil.copy(certificates.server(), file)
    server = start_server("--workers", "2", "--tls-cert", str(file), bind="tls://localhost:0")
    server.process.send_signal(signal.SIGHUP)
    wait_for(lambda: server.log_text().count("The certificate was read again") == 2)
    with create_client(server.address, tls=certificates.context()) as client:
        assert client.ping() == {"alive": True}
