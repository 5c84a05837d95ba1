"""Upstreams that fail: nobody waits for long, the log says what is wrong, service comes back."""

import asyncio
import logging
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from hashserv.equivalence.upstream import UNANSWERED
from hashserv.upstream import breaker, connection
from hashserv.upstream.remote import RemoteUpstream
from tests.certificates import Certificates
from tests.conftest import StartServer
from tests.logins import ADMIN, PASSWORD, start_guarded
from tests.peers import METHOD, digest
from tests.servers import ServerProcess
from tests.upstream.asking import (
    answers,
    asking,
    fill,
    good,
    keys,
    logged,
    run,
    scripted,
    until,
)
from tests.upstream.faults import FAULTS, NO_FAULT, Fault, FaultyProxy

CAUSES = {
    "stall": "time-out",
    "stall in a reply": "time-out",
    "reset": "closes the connection in the handshake",
    "reset in a reply": "connection",
    "garbage": "nonsense",
    "extra line": "too many lines",
    "missing line": "too few lines",
    "wrong unihash": "a wrong unihash, 'WRONG'",
    "refused": "connection refused",
    "closed in the handshake": "closes the connection in the handshake",
}
"""What the log says of each fault."""


@pytest.fixture
def long_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a circuit that opens open until the test has looked, however slow the machine."""
    monkeypatch.setattr(breaker, "FIRST_PAUSE", 60.0)


@pytest.fixture(autouse=True)
def every_change(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "hashserv.upstream")


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_opens_the_circuit_and_passes(
    name: str,
    far_server: ServerProcess,
    proxy: FaultyProxy,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fill(far_server.address)
    numbers = range(200)

    async def test() -> None:
        async with asking(proxy.address, timeout=0.5) as upstream:
            assert await upstream.lookup(keys(0, 1, 5000)) == answers(0, 1, 5000)
            proxy.set(FAULTS[name])
            assert await upstream.lookup(keys(*numbers)) == [UNANSWERED] * len(numbers)
            await until(lambda: not upstream.available)  # with the batch, which began a bit later
            assert upstream.summary().state == "open"
            asked = len(proxy.asked)
            assert await upstream.lookup(keys(7)) == [UNANSWERED]
            assert upstream.summary().in_flight == 0
            assert len(proxy.asked) == asked
            proxy.set(NO_FAULT)
            await until(lambda: upstream.available)
            assert upstream.summary().state == "half-open"
            assert await upstream.lookup(keys(*numbers)) == answers(*numbers)
            assert upstream.summary().state == "closed"

    run(test())
    warning, over = logged(caplog)
    assert CAUSES[name] in warning
    assert proxy.address in warning
    assert "answers again" in over
    assert len(logged(caplog, logging.INFO)) == 3
    assert all("\n" not in line for line in logged(caplog, logging.INFO))


def test_no_call_takes_longer_than_its_time(proxy: FaultyProxy) -> None:
    """Whoever asks first: those that join later have a time of their own."""
    proxy.set(Fault(stall_after=0))
    timeout = 1.0
    generous = 3.0

    async def ask(upstream: RemoteUpstream, after: float) -> float:
        await asyncio.sleep(after)
        loop = asyncio.get_running_loop()
        began = loop.time()
        found = await upstream.lookup(keys(*range(3000)))
        assert found == [UNANSWERED] * 3000
        return loop.time() - began

    async def test() -> None:
        async with asking(proxy.address, timeout=timeout) as upstream:
            took = await asyncio.gather(*(ask(upstream, after / 20) for after in range(30)))
            assert max(took) < timeout + generous

    run(test())


def test_half_open_asks_a_little(far_server: ServerProcess, proxy: FaultyProxy) -> None:
    fill(far_server.address)
    numbers = range(600)

    async def test() -> None:
        async with asking(proxy.address, timeout=0.5) as upstream:
            proxy.set(Fault(stall_after=0))
            assert await upstream.lookup(keys(1)) == [UNANSWERED]
            await until(lambda: not upstream.available)
            proxy.set(NO_FAULT)
            await until(lambda: upstream.available)
            proxy.set(Fault(latency=0.05))
            first, second = await asyncio.gather(
                upstream.lookup(keys(*numbers)), upstream.lookup(keys(999))
            )
            assert first == [*answers(*numbers[:256]), *[UNANSWERED] * 344]
            assert second == [UNANSWERED]
            assert await upstream.lookup(keys(*numbers)) == answers(*numbers)

    run(test())


def test_a_connection_that_breaks_once_costs_nothing(
    far_server: ServerProcess, proxy: FaultyProxy, caplog: pytest.LogCaptureFixture
) -> None:
    """What is in the middle of a batch is asked again on another connection."""
    fill(far_server.address)
    proxy.set(Fault(stall_after=5000))
    numbers = range(500)

    async def test() -> None:
        async with asking(proxy.address) as upstream:
            asked = asyncio.create_task(upstream.lookup(keys(*numbers)))
            await until(lambda: proxy.questions() == len(numbers))
            proxy.set(NO_FAULT)
            proxy.cut()
            assert await asked == answers(*numbers)

    run(test())
    assert not caplog.records


def test_a_slow_line_answers_small_batches(far_server: ServerProcess, proxy: FaultyProxy) -> None:
    """A line that is too slow for a large batch gets smaller ones, sooner or later."""
    fill(far_server.address)
    proxy.set(Fault(bandwidth=50_000))
    numbers = [*range(10_000, 14_000)]

    async def test() -> None:
        async with asking(proxy.address, timeout=1.0) as upstream:
            found = 0
            while found < 200:
                await until(lambda: upstream.available)
                asked = await upstream.lookup(keys(*numbers))
                assert {None, UNANSWERED} >= set(asked)
                found += asked.count(None)

    run(test())


@pytest.mark.parametrize("transport", ["tcp", "ws"])
def test_an_upstream_that_is_late_in_the_handshake(
    transport: str, caplog: pytest.LogCaptureFixture
) -> None:
    with scripted(lambda _: b"") as address:
        place = f"ws://{address}" if transport == "ws" else address

        async def test() -> None:
            async with asking(place, timeout=0.3) as upstream:
                assert await upstream.lookup(keys(1)) == [UNANSWERED]
                await until(lambda: not upstream.available)

        run(test())
    (warning,) = logged(caplog)
    assert "time-out: no answer within 0.3 s" in warning


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize("transport", ["tls", "wss"])
def test_tls_that_fails(
    transport: str,
    certificates: Certificates,
    start_server: StartServer,
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = start_server("--tls-cert", certificates.server(), bind=f"{transport}://127.0.0.1:0")

    async def test() -> None:
        async with asking(server.address, tls=ssl.create_default_context()) as upstream:
            assert await upstream.lookup(keys(1)) == [UNANSWERED]
            assert not upstream.available
        async with asking(server.address, tls=certificates.context()) as upstream:
            assert await upstream.lookup(keys(1)) == [None]

    run(test())
    (warning,) = logged(caplog)
    assert "TLS fails: The certificate of 127.0.0.1" in warning


def test_a_login(
    start_server: StartServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server = start_guarded(start_server, tmp_path, bind="127.0.0.1:0")

    async def ask(**login: str) -> object:
        async with asking(server.address, **login) as upstream:
            (found,) = await upstream.lookup(keys(1))
            assert upstream.available == (found is not UNANSWERED)
            return found

    assert run(ask()) is UNANSWERED
    assert run(ask(username=ADMIN, token="no token\n")) is UNANSWERED
    wanted, refused = logged(caplog)
    assert "it demands a login" in wanted
    assert f"it refuses the login as '{ADMIN}'" in refused
    assert "no token" not in refused
    assert run(ask(username=ADMIN, token=PASSWORD)) is None
    assert len(logged(caplog)) == 2


def test_a_secret_that_is_sent_back_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    refusal = b'{"invoke-error": {"message": "bad: s3cret\\n\\u001b[31m' + b"x" * 500 + b'"}}\n'

    async def test(address: str) -> None:
        async with asking(address, username="me", token="s3cret") as upstream:
            assert await upstream.lookup(keys(1)) == [UNANSWERED]

    with scripted(lambda _: refusal) as address:
        run(test(address))
    (warning,) = logged(caplog)
    assert "s3cret" not in warning
    assert "bad: (the token)\\n\\x1b[31m" in warning
    assert "x" * 200 not in warning


def test_a_server_without_headers() -> None:
    async def test(address: str) -> None:
        async with asking(address, own_id="0" * 32) as upstream:
            assert await upstream.lookup(keys(*range(2000))) == [None] * 2000

    with scripted(good) as address:
        run(test(address))


@pytest.mark.parametrize("theirs", ["a" * 32, "b" * 32])
def test_ourselves(theirs: str, caplog: pytest.LogCaptureFixture) -> None:
    def script(line: bytes) -> bytes | None:
        header = b"Other: thing\nServer-ID: " + theirs.encode() + b"\n\n"
        return header if line == b"\n" else good(line)

    async def test(address: str) -> None:
        async with asking(address, own_id="a" * 32) as upstream:
            found = await upstream.lookup(keys(1))
            assert found == ([UNANSWERED] if theirs == "a" * 32 else [None])

    with scripted(script) as address:
        run(test(address))
    assert ["is this server itself" in line for line in logged(caplog)] == [True] * theirs.count(
        "a", 0, 1
    )


def test_a_server_that_does_not_know_a_kind(caplog: pytest.LogCaptureFixture) -> None:
    """Servers before 2024 close the connection on exists-stream."""

    def script(line: bytes) -> bytes | None:
        return None if b"exists-stream" in line or b"get-outhash" in line else good(line)

    async def test(address: str) -> None:
        async with asking(address) as upstream:
            assert await upstream.lookup(keys(1)) == [None]
            for _ in range(5):
                assert await upstream.exist([digest(1)]) == [UNANSWERED]
            assert await upstream.equivalents([(METHOD, digest(1), digest(1))]) == [UNANSWERED]
            assert await upstream.lookup(keys(1, 2)) == [None, None]
            assert upstream.available

    with scripted(script) as address:
        run(test(address))
    assert ["'exists-stream'" in line for line in logged(caplog)] == [True, False]


ROW = (
    b'{"id": 1, "method": "oe.sstatesig.OEOuthashBasic", "taskhash": "%s", "outhash": "%s", '
    b'"unihash": "%s", "more": []}\n'
)
ONE, TWO = digest(1).encode(), digest(2).encode()


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize(
    ("row", "words"),
    [
        (b"[]\n", "no row"),
        (b"true\n", "no row"),
        (b'{"method": 1}\n', "no row"),
        (b'{"method": "m"}\n', "no row"),
        (b"{\n", "no JSON"),
        (b"\xff\n", "no JSON"),
        (ROW % (ONE, b"a b", ONE), "none"),
        (ROW % (ONE, TWO, b"xyz"), "a wrong unihash"),
        (ROW % (ONE, TWO, b""), "a wrong unihash"),
        (ROW % (ONE, TWO, ONE[:40]), "a wrong unihash"),
        (ROW % (TWO, TWO, ONE), "another taskhash"),
    ],
)
def test_wrong_rows(row: bytes, words: str, caplog: pytest.LogCaptureFixture) -> None:
    def script(line: bytes) -> bytes | None:
        return row if line.startswith(b'{"get":') else good(line)

    async def test(address: str) -> None:
        async with asking(address) as upstream:
            assert await upstream.task(keys(1)[0]) is UNANSWERED
            assert not upstream.available

    with scripted(script) as address:
        run(test(address))
    (warning,) = logged(caplog)
    assert "nonsense" in warning
    assert words in warning


@pytest.mark.usefixtures("long_pause")
def test_a_row_of_another_outhash(caplog: pytest.LogCaptureFixture) -> None:
    def script(line: bytes) -> bytes | None:
        return ROW % (ONE, ONE, ONE) if line.startswith(b'{"get-outhash"') else good(line)

    async def test(address: str) -> None:
        async with asking(address) as upstream:
            found = await upstream.equivalents([(METHOD, digest(1), digest(9))])
            assert found[0] is not UNANSWERED
            assert found[0] is not None
            assert found[0].gc_mark == ""
            assert await upstream.outhash((METHOD, digest(2), digest(9))) is UNANSWERED
            assert not upstream.available

    with scripted(script) as address:
        run(test(address))
    assert "another outhash" in logged(caplog)[0]


def test_short_unihashes_where_they_are_admitted() -> None:
    def script(line: bytes) -> bytes | None:
        return ONE[:40] + b"\n" if line.startswith(METHOD.encode()) else good(line)

    async def test(address: str) -> None:
        async with asking(address, unihash_digits=1) as upstream:
            assert await upstream.lookup(keys(1)) == [digest(1)[:40]]
        async with asking(address, unihash_digits=41) as upstream:
            assert await upstream.lookup(keys(1)) == [UNANSWERED]

    with scripted(script) as address:
        run(test(address))


@pytest.mark.usefixtures("long_pause")
@pytest.mark.parametrize(
    ("script", "words"),
    [
        (lambda _: b"HTTP/1.1 400 Bad Request\n\n", "nonsense"),
        (lambda _: b"name: value\n" * 10_000, "nonsense"),
        (lambda _: b"x" * 20_000, "nonsense"),
        (lambda line: b"perhaps\n" if line[:2] == b"00" else existing(line), "neither true nor"),
        (lambda line: b'{"invoke-error": {"message": "No!"}}\n' if b"exis" in line else good(line),
         "refuses a question: No!"),
    ],
)  # fmt: skip
def test_nonsense(
    script: Callable[[bytes], bytes], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def test(address: str) -> None:
        async with asking(address) as upstream:
            assert await upstream.exist([digest(1)]) == [UNANSWERED]
            assert not upstream.available

    with scripted(script) as address:
        run(test(address))
    assert words in logged(caplog)[0]


def existing(line: bytes) -> bytes | None:
    return b'"ok"\n' if b"exists-stream" in line else good(line)


@pytest.mark.usefixtures("long_pause")
def test_replies_without_an_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "MOST_REPLY", 100_000)

    def script(line: bytes) -> bytes | None:
        if line.startswith(METHOD.encode()):
            return b"x" * 200_000
        return good(line)

    async def test(address: str) -> None:
        async with asking(address) as upstream:
            assert await upstream.lookup(keys(1)) == [UNANSWERED]
            assert not upstream.available

    with scripted(script) as address:
        run(test(address))
    assert "a line is longer than 100000 bytes" in logged(caplog)[0]


def test_replies_that_are_too_much_together(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(connection, "MOST_REPLIES", 100_000)

    async def test(address: str) -> None:
        async with asking(address) as upstream:
            outhashes = [(METHOD, digest(number), digest(1)) for number in range(5)]
            assert await upstream.equivalents(outhashes) == [UNANSWERED] * 5

    def script(line: bytes) -> bytes | None:
        wide = b'{"outhash_siginfo": "%s"}\n' % (b"x" * 60_000)
        return wide if b"get-outhash" in line else good(line)

    with scripted(script) as address:
        run(test(address))
    assert "more than 100000 bytes of replies" in logged(caplog)[0]


def test_a_name_that_leads_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async with asking("nowhere.invalid:8686") as upstream:
            assert await upstream.lookup(keys(1)) == [UNANSWERED]
            assert upstream.summary().errors == 1

    run(test())
    assert "nowhere.invalid:8686" in logged(caplog)[0]
