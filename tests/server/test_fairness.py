"""What one peer asks for in a burst, and whose turn it is meanwhile: told by order, not by time."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.peers import METHOD, Peer, digest
from tests.servers import ServerProcess, wait_for

GET_OUTHASH = json.dumps({"get-outhash": {"method": "m", "outhash": "o", "taskhash": "t"}})
GET = json.dumps({"get": {"method": "m", "taskhash": "t", "all": True}})

BURSTS = {
    "ping": (b'{"ping":{}}\n', 8000),
    "get-outhash": (GET_OUTHASH.encode() + b"\n", 1500),
    "get": (GET.encode() + b"\n", 1500),
    "modes ended by a word": (b'{"get-stream":0}\nEND\n', 4500),
}
"""Requests, and so many of them as the kernel holds and the server may receive at once."""


def stop(server: ServerProcess) -> None:
    """Hold the server, so that what is sent meanwhile is all there when it goes on."""
    server.process.send_signal(signal.SIGSTOP)
    status = Path(f"/proc/{server.process.pid}/stat")
    wait_for(lambda: status.read_text().rpartition(")")[2].split()[0] == "T")


@pytest.mark.parametrize("name", BURSTS)
def test_a_burst_of_requests_leaves_others_their_turn(server: ServerProcess, name: str) -> None:
    request, count = BURSTS[name]
    with Peer(server.address) as burster, Peer(server.address) as other:
        assert burster.ask("ping") == other.ask("ping") == {"alive": True}
        stop(server)
        try:
            burster.send(request * count)
            other.send(b'{"get-stats":{}}\n')
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        line = other.line()
        assert line is not None
        answered = json.loads(line)["requests"]["num"] - 2
        assert answered < count / 2, "the burst was answered first"
        replies = 2 if "stream" in request.decode() else 1
        assert None not in burster.lines(replies * count)
        assert burster.ask("ping") == {"alive": True}


def test_bursts_are_answered_in_order(server: ServerProcess) -> None:
    """Slices of one connection never overtake each other, whatever kinds of requests meet."""
    with Peer(server.address) as reporter, Peer(server.address) as peer:
        for number in range(3):
            reporter.report(digest(number), digest(10 + number), digest(100 + number))
        requests: list[str] = []
        replies: list[object] = []
        for number in range(600):
            known = number % 4
            unihash = digest(100 + known) if known < 3 else None
            key = {"method": METHOD, "taskhash": digest(known)}
            requests.append(json.dumps({"get": key}))
            replies.append({**key, "unihash": unihash} if unihash else None)
            requests.append('{"get-stream": null}')
            requests += [f"{METHOD} {digest(known)}"] * 3 + ["END"]
            replies += ["ok", *[unihash or ""] * 3, "ok without quotes"]
            requests.append('{"ping": {}}')
            replies.append({"alive": True})
        text = "\n".join(requests).encode() + b"\n"
        for at in range(0, len(text), 30_000):  # less than the kernel holds of replies unread
            peer.send(text[at : at + 30_000])
        got = peer.lines(len(replies))
        for line, reply in zip(got, replies, strict=True):
            assert line is not None
            match reply:
                case "ok without quotes":
                    assert line == b"ok"
                case str() if reply != "ok":
                    assert line == reply.encode()
                case _:
                    assert json.loads(line) == reply


def test_marks_of_a_burst_leave_reports_their_turn(server: ServerProcess) -> None:
    """A stream of marks that each go through the table is not done before others may report."""
    with Peer(server.address) as marker, Peer(server.address) as other:
        reports = [
            {"method": METHOD, "taskhash": digest(n), "outhash": digest(n), "unihash": digest(n)}
            for n in range(300)
        ]
        other.send(b"".join(json.dumps({"report": r}).encode() + b"\n" for r in reports))
        assert None not in other.lines(len(reports))
        marker.stream("gc-mark-stream")
        stop(server)
        try:
            line = json.dumps({"mark": "a", "where": {"method": METHOD}}).encode() + b"\n"
            marker.send(line * 100)
            other.send(b'{"get-stats":{}}\n')
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
        stats = other.line()
        assert stats is not None
        assert json.loads(stats)["requests"]["num"] - len(reports) < 100
        assert set(marker.lines(100)) == {b'{"count":300}'}
