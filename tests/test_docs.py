"""The documentation: complete and right where that can be checked."""

import argparse
import asyncio
import importlib
import inspect
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields
from pathlib import Path

import msgspec
import pytest

import hashserv
from hashserv.bench.modes import Mode
from hashserv.bench.tally import Tally
from hashserv.cli import (
    bench_report,
    benchmarking,
    bitbake_hashclient,
    copying,
    merging,
    server_arguments,
)
from hashserv.client import Client
from hashserv.equivalence.cache import PURE_PYTHON
from hashserv.equivalence.merging import Conflict
from hashserv.equivalence.upstream import UpstreamSummary
from hashserv.model import ALL_PERMISSIONS
from hashserv.server import audit
from hashserv.server.account_handlers import ACCOUNT_HANDLERS
from hashserv.server.peer import Peer
from hashserv.server.process import HashServer
from hashserv.server.settings import Limits, Settings
from hashserv.transport import tls
from hashserv.upstream.breaker import Breaker
from hashserv.upstream.failures import explain
from hashserv.wire.commands import COMMANDS, Command

PROJECT = Path(__file__).resolve().parents[1]
REFERENCE = PROJECT / "docs" / "reference"
HOW_TO = PROJECT / "docs" / "how-to"
IN_FRONT = HOW_TO / "put-a-server-in-front.md"
PAGES = sorted(
    [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "bench").glob("*.md")]
)

OPERATING = [page for page in PAGES if page.stem == "security" or page.match("how-to/*.md")]
"""Pages that tell how to use our commands; of them, the one about measuring has others."""
OPERATING.remove(HOW_TO / "measure.md")

OTHER_FLAGS = {"--version", "--help"}
"""Flags of our commands that need no page."""

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


def how_to(*columns: str) -> list[Row]:
    return table("../how-to/run-with-users.md", *columns)


def code(text: str) -> tuple[str, ...]:
    """Return what stands between backquotes."""
    return tuple(re.findall(r"`([^`]*)`", text))


