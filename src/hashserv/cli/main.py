"""``hashserv``: one command for everything, with subcommands."""

import argparse
import os
import socket
import sys
from collections.abc import Sequence

from hashserv.address import TcpAddress, TlsAddress, UnixAddress, WebSocketAddress, parse_address
from hashserv.cli import benchmarking, copying, merging, server_arguments, serving
from hashserv.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failure; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="hashserv", description="A hash equivalence server for BitBake."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    serve = commands.add_parser(
        "serve",
        help="run a server",
        description="Run a server until it is interrupted, and say how BitBake finds it.",
    )
    server_arguments.add_arguments(serve, os.environ)
    serve.set_defaults(run=lambda parsed: serving.run(serve, parsed, _say_ready))
    copy = commands.add_parser(
        "copy",
        help="copy a database into another, whatever their engines",
        description="Copy a database (an SQLite file of any era, or a URL) into an empty one, and "
        "compare the two. When interrupted, the same command goes on.",
    )
    copying.add_arguments(copy, os.environ)
    copy.set_defaults(run=lambda parsed: copying.run(copy, parsed))
    merge = commands.add_parser(
        "merge",
        help="add to a database what others hold",
        description="Insert into a database what it lacks of others. What it holds stays: an "
        "answer that was given never changes.",
    )
    merging.add_arguments(merge, os.environ)
    merge.set_defaults(run=lambda parsed: merging.run(merge, parsed))
    bench = commands.add_parser(
        "bench",
        usage="%(prog)s ADDRESS [MODE ...] [option ...]",
        help="measure how fast a server answers",
        description="Put load on a server, check every reply, and tell how fast it is. The tasks "
        "are made up, so that nothing of a build's is touched; what is reported stays in the "
        "server's database until it is removed.",
    )
    benchmarking.add_arguments(bench)
    bench.set_defaults(run=lambda parsed: benchmarking.run(bench, parsed))
    for command in commands.choices.values():
        command.set_defaults(command=command)
    parsed, rest = parser.parse_known_args(arguments)
    if rest:  # argparse takes several arguments of one kind only where they stand together
        words = " ".join(rest)
        parsed.command.error(
            f"unrecognized arguments: {words} (what is no option stands before all options)"
        )
    code: int = parsed.run(parsed)
    return code


def _say_ready(addresses: list[str]) -> None:
    """Tell how to use the server that has just started."""
    reachable = list(map(_reachable, addresses))
    also = "".join(f"Also on {address}\n" for address in reachable[1:])
    print(
        f"Serving on {reachable[0]} (Ctrl-C stops).\n"
        f"{also}"
        "For conf/local.conf:\n"
        "\n"
        f'BB_HASHSERVE = "{reachable[0]}"\n'
        'BB_SIGNATURE_HANDLER = "OEEquivHash"\n',
        flush=True,
    )


def _reachable(text: str) -> str:
    """Return an address as clients may write it, whatever their directory or machine."""
    address = parse_address(text)
    match address:
        case UnixAddress(path):
            return str(UnixAddress(os.path.abspath(path)))
        case TcpAddress("0.0.0.0" | "::") | TlsAddress("0.0.0.0" | "::"):  # noqa: S104 - told of
            return str(address._replace(host=socket.gethostname()))
        case WebSocketAddress(host="0.0.0.0" | "::"):  # noqa: S104
            return str(address._replace(host=socket.gethostname()))
        case _:
            return text


if __name__ == "__main__":
    sys.exit(main())
