"""``hashserv bench`` against real servers: what it measures, writes, removes and prints."""

import fcntl
import json
import os
import pty
import re
import signal
import sqlite3
import struct
import subprocess
import termios
from contextlib import closing
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from hashserv.bench.modes import Mode
from tests.certificates import Certificates
from tests.cli.benches import COMMAND, QUICK, bench, measured
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD, start_guarded
from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for

LOADS = ["hits", "misses", "exists", "reports", "mix", "build: look-ups", "build: reports"]


def rows(server: ServerProcess, method: str) -> dict[str, int]:
    """Return how many rows of a method each table has."""
    with closing(sqlite3.connect(server.database)) as connection:
        return {
            table: connection.execute(
                f"SELECT count(*) FROM {table} WHERE method GLOB ?", [method]
            ).fetchone()[0]
            for table in ("unihashes_v3", "outhashes_v2")
        }


@pytest.mark.parametrize("depth", ["1", "7"])
@pytest.mark.parametrize("transport", ["unix", "tcp", "ws"])
def test_all_loads(start_server: StartServer, transport: str, depth: str) -> None:
    binds = {"unix": None, "tcp": "127.0.0.1:0", "ws": "ws://127.0.0.1:0"}
    server = start_server(bind=binds[transport])
    ended = bench(server, *QUICK, "--depth", depth, "--json")
    assert not re.search("ERROR|WARNING", ended.stderr)
    found = json.loads(ended.stdout)
    assert [load["name"] for load in found["loads"]] == LOADS
    for load in found["loads"]:
        assert load["requests"] > 0
        assert (load["wrong"], load["missing"], load["first_wrong"]) == (0, 0, None)
        assert 0 < load["latency"]["p50"] <= load["latency"]["p99"] <= load["latency"]["max"]
        assert sum(load["throughput"]["replies"]) == load["requests"]
    assert rows(server, found["method"]) == {
        "unihashes_v3": found["reported"],
        "outhashes_v2": found["reported"],
    }


@pytest.mark.parametrize("kind", ["tls", "wss"])
def test_with_tls(
    start_server: StartServer,
    certificates: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
) -> None:
    server = start_server("--tls-cert", certificates.server(), bind=f"{kind}://localhost:0")
    ended = bench(server, "misses", *QUICK, code=1)
    assert ended.stderr.count("ERROR: ") == 1
    assert "HASHSERV_TLS_CA" in ended.stderr
    monkeypatch.setenv("HASHSERV_TLS_CA", str(certificates.authority))
    assert measured(bench(server, "hits", *QUICK, "--depth", "50", "--json"))["hits"]["requests"]


def test_a_socket_with_a_long_path(short_tmp: Path, start_server: StartServer) -> None:
    directory = short_tmp / ("d" * 120)
    directory.mkdir()
    server = start_server(bind=f"unix://{directory}/hashserve.sock")
    assert measured(bench(server, "misses", *QUICK, "--json"))["misses"]["requests"]


