"""The house: who imports whom, how long a module is, what is said of each part."""

import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import hashserv

PROJECT = Path(__file__).resolve().parents[1]
SOURCES = sorted((PROJECT / "src").rglob("*.py"))
MODULES = ["hashserv", *(m.name for m in pkgutil.walk_packages(hashserv.__path__, "hashserv."))]

LONGEST_MODULE = 500


def test_imports_run_downwards() -> None:
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([str(command), "--no-cache"], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: str(path.relative_to(PROJECT)))
def test_a_module_is_neither_empty_nor_long(source: Path) -> None:
    assert 1 <= len(source.read_text().splitlines()) <= LONGEST_MODULE


@pytest.mark.parametrize("name", MODULES)
def test_what_is_public_says_what_it_is(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__, f"{name} has no docstring"
    assert not [thing for thing, documented in public(module) if not documented]


def public(module: ModuleType) -> Iterator[tuple[str, bool]]:
    """Yield each public class, function and method of a module, and whether it has a docstring.

    What overrides is documented where it is declared.
    """
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", "") != module.__name__:
            continue
        if inspect.isfunction(thing):
            yield name, bool(thing.__doc__)
        elif inspect.isclass(thing):
            yield name, bool(thing.__doc__)
            for attribute, value in vars(thing).items():
                function = value.fget if isinstance(value, property) else value
                function = getattr(function, "__func__", function)
                if attribute.startswith("_") or not inspect.isfunction(function):
                    continue
                declared = any(attribute in vars(base) for base in thing.__mro__[1:])
                yield f"{name}.{attribute}", bool(function.__doc__) or declared


def test_the_package_loads_nothing_heavy() -> None:
    """BitBake imports it in every process, and scripts where BitBake is installed do, too."""
    code = "import sys; import hashserv; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "hashserv" in loaded
    assert not loaded & {"sqlite3", "uvloop", "asyncio", "msgspec", "tqdm", "ssl", "bb"}
    assert not {name for name in loaded if name.startswith(("hashserv.server.", "hashserv.store"))}
