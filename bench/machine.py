"""What was measured on: the machine, the versions, and the memory of a process."""

import os
import platform
import re
import resource
import sqlite3
import subprocess
from importlib import metadata
from pathlib import Path

import hashserv


def facts(redis: str | None) -> dict[str, str]:
    """Return what numbers depend on, by name.

    Args:
        redis: The redis-server program, where there is one.
    """
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "load": f"{os.getloadavg()[0]:.1f} before the run",
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "sqlite": sqlite3.sqlite_version,
        "uvloop": _version_of("uvloop"),
        "hashserv": hashserv.__version__,
        "redis": _redis_version(redis) if redis else "not installed: ours only",
    }


def raise_file_limit() -> int:
    """Let this process, and the servers that it starts, open as many files as they may."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    return most


def own_bytes(pid: int) -> int:
    """Return how much memory a process holds for itself.

    Pages of files that it maps don't count: they are the system's cache, and go when others
    need the room.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"^RssAnon:\s+(\d+) kB$", status, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/{pid}/status has no RssAnon")
    return int(found[1]) * 1024


def read_bytes(pid: int) -> int:
    """Return how much a process has had read from disks, also by touching what it maps."""
    told = Path(f"/proc/{pid}/io").read_text()
    found = re.search(r"^read_bytes: (\d+)$", told, re.MULTILINE)
    if found is None:
        raise RuntimeError(f"/proc/{pid}/io has no read_bytes")
    return int(found[1])


def _processor() -> str:
    described = Path("/proc/cpuinfo").read_text()
    found = re.search(r"^model name\s*:\s*(.+)$", described, re.MULTILINE)
    return found[1] if found else platform.machine()


def _version_of(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def _redis_version(program: str) -> str:
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\S+)", said)
    return found[1] if found else said.strip()
