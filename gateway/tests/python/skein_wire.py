"""The Skein wire in Python, written from docs/protocol.md: framing and conversation ids.

The protobuf classes are generated from protocol/proto by grpcio-tools; see .ci/python-client.
"""

import hashlib

MAX_PREFIX_BYTES = 5
DEFAULT_MAX_FRAME_BYTES = 65536


class FrameError(Exception):
    """The bytes are not frames."""


def encode_varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_frame(message):
    """The message with its length in front."""
    body = message.SerializeToString()
    return encode_varint(len(body)) + body


class Decoder:
    """Cuts the bytes of one stream into the bodies of frames."""

    def __init__(self, max_frame_bytes=DEFAULT_MAX_FRAME_BYTES):
        self.max_frame_bytes = max_frame_bytes
        self.waiting = bytearray()

    def feed(self, data):
        """Takes the next bytes; yields every body that is complete."""
        self.waiting += data
        while True:
            prefix = self._prefix()
            if prefix is None:
                return
            start, length = prefix
            if len(self.waiting) < start + length:
                return
            body = bytes(self.waiting[start : start + length])
            del self.waiting[: start + length]
            yield body

    def _prefix(self):
        length = 0
        for place, byte in enumerate(self.waiting[:MAX_PREFIX_BYTES]):
            length |= (byte & 0x7F) << (7 * place)
            if byte & 0x80 == 0:
                if length > self.max_frame_bytes:
                    raise FrameError(f"frame of {length} bytes, {self.max_frame_bytes} allowed")
                return place + 1, length
        if len(self.waiting) >= MAX_PREFIX_BYTES:
            raise FrameError("the length has more than five bytes")
        return None


def conversation_id(a, b):
    """The one-to-one conversation of two users, the same for both orders."""
    digest = hashlib.sha256()
    for user in sorted([a.encode(), b.encode()]):
        digest.update(bytes([len(user)]) + user)
    return b"\x01" + digest.digest()[:15]
