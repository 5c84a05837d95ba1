"""Where we answer something else than a recorded server, on purpose: all of it.

Each entry says what we answer instead, and that is asserted. An entry that never comes up, or that
is no difference any more, fails the test that plays its recording.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

ALIVE: Final = '{"alive": true}'
PING: Final = '{"ping": {}}'


@dataclass(frozen=True)
class Changed:
    """We send the recorded reply with these values."""

    values: Mapping[str, object]


@dataclass(frozen=True)
class Instead:
    """We send this reply."""

    text: str


@dataclass(frozen=True)
class HeaderLines:
    """We send header lines of these names, and then the recorded empty line."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class OldestRow:
    """We send the oldest row with an outhash, with the mapping of its taskhash."""

    outhash: str


@dataclass(frozen=True)
class Refused:
    """We send an ``invoke-error`` with all these words, and close."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class GoesOn:
    """We send this reply, if any, where the recorded server closes, and go on as shown."""

    reply: str | None
    request: str
    answer: str


@dataclass(frozen=True)
class Difference:
    """One difference: the how-maniest reply of a connection, and a part of its request."""

    recording: str
    connection: int
    reply: int
    about: str
    ours: Changed | Instead | HeaderLines | OldestRow | Refused | GoesOn
    reason: str


def of(recording: str) -> list[Difference]:
    """Return the differences from a recording."""
    return [each for each in DIFFERENCES if each.recording == recording]


WITHOUT_GC_MARK: Final = frozenset(
    {
        "client-2020-on-2020",
        "client-2022-on-2022",
        "tasks_v2: queries",
        "tasks_v2: queries (newer server of the same table)",
        "tasks_v2: changes",
        "tasks_v2: changes (newer server of the same table)",
        "unihashes_v2: queries",
        "unihashes_v2: queries (newer server of the same tables)",
        "unihashes_v2: changes",
        "unihashes_v2: changes (newer server of the same tables)",
    }
)
"""Recorded from servers whose tables had no ``gc_mark``: `get` of all and `get-outhash` lack it."""

_MALFORMED = "§9: malformed requests get an invoke-error that names what is wrong"
_ACCEPT_1_0 = "§4: we accept protocol 1.0, today's reference does not"
_CLEAN_UNUSED = "§9: clean-unused removes only rows older than the age"
_REMOVE = "§9: remove touches a table only if it has every column of the condition"
_UNKNOWN_COLUMN = "§9: a condition with an unknown column is an error"
_HELD = "§8.1: since 2021 a report is answered with the mapping that holds; before, with its row's"
_ROW_UNIHASH = (
    "§8.1: since 2021 a class goes by the mapping of its oldest taskhash, not by its rows"
)
_ASKED_FIRST = "§5: get-outhash answers the oldest row; in 2021, the asked taskhash's own first"
_NO_EMPTY_ROW = "§8: report-equiv makes a mapping; before 2021 it made a row without an outhash"

_OEO = "oe.sstatesig.OEOuthashBasic"


def _held_mapping(recording: str, unihash: str) -> Difference:
    ours = Changed({"unihash": unihash})
    return Difference(recording, 1, 11, '{"report": ', ours, _HELD)


def _malformed(connection: int, about: str, *words: str, reply: int = 1) -> Difference:
    ours = Refused(words)
    return Difference("raw-errors-unix", connection, reply, about, ours, _MALFORMED)


def _row_first(reply: int, outhash: str, reason: str) -> Difference:
    recording = "tasks_v2: queries (newer server of the same table)"
    return Difference(recording, 1, reply, outhash, OldestRow(outhash), reason)


def _tasks_v2_changes(recording: str) -> list[Difference]:
    def reported(reply: int, outhash: str, unihash: str, reason: str) -> Difference:
        return Difference(recording, 1, reply, outhash, Changed({"unihash": unihash}), reason)

    first = "c458bbf57fd4c582a1a07b0f6f3ae573a3eaef014b119c1ba08b457fa870f678"
    second = "1438990da601163436bcfae0d2b5ef2b66995cd7d979f5df55cebcee5f0458ae"
    equivalent = "7326caf2a0dced428d057e857664d595e6085b3096ec0406e67ec02d3457d275"
    its_outhash = "a1590f4b4078a0adc0396fff2faf236c1f3725d827f79e73b044e428ac32365a"
    return [
        reported(4, "7e78385196", second, _HELD),
        reported(7, "47f9a19bba", first, _HELD),
        reported(8, "47f9a19bba", first, _ROW_UNIHASH),
        Difference(recording, 1, 15, "END", Instead(first), _ROW_UNIHASH),
        reported(21, its_outhash, equivalent, _HELD),
        reported(22, its_outhash, equivalent, _ROW_UNIHASH),
        Difference(recording, 1, 23, "get", Changed({"outhash": its_outhash}), _NO_EMPTY_ROW),
    ]


def _head_changes(
    recording: str, *, outhashes: int, users: int, kept: list[str]
) -> list[Difference]:
    """Return those of the section in which today's reference removes by two columns.

    Of four tasks just reported, it removes two outhash rows and all mappings of the method; we
    remove the two rows.
    """
    usage = {
        "unihashes_v3": {"rows": 12},
        "outhashes_v2": {"rows": outhashes},
        "users": {"rows": users},
        "config": {"rows": 1},
    }
    nonsense = '{"remove": {"where": {"nonsense"'
    return [
        Difference(recording, 1, 32, nonsense, Refused(("nonsense",)), _UNKNOWN_COLUMN),
        Difference(recording, 1, 76, '{"PN": "rm0"', Changed({"count": 2}), _REMOVE),
        Difference(recording, 1, 77, "get-db-usage", Changed({"usage": usage}), _REMOVE),
        *(
            Difference(recording, 1, reply, "END", Instead(unihash), _REMOVE)
            for reply, unihash in enumerate(kept, 79)
        ),
    ]


DIFFERENCES: Final = (
    *(
        Difference(
            *("raw-good-tcp", connection, 1, "\n", HeaderLines(("server-id", "extensions"))),
            "§4: a server that is asked for headers says which it is, to see whether it is its own"
            " upstream, and what it can do beyond the protocol",
        )
        for connection in (2, 3)
    ),
    # Protocol 1.0 on today's reference: refused there, served by us.
    *(
        Difference(
            *("client-2019-on-head", connection, 1, '{"get-stream": null}'),
            GoesOn('"ok"', "END", "ok"),
            _ACCEPT_1_0,
        )
        for connection in (1, 2, 3, 4)
    ),
    Difference("raw-errors-unix", 29, 1, "\n", GoesOn(None, PING, ALIVE), _ACCEPT_1_0),
    # Servers of 2019 and 2020.
    _held_mapping(
        "client-2019-on-2019", "5e404027d210915dfeb74f53f03ef751ea6f08ebfb3a2aeaf80672ede9a814a8"
    ),
    _held_mapping(
        "client-2019-on-2020", "54f71b990569ee856bfdbc02677645ad96404d774f44206dfc6a794fdf1deac8"
    ),
    _held_mapping(
        "client-2020-on-2020", "4daae2076ba4d369e139641cbea32a3f8d91378956aeeda96ef104685c077e68"
    ),
    # Removing. One orphan stays where the reference took it for old.
    *(
        Difference(recording, 1, reply, command, Changed({"count": count}), _CLEAN_UNUSED)
        for recording in ("head-sync-unix", "head-sync-ws")
        for reply, command, count in ((91, "clean-unused", 0), (93, "remove", 13))
    ),
    # By method and unihash: two mappings, where the reference also took all five outhash rows of
    # the method, three of which we find unused afterwards.
    Difference("head-hashclient-unix", 25, 1, "remove", Changed({"count": 2}), _REMOVE),
    Difference("head-hashclient-unix", 26, 1, "clean-unused", Changed({"count": 8}), _REMOVE),
    # What the reference leaves without an answer.
    _malformed(10, "no-such-command", "command", "no-such-command"),
    _malformed(11, "{}", "command"),
    _malformed(12, "null", "object", "null"),
    _malformed(13, "[]", "object", "array"),
    _malformed(14, '["ping"]', "object", "array"),
    _malformed(15, '"ping"', "object", "str"),
    _malformed(16, "17", "object", "int"),
    _malformed(17, "not json", "JSON"),
    _malformed(18, "\n", "decode"),
    _malformed(19, '{"get": {"method": "m"}}', "'get'", "taskhash"),
    _malformed(20, '{"get": null}', "'get'", "object", "null"),
    _malformed(21, '{"remove": {"where": "x"}}', "'remove'", "where"),
    _malformed(22, '{"gc-mark": {"mark": 3', "'gc-mark'", "mark"),
    _malformed(23, '{"max_age_seconds": "x"}', "'clean-unused'", "max_age_seconds"),
    Difference(
        *("raw-errors-unix", 24, 1, '{"backfill-wait": null}'),
        GoesOn('{"tasks": 0}', PING, ALIVE),
        "§9: backfill-wait without an upstream",
    ),
    _malformed(41, '{"mark": 1, "where": {}}', "mark", reply=2),
    # Downstream of another server.
    *(
        Difference(
            *("upstream-pair-head-unix", connection, 1, '{"get": '),
            GoesOn("null", PING, ALIVE),
            "§9: plain get of an unknown hash with an upstream answers null",
        )
        for connection in (4, 6, 8, 10)
    ),
    Difference(
        *("upstream-pair-2021-tcp", 1, 12, '"all": true'),
        Changed({"id": "<new id>", "created": "<now>", "gc_mark": ""}),
        "§5: in 2021 the upstream's row was answered as it came, not as it is stored",
    ),
    Difference(
        *("upstream-pair-2021-tcp", 1, 13, '"all": false'),
        Instead(
            '{"taskhash": "5ea18f70cccfd9e380873477449a9a7e11e7b0ed305520f7d6a5b1815056e18c", '
            '"method": "TestMethod", '
            '"unihash": "59b368d0bd2658cca1720235e8fb0404529468f30953f36f2c14b9e79715007e"}'
        ),
        "§5: in 2021 get answered the whole row, though not asked for all",
    ),
    # A database of 2020 under a server of 2021.
    *(
        _row_first(reply, outhash, reason)
        for reply, outhash, reason in (
            (321, "10bc5c0e7b62281537cd90bb586c1ad3bc3b8d47192b5052c1b986478f456a64", _ASKED_FIRST),
            (324, "1f677d5d97e4b21c2b3c2f2fdfd958051bb4ecb06725ba4d5ac8306bcc4fd4fc", _ASKED_FIRST),
            (329, "1ecc32bcaa31e028e6337ad4634c79e1284fe7ee3d5193f0747bc1918aa5bc0d", _ASKED_FIRST),
            (330, "9651587e8c6d8198575b0ddd880e8027889da5c30f763bf1600cc1ca28492497", _ROW_UNIHASH),
            (344, "de9661d0454dd4615bd137ce66b63d48d2f39b351d0d194a32c55fe00c8e45f3", _ROW_UNIHASH),
            (345, "9651587e8c6d8198575b0ddd880e8027889da5c30f763bf1600cc1ca28492497", _ROW_UNIHASH),
            (346, "188cc5471d938f3e0927917671d5f09123f26f96fcc067a566674557dd059606", _ROW_UNIHASH),
        )
    ),
    *_tasks_v2_changes("tasks_v2: changes"),
    *_tasks_v2_changes("tasks_v2: changes (newer server of the same table)"),
    Difference(
        *("tasks_v2: changes (newer server of the same table)", 1, 24, "get-outhash"),
        Changed(
            {
                "taskhash": "d176a03cf197add53a6a69c72e8a4252bcf47ebcc0e18de7fb37a8ab439dbf70",
                "unihash": "7326caf2a0dced428d057e857664d595e6085b3096ec0406e67ec02d3457d275",
            }
        ),
        _ASKED_FIRST,
    ),
    # Databases of 2022 and today.
    Difference(
        *("unihashes_v2: changes (newer server of the same tables)", 1, 32),
        '{"remove": {"where": {"nonsense"',
        Refused(("nonsense",)),
        _UNKNOWN_COLUMN,
    ),
    *_head_changes(
        "unihashes_v2: HEAD opens a copy: changes",
        outhashes=8,
        users=0,
        kept=[
            "a5aba5f5bfe35ef2a406cb0ca618beafcd510cc73a720862e9e07fa74708b19c",
            "93bb949833a7cb5a2c9b1a4830213b408fca44c44e43642bbe38e2e9f883d627",
            "36c531e41697e86dc7dc9169b3145a762df0202b5d3229dd539294ba26ad1a18",
            "7edeec8bc80d6447c1a15a5025432234ae81a76c4767a96de7991bbc37ea9446",
        ],
    ),
    *_head_changes(
        "unihashes_v3: changes",
        outhashes=7,
        users=7,
        kept=[
            "a8e591d55570534d788c90ac7755596fa369c554a44e8cfcef6f7c903e1bd79a",
            "dcaad9d63d27216658971e9106902c081409979821276767ed457263d3d1c881",
            "81c2a64b90baf7a06f8958485786e654b1905f12b99a36bd7576d24dc9c612a0",
            "6805f56531aa00a760961981daa041040289756eeb6925bdfc025ce64506298a",
        ],
    ),
    # A database of today's on PostgreSQL.
    *_head_changes(
        "postgres_v3: changes",
        outhashes=9,
        users=7,
        kept=[
            "a4b3ebc8e34cbf50ae94fdaace6d41b16f09b37ce1a170a48992f52a0b260efd",
            "656afa4353a8e0581b2694d6758304cdea86662ca600989276f2e90487ff34a9",
            "e2291d8aff5833758c6780c0037d0f7d1fd22e285ff6ce0a078c4bdd2be82641",
            "0ff782fd032c8b8791a0a24a5d5f31ba5b83265b09a398f8babc4771af7b1ce7",
        ],
    ),
)
