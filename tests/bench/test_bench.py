"""``python -m bench``: it measures every row, and notices wrong replies. Rates are not tested."""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from bench import delay, generators, goals, loading, servers, workloads
from hashserv import create_client

ROOT = Path(__file__).parents[2]
REQUESTS = 1000

LARGE = "the same, to the rate with 100,000 mappings"
"""The goal of which a quick run tells nothing, beside those that name ten million mappings."""


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> generators.Generators:
    return generators.Generators(tmp_path_factory.mktemp("generators"))


def test_quick_run_measures_every_row(tmp_path: Path, open_tmp: Path) -> None:
    scratch = open_tmp / "bench"  # where PostgreSQL, which is another user's, may look, too
    found_file = tmp_path / "found.json"
    command = [sys.executable, "-m", "bench", "--quick", "--without-redis"]
    done = subprocess.run(
        [*command, "--json", str(found_file), "--directory", str(scratch)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(found_file.read_text())
    expected = [
        *workloads.cached(mappings=1, scale=1),
        *workloads.durable(scale=1),
        *workloads.uncached(mappings=1, scale=1),
    ]
    names = [workload.name for workload in expected]
    assert sorted(row["name"] for row in found["rates"]) == sorted(names)
    assert all(len(row["ours"]) == 1 and row["ours"][0] > 0 for row in found["rates"])
    assert all(name in done.stdout for name in names)
    assert found["idle"].keys() == {"ours"}
    assert found["mapping"][0]["count"] == found["mappings"]
    assert found["reported"][0]["file_bytes"] > 0
    assert len(found["fairness"]) == 3
    assert [len(row["rates"]) for row in found["batches"]] == [1] * 4
    (sweep,) = found["sweep"]
    assert sweep["meanwhile"]["count"] > 0
    assert [row["mappings"] for row in found["growth"]] == [1_000]
    assert all(
        rates[0] > 0
        for row in found["growth"]
        for rates in (row["look_ups"], row["cold_look_ups"], row["reports"], row["ready_seconds"])
    )
    assert [row["name"] for row in found["transports"]] == [
        *("TCP", "TLS", "WebSocket", "WebSocket, TLS")
    ]
    assert all(row["rates"][0] > 0 for row in found["transports"])
    (framed,) = found["websocket"]
    assert framed["ours"][0] > 0
    assert framed["tcp"][0] > 0
    upstream = {row["name"]: row for row in found["upstream"]}
    assert {name: row["questions"] for name, row in upstream.items()} == {
        "10,000 unknown there": [10_000],
        "10,000 unknown there, again": [0],
        "10,000 known there": [10_000],
        "10,000 known there, again when stored": [0],
        "50 clients x the same 2,000 unknown": [2_000],
    }
    assert all(name in done.stdout and row["seconds"][0] > 0 for name, row in upstream.items())
    (engines,) = found["engines"]
    on_sql = [workload.name for workload in workloads.on_postgresql(mappings=1, scale=1)]
    assert [row["name"] for row in engines["rates"]] == on_sql
    assert all(row["ours"][0] > 0 and row["sqlite"][0] > 0 for row in engines["rates"])
    assert engines["copying_seconds"] > 0
    assert engines["rows_copied"] > 2 * found["mappings"], "with what was reported before"
    (snapshot,) = found["snapshot"]
    assert snapshot["seconds"][0] > 0
    assert snapshot["meanwhile"]["count"] > 0
    measured = {name: figure for name, _, figure, *_ in found["tables"][0]["rows"]}
    assert list(measured) == [goal.name for goal in goals.GOALS]
    assert {name for name, figure in measured.items() if figure == "not measured"} == {
        goal.name
        for goal in goals.GOALS
        if "Redis" in goal.unit.name or "10,000,000" in goal.name or goal.name == LARGE
    }
    assert found["wrong"] == 0
    assert list(scratch.iterdir()) == []


def test_wrong_replies_of_ours_are_counted(tmp_path: Path, programs: generators.Generators) -> None:
    known = generators.Load(mode="get", requests=REQUESTS)
    unknown = generators.Load(mode="get", requests=REQUESTS, unknown=100)
    with servers.Hashserv(tmp_path / "empty.db", cache_bytes=0, generators=programs) as server:
        assert server.under(known).wrong == REQUESTS
        assert server.under(unknown).wrong == 0


def test_wrong_replies_over_websockets_are_counted(
    tmp_path: Path, programs: generators.Generators
) -> None:
    binds = ("127.0.0.1:0", "ws://127.0.0.1:0")
    with servers.Hashserv(
        tmp_path / "empty.db", cache_bytes=0, generators=programs, binds=binds
    ) as server:
        address = server.addresses[1].removeprefix("ws://")
        for mode, unknown, wrong in [("get", 0, REQUESTS), ("get", 100, 0), ("report", 0, 0)]:
            load = generators.Load(
                mode=mode, requests=REQUESTS, unknown=unknown, keys=REQUESTS, websocket=True
            )
            assert programs.run(programs.loadgen, address, load).wrong == wrong


def test_loaded_file_has_what_reports_would_store(
    tmp_path: Path, programs: generators.Generators
) -> None:
    database, count = tmp_path / "loaded.db", 3
    servers.Hashserv(database, cache_bytes=0, generators=programs).stop()
    made = things(database)
    loading.fill_database(database, count)
    assert things(database) == made
    again = generators.Load(mode="report", requests=count, keys=count)
    with (
        servers.Hashserv(database, cache_bytes=0, generators=programs) as server,
        create_client(server.address) as client,
    ):
        assert server.under(again).wrong == 0
        for number, (taskhash, outhash, unihash) in enumerate(programs.rows(count)):
            found = client.get_outhash(generators.METHOD, outhash, taskhash)
            assert found is not None
            assert (found["unihash"], found["PN"]) == (unihash, f"recipe-{number}")
    with closing(sqlite3.connect(database)) as connection:
        for table in ("unihashes_v3", "outhashes_v2"):
            assert connection.execute(f"SELECT COUNT(*) FROM {table}").fetchone() == (count,)


def things(database: Path) -> set[tuple[str, str, str]]:
    """Return tables, indexes and triggers of a file, and the SQL that makes them."""
    with closing(sqlite3.connect(database)) as connection:
        return {*connection.execute("SELECT type, name, sql FROM sqlite_master")}


def test_long_line_counts_questions_about_tasks(
    tmp_path: Path, programs: generators.Generators
) -> None:
    keys = [(generators.METHOD, f"{number:064x}") for number in range(REQUESTS)]
    with (
        servers.Hashserv(tmp_path / "far.db", cache_bytes=0, generators=programs) as server,
        delay.LongLine(server.address) as line,
        create_client(line.address) as client,
    ):
        client.report_unihash(keys[0][1], keys[0][0], "0" * 64, "a" * 64)
        assert line.questions() == 1
        assert client.ping() == {"alive": True}
        assert line.questions() == 1
        assert client.get_taskhash(*keys[0]) is not None
        assert line.questions() == 2
        assert client.get_unihash_batch(keys) == ["a" * 64, *[None] * (REQUESTS - 1)]
        assert line.questions() == 2 + REQUESTS


@pytest.mark.parametrize(("unknown", "wrong"), [(0, REQUESTS), (100, 0)])
def test_wrong_replies_of_redis_are_counted(
    programs: generators.Generators, unknown: int, wrong: int
) -> None:
    load = generators.Load(mode="get", requests=REQUESTS, unknown=unknown, depth=16)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=know_nothing, args=(listener,))
        thread.start()
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert programs.run(programs.redisload, address, load).wrong == wrong
        thread.join()


def know_nothing(listener: socket.socket) -> None:
    """Answer one client's every GET as Redis does where there is no such key."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as requests:
        while requests.readline():
            for _ in range(4):  # the name and the key, each behind its length
                requests.readline()
            connection.sendall(b"$-1\r\n")
