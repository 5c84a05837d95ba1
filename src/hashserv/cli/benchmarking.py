"""``hashserv bench``: how fast a server answers, and whether it answers right."""

import argparse
import asyncio
import os
import resource
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hashserv.address import parse_address
from hashserv.bench.modes import EXPLAINED, READING, Mode
from hashserv.cli import bench_report, plotting
from hashserv.cli.login import add_login, check_login, login_of
from hashserv.cli.progress import bar
from hashserv.errors import (
    AddressError,
    ClientError,
    ConnectionClosedError,
    InvokeError,
    ProtocolError,
    SettingsError,
)
from hashserv.transport.tls import TlsError

if TYPE_CHECKING:
    from hashserv.bench.link import Target
    from hashserv.bench.running import Run
    from hashserv.bench.tasks import Tasks

MOST_IN_FLIGHT: Final = 1_000_000
"""Requests in flight on all connections, which bounds the memory that this takes."""

LONGEST: Final = 86_400
"""Seconds that a load may last."""

_OTHER_FILES: Final = 64  # what is open beside the connections


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of the command."""
    parser.add_argument(
        "address",
        metavar="ADDRESS",
        help="the server: unix://PATH, HOST:PORT, [IPV6]:PORT, tls://HOST:PORT, "
        "ws://HOST:PORT[/PATH] or wss://HOST[:PORT][/PATH]",
    )
    loads = "; ".join(f"{mode}: {text}" for mode, text in EXPLAINED.items())
    parser.add_argument(
        "modes",
        metavar="MODE",
        nargs="*",
        type=_mode,
        help=f"the loads, one after the other; by default all of them; {loads}",
    )
    for flag, least, most, default, what in (
        ("--clients", 1, 10_000, 10, "connections"),
        ("--depth", 1, 65_536, 1, "requests in flight on each; 1 waits for each reply"),
        ("--tasks", 1, 1_000_000, 10_000, "tasks that are reported before, to be known"),
        ("--build-tasks", 5, 1_000_000, 15_000, "look-ups at the beginning of a build"),
    ):
        parser.add_argument(
            flag,
            metavar="N",
            type=_between(least, most),
            default=default,
            help=f"{what} (%(default)s)",
        )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=_seconds,
        default=5.0,
        help="how long each load lasts; a build always comes to its end (%(default)s)",
    )
    parser.add_argument(
        "--run",
        dest="run_name",
        metavar="NAME",
        help="the run's name, which ends the method of all that it writes (a random one)",
    )
    parser.add_argument(
        "--clean", action="store_true", help="remove at the end what was written; needs @db-admin"
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON, only")
    parser.add_argument(
        "--plot",
        metavar="FILE",
        type=Path,
        help="draw latencies and throughput, as SVG (needs hashserv[plot])",
    )
    add_login(parser)


def run(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> int:
    """Measure, print, and return the exit code: 0, 1 for a failure or wrong replies, or 2."""
    from hashserv.bench.link import Target  # late: the other commands need none of it
    from hashserv.bench.running import Plan, Run
    from hashserv.bench.tasks import Tasks

    check_login(parser, arguments)
    try:
        address = parse_address(arguments.address)
        tasks = Tasks(arguments.run_name)
        login = login_of(arguments)
        _make_room(arguments)
        if arguments.plot is not None:
            plotting.check(arguments.plot)
    except (AddressError, SettingsError) as error:
        parser.error(str(error))
    plan = Plan(
        clients=arguments.clients,
        depth=arguments.depth,
        seconds=arguments.duration,
        known=arguments.tasks,
        build_tasks=arguments.build_tasks,
    )
    target = Target(address, login.username, login.password, login.become)
    run = Run(target, plan, tasks, bar)
    return _Command(arguments, target, run, tasks).execute()


class _Command:
    """One run of the command."""

    def __init__(
        self, arguments: argparse.Namespace, target: "Target", run: "Run", tasks: "Tasks"
    ) -> None:
        self._arguments = arguments
        self._target = target
        self._run = run
        self._tasks = tasks
        self._failures: list[str] = []
        self._removed: int | None = None
        self._unread = False

    def execute(self) -> int:
        """Measure and tell; return the exit code."""
        self._attempt(self._measure)
        if self._arguments.clean and self._tasks.reported:
            self._attempt(self._clean)
        findings = bench_report.Findings(
            address=self._arguments.address,
            method=self._tasks.method,
            clients=self._arguments.clients,
            depth=self._arguments.depth,
            tallies=self._run.tallies,
            reported=self._tasks.reported,
            removed=self._removed,
            failures=self._failures,
        )
        if self._arguments.plot is not None and findings.tallies:
            self._plot(findings)
        self._print(
            (bench_report.as_json if self._arguments.json else bench_report.as_text)(findings)
        )
        for line in (*findings.wrongs(), *self._failures):
            print(f"ERROR: {line}", file=sys.stderr)
        return 1 if findings.bad or self._unread else 0

    async def _measure(self) -> None:
        modes = self._arguments.modes or list(Mode)
        try:
            if self._arguments.clean:
                await self._clean()  # so that it is known before anything is written if it may
                self._removed = None
            await self._run.open()
            if not READING.issuperset(modes):
                self._announce()
                modes = await self._permitted(modes)
            if not READING.issuperset(modes):
                await self._run.prepare()
            for mode in modes:
                await self._run.measure(mode)
        finally:
            await self._run.close()

    async def _permitted(self, modes: list[Mode]) -> list[Mode]:
        """Return the loads that the server lets this user put on it.

        Raises:
            ClientError: It does not let it do what was asked for.
        """
        if await self._run.stores_reports():
            return modes
        self._tasks.reported = 0
        need = ", ".join(mode for mode in modes if mode not in READING)
        text = (
            f"{need}: {self._arguments.address} does not store what "
            f"{self._target.become or self._target.username or 'an anonymous client'} reports. It "
            "is read-only, or wants a login with @report: give --login and --password-file"
        )
        if self._arguments.modes:
            raise ClientError(text)
        print(f"WARNING: Left out {text}", file=sys.stderr)
        return [mode for mode in modes if mode in READING]

    async def _clean(self) -> None:
        from hashserv.bench.running import remove  # late, as above

        try:
            self._removed = await remove(self._target, self._tasks.method)
        except (InvokeError, ConnectionClosedError) as error:
            raise ClientError(
                f"{self._arguments.address} does not let this client remove rows: {error}. --clean "
                "needs a login with @db-admin, and a server that is not read-only"
            ) from error

    def _announce(self) -> None:
        """Say what will be written, before it is."""
        fate = (
            "and removes them at the end"
            if self._arguments.clean
            else "which stay in its database; at the end stands how to remove them"
        )
        text = (
            f"This reports made-up tasks of the method {self._tasks.method} to "
            f"{self._arguments.address}, {fate}.\n"
        )
        if self._arguments.json:
            print(text, file=sys.stderr)
        else:
            self._print(text)

    def _print(self, text: str) -> None:
        if not text:
            return
        try:
            print(text, flush=True)
        except BrokenPipeError:  # nobody reads it any more, as behind `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._unread = True

    def _attempt(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do a part of the work in an event loop, and take note of what went wrong."""
        address = self._arguments.address
        try:
            asyncio.run(work())
        except InvokeError as error:
            self._failures.append(f"{address} refused: {error}")
        except (AddressError, ClientError, TlsError) as error:
            self._failures.append(str(error))
        except (OSError, ConnectionClosedError, ProtocolError) as error:
            reason = getattr(error, "strerror", None) or error
            self._failures.append(f"No answer from {address}: {reason}")
        except KeyboardInterrupt:
            self._failures.append("Interrupted: this is what was measured until then")

    def _plot(self, findings: bench_report.Findings) -> None:
        try:
            plotting.draw(self._arguments.plot, findings.title, findings.curves())
        except OSError as error:
            self._failures.append(f"{self._arguments.plot} can't be written: {error.strerror}")


def _make_room(arguments: argparse.Namespace) -> None:
    """Let this process have as many connections as it was told to, within bounds.

    Raises:
        SettingsError: They are too many.
    """
    if arguments.clients * arguments.depth > MOST_IN_FLIGHT:
        raise SettingsError(
            f"--clients times --depth is more than {MOST_IN_FLIGHT:,} requests in flight: choose "
            "less of one"
        )
    files = arguments.clients + _OTHER_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and files > hard:
        raise SettingsError(
            f"{arguments.clients} clients need {files} open files, and the limit is {hard}: choose "
            "fewer, or raise it (ulimit -n)"
        )
    if soft != resource.RLIM_INFINITY and files > soft:
        resource.setrlimit(resource.RLIMIT_NOFILE, (files, hard))


def _mode(text: str) -> Mode:
    try:
        return Mode(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is none of {', '.join(Mode)}") from None


def _between(least: int, most: int) -> Callable[[str], int]:
    def number(text: str) -> int:
        value = int(text)
        if not least <= value <= most:
            raise argparse.ArgumentTypeError(f"{text} is not between {least:,} and {most:,}")
        return value

    return number


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value <= LONGEST:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {LONGEST:,}")
    return value
