"""``bitbake-hashclient``: ask and administer a server (INTERFACES.md §3)."""

import argparse
import json
import logging
import os
import select
import sys
from collections.abc import Callable, Sequence
from itertools import chain, islice
from typing import Final

from hashserv.cli import measuring
from hashserv.cli.hashclient_accounts import add_accounts
from hashserv.cli.login import add_login, check_login, login_of
from hashserv.cli.progress import counted
from hashserv.client import Client
from hashserv.errors import (
    AddressError,
    ClientError,
    ConnectionClosedError,
    InvokeError,
    SettingsError,
)
from hashserv.transport.tls import TlsError
from hashserv.version import __version__

DEFAULT_ADDRESS: Final = "unix://./hashserve.sock"
_LOG_LEVELS: Final = ("CRITICAL", "ERROR", "WARNING", "INFO", "DEBUG")

Command = Callable[[argparse.Namespace, Client], int | None]
AddCommand = Callable[[str, Command, str], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failure; wrong usage exits with 2."""
    parser = _parser()
    parsed = parser.parse_args(arguments)
    check_login(parser, parsed)
    logging.basicConfig(level=parsed.log, format="%(levelname)s: %(message)s", stream=sys.stderr)
    try:
        parsed.identity = login_of(parsed)
        with parsed.identity.connect(parsed.address) as client:
            code: int | None = parsed.run(parsed, client)
            sys.stdout.flush()
            return code or 0
    except InvokeError as error:
        print(f"ERROR: {error}")
    except (AddressError, ClientError, SettingsError, TlsError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
    except UnicodeEncodeError as error:  # it may be a password, which is not to be shown
        print(f"ERROR: An argument or a reply is no {error.encoding} text", file=sys.stderr)
    except (OSError, ConnectionClosedError) as error:
        if isinstance(error, BrokenPipeError) and _reader_is_gone():
            return 1
        reason = getattr(error, "strerror", None) or error
        print(
            f"ERROR: No answer from {parsed.address}: {reason}. Is a server running there? "
            "--address names another",
            file=sys.stderr,
        )
    return 1


def _reader_is_gone() -> bool:
    """Tell whether nobody reads what is printed any more, as behind ``| head``; then drop it."""
    output = select.poll()
    output.register(sys.stdout, 0)
    if not any(event & select.POLLERR for _, event in output.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes at its end
    return True


def _get(arguments: argparse.Namespace, client: Client) -> None:
    _print_found(client.get_taskhash(arguments.method, arguments.taskhash, all_properties=True))


def _get_outhash(arguments: argparse.Namespace, client: Client) -> None:
    _print_found(client.get_outhash(arguments.method, arguments.outhash, arguments.taskhash))


def _stats(arguments: argparse.Namespace, client: Client) -> None:
    _print_json(client.reset_stats() if arguments.reset else client.get_stats())


def _stress(arguments: argparse.Namespace, _client: Client) -> None:
    load = measuring.Load(
        address=arguments.address,
        login=arguments.identity,
        clients=arguments.clients,
        requests=arguments.requests,
        report=arguments.report,
        taskhash_seed=arguments.taskhash_seed,
        outhash_seed=arguments.outhash_seed,
    )
    measuring.print_stress(load, measuring.stress(load))


def _remove(arguments: argparse.Namespace, client: Client) -> None:
    print(f"Removed {client.remove(dict(arguments.where))['count']} row(s)")


def _clean_unused(arguments: argparse.Namespace, client: Client) -> None:
    print(f"Removed {client.clean_unused(arguments.seconds)['count']} rows")


def _get_db_usage(_arguments: argparse.Namespace, client: Client) -> None:
    usage = client.get_db_usage()
    print(f"{'Table name':20}| {'Rows':20}".rstrip())
    for name in sorted(usage):
        print(f"{name:20}| {usage[name]['rows']}")
    print()
    print(f"Total rows: {sum(table['rows'] for table in usage.values())}")


def _get_db_query_columns(_arguments: argparse.Namespace, client: Client) -> None:
    print("\n".join(sorted(client.get_db_query_columns())))


def _gc_status(_arguments: argparse.Namespace, client: Client) -> None:
    status = client.gc_status()
    if not status["mark"]:
        print("No Garbage collection in progress")
        return
    print(f"Current Mark: {status['mark']}")
    print(f"Total hashes to keep: {status['keep']}")
    print(f"Total hashes to remove: {status['remove']}")


def _gc_mark(arguments: argparse.Namespace, client: Client) -> None:
    count = client.gc_mark(arguments.mark, dict(arguments.where))["count"]
    print(f"New hashes marked: {count}")


def _gc_mark_stream(arguments: argparse.Namespace, client: Client) -> None:
    lines = counted((line for line in map(str.strip, sys.stdin) if line), unit="lines")
    first = list(islice(lines, 1))
    try:
        count = client.gc_mark_stream(arguments.mark, first)["count"]
    except ConnectionError:  # a server that does not know the stream closes the connection
        count = 0
        for line in chain(first, lines):
            count += client.gc_mark(arguments.mark, _condition(line))["count"]
    else:
        count += client.gc_mark_stream(arguments.mark, lines)["count"]
    print(f"New hashes marked: {count}")


def _condition(line: str) -> dict[str, str | None]:
    words = line.split()
    if len(words) % 2:
        raise ClientError(f"'{line}' is not made of columns and values")
    return dict(zip(words[0::2], words[1::2], strict=True))


def _gc_sweep(arguments: argparse.Namespace, client: Client) -> None:
    print(f"Removed {client.gc_sweep(arguments.mark)['count']} rows")


def _unihash_exists(arguments: argparse.Namespace, client: Client) -> int:
    exists = client.unihash_exists(arguments.unihash)
    if not arguments.quiet:
        print("true" if exists else "false")
        return 0
    return 0 if exists else 1


def _ping(arguments: argparse.Namespace, client: Client) -> None:
    measuring.print_pings(client, arguments.count, quiet=arguments.quiet)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="bitbake-hashclient", description="Ask and administer a hash equivalence server."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    parser.add_argument(
        "--address",
        default=DEFAULT_ADDRESS,
        help="the server: unix://PATH, HOST:PORT, [IPV6]:PORT, tls://HOST:PORT, "
        "ws://HOST:PORT[/PATH] or wss://HOST[:PORT][/PATH] (%(default)s)",
    )
    add_login(parser)
    parser.add_argument(
        "--log",
        metavar="LEVEL",
        type=str.upper,
        choices=_LOG_LEVELS,
        default="WARNING",
        help=f"least serious messages to show: {', '.join(_LOG_LEVELS)} (%(default)s)",
    )
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text[0].upper() + text[1:] + ".")
        command.set_defaults(run=run)
        return command

    _add_questions(add)
    _add_removal(add)
    add_accounts(add)
    return parser


def _add_questions(add: AddCommand) -> None:
    command = add("get", _get, "show what is known of a task")
    command.add_argument("method", help="method, such as oe.sstatesig.OEOuthashBasic")
    command.add_argument("taskhash", help="hash of the task's inputs")

    command = add("get-outhash", _get_outhash, "show the oldest task with an output")
    command.add_argument("method", help="method, such as oe.sstatesig.OEOuthashBasic")
    command.add_argument("outhash", help="hash of the output")
    command.add_argument("taskhash", help="hash of the task's inputs, for an upstream")

    command = add("unihash-exists", _unihash_exists, "tell whether any task has a unihash")
    command.add_argument("unihash", help="the unihash")
    command.add_argument(
        "--quiet", action="store_true", help="print nothing, exit with 0 if it exists, else with 1"
    )

    command = add("stats", _stats, "show the server's request statistics")
    command.add_argument("--reset", action="store_true", help="start them anew")

    command = add("ping", _ping, "measure how fast the server answers")
    command.add_argument("-n", "--count", type=_positive, default=10, help="pings (%(default)s)")
    command.add_argument("-q", "--quiet", action="store_true", help="print the summary only")

    command = add("stress", _stress, "put load on the server, and tell how it copes")
    command.add_argument("--clients", type=_positive, default=10, help="clients (%(default)s)")
    command.add_argument(
        "--requests", type=_positive, default=1000, help="requests of each client (%(default)s)"
    )
    command.add_argument("--report", action="store_true", help="report the hashes that are missed")
    command.add_argument(
        "--taskhash-seed", default="", metavar="SEED", help="make other taskhashes"
    )
    command.add_argument("--outhash-seed", default="", metavar="SEED", help="make other outhashes")

    add("get-db-usage", _get_db_usage, "show how many rows each table has")
    add("get-db-query-columns", _get_db_query_columns, "list what --where may name")


def _add_removal(add: AddCommand) -> None:
    command = add("remove", _remove, "remove what matches all conditions")
    _add_where(command)

    command = add("clean-unused", _clean_unused, "remove outhashes that no task's mapping needs")
    command.add_argument("seconds", type=int, metavar="SECONDS", help="only those older than this")

    add("gc-status", _gc_status, "show how far the garbage collection is")

    command = add("gc-mark", _gc_mark, "start or continue a collection: keep what matches")
    command.add_argument("mark", help="name of the collection")
    _add_where(command)

    command = add(
        "gc-mark-stream",
        _gc_mark_stream,
        "start or continue a collection: keep what each line of standard input matches",
    )
    command.add_argument("mark", help="name of the collection; lines read: COLUMN VALUE ...")

    command = add("gc-sweep", _gc_sweep, "end a collection: remove all that it does not keep")
    command.add_argument("mark", help="name of the collection")


def _add_where(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        *("-w", "--where"),
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="a column and the value it must have; may be repeated",
    )


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return number


def _print_found(found: dict[str, object] | None) -> None:
    if found is not None:
        _print_json(found)


def _print_json(value: object) -> None:
    print(json.dumps(value, sort_keys=True, indent=4))


if __name__ == "__main__":
    sys.exit(main())