def flags(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    for action in parser._actions:
        if action.option_strings and action.dest not in ("help", "version"):
            yield action


def default_of(action: argparse.Action, otherwise: object = None) -> str:
    """Return a flag's default as the pages print it."""
    if action.default is False:
        return "off"
    default = otherwise if action.default in (None, "", []) else action.default
    return "" if default is None else f"`{default}`"


def subcommands() -> dict[str, argparse.ArgumentParser]:
    parser = bitbake_hashclient._parser()
    (action,) = (a for a in parser._actions if isinstance(a, argparse._SubParsersAction))
    return dict(action.choices)


def database_commands() -> dict[str, argparse.ArgumentParser]:
    """Return the commands of hashserv that work on databases."""
    parsers = {"copy": argparse.ArgumentParser(), "merge": argparse.ArgumentParser()}
    copying.add_arguments(parsers["copy"], {})
    merging.add_arguments(parsers["merge"], {})
    return parsers


def spelt(value: object) -> str:
    """Return a setting's default as the pages print it."""
    if value in (None, ()):
        return "none"
    return f"`{','.join(value) if isinstance(value, tuple) else value}`"


def test_flags_of_the_server() -> None:
    parser = argparse.ArgumentParser()
    server_arguments.add_arguments(parser, {})
    expected = {
        tuple(action.option_strings): (
            tuple(re.findall(r"HASHSERVER_\w+", action.help or "")),
            default_of(action, parser.get_default(f"default_{action.dest}")),
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


def test_flags_of_copy_and_merge() -> None:
    expected: dict[tuple[str, ...], tuple[set[str], tuple[str, ...], str]] = {}
    for name, parser in database_commands().items():
        for action in flags(parser):
            variables = tuple(re.findall(r"HASHSERVER_\w+", action.help or ""))
            what = tuple(action.option_strings)
            names, *_ = expected.setdefault(what, (set(), variables, default_of(action)))
            names.add(name)
    told = {
        code(row["flag"]): (
            set(code(row["command"])) or {"copy", "merge"},
            code(row["environment"]),
            row["default"],
        )
        for row in table("commands.md", "command", "flag", "environment", "default")
    }
    assert told == expected
    page = (REFERENCE / "commands.md").read_text()
    for name, parser in database_commands().items():
        positional = " ".join(
            f"{action.metavar}{'...' * (action.nargs == '+')}"
            for action in parser._get_positional_actions()
        )
        assert f"`hashserv {name} {positional}`" in page


def test_bench() -> None:
    parser = argparse.ArgumentParser()
    benchmarking.add_arguments(parser)
    expected = {tuple(action.option_strings): default_of(action) for action in flags(parser)}
    rows = table("commands.md", "flag", "default", "meaning")
    assert {code(row["flag"]): row["default"] for row in rows} == expected
    told = [code(row["mode"])[0] for row in table("commands.md", "mode", "what it asks")]
    assert told == list(Mode)


def test_json_of_bench() -> None:
    findings = bench_report.Findings(
        address="localhost:8686",
        method="hashserv-bench.x",
        clients=1,
        depth=1,
        tallies=[Tally("hits")],
        reported=0,
        removed=None,
        failures=[],
    )
    found = json.loads(bench_report.as_json(findings))
    (load,) = found.pop("loads")
    rows = {code(row["key"])[0]: row["value"] for row in table("commands.md", "key", "value")}
    assert list(rows) == list(load)
    for key in ("latency", "throughput"):
        assert set(code(rows[key])) == set(load[key])
    page = (REFERENCE / "commands.md").read_text()
    (others,) = re.findall(r"^Beside `loads` there are .*?\n\n", page, re.MULTILINE | re.DOTALL)
    assert set(found) < set(code(others))


def test_columns_of_the_report_of_a_merge() -> None:
    rows = table("../how-to/copy-and-merge.md", "column", "value")
    assert [each for row in rows for each in code(row["column"])] == list(Conflict._fields)


def test_settings() -> None:
    expected = {
        field.name: spelt(field.default)
        for field in (*fields(Settings), *fields(Limits))
        if field.name != "limits"
    }
    assert str(MISSING) not in expected.values()
    parser = argparse.ArgumentParser()
    server_arguments.add_arguments(parser, {})
    known = {option for action in flags(parser) for option in action.option_strings}
    rows = table("settings.md", "setting", "flag", "default")
    assert {code(row["setting"])[0]: row["default"] for row in rows} == expected
    told = {code(row["flag"])[0] for row in rows}
    assert told <= known
    assert {flag for flag in known - told if flag.startswith("--")} == {
        *("--log", "--audit-log"),  # of the commands, not of a server
        "--admin-password-file",  # another way to say --admin-password
        "--db-password-file",  # another way to say --db-password
    }


def test_variables() -> None:
    expected = [tls.CA_VARIABLE, tls.CERTIFICATE_VARIABLE, tls.KEY_VARIABLE, PURE_PYTHON]
    told = [code(row["variable"])[0] for row in table("settings.md", "variable", "what it is for")]
    assert told == expected


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
        return field.encode_name
    return f"{field.encode_name}={msgspec.json.encode(field.default).decode()}"


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


def signature(function: Callable[..., object]) -> str:
    """Return how a function or method is called, without `self` and types."""
    shown: list[str] = []
    for each in inspect.signature(function).parameters.values():
        if each.kind is each.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        if each.name != "self":
            default = "" if each.default is each.empty else f"={each.default!r}"
            shown.append(f"{each.name}{default}")
    return f"{function.__name__}({', '.join(shown)})"


def methods(kind: type) -> list[str]:
    return [
        signature(method)
        for name, method in inspect.getmembers(kind, callable)
        if not name.startswith("_")
    ]


def test_methods_of_the_client() -> None:
    told = [code(row["method"])[0] for row in table("python.md", "method", "what it does")]
    assert sorted(told) == sorted(methods(Client))


def test_functions() -> None:
    page = (REFERENCE / "python.md").read_text()
    assert not [
        name
        for name in hashserv.__all__
        if f"`{name}`" not in page and f"hashserv.{name}" not in page
    ]
    for function in (hashserv.create_client, hashserv.create_async_client):
        assert f"hashserv.{signature(function)}" in page


def test_arguments_of_create_server() -> None:
    expected = {
        name: "" if each.default is each.empty else f"`{each.default!r}`"
        for name, each in inspect.signature(hashserv.create_server).parameters.items()
    }
    rows = table("python.md", "argument", "default", "what it is for")
    assert {code(row["argument"])[0]: row["default"] for row in rows} == expected


def test_attributes_of_a_server(tmp_path: Path) -> None:
    server = hashserv.create_server("127.0.0.1:0", str(tmp_path / "hashserv.db"))
    attributes = [name for name in vars(server) if not name.startswith("_")]
    told = [code(row["attribute"])[0] for row in table("python.md", "attribute", "what it is")]
    assert sorted(told) == sorted([*attributes, *methods(HashServer)])


def test_permissions() -> None:
    told = [code(row["permission"])[0] for row in how_to("permission", "allows")]
    assert sorted(told) == sorted(ALL_PERMISSIONS)


def test_audit_log(caplog: pytest.LogCaptureFixture) -> None:
    rows = {code(row["key"])[0]: code(row["value"]) for row in how_to("key", "value")}
    (example,) = re.findall(r"```json\n(.*)\n```", (HOW_TO / "run-with-users.md").read_text())
    assert list(json.loads(example)) == list(rows)
    peer = Peer(asyncio.Transport({"peername": ("192.0.2.7", 52586)}))
    arguments = {"username": "anna", "token": "", "permissions": []}
    recorded = []
    with caplog.at_level("INFO", "hashserv.audit"):
        for command in ACCOUNT_HANDLERS:
            caplog.clear()
            audit.record(peer, msgspec.convert(arguments, command), audit.ALLOWED)
            recorded += [json.loads(record.message) for record in caplog.records]
    assert all(list(line) == list(rows) for line in recorded)
    assert {line["what"] for line in recorded} == set(rows["what"])


def test_statistics_of_an_upstream() -> None:
    expected = {*(field.name for field in fields(UpstreamSummary)), "backfilled"}
    rows = table("../how-to/put-a-server-in-front.md", "key", "value")
    assert {code(row["key"])[0] for row in rows} == expected
    (example,) = re.findall(r"```json\n(.*?)```", IN_FRONT.read_text(), re.DOTALL)
    assert json.loads(f"{{{example}}}")["upstream"].keys() == expected
    (in_protocol,) = re.findall(r'`"upstream"`: `{(.*?)}`', (REFERENCE / "protocol.md").read_text())
    assert set(in_protocol.split(", ")) == expected


def test_log_of_an_upstream(caplog: pytest.LogCaptureFixture) -> None:
    breaker = Breaker("wss://hashserv.example.org/ws")
    with caplog.at_level("INFO", "hashserv.upstream"):
        breaker.failed(explain(TimeoutError(), timeout=Settings.upstream_timeout))
        breaker.probed(None)
        breaker.succeeded()
    log = "".join(f"{record.levelname} {record.message}\n" for record in caplog.records)
    assert f"```\n{log}```\n" in IN_FRONT.read_text()


@pytest.mark.parametrize("page", OPERATING, ids=lambda page: str(page.relative_to(PROJECT)))
def test_variables_and_flags_that_are_named(page: Path) -> None:
    parser = argparse.ArgumentParser()
    server_arguments.add_arguments(parser, {})
    known = {option for action in flags(parser) for option in action.option_strings}
    variables = set(re.findall(r"HASHSERVER_\w+", parser.format_help()))
    others = (*subcommands().values(), *database_commands().values())
    for each in (bitbake_hashclient._parser(), *others):
        known |= {option for action in flags(each) for option in action.option_strings}
    text = page.read_text()
    assert set(re.findall(r"HASHSERVER_\w+", text)) <= variables
    named = {
        word
        for span in code(re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        for word in re.findall(r"^--[a-z][a-z-]*", span)
    }
    assert named <= known | OTHER_FLAGS


def test_pages_are_linked_from_the_readme() -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", (PROJECT / "README.md").read_text())
    pages = [str(page.relative_to(PROJECT)) for page in (PROJECT / "docs").rglob("*.md")]
    missing = [page for page in pages if page not in links and "/decisions/" not in page]
    assert not missing


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
