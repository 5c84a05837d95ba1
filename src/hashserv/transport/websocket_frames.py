"""Whole text messages in one frame each, many at once (RFC 6455 §5.2). No I/O, and no state.

Almost all frames of a conversation are such, so they are read and made in one pass, without an
object for each. Whatever else there is, is for the protocol of `websockets`: this module only tells
where it ends.
"""

import os
import struct
from collections.abc import Iterable
from typing import Final

try:
    from websockets.speedups import apply_mask
except ImportError:  # where there is no C compiler
    from websockets.utils import apply_mask

_FINAL_TEXT: Final = 0x81
_MASKED: Final = 0x80
_SHORT: Final = 126
"""Payloads below this have their length in one byte."""

_MASK_BYTES: Final = 4
_USUAL: Final = 1024
"""Payloads below this have a head that is made in advance."""

_LENGTHS: Final = {
    masked: {bytes([_FINAL_TEXT, _MASKED * masked | length]): length for length in range(_SHORT)}
    for masked in (False, True)
}
_MEDIUM_HEADS: Final = {
    masked: bytes([_FINAL_TEXT, _MASKED * masked | _SHORT]) for masked in (False, True)
}


class _Heads(dict[int, bytes]):
    """The first bytes of a text frame, by the length of its payload."""

    def __init__(self, *, masked: bool) -> None:
        self._mask_bit = _MASKED * masked
        super().__init__((length, self[length]) for length in range(_USUAL))

    def __missing__(self, length: int) -> bytes:
        if length < _SHORT:
            return bytes([_FINAL_TEXT, self._mask_bit | length])
        if length < 1 << 16:
            return struct.pack("!BBH", _FINAL_TEXT, self._mask_bit | _SHORT, length)
        return struct.pack("!BBQ", _FINAL_TEXT, self._mask_bit | 127, length)


_HEADS: Final = _Heads(masked=False)
_MASKED_HEADS: Final = _Heads(masked=True)


def take_texts(
    data: bytes, start: int, end: int, *, masked: bool, longest: int
) -> tuple[list[bytes], int]:
    """Return the payloads of the text messages that come next, and where they end.

    They end at the first frame that is anything else, or not all there: a fragment, a control
    frame, one of 64 KiB or more, one that is wrong. That the payloads are UTF-8 is not checked.

    Args:
        data: What was received, without an extension in use.
        start: Where a frame begins, outside of a message in fragments.
        end: How far to read.
        masked: Whether the peer has to mask, so whether it is the client.
        longest: How many bytes a message may have.
    """
    length_of, medium = _LENGTHS[masked].get, _MEDIUM_HEADS[masked]
    payloads: list[bytes] = []
    while True:
        head = data[start : start + 2]
        length = length_of(head)
        at = start + 2
        if length is None:
            if head != medium:
                break
            length = int.from_bytes(data[at : at + 2])
            at += 2
        payload = at + _MASK_BYTES if masked else at
        stop = payload + length
        if stop > end or length > longest:
            break
        if masked:
            payloads.append(apply_mask(data[payload:stop], data[at:payload]))
        else:
            payloads.append(data[payload:stop])
        start = stop
    return payloads, start


def frame_end(data: bytes, start: int) -> int | None:
    """Return where a frame of any kind ends, right or wrong; `None` if its head is not all there.

    Args:
        data: What was received; it need not hold all of the frame.
        start: Where the frame begins.
    """
    at = start + 2
    if at > len(data):
        return None
    length = data[start + 1] & ~_MASKED
    if length >= _SHORT:
        width = 2 if length == _SHORT else 8
        if at + width > len(data):
            return None
        length = int.from_bytes(data[at : at + width])
        at += width
    return at + _MASK_BYTES * (data[start + 1] >= _MASKED) + length


def text_frames(lines: list[bytes]) -> bytes:
    """Return lines as a server sends them, each in a text frame."""
    parts = [b""] * (2 * len(lines))
    parts[::2] = _heads(_HEADS, lines)
    parts[1::2] = lines
    return b"".join(parts)


def masked_text_frames(lines: list[bytes]) -> bytes:
    """Return lines as a client sends them, each in a text frame with a mask that none can guess."""
    masks = [mask for (mask,) in struct.iter_unpack("4s", os.urandom(_MASK_BYTES * len(lines)))]
    parts = [b""] * (3 * len(lines))
    parts[::3] = _heads(_MASKED_HEADS, lines)
    parts[1::3] = masks
    parts[2::3] = map(apply_mask, lines, masks)
    return b"".join(parts)


def _heads(heads: _Heads, lines: list[bytes]) -> Iterable[bytes]:
    return map(heads.__getitem__, map(len, lines))