def test_the_table(server: ServerProcess) -> None:
    ended = bench(server, "reports", "misses", *QUICK)
    assert ended.stderr == ""  # no bar in a pipe
    announced, table, told = ended.stdout.strip().split("\n\n")
    method = re.findall(r"hashserv-bench\.\w+", announced)[0]
    assert "stay in its database" in announced
    head, *lines = table.splitlines()
    assert head.split()[:3] == ["load", "requests", "requests/s"]
    assert [line.split()[0] for line in lines] == ["reports", "misses"]
    reported = rows(server, method)["unihashes_v3"]
    assert f"Reported {reported:,} tasks, which stay there" in told
    removal = f"--address {server.address} remove --where method {method}"
    assert told.endswith(f"  bitbake-hashclient {removal}")
    command = [COMMAND[0], "-m", "hashserv.cli.bitbake_hashclient", *removal.split()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stdout == f"Removed {2 * reported} row(s)\n"


def test_a_load_that_writes_nothing_says_nothing_of_it(server: ServerProcess) -> None:
    ended = bench(server, "misses", *QUICK)
    assert "hashserv-bench" not in ended.stdout
    assert rows(server, "*") == {"unihashes_v3": 0, "outhashes_v2": 0}


def test_a_build(server: ServerProcess) -> None:
    loads = measured(bench(server, "build", *QUICK, "--json"))
    burst, reports = loads["build: look-ups"], loads["build: reports"]
    assert burst["rounds"] == reports["rounds"] >= 1
    assert burst["requests"] == 50 * burst["rounds"]
    assert reports["requests"] == 10 * burst["rounds"]
    assert rows(server, "hashserv-bench.*")["unihashes_v3"] == 1 + 20 + reports["requests"]


def test_clean_leaves_what_others_reported(server: ServerProcess) -> None:
    with Peer(server.address) as peer:
        peer.report(digest(1), digest(10), digest(100))
    ended = bench(server, *QUICK, "--clean")
    assert "and removes them at the end" in ended.stdout
    assert re.search(
        r"^Removed all [1-9][0-9,]* rows of hashserv-bench", ended.stdout, re.MULTILINE
    )
    assert rows(server, "*") == rows(server, METHOD) == {"unihashes_v3": 1, "outhashes_v2": 1}


def test_runs_of_one_name(server: ServerProcess) -> None:
    """Each has tasks of its own, so that no answer is wrong."""
    found = [
        json.loads(bench(server, *QUICK, "--run", "nightly", "--json").stdout) for _ in range(2)
    ]
    assert {each["method"] for each in found} == {"hashserv-bench.nightly"}
    total = sum(each["reported"] for each in found)
    assert rows(server, "hashserv-bench.nightly")["unihashes_v3"] == total


def test_a_read_only_server(start_server: StartServer, server: ServerProcess) -> None:
    server.stop()
    server = start_server("--read-only", database=server.database)
    ended = bench(server, *QUICK, "--json")
    assert list(measured(ended)) == ["misses"]
    assert json.loads(ended.stdout)["reported"] == 0
    assert "WARNING: Left out hits, exists, reports, mix, build: " in ended.stderr
    assert "read-only, or wants a login with @report" in ended.stderr
    ended = bench(server, "misses", "reports", *QUICK, code=1)
    assert "ERROR: reports: " in ended.stderr
    assert rows(server, "*") == {"unihashes_v3": 0, "outhashes_v2": 0}


def test_logins(start_server: StartServer, tmp_path: Path) -> None:
    server = start_guarded(start_server, tmp_path)
    ended = bench(server, *QUICK, "--no-netrc", code=1)
    assert "not allowed to access" in ended.stderr
    login = ["--login", ADMIN, "--password-file", str(tmp_path / "password")]
    assert list(measured(bench(server, *QUICK, "--clean", "--json", *login))) == LOADS
    ended = bench(server, *QUICK, "--login", ADMIN, "--password", PASSWORD + "!", code=1)
    assert f"Unable to authenticate as {ADMIN}" in ended.stderr


def test_cleaning_that_is_not_allowed_is_known_before(start_server: StartServer) -> None:
    server = start_server("--anon-perms", "@read,@report")
    ended = bench(server, *QUICK, "--clean", code=1)
    assert "--clean needs a login with @db-admin" in ended.stderr
    assert rows(server, "*") == {"unihashes_v3": 0, "outhashes_v2": 0}


def test_an_upstream_changes_no_answer(start_server: StartServer, server: ServerProcess) -> None:
    downstream = start_server("--upstream", server.address)
    assert list(measured(bench(downstream, *QUICK, "--json"))) == LOADS
    assert rows(server, "*") == {"unihashes_v3": 0, "outhashes_v2": 0}


def test_a_plot(server: ServerProcess, tmp_path: Path) -> None:
    file = tmp_path / "plot.svg"
    bench(server, "hits", "reports", *QUICK, "--plot", str(file))
    root = ET.parse(file).getroot()
    charts = {each.get("id"): each for each in root.iter() if each.get("id")}
    for name, title in (("latencies", "Latency"), ("throughput", "Throughput")):
        texts = {"".join(each.itertext()).strip() for each in charts[name].iter() if each.text}
        assert title in texts
        lines = [
            each for each in charts[name].iter() if (each.get("id") or "").startswith("line2d")
        ]
        assert len(lines) > 2
    legend = {"".join(each.itertext()).strip() for each in charts["latencies"].iter()}
    assert {"hits", "reports"} <= legend


def test_ctrl_c_shows_what_was_measured(server: ServerProcess) -> None:
    command = [*COMMAND, server.address, "misses", "--duration", "60", "--clean"]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    with Peer(server.address) as peer:
        wait_for(lambda: peer.ask("get-stats")["requests"]["num"] > 1000)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 1
    assert err == "ERROR: Interrupted: this is what was measured until then\n"
    name, requests, *_ = out.splitlines()[1].split()
    assert name == "misses"
    assert int(requests.replace(",", "")) > 0


def test_progress_on_a_terminal(server: ServerProcess) -> None:
    reading, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command = [*COMMAND, server.address, "misses", *QUICK]
    with os.fdopen(reading, "rb") as shown, os.fdopen(terminal, "wb") as stderr:
        subprocess.run(command, stdout=subprocess.DEVNULL, stderr=stderr, check=True, timeout=90)
        assert b"misses: 0 requests" in shown.read1()


def test_a_reader_that_is_gone(server: ServerProcess) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "wb") as pipe:
        ended = subprocess.run(
            [*COMMAND, server.address, "misses", *QUICK], stdout=pipe, stderr=subprocess.PIPE
        )
    assert (ended.returncode, ended.stderr) == (1, b"")


@pytest.mark.parametrize("mode", list(Mode))
def test_each_load_alone(server: ServerProcess, mode: Mode) -> None:
    names = [name for name in LOADS if name.split(":")[0] == mode]
    assert list(measured(bench(server, mode, *QUICK, "--clients", "1", "--json"))) == names
