"""The server's end of a WebSocket, between a real transport and a session that speaks lines."""

import asyncio
import logging
from collections.abc import Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any, Final, cast

import msgspec
from websockets.datastructures import Headers
from websockets.extensions.permessage_deflate import enable_server_permessage_deflate
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import State
from websockets.server import ServerProtocol

from hashserv.address import Network
from hashserv.errors import loggable
from hashserv.transport.listen import LINGER_SECONDS
from hashserv.transport.websocket import FrameReader, frames_logger, frames_of

logger = logging.getLogger("hashserv.server")

TURN_SECONDS: Final = 0.001
"""How long frames of one connection are read before other connections have their turn."""


class WebSocketEnd(asyncio.Protocol, asyncio.Transport):
    """A protocol to the real transport, and a transport to the session.

    Args:
        inner: The session; it reads and writes whole lines.
        max_message: How many bytes a message may have.
        message_timeout: How many seconds a peer may pause within a message.
        trusted_proxies: Whose ``X-Forwarded-For`` is believed.
        compression: Whether messages are compressed for clients that offer it.
    """

    __slots__ = (
        *("_closing", "_ended", "_full", "_held", "_inner", "_lingering", "_loop"),
        *("_message_timeout", "_paused", "_peername", "_protocol", "_reader", "_real"),
        *("_scheduled", "_timer", "_trusted", "_wants_close"),
    )

    def __init__(
        self,
        inner: asyncio.Protocol,
        *,
        max_message: int,
        message_timeout: float,
        trusted_proxies: Sequence[Network] = (),
        compression: bool = False,
    ) -> None:
        super().__init__()
        self._inner = inner
        self._trusted = trusted_proxies
        self._protocol = _Protocol(max_message=max_message, compression=compression)
        self._message_timeout = message_timeout
        self._loop = asyncio.get_running_loop()
        self._reader = FrameReader(self._protocol, max_message=max_message, accept=self._upgrade)
        self._held: list[bytes] = []  # written before there was a WebSocket
        self._scheduled = False  # it goes on in another turn
        self._timer: asyncio.TimerHandle | None = None
        self._wants_close = False
        self._closing = False
        self._ended = False  # the session knows that no more will come
        self._full = False  # the peer does not read
        self._paused = False  # the session does not
        self._lingering: asyncio.TimerHandle | None = None
        self._peername: Any = None

    # What the real transport calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin: to the session, it has begun."""
        self._real = cast("asyncio.Transport", transport)
        self._peername = transport.get_extra_info("peername")  # no longer known at the end
        self._inner.connection_made(self)

    def data_received(self, data: bytes) -> None:
        """Give the session the lines that came, as many at once as a piece of it holds."""
        self._stop_timer()
        self._reader.feed(data)
        if not self._scheduled:
            self._receive_pieces()

    def eof_received(self) -> bool:
        """Tell the session; it closes the transport when it is done."""
        self._protocol.receive_eof()
        self._flush()
        if self._lingering is not None:
            self._real.close()
        self._end()
        # With TLS there is no half of a connection, and asyncio warns where one is wanted.
        return self._real.get_extra_info("ssl_object") is None

    def pause_writing(self) -> None:
        """Read no more, not even pings, while the peer does not read what answers them."""
        self._full = True
        self._real.pause_reading()
        self._inner.pause_writing()

    def resume_writing(self) -> None:
        """Go on."""
        self._full = False
        self._inner.resume_writing()
        self._resume()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the session."""
        if self._lingering is not None:
            self._lingering.cancel()
        self._stop_timer()
        self._closing = True
        self._reader.drop()
        # A peer that said goodbye need not wait for the answer.
        self._inner.connection_lost(None if self._protocol.close_rcvd else exc)

    # What the session calls.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send whole lines."""
        state = self._protocol.state
        if self._closing or self._wants_close:
            return
        if state is State.OPEN:
            self._real.write(frames_of(self._protocol, bytes(data)))
        elif state is State.CONNECTING:
            self._held.append(bytes(data))

    def can_write_eof(self) -> bool:
        """Tell that a WebSocket has an end that can be announced."""
        return True

    def write_eof(self) -> None:
        """Announce that no more will be sent."""
        self._wants_close = True
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
            self._flush()

    def close(self) -> None:
        """Close, when what was written has been sent."""
        if self._closing:
            return
        self._closing = True
        self.write_eof()
        self._real.close()

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._real.abort()

    def is_closing(self) -> bool:
        """Tell whether it is closing."""
        return self._closing or self._real.is_closing()

    def pause_reading(self) -> None:
        """Take nothing from the peer."""
        self._paused = True
        if self._lingering is None:
            self._real.pause_reading()

    def resume_reading(self) -> None:
        """Take what the peer sends."""
        self._paused = False
        self._resume()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set when `pause_writing` is called."""
        self._real.set_write_buffer_limits(high, low)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return when `pause_writing` is called."""
        return self._real.get_write_buffer_limits()

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait to be sent."""
        return self._real.get_write_buffer_size() + sum(map(len, self._held))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return what is known of the connection; the peer is the client, not its proxy."""
        if name == "peername":
            return default if self._peername is None else self._peername
        return self._real.get_extra_info(name, default)

    # The frames.

    def _receive_piece(self) -> None:
        lines = self._reader.read()
        self._flush()
        if lines:
            self._inner.data_received(lines)
        protocol = self._protocol
        if protocol.close_rcvd is not None:
            self._end()
        elif protocol.eof_sent:  # it refused something
            self._linger()

    def _receive_pieces(self) -> None:
        """Take what came to frames, as long as the session takes their lines, in turns."""
        self._scheduled = False
        end = self._loop.time() + TURN_SECONDS
        while self._reader.ready and not self._paused and not self._full:
            if self._loop.time() > end:
                self._go_on_later()
                return
            self._receive_piece()
        if not self._reader.ready:
            self._resume()  # what came while this waited for its turn
            if self._lingering is None and self._reader.unfinished:
                self._timer = self._loop.call_later(self._message_timeout, self._time_out)

    def _go_on_later(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._real.pause_reading()
            self._loop.call_soon(self._receive_pieces)

    def _time_out(self) -> None:
        seconds = self._message_timeout
        logger.warning("%s: closed: it did not finish a message within %g s", self._inner, seconds)
        self._real.abort()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _upgrade(self, request: Request) -> None:
        self._protocol.send_response(self._protocol.accept(request))
        if self._protocol.state is not State.OPEN:
            return
        if client := _client(self._peername, request.headers, self._trusted):
            self._peername = client
        for data in self._held:
            self._real.write(frames_of(self._protocol, data))
        self._held.clear()
        if self._wants_close:
            self.write_eof()

    def _flush(self) -> None:
        """Send what the protocol has to send, in one write."""
        if data := b"".join(self._protocol.data_to_send()):
            self._real.write(data)

    def _resume(self) -> None:
        """Take what the peer sends, if neither it nor the session needs a pause."""
        if self._paused or self._full or self._scheduled or self._real.is_closing():
            return
        if self._reader.ready:
            self._go_on_later()
        else:
            self._real.resume_reading()

    def _end(self) -> None:
        """Tell the session, once, that no more will come; it closes."""
        if not self._ended:
            self._ended = True
            if not self._inner.eof_received():
                self.close()

    def _linger(self) -> None:
        """Take in what still comes, until the peer closes or time is up."""
        if self._lingering is not None:
            return
        reason = str(self._protocol.handshake_exc or self._protocol.parser_exc)
        logger.warning("%s: closed: %s", self._inner, loggable(reason))
        self._lingering = self._loop.call_later(LINGER_SECONDS, self._real.close)
        self._closing = True  # so that the session's own close changes nothing
        self.resume_reading()
        if self._real.can_write_eof():
            self._real.write_eof()
        self._end()


class _Protocol(ServerProtocol):
    """The protocol of `websockets`, for which a peer that sends too much is told in our words."""

    def __init__(self, *, max_message: int, compression: bool) -> None:
        super().__init__(
            origins=[None],  # web pages have one, and no business here
            extensions=enable_server_permessage_deflate(None) if compression else None,
            max_size=max_message,
            logger=frames_logger,
        )

    def fail(self, code: CloseCode | int, reason: str = "") -> None:
        """Close the connection because of what the peer sent."""
        if code == CloseCode.MESSAGE_TOO_BIG and self.state is State.OPEN:
            text = f"The message is longer than {self.max_message_size} bytes"
            self.send_text(msgspec.json.encode({"invoke-error": {"message": text}}))
        super().fail(code, reason)


def _client(peer: Any, headers: Headers, trusted: Sequence[Network]) -> tuple[str, int] | None:
    """Return the client's address, which a trusted proxy knows; its port is the proxy's.

    Args:
        peer: The real peer's address.
        headers: The request's.
        trusted: Whose word is believed.

    Returns:
        The rightmost address that is not trusted; the leftmost where all are; `None` where there
        is no proxy, or one that says nothing that can be understood.
    """
    if not isinstance(peer, tuple) or not _is_trusted(_parse_ip(peer[0]), trusted):
        return None
    found: IPv4Address | IPv6Address | None = None
    for text in reversed(",".join(headers.get_all("X-Forwarded-For")).split(",")):
        found = _parse_ip(text.strip())
        if found is None:
            return None
        if not _is_trusted(found, trusted):
            break
    return (str(found), peer[1])


def _is_trusted(address: IPv4Address | IPv6Address | None, trusted: Sequence[Network]) -> bool:
    return address is not None and any(address in network for network in trusted)


def _parse_ip(text: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(text.partition("%")[0])  # a zone can be any text
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
