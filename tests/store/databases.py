"""Database files of all eras, and of other programs."""

import hashlib
import shutil
import sqlite3
from pathlib import Path

_TESTS = Path(__file__).resolve().parents[1]
_PLACES = (_TESTS / "data" / "db", _TESTS.parents[1] / "shared" / "fixtures" / "db")

REFERENCE_TABLES = (
    """CREATE TABLE IF NOT EXISTS unihashes_v3 (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL,
        taskhash TEXT NOT NULL,
        unihash TEXT NOT NULL,
        gc_mark TEXT NOT NULL,
        UNIQUE(method, taskhash)
    )""",
    """CREATE TABLE IF NOT EXISTS outhashes_v2 (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        method TEXT NOT NULL,
        taskhash TEXT NOT NULL,
        outhash TEXT NOT NULL,
        created DATETIME,
        owner TEXT,
        PN TEXT,
        PV TEXT,
        PR TEXT,
        task TEXT,
        outhash_siginfo TEXT,
        UNIQUE(method, taskhash, outhash)
    )""",
    """CREATE TABLE IF NOT EXISTS users (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        username TEXT NOT NULL,
        token TEXT NOT NULL,
        permissions TEXT NOT NULL,
        UNIQUE(username)
    )""",
    """CREATE TABLE IF NOT EXISTS config (
        id INTEGER PRIMARY KEY AUTOINCREMENT,
        name TEXT NOT NULL,
        value TEXT,
        UNIQUE(name)
    )""",
)
REFERENCE_INDEXES = (
    "CREATE INDEX IF NOT EXISTS taskhash_lookup_v4 ON unihashes_v3 (method, taskhash)",
    "CREATE INDEX IF NOT EXISTS unihash_lookup_v1 ON unihashes_v3 (unihash)",
    "CREATE INDEX IF NOT EXISTS outhash_lookup_v3 ON outhashes_v2 (method, outhash)",
    "CREATE INDEX IF NOT EXISTS config_lookup ON config (name)",
)
AS_THE_REFERENCE = (*REFERENCE_TABLES, *REFERENCE_INDEXES)
"""What a reference server runs when it opens a file."""

ERAS = ("tasks_v2", "unihashes_v2", "unihashes_v3")


def fixture(name: str) -> Path:
    """Return a file of the recorded databases; it must not be opened, only copied."""
    return next(place / name for place in _PLACES if (place / name).exists())


def copy_of(era: str, directory: Path) -> Path:
    """Return a copy of an era's database."""
    return Path(shutil.copy(fixture(f"{era}.db"), directory / f"{era}.db"))


def rows(file: Path, query: str) -> list[tuple[object, ...]]:
    """Return what a plain SQLite connection says."""
    connection = sqlite3.connect(file)
    result = connection.execute(query).fetchall()
    connection.close()
    return result


def make(file: Path, *statements: str) -> Path:
    """Make or change a file with plain SQLite."""
    connection = sqlite3.connect(file, isolation_level=None)
    for statement in statements:
        connection.execute(statement)
    connection.close()
    return file


def digest(file: Path) -> str:
    """Return a hash of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def overwrite(file: Path, at: int, data: bytes) -> Path:
    """Damage a file."""
    with file.open("r+b") as opened:
        opened.seek(at)
        opened.write(data)
    return file
