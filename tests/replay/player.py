"""Play a recording to a server, and compare every reply with the recorded one."""

import json
import ssl
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.replay.differences import Changed, Difference, GoesOn, HeaderLines, Instead, Refused
from tests.replay.normal import Normal, normalise, token_in, with_gc_mark, without_gc_mark
from tests.replay.peer import Peer, dial
from tests.replay.recording import Close, Open, Reply, Send, Step


@dataclass
class Played:
    """What came of it."""

    replies: int = 0
    """Replies, and closings by the server, that were compared."""

    differences: int = 0
    """Among them, those where we differ on purpose, and did so as expected."""

    wrong: list[str] = field(default_factory=list)
    """Where the server did something else."""


class Player:
    """Plays one recording.

    Args:
        address: Where the server listens.
        differences: Where it answers something else on purpose; all of them must be met.
        known_ids: Rows up to this id were there before the conversation.
        gc_mark: Whether the recorded server knew that column; `None` where it did, and told it in
            some replies only, so that it is not compared.
        downstream: Whether the server has an upstream.
        tls: Whom to trust, for an address that needs it.
    """

    def __init__(
        self,
        address: str,
        differences: Sequence[Difference],
        *,
        known_ids: int = 0,
        gc_mark: bool | None = True,
        downstream: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = address
        self._differences = {(each.connection, each.reply): each for each in differences}
        self._known_ids = known_ids
        self._gc_mark = gc_mark
        self._downstream = downstream
        self._tls = tls
        self._tokens: dict[bytes, bytes] = {}  # those of our server by the recorded ones
        self._peers: dict[int, Peer] = {}
        self._sent: dict[int, bytes] = {}
        self._replies: dict[int, int] = {}
        self._ended: set[int] = set()
        self._played = Played()

    def play(self, steps: Sequence[Step]) -> Played:
        """Go through the steps in order."""
        try:
            for step in steps:
                self._play(step)
        finally:
            for peer in self._peers.values():
                peer.close()
        for difference in self._differences.values():
            self._complain(difference.connection, "is listed as a difference, but never came up")
        return self._played

    def _play(self, step: Step) -> None:
        peer = self._peers.get(step.connection)
        if isinstance(step, Open):
            self._peers[step.connection] = dial(self._address, b"", tls=self._tls)
            self._replies[step.connection] = 0
            return
        if step.connection in self._ended:  # the recorded client noticed the end only afterwards
            assert isinstance(step, Send | Close), f"{step} after the end of its connection"
            return
        assert peer is not None, "a recording opens a connection before it uses it"
        match step:
            case Send():
                data = step.data
                for recorded, ours in self._tokens.items():
                    data = data.replace(recorded, ours)
                self._sent[step.connection] = data
                peer.send(data)
            case Reply():
                self._replies[step.connection] = step.number
                self._played.replies += 1
                self._compare(peer, step)
            case Close(by_server=True):
                self._played.replies += 1
                self._compare_close(peer, step.connection)
                peer.close()
                self._ended.add(step.connection)
            case Close():
                self._equal(step.connection, b"", peer.end())
                peer.close()

    def _compare(self, peer: Peer, step: Reply) -> None:
        connection = step.connection
        recorded = self._normal(step.text)
        if self._gc_mark is False:
            recorded = with_gc_mark(recorded)
        difference = self._take(connection, step.number)
        match difference and difference.ours:
            case None:
                reply = peer.reply()
                self._learn_token(step.text, reply)
                self._equal(connection, recorded, self._normal(reply))
            case Changed(values):
                expected = {**recorded, **values}
                assert expected != recorded, f"{difference} is none"
                self._equal(connection, expected, self._normal(peer.reply()))
            case Instead(text):
                assert text != step.text, f"{difference} is none"
                self._equal(connection, self._normal(text), self._normal(peer.reply()))
            case HeaderLines(names):
                found = []
                while header := peer.reply():
                    found.append(header.partition(":")[0])
                self._equal(connection, [*names, step.text], [*found, header])
            case Refused(words):
                self._refused(peer, connection, words)
                peer.close()
                self._peers[connection] = dial(self._address, tls=self._tls)
            case GoesOn():
                raise AssertionError(f"{difference}: the recorded server went on, too")

    def _compare_close(self, peer: Peer, connection: int) -> None:
        """Compare where the recorded server closed the connection."""
        difference = self._take(connection, self._replies[connection] + 1)
        match difference and difference.ours:
            case None:
                self._equal(connection, None, peer.reply())
            case Refused(words):
                self._refused(peer, connection, words)
            case GoesOn(reply, request, answer):
                if reply is not None:
                    self._equal(connection, self._normal(reply), self._normal(peer.reply()))
                given = peer.ask(request.encode())
                self._equal(connection, self._normal(answer), self._normal(given))
            case Changed() | Instead() | HeaderLines():
                raise AssertionError(f"{difference}: the recorded server did not answer")

    def _refused(self, peer: Peer, connection: int, words: Sequence[str]) -> None:
        """Expect an error that names what is wrong, and the end of the connection."""
        text = peer.reply()
        error = json.loads(text or "null")
        message = error["invoke-error"]["message"] if error and "invoke-error" in error else None
        if message is None or any(word not in message for word in words):
            self._complain(connection, f"expected an error with {words}, got {text}")
        self._equal(connection, None, peer.reply())

    def _take(self, connection: int, reply: int) -> Difference | None:
        difference = self._differences.pop((connection, reply), None)
        if difference is not None:
            about = self._sent[connection].decode()
            assert difference.about in about, f"{difference} is about another request: {about}"
            self._played.differences += 1
        return difference

    def _learn_token(self, recorded: str, given: str | None) -> None:
        """Take note of the token that our server made where the recorded one made another."""
        token = token_in(recorded)
        if token is not None:
            self._tokens[token.encode()] = (token_in(given) or "none").encode()

    def _normal(self, text: str | None) -> Normal:
        reply = normalise(text, known_ids=self._known_ids, downstream=self._downstream)
        return without_gc_mark(reply) if self._gc_mark is None else reply

    def _equal(self, connection: int, expected: Normal, given: Normal) -> None:
        if given != expected:
            self._complain(connection, f"expected {expected!r}\n    got      {given!r}")

    def _complain(self, connection: int, what: str) -> None:
        sent = self._sent.get(connection, b"")
        number = self._replies.get(connection, 0)
        self._played.wrong.append(
            f"connection {connection}, reply {number}, after {sent[:200]!r}:\n    {what}"
        )
