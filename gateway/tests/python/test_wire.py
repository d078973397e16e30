"""Framing against the pinned bytes of the Rust side; needs no gateway."""

import itertools
import pathlib
import unittest

from skein.v1 import frame_pb2, message_pb2
from skein_wire import Decoder, FrameError, conversation_id, encode_frame, encode_varint

FRAMES = pathlib.Path(__file__).parents[3] / "protocol/tests/frames.hex"


def pinned():
    for line in FRAMES.read_text().splitlines():
        if line and not line.startswith("#"):
            side, kind, digits = line.split()
            yield side, kind.split(".")[0], bytes.fromhex(digits)


class Wire(unittest.TestCase):
    def test_pinned_frames_make_the_round_trip(self):
        count = 0
        for side, kind, data in pinned():
            envelope = frame_pb2.ClientFrame if side == "client" else frame_pb2.ServerFrame
            (body,) = Decoder().feed(data)
            frame = envelope.FromString(body)
            self.assertEqual(frame.WhichOneof("kind"), kind)
            self.assertEqual(encode_frame(frame), data)
            count += 1
        self.assertGreaterEqual(count, 22)

    def test_any_split_gives_the_same_frames(self):
        stream = b"".join(data for _, _, data in pinned())
        whole = list(Decoder().feed(stream))
        for at in range(len(stream) + 1):
            decoder = Decoder()
            parts = [decoder.feed(stream[:at]), decoder.feed(stream[at:])]
            self.assertEqual(list(itertools.chain(*parts)), whole)

    def test_lengths(self):
        self.assertEqual([encode_varint(n).hex() for n in (5, 300, 65536)], ["05", "ac02", "808004"])
        self.assertEqual(list(Decoder().feed(b"\x00\x01a")), [b"", b"a"])
        self.assertEqual(list(Decoder(3).feed(b"\x03abc")), [b"abc"])
        for wrong in (b"\x04", b"\x80\x80\x80\x80\x80"):
            with self.assertRaises(FrameError):
                list(Decoder(3).feed(wrong))

    def test_conversation_ids(self):
        for a, b, expected in (
            ("alice", "bob", "0165531a8eefea7b93693a6f811dfcd7"),
            ("alice", "alice", "017e492583168d78cdc2d7341bc51055"),
            ("anna", "Zoë", "011d2be94d7db48c3a324eb20878056e"),
        ):
            self.assertEqual(conversation_id(a, b).hex(), expected)
            self.assertEqual(conversation_id(b, a).hex(), expected)

    def test_retry_after_seq_zero_is_not_absent(self):
        absent, zero = message_pb2.Send(), message_pb2.Send(retry_after_seq=0)
        self.assertFalse(absent.HasField("retry_after_seq"))
        self.assertTrue(zero.HasField("retry_after_seq"))
        self.assertNotEqual(absent.SerializeToString(), zero.SerializeToString())


if __name__ == "__main__":
    unittest.main()
