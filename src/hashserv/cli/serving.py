"""Running a server in the foreground: common to both commands that do."""

import argparse
import logging
import sys
from collections.abc import Callable
from logging.handlers import WatchedFileHandler

from hashserv.cli.server_arguments import settings_of
from hashserv.errors import AddressError, HashservError, ServerError, SettingsError


def _set_up_logs(arguments: argparse.Namespace) -> None:
    """Send logs to stderr, and the audit, which is JSON, as it is to where it was asked for.

    Raises:
        SettingsError: The audit's file can't be written.
    """
    who = " [%(process)d]" if arguments.workers > 1 else ""
    logging.basicConfig(
        level=arguments.log, format=f"%(asctime)s{who} %(levelname)s %(message)s", stream=sys.stderr
    )
    audit: logging.Handler = logging.StreamHandler()
    if arguments.audit_log is not None:
        try:
            audit = WatchedFileHandler(arguments.audit_log)
        except OSError as error:
            raise SettingsError(
                f"The audit log {arguments.audit_log} can't be written: {error.strerror}"
            ) from error
    audit.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("hashserv.audit")
    logger.propagate = False
    logger.addHandler(audit)


def run(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    ready: Callable[[list[str]], None] = lambda _: None,
) -> int:
    """Run a server until a signal ends it, and return the exit code.

    Args:
        parser: Knows the command's name.
        arguments: What `server_arguments.add_arguments` added, parsed.
        ready: Called with the real addresses once clients are served.
    """
    from hashserv.server import app  # late: --help needs none of it

    try:
        _set_up_logs(arguments)
        settings = settings_of(arguments)
    except (AddressError, SettingsError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    try:
        if settings.workers > 1:
            from hashserv.server import workers  # late: a server on its own needs none of it

            workers.run(settings, ready)
        else:
            app.run(settings, ready)
    except (HashservError, ServerError) as error:
        print(f"ERROR: {error}", file=sys.stderr)
        return 1
    return 0
