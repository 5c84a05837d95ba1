"""Run the commands that work on databases, as a user would."""

import os
import subprocess
import sys
from pathlib import Path


def hashserv(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run ``hashserv`` to its end."""
    return python("-m", "hashserv.cli.main", *arguments, environment=environment)


def python(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run Python to its end."""
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
    )
