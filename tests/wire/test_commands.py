"""The commands: what each needs, what each takes, and how a wrong request is told."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hashserv.errors import InvokeError, ProtocolError
from hashserv.server.account_handlers import ACCOUNT_HANDLERS
from hashserv.server.handlers import HANDLERS
from hashserv.wire.commands import (
    COMMANDS,
    AccountCommand,
    Auth,
    BackfillWait,
    BecomeUser,
    CleanUnused,
    Command,
    DeleteUser,
    ExistsStream,
    GcMark,
    GcMarkStream,
    GcStatus,
    GcSweep,
    Get,
    GetAllUsers,
    GetDbQueryColumns,
    GetDbUsage,
    GetOuthash,
    GetStats,
    GetStream,
    GetUser,
    NewUser,
    OwnAccountCommand,
    Ping,
    RefreshToken,
    Remove,
    Report,
    ReportEquiv,
    ResetStats,
    SetUserPerms,
    SnapshotStream,
)
from hashserv.wire.requests import (
    decode_existence,
    decode_lookup,
    decode_mark_line,
    decode_request,
)
from hashserv.wire.server import STREAM_MODES
from tests.equivalence.soak import cases

# PROTOCOL.md §5: name, permissions, whether a read-only server answers it.
DECLARED = {
    "ping": ("", True),
    "get": ("@read", True),
    "get-outhash": ("@read", True),
    "get-stream": ("@read", True),
    "exists-stream": ("@read", True),
    "snapshot-stream": ("@read", True),
    "report": ("@read", True),
    "report-equiv": ("@read @report", False),
    "get-stats": ("@read", True),
    "reset-stats": ("@db-admin", False),
    "backfill-wait": ("@read", False),
    "remove": ("@db-admin", False),
    "gc-mark": ("@db-admin", False),
    "gc-mark-stream": ("@db-admin", False),
    "gc-status": ("@db-admin", False),
    "gc-sweep": ("@db-admin", False),
    "clean-unused": ("@db-admin", False),
    "get-db-usage": ("@db-admin", True),
    "get-db-query-columns": ("@db-admin", True),
    "auth": ("", True),
    "get-user": ("@user-admin", True),
    "get-all-users": ("@user-admin", True),
    "become-user": ("@user-admin", True),
    "new-user": ("@user-admin", False),
    "set-user-perms": ("@user-admin", False),
    "refresh-token": ("@user-admin", False),
    "delete-user": ("@user-admin", False),
}
OR_ONESELF = {"get-user", "refresh-token", "delete-user"}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_needs_what_the_protocol_says(name: str) -> None:
    command = COMMANDS[name]
    permissions, read_only = DECLARED[name]
    assert command.name == name
    assert (command.permissions, command.read_only) == (frozenset(permissions.split()), read_only)


def test_no_command_is_missing() -> None:
    assert DECLARED.keys() == COMMANDS.keys()


def test_what_one_may_do_to_oneself_needs_no_permission() -> None:
    own = {name for name, command in COMMANDS.items() if issubclass(command, OwnAccountCommand)}
    assert own == OR_ONESELF


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_is_answered_by_someone(name: str) -> None:
    command = COMMANDS[name]
    of_session = command in STREAM_MODES or command is Report
    assert of_session + (command in HANDLERS) + (command in ACCOUNT_HANDLERS) == 1
    assert issubclass(command, AccountCommand) == (command in ACCOUNT_HANDLERS)


@pytest.mark.parametrize(
    ("name", "arguments", "command"),
    [
        ("ping", {}, Ping()),
        ("ping", None, Ping()),
        ("ping", ["any", {"thing": 1}], Ping()),
        ("get", {"method": "m", "taskhash": "t"}, Get("m", "t", all=False)),
        ("get", {"method": "m", "taskhash": "t", "all": True, "x": 1}, Get("m", "t", all=True)),
        (
            "get-outhash",
            {"method": "m", "outhash": "o", "taskhash": "t"},
            GetOuthash("m", "o", "t", with_unihash=True),
        ),
        (
            "get-outhash",
            {"method": "m", "outhash": "o", "taskhash": "t", "with_unihash": False},
            GetOuthash("m", "o", "t", with_unihash=False),
        ),
        ("get-stream", None, GetStream()),
        ("exists-stream", None, ExistsStream()),
        ("snapshot-stream", {}, SnapshotStream(0, "")),
        ("snapshot-stream", {"after": 7, "key": "7f"}, SnapshotStream(7, "7f")),
        (
            "report",
            {"method": "m", "taskhash": "t", "outhash": "o", "unihash": "u"},
            Report("m", "t", "o", "u"),
        ),
        (
            "report",
            {
                "method": "m",
                "taskhash": "t",
                "outhash": "o",
                "unihash": "u",
                "owner": "é",
                "PN": "",
                "PV": None,
                "PR": "r0",
                "task": "do_x",
                "outhash_siginfo": "a\nb\t",
                "unknown": [1],
                "created": "now",
            },
            Report("m", "t", "o", "u", "é", "", None, "r0", "do_x", "a\nb\t"),
        ),
        (
            "report-equiv",
            {"method": "m", "taskhash": "t", "unihash": "u"},
            ReportEquiv("m", "t", "u"),
        ),
        ("get-stats", None, GetStats()),
        ("reset-stats", {}, ResetStats()),
        ("backfill-wait", None, BackfillWait()),
        ("remove", {"where": {}}, Remove({})),
        ("remove", {"where": {"PN": None, "x": ""}}, Remove({"PN": None, "x": ""})),
        ("gc-mark", {"mark": "m", "where": {"method": "m"}}, GcMark("m", {"method": "m"})),
        ("gc-mark-stream", None, GcMarkStream()),
        ("gc-status", None, GcStatus()),
        ("gc-sweep", {"mark": "m"}, GcSweep("m")),
        ("clean-unused", {"max_age_seconds": 5}, CleanUnused(5)),
        ("clean-unused", {"max_age_seconds": 0.5}, CleanUnused(0.5)),
        ("auth", {"username": "anna", "token": "t"}, Auth("anna", "t")),
        ("get-user", {}, GetUser()),
        ("get-user", {"username": None}, GetUser(None)),
        ("get-user", {"username": "é"}, GetUser("é")),
        ("get-all-users", None, GetAllUsers()),
        ("become-user", {"username": "anna"}, BecomeUser("anna")),
        ("new-user", {"username": "anna", "permissions": [1]}, NewUser("anna", [1])),
        ("set-user-perms", {"username": "a", "permissions": None}, SetUserPerms("a", None)),
        ("refresh-token", {}, RefreshToken()),
        ("delete-user", {"username": "anna"}, DeleteUser("anna")),
        ("get-db-usage", None, GetDbUsage()),
        ("get-db-query-columns", None, GetDbQueryColumns()),
    ],
)
def test_a_request_becomes_its_command(name: str, arguments: object, command: Command) -> None:
    assert decode_request(json.dumps({name: arguments}).encode()) == command


def test_the_first_key_that_is_a_command_counts() -> None:
    assert decode_request(b'{"x": 1, "ping": 2, "get": 3}') == Ping()


def test_text_outside_the_first_plane_comes_as_two_escapes() -> None:
    request = b'{"gc-sweep": {"mark": "\\ud83d\\ude00"}}'
    assert decode_request(request) == GcSweep("\N{GRINNING FACE}")


DEEP = 200_000

MALFORMED: list[tuple[bytes, str]] = [
    (b"", "Could not decode the request: Input data was truncated"),
    (b"{", "Could not decode the request: Input data was truncated"),
    (b"ping", "Could not decode the request: JSON is malformed"),
    (b"\xff\xfe", "Could not decode the request: JSON is malformed"),
    (b'{"ping": {}} x', "Could not decode the request: JSON is malformed: trailing"),
    (b'{"ping": {}}{"ping": {}}', "Could not decode the request: JSON is malformed: trailing"),
    (b'{"ping": nonsense}', "Could not decode the request: JSON is malformed"),
    (b"{'ping': {}}", "Could not decode the request: JSON is malformed"),
    (b'{"clean-unused": {"max_age_seconds": NaN}}', "Could not decode the request: "),
    (b'{"gc-sweep": {"mark": "\\ud800"}}', "Could not decode the request: "),
    (b'{"gc-sweep": {"mark": "\\udc00"}}', "Could not decode the request: "),
    (b'{"gc-sweep": {"mark": "\x01"}}', "Could not decode the request: "),
    (b"[" * DEEP, "A request is an object with one command: "),
    (b'{"ping": ' + b"[" * DEEP, "Could not decode the request: maximum recursion depth"),
    (
        b'{"ping": ' + b"[" * DEEP + b"]" * DEEP + b"}",
        "Could not decode the request: maximum recursion depth",
    ),
    (
        b'{"remove": {"where": ' + b'{"a":' * DEEP + b"1" + b"}" * DEEP + b"}}",
        "Could not decode the request: maximum recursion depth",
    ),
    (b"[]", "A request is an object with one command: Expected `object`, got `array`"),
    (b"null", "A request is an object with one command: Expected `object`, got `null`"),
    (b'"ping"', "A request is an object with one command: Expected `object`, got `str`"),
    (b"1", "A request is an object with one command: Expected `object`, got `int`"),
    (b"{}", "Unknown command: none"),
    (b'{"nope": {}}', "Unknown command: 'nope'"),
    (b'{"Ping": {}}', "Unknown command: 'Ping'"),
    (b'{"' + b"x" * 99 + b'": 1}', f"Unknown command: '{'x' * 40}'"),
    (b'{"a":1,"b":1,"c":1,"d":1,"e":1,"f":1}', "Unknown command: 'a', 'b', 'c', 'd', 'e'"),
]

REPORTED = b'{"method": "m", "taskhash": "t", "outhash": "o", "unihash": "u"'

INVALID: list[tuple[str, bytes, str]] = [
    ("get", b"null", "Expected `object`, got `null`"),
    ("get", b"[]", "Expected `object`, got `array`"),
    ("get", b'{"method": "m"}', "Object missing required field `taskhash`"),
    ("get", b'{"method": 1, "taskhash": "t"}', "Expected `str`, got `int` - at `$.method`"),
    ("get", b'{"method": "m", "taskhash": null}', "Expected `str`, got `null` - at `$.taskhash`"),
    (
        "get",
        b'{"method": "m", "taskhash": "t", "all": 1}',
        "Expected `bool`, got `int` - at `$.all`",
    ),
    ("get", b'{"method": "\xff", "taskhash": "t"}', "'utf-8' codec"),
    ("remove", b"{}", "Object missing required field `where`"),
    ("remove", b'{"where": []}', "Expected `object`, got `array` - at `$.where`"),
    ("remove", b'{"where": {"PN": 1}}', "Expected `str | null`, got `int` - at `$.where[...]`"),
    ("gc-mark", b'{"mark": "", "where": {}}', ""),
    ("gc-mark", b'{"where": {}}', "Object missing required field `mark`"),
    ("gc-sweep", b"{}", "Object missing required field `mark`"),
    (
        "clean-unused",
        b'{"max_age_seconds": "1"}',
        "Expected `float`, got `str` - at `$.max_age_seconds`",
    ),
    (
        "clean-unused",
        b'{"max_age_seconds": true}',
        "Expected `float`, got `bool` - at `$.max_age_seconds`",
    ),
    ("clean-unused", b'{"max_age_seconds": 1e999}', "Number out of range"),
    (
        "report",
        b'{"method": "m", "taskhash": "t", "outhash": "o"}',
        "Object missing required field `unihash`",
    ),
    ("report", REPORTED + b', "owner": 5}', "Expected `str | null`, got `int` - at `$.owner`"),
    ("get", b'{"method": "a\\u0000", "taskhash": "t"}', "a text holds NUL"),
    ("report", REPORTED + b', "PN": "\\u0000"}', "a text holds NUL"),
    ("remove", b'{"where": {"PN": "a\\u0000b"}}', "a text holds NUL"),
    ("remove", b'{"where": {"a\\u0000b": "x"}}', "a text holds NUL"),
    ("gc-sweep", b'{"mark": "\\u0000"}', "a text holds NUL"),
]


@pytest.mark.parametrize(("request_text", "error"), MALFORMED, ids=lambda value: str(value[:40]))
def test_a_malformed_request_is_told_what_is_wrong(request_text: bytes, error: str) -> None:
    with pytest.raises(InvokeError) as refused:
        decode_request(request_text)
    assert str(refused.value).startswith(error)
    assert len(str(refused.value)) < 300


@pytest.mark.parametrize(("name", "arguments", "error"), INVALID)
def test_invalid_arguments_are_told_by_command_and_field(
    name: str, arguments: bytes, error: str
) -> None:
    with pytest.raises(InvokeError) as refused:
        decode_request(b'{"%s": %s}' % (name.encode(), arguments))
    assert str(refused.value).startswith(f"Invalid arguments of '{name}': {error}")


@pytest.mark.parametrize("name", ["get", "get-outhash", "report", "report-equiv"])
@pytest.mark.parametrize("word", ["", " ", "a b", "a\n", "\ta", "a\u00a0b", "a\u2028b", "a\u001cb"])
def test_a_hash_or_method_with_white_space_is_refused(name: str, word: str) -> None:
    fields = [field for field in COMMANDS[name].__struct_fields__ if field != "unihash"][:2]
    good = dict.fromkeys(COMMANDS[name].__struct_fields__, "x") | {
        "all": True,
        "with_unihash": True,
    }
    decode_request(json.dumps({name: good}).encode())
    for field in fields:
        with pytest.raises(InvokeError, match=rf"Invalid arguments of '{name}': .*\$\.{field}"):
            decode_request(json.dumps({name: {**good, field: word}}).encode())


@pytest.mark.parametrize("number", [10**400, -(10**400), 10**20], ids=["huge", "least", "large"])
def test_numbers_are_refused_or_fit_a_float(number: int) -> None:
    request = json.dumps({"clean-unused": {"max_age_seconds": number}}).encode()
    try:
        command = decode_request(request)
    except InvokeError:
        return
    assert isinstance(command, CleanUnused)
    assert float(command.max_age_seconds) == number


@cases(2000)
@given(
    st.one_of(
        st.binary(max_size=60),
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=4),
            lambda inner: (
                st.lists(inner, max_size=3)
                | st.dictionaries(
                    st.sampled_from([*COMMANDS, "method", "taskhash", "where", "mark", "unihash"]),
                    inner,
                    max_size=3,
                )
            ),
            max_leaves=8,
        ).map(lambda value: json.dumps(value).encode()),
    )
)
def test_any_text_is_a_command_or_an_error_that_says_why(text: bytes) -> None:
    try:
        command = decode_request(text)
    except InvokeError:
        return
    assert isinstance(command, Command)


# Lines of the stream modes.


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"x", "Could not decode JSONL input 'x'"),
        (b"\xff", "Could not decode JSONL input '\ufffd'"),
        (b"[]", "Could not decode JSONL input '[]'"),
        (b"{}", "Input line is missing key ''mark'' "),
        (b'{"where": {}}', "Input line is missing key ''mark'' "),
        (b'{"mark": "a"}', "Input line is missing key ''where'' "),
        (b'{"mark": 1, "where": {}}', "Invalid input line '"),
        (b'{"mark": "", "where": {}}', "Invalid input line "),
        (b'{"mark": "a", "where": {"a": 1}}', "Invalid input line "),
        (b'{"mark": "a", "where": {"a": "\\u0000"}}', "Invalid arguments of 'gc-mark-stream'"),
        (b'{"mark":' * 50_000, "Could not decode JSONL input "),
    ],
)
def test_a_malformed_line_of_marks_is_told_in_the_words_of_the_reference(
    line: bytes, error: str
) -> None:
    with pytest.raises(InvokeError) as refused:
        decode_mark_line(line)
    assert str(refused.value).startswith(error)


def test_a_line_of_marks() -> None:
    line = b'{"where": {"unihash": "u"}, "mark": "m", "x": 1}'
    assert decode_mark_line(line) == GcMark("m", {"unihash": "u"})


@pytest.mark.parametrize("line", [b"m t", b"m  t", b" m\tt", "é t".encode()])
def test_a_line_of_look_ups(line: bytes) -> None:
    assert decode_lookup(line) == (line.decode().split()[0], "t")


@pytest.mark.parametrize("line", [b"", b"m", b"m t x", b"\xff t", b"m \0t"])
def test_what_is_no_look_up_ends_the_connection(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_lookup(line)


def test_what_is_told_of_a_line_fits_a_log() -> None:
    with pytest.raises(ProtocolError) as refused:
        decode_lookup(b"\x1b[31m\r\xff" + b"x" * 10_000)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize("line", [b"\xff", b"a\0"])
def test_what_is_no_text_is_no_question_for_existence(line: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_existence(line)


def test_any_other_text_may_be_a_unihash() -> None:
    assert decode_existence("é x".encode()) == "é x"
