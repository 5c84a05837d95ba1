"""``bitbake-hashserv``: the server, with the reference's flags (INTERFACES.md §2)."""

import argparse
import os
import sys
from collections.abc import Sequence

from hashserv.cli import server_arguments, serving
from hashserv.version import __version__


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit code: 0, 1 for a failure; wrong usage exits with 2."""
    parser = argparse.ArgumentParser(
        prog="bitbake-hashserv", description="A hash equivalence server for BitBake."
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    server_arguments.add_arguments(parser, os.environ)
    return serving.run(parser, parser.parse_args(arguments))


if __name__ == "__main__":
    sys.exit(main())
