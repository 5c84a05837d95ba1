"""The documentation: complete and right where that can be checked."""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import msgspec
import pytest

from hashserv.cli import bitbake_hashclient, serving
from hashserv.client import Client
from hashserv.server.settings import Limits, Settings
from hashserv.wire.commands import COMMANDS, Command

PROJECT = Path(__file__).resolve().parents[1]
REFERENCE = PROJECT / "docs" / "reference"
PAGES = sorted(
    [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "bench").glob("*.md")]
)

Row = dict[str, str]


def table(page: str, *columns: str) -> list[Row]:
    """Return the rows of all tables of a page that begin with these columns."""
    found: list[Row] = []
    header: list[str] | None = None
    for line in (REFERENCE / page).read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not line.startswith("|"):
            header = None
        elif header is None:
            header = cells
        elif header[: len(columns)] == list(columns) and not line.startswith("|---"):
            found.append(dict(zip(header, cells, strict=True)))
    assert found, f"{page} has no table of {columns}"
    return found


def code(text: str) -> tuple[str, ...]:
    """Return what stands between backquotes."""
    return tuple(re.findall(r"`([^`]*)`", text))


def flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "version"):
            yield action


def default_of(action: argparse.Action) -> str:
    """Return a flag's default as the pages print it."""
    if action.default is False:
        return "off"
    return f"`{action.default}`" if action.default not in (None, "", []) else ""


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = bitbake_hashclient._parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def spelt(value: object) -> str:
    """Return a setting's default as the pages print it."""
    return ",".join(value) if isinstance(value, tuple) else str(value)


def test_flags_of_the_server() -> None:
    parser = argparse.ArgumentParser()
    serving.add_arguments(parser, {})
    expected = {
        tuple(action.option_strings): (
            tuple(re.findall(r"HASHSERVER_\w+", action.help or "")),
            default_of(action),
        )
        for action in flags(parser)
    }
    told = {
        code(row["flag"]): (code(row["environment"]), row["default"])
        for row in table("commands.md", "flag", "environment", "default")
    }
    assert told == expected


def test_commands_of_bitbake_hashclient() -> None:
    expected = {
        " ".join([name, *(str(a.metavar or a.dest.upper()) for a in p._get_positional_actions())])
        for name, p in subcommands().items()
    }
    told = [code(row["command"])[0] for row in table("commands.md", "command", "what it prints")]
    assert sorted(told) == sorted(expected)


def test_flags_of_bitbake_hashclient() -> None:
    parsers = {"all": bitbake_hashclient._parser(), **subcommands()}
    expected = {
        (name, tuple(action.option_strings)): default_of(action)
        for name, parser in parsers.items()
        for action in flags(parser)
    }
    told = {
        (row["command"].strip("`"), code(row["flag"])): row["default"]
        for row in table("commands.md", "command", "flag", "default")
    }
    assert told == expected


def test_settings() -> None:
    expected = {
        field.name: spelt(field.default)
        for field in (*fields(Settings), *fields(Limits))
        if field.name != "limits"
    }
    assert str(MISSING) not in expected.values()
    parser = argparse.ArgumentParser()
    serving.add_arguments(parser, {})
    known = {option for action in flags(parser) for option in action.option_strings}
    rows = table("settings.md", "setting", "flag", "default")
    assert {code(row["setting"])[0]: code(row["default"])[0] for row in rows} == expected
    assert {code(row["flag"])[0] for row in rows} <= known


@pytest.mark.parametrize(
    "row", table("settings.md", "constant", "value"), ids=lambda row: code(row["constant"])[0]
)
def test_constant(row: Row) -> None:
    module, _, name = code(row["constant"])[0].rpartition(".")
    value = getattr(importlib.import_module(f"hashserv.{module}"), name)
    assert code(row["value"])[0] == str(value)


def argument_of(field: msgspec.structs.FieldInfo) -> str:
    """Return an argument as the protocol's page prints it."""
    if field.required:
        return field.name
    return f"{field.name}={msgspec.json.encode(field.default).decode()}"


def test_requests_of_the_protocol() -> None:
    def row_of(command: type[Command]) -> tuple[tuple[str, ...], set[str], str]:
        return (
            tuple(map(argument_of, msgspec.structs.fields(command))),
            set(command.permissions),
            "yes" if command.read_only else "no",
        )

    told = {
        code(row["command"])[0]: (
            code(row["arguments"]),
            set(code(row["permissions"])),
            row["read-only"],
        )
        for row in table("protocol.md", "command", "arguments", "reply")
    }
    assert told == {name: row_of(command) for name, command in COMMANDS.items()}


def signature(name: str) -> str:
    parameters = inspect.signature(getattr(Client, name)).parameters.values()
    shown = [
        each.name if each.default is each.empty else f"{each.name}={each.default!r}"
        for each in parameters
        if each.name != "self"
    ]
    return f"{name}({', '.join(shown)})"


def test_methods_of_the_client() -> None:
    methods = [name for name, _ in inspect.getmembers(Client, callable) if name[0] != "_"]
    told = [code(row["method"])[0] for row in table("python.md", "method", "what it does")]
    assert sorted(told) == sorted(map(signature, methods))


def anchors(page: Path) -> set[str]:
    """Return what links into a page may name, as the usual renderers make it of headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links(page: Path) -> None:
    dead = []
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
    assert not dead
