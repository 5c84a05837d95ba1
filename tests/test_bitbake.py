"""Whose exceptions ours are, where BitBake is loaded, can be, can be in part, or can't be."""

import subprocess
import sys
from pathlib import Path

import pytest

OURS_ARE_THEIRS = """
import bb.asyncrpc, bb.asyncrpc.exceptions, pickle
for name in ("ClientError", "ConnectionClosedError", "InvokeError", "ServerError"):
    ours = getattr(hashserv, name)
    assert ours is getattr(bb.asyncrpc, name)
    assert ours is getattr(bb.asyncrpc.exceptions, name)
    assert pickle.loads(pickle.dumps(ours)) is ours
"""
OURS_ARE_OURS = """
assert hashserv.InvokeError.__module__ == "hashserv.errors", hashserv.InvokeError
assert issubclass(hashserv.ConnectionClosedError, Exception)
"""
WHOLE = "class ClientError(Exception): pass\nConnectionClosedError = InvokeError = ClientError\n"


def run(code: str, *, path: Path | None = None) -> None:
    """Run code in a new process, where `path` is searched for modules first."""
    if path is not None:
        code = f"import sys; sys.path.insert(0, {str(path)!r})\n{code}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def other_bitbake(tmp_path: Path) -> Path:
    """A directory with a BitBake of another age, to be filled."""
    (tmp_path / "bb" / "asyncrpc").mkdir(parents=True)
    for package in ("bb", "bb/asyncrpc"):
        (tmp_path / package / "__init__.py").touch()
    return tmp_path


def test_bitbake_is_imported_later_if_at_all() -> None:
    run("import sys, hashserv\nassert 'bb' not in sys.modules\n" + OURS_ARE_THEIRS)


@pytest.mark.parametrize("first", ["bb", "bb.asyncrpc", "bb.siggen"])
def test_bitbake_is_imported_before(first: str) -> None:
    run(f"import {first}, hashserv\n" + OURS_ARE_THEIRS)


def test_there_is_no_bitbake() -> None:
    run("import sys; sys.modules['bb'] = None\nimport hashserv\n" + OURS_ARE_OURS)


def test_a_bitbake_without_exceptions(other_bitbake: Path) -> None:
    run("import hashserv, bb.asyncrpc\n" + OURS_ARE_OURS, path=other_bitbake)


def test_a_bitbake_that_has_them_elsewhere(other_bitbake: Path) -> None:
    theirs = other_bitbake / "bb" / "asyncrpc" / "__init__.py"
    theirs.write_text(WHOLE + "ServerError = ClientError\n")
    run(
        "import hashserv, bb.asyncrpc\nassert hashserv.ServerError is bb.asyncrpc.ServerError",
        path=other_bitbake,
    )


def test_a_bitbake_whose_exceptions_need_the_rest(other_bitbake: Path) -> None:
    asyncrpc = other_bitbake / "bb" / "asyncrpc"
    (asyncrpc / "names.py").write_text(WHOLE + "ServerError = ClientError\n")
    (asyncrpc / "exceptions.py").write_text("from .names import *\n")
    (asyncrpc / "__init__.py").write_text("from .exceptions import *\n")
    run("import hashserv\n" + OURS_ARE_THEIRS, path=other_bitbake)
